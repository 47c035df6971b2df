"""LiteLLM, which speaks all three APIs."""

from __future__ import annotations

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it fetches one

import litellm
from common import ASK, CITY, CLAUDE, EMBED, EMBED_SMALL, GPT, LLAMA, QWEN, URL, V1

litellm.suppress_debug_info = True
litellm.drop_params = False
MESSAGES = [{"role": "user", "content": ASK}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "London"]}},
            "required": ["city"],
        },
    },
}


def ask(model: str, base: str, **fields: Any) -> Any:
    fields = {"messages": MESSAGES, "temperature": 0, "max_tokens": 24, **fields}
    return litellm.completion(model=model, api_base=base, api_key="none", **fields)


for name, base in (
    (f"ollama_chat/{LLAMA}", URL),
    (f"ollama/{LLAMA}", URL),
    (f"openai/{GPT}", V1),
    (f"anthropic/{CLAUDE}", URL),
):
    answer = ask(name, base)
    text = answer.choices[0].message.content
    # LiteLLM puts a conversation into words of its own for /api/generate.
    assert "Paris" in text or name.startswith("ollama/"), (name, answer)
    assert answer.usage.total_tokens > 0
    pieces = [piece.choices[0].delta.content or "" for piece in ask(name, base, stream=True)]
    assert "".join(pieces) == text, name

form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
for name, base in ((f"ollama_chat/{LLAMA}", URL), (f"openai/{GPT}", V1)):
    found = ask(name, base, response_format=form, max_tokens=80).choices[0].message.content
    assert '"name"' in found, (name, found)

call = ask(f"openai/{QWEN}", V1, tools=[TOOL], tool_choice="required", max_tokens=80)
assert call.choices[0].message.tool_calls[0].function.name == "get_weather"
assert ask(f"ollama_chat/{QWEN}", URL, tools=[TOOL], max_tokens=80).choices[0].message

for name, base in ((f"ollama/{EMBED}", URL), (f"openai/{EMBED_SMALL}", V1)):
    vectors = litellm.embedding(model=name, api_base=base, api_key="none", input=["one", "two"])
    assert len(vectors.data) == 2, name

response = litellm.responses(
    model=f"openai/{GPT}",
    api_base=V1,
    api_key="none",
    input=ASK,
    temperature=0,
    max_output_tokens=24,
)
assert "Paris" in response.output_text
