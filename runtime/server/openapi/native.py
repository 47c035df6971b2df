"""What Ollama's API takes and gives, and what Sealift adds to it."""

from __future__ import annotations

from typing import Final

from runtime.options import KINDS
from runtime.server.openapi.shapes import (
    ANY,
    COUNT,
    FLAG,
    INTEGER,
    JSON,
    MODEL,
    NDJSON,
    NUMBER,
    OBJECT,
    STRING,
    STRINGS,
    Schema,
    array,
    component,
    either,
    one_of,
    result,
    table,
    whole,
)
from schemas import limits

_TYPES: Final[dict[str, Schema]] = {
    "integer": NUMBER,  # a fraction is cut off
    "float32": NUMBER,
    "boolean": FLAG,
    "array": array(STRING, maxItems=limits.STOP_STRINGS),
}
OPTIONS: Final = component(
    "Options", table((), **{name: _TYPES[kind] for name, kind in sorted(KINDS.items())})
)
KEEP_ALIVE: Final = either(STRING, NUMBER)
TOOL: Final = component(
    "Tool",
    table(
        ("function",),
        type=ANY,
        function=table(
            ("name",), name={**STRING, "minLength": 1}, description=ANY, parameters=OBJECT
        ),
    ),
)
_TOOL_CALL: Final = table(
    ("function",), function=table(("name",), name={**STRING, "minLength": 1}, arguments=OBJECT)
)
_ROLE: Final = one_of("system", "user", "assistant", "tool")
MESSAGE: Final = component(
    "Message",
    table(
        ("role",),
        role=_ROLE,
        content=STRING,
        thinking=STRING,
        images=array(STRING, maxItems=limits.IMAGES),
        tool_calls=array(_TOOL_CALL),
        tool_name=STRING,
        tool_call_id=STRING,
    ),
)
_COMMON: Final[dict[str, Schema]] = {
    "model": MODEL,
    "stream": FLAG,
    "format": either(one_of("", "json"), OBJECT),
    "options": OPTIONS,
    "keep_alive": KEEP_ALIVE,
    "think": either(FLAG, one_of("high", "medium", "low")),
    "truncate": FLAG,
    "shift": FLAG,
    "logprobs": FLAG,
    "top_logprobs": whole(0, limits.TOP_LOGPROBS),
}
GENERATE: Final = component(
    "GenerateRequest",
    table(
        ("model",),
        **_COMMON,
        prompt=STRING,
        suffix=STRING,
        system=STRING,
        template=STRING,
        context=array(whole(0, 2**31 - 1)),
        raw=FLAG,
        images=array(STRING, maxItems=limits.IMAGES),
    ),
)
CHAT: Final = component(
    "ChatRequest",
    table(("model",), **_COMMON, messages=array(MESSAGE), tools=array(TOOL, maxItems=limits.TOOLS)),
)
_CALLED: Final = array(result(id=STRING, function=result(index=COUNT, name=STRING, arguments=ANY)))
_LOGPROBS: Final = array(OBJECT)
_METRICS: Final = dict.fromkeys(
    (
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ),
    COUNT,
)
_LATER: Final = ("done_reason", "logprobs", *_METRICS)
GENERATED: Final = component(
    "GenerateAnswer",
    result(
        ("context", "thinking", "tool_calls", *_LATER),
        model=STRING,
        created_at=STRING,
        response=STRING,
        done=FLAG,
        done_reason=one_of("stop", "length", "load", "unload"),
        context=array(INTEGER),
        thinking=STRING,
        tool_calls=_CALLED,
        logprobs=_LOGPROBS,
        **_METRICS,
    ),
)
CHATTED: Final = component(
    "ChatAnswer",
    result(
        _LATER,
        model=STRING,
        created_at=STRING,
        message=result(
            ("thinking", "tool_calls"),
            role=one_of("assistant"),
            content=STRING,
            thinking=STRING,
            tool_calls=_CALLED,
        ),
        done=FLAG,
        done_reason=one_of("stop", "length", "load", "unload"),
        logprobs=_LOGPROBS,
        **_METRICS,
    ),
)


