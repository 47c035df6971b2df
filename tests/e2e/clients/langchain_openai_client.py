"""LangChain on OpenAI's API: chat, responses, completions, embeddings."""

from __future__ import annotations

from typing import Any, Literal

from common import ASK, EMBED_SMALL, GPT, QWEN, V1
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: Literal["Paris", "London"]
    people: Literal[1, 2]


def get_weather(city: Literal["Paris", "London"]) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


WEATHER: Any = tool(get_weather)


def model(name: str = GPT, **fields: object) -> ChatOpenAI:
    return ChatOpenAI(
        model=name, base_url=V1, api_key="none", temperature=0, max_retries=0, **fields
    )


def chat() -> None:
    asked = model(max_completion_tokens=24, stream_usage=True)
    answer = asked.invoke(ASK)
    assert "Paris" in answer.content, answer
    assert answer.usage_metadata["output_tokens"] > 0
    pieces = list(asked.stream(ASK))
    assert "".join(piece.content for piece in pieces) == answer.content
    assert any(piece.usage_metadata for piece in pieces)
    assert len(model(max_completion_tokens=4).batch([ASK, "Hi"])) == 2


def structured() -> None:
    asked = model(max_completion_tokens=80)
    assert isinstance(asked.with_structured_output(City, method="json_schema").invoke(ASK), City)


def tools() -> None:
    asked = model(QWEN, max_completion_tokens=60)
    bound = asked.bind_tools([WEATHER], tool_choice="get_weather", parallel_tool_calls=False)
    call = bound.invoke("Weather in Paris?")
    assert call.tool_calls[0]["name"] == "get_weather", call
    assert call.tool_calls[0]["args"]["city"] in ("Paris", "London")
    turns = [("user", "Weather in Paris?"), call, WEATHER.invoke(call.tool_calls[0])]
    assert asked.invoke(turns).content


def responses() -> None:
    asked = model(use_responses_api=True, max_tokens=24)
    answer = asked.invoke(ASK)
    assert "Paris" in answer.text, answer
    assert "".join(piece.text for piece in asked.stream(ASK)) == answer.text
    city = model(use_responses_api=True, max_tokens=80).with_structured_output(City).invoke(ASK)
    assert isinstance(city, City)


def others() -> None:
    plain = OpenAI(
        model="gpt-3.5-turbo-instruct", base_url=V1, api_key="none", temperature=0, max_tokens=8
    )
    answers = plain.generate(["The capital of France is", "The capital of Spain is"])
    assert [bool(g[0].text) for g in answers.generations] == [True, True]
    assert "Paris" in answers.generations[0][0].text
    embeddings = OpenAIEmbeddings(
        model=EMBED_SMALL, base_url=V1, api_key="none", check_embedding_ctx_length=False
    )
    assert len(embeddings.embed_documents(["one", "two"])) == 2


chat()
structured()
tools()
responses()
others()
