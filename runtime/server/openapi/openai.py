"""What OpenAI's API takes and gives, and reranking beside it."""

from __future__ import annotations

from typing import Final

from runtime.server.openai import EFFORTS, NUMBERS, ROLES
from runtime.server.openapi.native import KEEP_ALIVE, TOOL
from runtime.server.openapi.shapes import (
    ANY,
    COUNT,
    FLAG,
    INTEGER,
    JSON,
    MODEL,
    NULL,
    NUMBER,
    OBJECT,
    SSE,
    STRING,
    Schema,
    array,
    component,
    either,
    maybe,
    number,
    one_of,
    result,
    table,
    whole,
)
from schemas import limits

_NUMBERS: Final = {name: number(*bounds) for name, bounds in NUMBERS.items()}
_MOST: Final = whole(1, limits.CONTEXT_TOKENS)
_EFFORT: Final = one_of("none", *EFFORTS)
_TEXT_FORMAT: Final = table(("type",), type=one_of("text"))
_OBJECT_FORMAT: Final = table(("type",), type=one_of("json_object"))
_COMMON: Final[dict[str, Schema]] = {
    **_NUMBERS,
    "max_completion_tokens": _MOST,
    "max_tokens": _MOST,
    "seed": INTEGER,
    "stop": either(STRING, array(STRING, maxItems=limits.STOP_STRINGS)),
    "logit_bias": {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "additionalProperties": maybe(number(-100, 100)),
        "maxProperties": limits.LOGIT_BIASES,
    },
    "n": whole(1, limits.CHOICES),
    "stream": FLAG,
    "stream_options": table(include_usage=FLAG),
}


def streamed(schema: Schema) -> dict[str, Schema]:
    """One document, or events."""
    return {JSON: schema, SSE: STRING}


# -- chat completions -----------------------------------------------------------------------------

_NAME: Final[Schema] = {"type": "string", "minLength": 1}
_PART: Final = either(
    table(("type",), type=one_of("text"), text=STRING),
    table(("type",), type=one_of("refusal"), refusal=STRING),
    table(
        ("type", "image_url"),
        type=one_of("image_url"),
        image_url=either(_NAME, table(("url",), url=_NAME)),
    ),
)
_CALL: Final = table(
    ("function",), id=ANY, type=ANY, function=table(("name",), name=_NAME, arguments=STRING)
)
_TURN: Final = component(
    "ChatCompletionMessage",
    table(
        ("role",),
        role=one_of(*ROLES),
        content=either(STRING, array(_PART)),
        reasoning=STRING,
        name=ANY,  # of the tool that answers
        tool_calls=array(_CALL),
        tool_call_id=STRING,
    ),
)
_CHOICE: Final = either(
    one_of("auto", "none", "required"),
    table(("function",), type=ANY, function=table(("name",), name=_NAME)),
)
CHAT: Final = component(
    "ChatCompletionRequest",
    table(
        ("model", "messages"),
        model=MODEL,
        messages=array(_TURN, minItems=1, maxItems=limits.MAX_MESSAGES),
        **_COMMON,
        logprobs=FLAG,
        top_logprobs=whole(0, limits.TOP_LOGPROBS),
        tools=array(TOOL, maxItems=limits.TOOLS),
        tool_choice=_CHOICE,
        parallel_tool_calls=FLAG,
        response_format=either(
            _TEXT_FORMAT,
            _OBJECT_FORMAT,
            table(
                ("type", "json_schema"),
                type=one_of("json_schema"),
                json_schema=table(("schema",), name=ANY, schema=OBJECT),
            ),
        ),
        reasoning_effort=_EFFORT,
        modalities=array(one_of("text"), maxItems=1),
    ),
)
_USAGE: Final = component(
    "Usage",
    result(
        ("prompt_tokens_details", "completion_tokens_details"),
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        total_tokens=COUNT,
        prompt_tokens_details=result(cached_tokens=COUNT),
        completion_tokens_details=result(reasoning_tokens=COUNT),
    ),
)
_REASON: Final = one_of("stop", "length", "tool_calls")
_ANSWERED: Final[dict[str, Schema]] = {
    "id": STRING,
    "created": COUNT,
    "model": STRING,
    "system_fingerprint": STRING,
    "usage": _USAGE,
}
CHATTED: Final = component(
    "ChatCompletion",
    result(
        (),
        object=one_of("chat.completion"),
        choices=array(
            result(
                index=COUNT,
                message=result(
                    ("reasoning", "tool_calls"),
                    role=one_of("assistant"),
                    content=maybe(STRING),
                    reasoning=STRING,
                    tool_calls=array(
                        result(
                            id=STRING,
                            type=one_of("function"),
                            function=result(name=STRING, arguments=STRING),
                        )
                    ),
                ),
                logprobs=maybe(OBJECT),
                finish_reason=_REASON,
            )
        ),
        **_ANSWERED,
    ),
)