def streamed(schema: Schema) -> dict[str, Schema]:
    """One document, or one in each line of a stream."""
    return {JSON: schema, NDJSON: schema}


_EMBED: Final[dict[str, Schema]] = {
    "model": MODEL,
    "truncate": FLAG,
    "dimensions": whole(0, limits.CONTEXT_TOKENS),
    "options": OPTIONS,
    "keep_alive": KEEP_ALIVE,
}
_TEXTS: Final = either(STRING, array(STRING, maxItems=limits.EMBED_TEXTS))
EMBED: Final = component("EmbedRequest", table(("model",), **_EMBED, input=_TEXTS))
EMBEDDINGS: Final = component("EmbeddingsRequest", table(("model",), **_EMBED, prompt=_TEXTS))
EMBEDDED: Final = component(
    "EmbedAnswer",
    result(
        tuple(_METRICS)[:3],
        model=STRING,
        embeddings=array(array(NUMBER)),
        **dict(list(_METRICS.items())[:3]),
    ),
)
EMBEDDING: Final = component("EmbeddingsAnswer", result(embedding=array(NUMBER)))
TOKENIZE: Final = component(
    "TokenizeRequest",
    table(
        ("model",),
        model=MODEL,
        text=STRING,
        content=ANY,  # llama-server's name for it, looked at if there is no text
        parse_special=FLAG,
        messages=array(MESSAGE),
        tools=ANY,  # of the conversation, if there is one
        options=OPTIONS,
        keep_alive=KEEP_ALIVE,
    ),
)
TOKENIZED: Final = component("TokenizeAnswer", result(model=STRING, tokens=array(INTEGER)))
DETOKENIZE: Final = component(
    "DetokenizeRequest",
    table(
        ("model",),
        model=MODEL,
        tokens=array(whole(0, 2**31 - 1)),
        options=OPTIONS,
        keep_alive=KEEP_ALIVE,
    ),
)
DETOKENIZED: Final = component("DetokenizeAnswer", result(model=STRING, text=STRING))

_DETAILS: Final = component(
    "ModelDetails",
    result(
        parent_model=STRING,
        format=STRING,
        family=STRING,
        families=STRINGS,
        parameter_size=STRING,
        quantization_level=STRING,
        context_length=COUNT,
        embedding_length=COUNT,
    ),
)
_LISTED: Final[dict[str, Schema]] = {
    "name": STRING,
    "model": STRING,
    "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "size": COUNT,
    "details": _DETAILS,
    "withdrawn": OBJECT,
}
TAGS: Final = component(
    "Models",
    result(
        models=array(result(("withdrawn",), **_LISTED, modified_at=STRING, capabilities=STRINGS))
    ),
)
RUNNING: Final = component(
    "RunningModels",
    result(
        models=array(
            result(
                ("withdrawn",),
                **_LISTED,
                expires_at=STRING,
                size_vram=COUNT,
                context_length=COUNT,
                running=COUNT,
                waiting=COUNT,
            )
        )
    ),
)
NAMED: Final = either(table(("model",), model=MODEL), table(("name",), name=MODEL))
_SHOW: Final[dict[str, Schema]] = {"verbose": FLAG, "system": STRING, "options": OPTIONS}
SHOW: Final = component(
    "ShowRequest",
    either(
        table(("model",), model=MODEL, name=ANY, **_SHOW),
        table(("name",), name=MODEL, model=one_of(""), **_SHOW),
    ),
)
SHOWN: Final = component(
    "ModelInformation",
    result(
        (
            "license",
            "modelfile",
            "parameters",
            "template",
            "system",
            "messages",
            "tensors",
            "withdrawn",
            "projector_info",
        ),
        details=_DETAILS,
        model_info=OBJECT,
        capabilities=STRINGS,
        modified_at=STRING,
        license=STRING,
        modelfile=STRING,
        parameters=STRING,
        template=STRING,
        system=STRING,
        messages=array(OBJECT),
        tensors=array(OBJECT),
        withdrawn=OBJECT,
        projector_info=OBJECT,
    ),
)
COPY: Final = component(
    "CopyRequest", table(("source", "destination"), source=MODEL, destination=MODEL)
)
VERSION: Final = component("Version", result(version=STRING))
