"""LangChain on Ollama's API."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from common import ASK, EMBED, LLAMA, QWEN, URL
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: Literal["Paris", "London"]
    people: Literal[1, 2]


def get_weather(city: Literal["Paris", "London"]) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


WEATHER: Any = tool(get_weather)


def chat() -> None:
    model = ChatOllama(
        model=LLAMA, base_url=URL, temperature=0, num_predict=24, validate_model_on_init=True
    )
    answer = model.invoke([SystemMessage("Be brief."), HumanMessage(ASK)])
    assert "Paris" in answer.content, answer
    assert answer.usage_metadata["total_tokens"] > 0
    assert answer.response_metadata["done_reason"] in ("stop", "length")
    pieces = list(model.stream([SystemMessage("Be brief."), HumanMessage(ASK)]))
    assert "".join(piece.content for piece in pieces) == answer.content
    assert len(model.batch([ASK, "Say hello."])) == 2
    later = asyncio.run(
        model.ainvoke([HumanMessage(ASK), AIMessage("Paris."), HumanMessage("Why?")])
    )
    assert later.content


def structured() -> None:
    model = ChatOllama(model=LLAMA, base_url=URL, temperature=0, num_predict=60)
    city = model.with_structured_output(City, method="json_schema").invoke(ASK)
    assert isinstance(city, City), city
    assert model.bind(format="json").invoke("Give a JSON object.").content.lstrip().startswith("{")


def tools() -> None:
    model = ChatOllama(model=QWEN, base_url=URL, temperature=0, num_predict=60)
    answer = model.bind_tools([WEATHER]).invoke("What is the weather in Paris?")
    assert answer.content or answer.tool_calls
    call = {"name": "get_weather", "args": {"city": "Paris"}, "id": "1", "type": "tool_call"}
    turns = [
        HumanMessage("What is the weather in Paris?"),
        AIMessage("", tool_calls=[call]),
        WEATHER.invoke(call),
    ]
    assert model.invoke(turns).content


def others() -> None:
    model = OllamaLLM(model=LLAMA, base_url=URL, temperature=0, num_predict=16)
    assert "Paris" in model.invoke(ASK)
    assert "".join(model.stream(ASK)) == model.invoke(ASK)
    vectors = OllamaEmbeddings(model=EMBED, base_url=URL).embed_documents(["one", "two"])
    assert len(vectors) == 2
    assert abs(sum(x * x for x in vectors[0]) - 1) < 1e-3


chat()
structured()
tools()
others()