# -- completions ----------------------------------------------------------------------------------

_TOKENS: Final = array(whole(0, 2**31 - 1), minItems=1)
COMPLETE: Final = component(
    "CompletionRequest",
    table(
        ("model", "prompt"),
        model=MODEL,
        prompt=either(
            STRING,
            _TOKENS,
            array(either(STRING, _TOKENS), minItems=1, maxItems=limits.CHOICES),
        ),
        **_COMMON,
        suffix=STRING,
        echo=FLAG,
        best_of=whole(1, limits.CHOICES),
        logprobs=whole(0, limits.TOP_LOGPROBS),
    ),
)
COMPLETED: Final = component(
    "Completion",
    result(
        (),
        object=one_of("text_completion"),
        choices=array(
            result(index=COUNT, text=STRING, logprobs=maybe(OBJECT), finish_reason=_REASON)
        ),
        **_ANSWERED,
    ),
)

# -- responses ------------------------------------------------------------------------------------

_INPUT_PART: Final = either(
    table(("type",), type=one_of("input_text", "output_text", "text"), text=STRING),
    table(("type",), type=one_of("refusal"), refusal=STRING),
    table(("type", "image_url"), type=one_of("input_image"), image_url=_NAME),
)
_CONTENT: Final = either(STRING, array(_INPUT_PART))
_ITEM: Final = either(
    table(
        ("role",),
        type=one_of("message"),
        role=one_of("system", "developer", "user", "assistant"),
        content=_CONTENT,
    ),
    table(
        ("type", "name"),
        type=one_of("function_call"),
        call_id=STRING,
        name=_NAME,
        arguments=STRING,
    ),
    table(("type",), type=one_of("function_call_output"), call_id=STRING, output=_CONTENT),
    table(
        ("type",),
        type=one_of("reasoning"),
        summary=array(table(text=STRING)),
        content=array(table(text=STRING)),
    ),
)
_FUNCTION: Final = table(
    ("type", "name"), type=one_of("function"), name=_NAME, description=STRING, parameters=OBJECT
)
_ASKED: Final[dict[str, Schema]] = {
    "model": MODEL,
    "input": either(STRING, array(_ITEM, minItems=1, maxItems=limits.MAX_MESSAGES)),
    "instructions": STRING,
    "tools": array(_FUNCTION, maxItems=limits.TOOLS),
    "tool_choice": either(
        one_of("auto", "none", "required"),
        table(("type", "name"), type=one_of("function"), name=_NAME),
        table(
            ("type", "mode", "tools"),
            type=one_of("allowed_tools"),
            mode=one_of("auto", "required"),
            tools=array(table(("name",), name=_NAME), minItems=1),
        ),
    ),
    "parallel_tool_calls": FLAG,
    "previous_response_id": NULL,
    "conversation": NULL,
}
RESPOND: Final = component(
    "ResponseRequest",
    table(
        ("model", "input"),
        **_ASKED,
        temperature=_NUMBERS["temperature"],
        top_p=_NUMBERS["top_p"],
        max_output_tokens=_MOST,
        stream=FLAG,
        truncation=one_of("auto", "disabled"),
        include=array(ANY),
        top_logprobs=whole(0, limits.TOP_LOGPROBS),
        reasoning=table(effort=_EFFORT),
        text=table(
            format=either(
                _TEXT_FORMAT,
                _OBJECT_FORMAT,
                table(("type", "schema"), type=one_of("json_schema"), schema=OBJECT),
            )
        ),
        metadata={
            "type": "object",
            "maxProperties": limits.METADATA_PAIRS,
            "additionalProperties": {
                "type": ["string", "null"],
                "maxLength": limits.METADATA_CHARS,
            },
        },
        background=one_of(False),
        user=STRING,
    ),
)
_STATUS: Final = one_of("in_progress", "completed", "incomplete")
RESPONDED: Final = component(
    "Response",
    {
        **result(
            id=STRING,
            object=one_of("response"),
            created_at=COUNT,
            completed_at=maybe(COUNT),
            status=one_of("completed", "incomplete", "failed", "in_progress"),
            error=maybe(result(code=STRING, message=STRING)),
            incomplete_details=maybe(result(reason=STRING)),
            model=STRING,
            output=array(
                either(
                    result(
                        id=STRING,
                        status=_STATUS,
                        type=one_of("message"),
                        role=one_of("assistant"),
                        content=array(
                            result(
                                type=one_of("output_text"),
                                text=STRING,
                                annotations=array(OBJECT),
                                logprobs=array(OBJECT),
                            )
                        ),
                    ),
                    result(
                        id=STRING,
                        status=_STATUS,
                        type=one_of("reasoning"),
                        summary=array(OBJECT),
                        content=array(result(type=one_of("reasoning_text"), text=STRING)),
                    ),
                    result(
                        id=STRING,
                        status=_STATUS,
                        type=one_of("function_call"),
                        call_id=STRING,
                        name=STRING,
                        arguments=STRING,
                    ),
                )
            ),
            store=one_of(False),
            usage=result(
                input_tokens=COUNT,
                input_tokens_details=OBJECT,
                output_tokens=COUNT,
                output_tokens_details=OBJECT,
                total_tokens=COUNT,
            ),
        ),
        "additionalProperties": True,
    },
)
COUNT_INPUT: Final = component("InputTokensRequest", table(("model", "input"), **_ASKED))
INPUT_COUNTED: Final = component(
    "InputTokens", result(object=one_of("response.input_tokens"), input_tokens=COUNT)
)

