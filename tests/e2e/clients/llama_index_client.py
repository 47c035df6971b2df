"""LlamaIndex on Ollama's API."""

from __future__ import annotations

from typing import Literal

from common import ASK, LLAMA, QWEN, URL
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: Literal["Paris", "London"]
    people: Literal[1, 2]


class Where(BaseModel):
    """Of which city."""

    city: Literal["Paris", "London"]


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def model(name: str, most: int = 24) -> Ollama:
    return Ollama(
        model=name,
        base_url=URL,
        request_timeout=60,
        temperature=0,
        additional_kwargs={"num_predict": most},
    )


asked = model(LLAMA)
assert asked.get_context_window() > 0
whole = asked.complete(ASK)
assert "Paris" in whole.text, whole
assert [*asked.stream_complete(ASK)][-1].text == whole.text
turns = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=ASK)]
answer = asked.chat(turns)
assert answer.message.content
assert [*asked.stream_chat(turns)][-1].message.content == answer.message.content
city = model(LLAMA, 60).as_structured_llm(City).complete(ASK)
assert isinstance(city.raw, City), city
tool = FunctionTool.from_defaults(get_weather, fn_schema=Where)
called = model(QWEN, 60).chat_with_tools([tool], user_msg="What is the weather in Paris?")
assert called.message
