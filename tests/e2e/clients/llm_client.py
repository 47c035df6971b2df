"""The ``llm`` command with its Ollama plugin, and with OpenAI's API configured by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ASK, GPT, LLAMA, URL, V1

OPTIONS = ["-o", "temperature", "0"]


def llm(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("llm")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


with tempfile.TemporaryDirectory() as folder:
    os.environ |= {"LLM_USER_PATH": folder, "OLLAMA_HOST": URL}
    # The plugin of this version asks /api/tags and /api/show for its models.
    assert f"{LLAMA}:latest" in llm("ollama", "list-models")
    answer = llm("-m", f"{LLAMA}:latest", *OPTIONS, "-o", "num_predict", "24", ASK)
    assert "Paris" in answer, answer
    whole = llm("-m", f"{LLAMA}:latest", "--no-stream", *OPTIONS, "-o", "num_predict", "24", ASK)
    assert whole.split() == answer.split()
    llm("-c", "-o", "num_predict", "8", "And of Spain?")
    Path(folder, "extra-openai-models.yaml").write_text(
        f"- model_id: mine\n  model_name: {GPT}\n  api_base: {V1}\n", encoding="utf-8"
    )
    llm("keys", "set", "openai", "--value", "none")
    assert "Paris" in llm("-m", "mine", *OPTIONS, "-o", "max_tokens", "24", ASK)
