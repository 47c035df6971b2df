"""What the scripts of this folder share. Each runs by itself: SCRIPT URL, in an environment of clients.

They say nothing while all is well; a failed assertion ends one with a traceback.
"""

from __future__ import annotations

import sys
from typing import Final

URL: Final = sys.argv[1]
V1: Final = f"{URL}/v1"
# One small model under the names that people's programs have in them.
LLAMA: Final = "llama3.2"
QWEN: Final = "qwen2.5:0.5b"  # with a template for tools
GPT: Final = "gpt-4o-mini"
CLAUDE: Final = "claude-3-5-sonnet-latest"
EMBED: Final = "nomic-embed-text"
EMBED_SMALL: Final = "text-embedding-3-small"
ASK: Final = "What is the capital of France? Answer in one word."
CITY: Final = {
    "type": "object",
    "properties": {"name": {"enum": ["Paris", "London"]}, "people": {"type": "integer"}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