# -- embeddings, reranking, models ----------------------------------------------------------------

EMBED: Final = component(
    "EmbeddingRequest",
    table(
        ("model", "input"),
        model=MODEL,
        input=either(_NAME, array(STRING, minItems=1, maxItems=limits.EMBED_TEXTS)),
        dimensions=whole(1, limits.CONTEXT_TOKENS),
        encoding_format=one_of("float", "base64"),
    ),
)
EMBEDDED: Final = component(
    "Embeddings",
    result(
        object=one_of("list"),
        data=array(
            result(
                object=one_of("embedding"),
                index=COUNT,
                embedding=either(array(NUMBER), STRING),
            )
        ),
        model=STRING,
        usage=result(prompt_tokens=COUNT, total_tokens=COUNT),
    ),
)
_DOCUMENTS: Final = array(
    either(STRING, table(("text",), text=STRING)), minItems=1, maxItems=limits.RERANK_DOCUMENTS
)
_RANK: Final[dict[str, Schema]] = {
    "model": MODEL,
    "query": _NAME,
    "top_n": whole(1, limits.JSON_INTEGER),
    "truncate": FLAG,
    "keep_alive": KEEP_ALIVE,
}
RERANK: Final = component(
    "RerankRequest",
    either(
        table(
            ("model", "query", "documents"), **_RANK, documents=_DOCUMENTS, return_documents=FLAG
        ),
        table(("model", "query", "texts"), **_RANK, texts=_DOCUMENTS, return_text=FLAG),
    ),
)
RERANKED: Final = component(
    "Ranking",
    either(
        result(
            object=one_of("list"),
            model=STRING,
            results=array(
                result(
                    ("document",),
                    index=COUNT,
                    relevance_score=NUMBER,
                    document=result(text=STRING),
                )
            ),
            usage=result(prompt_tokens=COUNT, total_tokens=COUNT),
        ),
        array(result(("text",), index=COUNT, score=NUMBER, text=STRING)),
    ),
)
MODEL_OBJECT: Final = component(
    "Model", result(id=STRING, object=one_of("model"), created=COUNT, owned_by=STRING)
)
MODELS: Final = component("ModelList", result(object=one_of("list"), data=array(MODEL_OBJECT)))
