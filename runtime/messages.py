"""What the HTTP codecs, the scheduler and the engine say to each other.

Neutral between the Ollama, OpenAI and Anthropic dialects: a codec makes a :class:`Job` of a body
and renders :data:`Event` values into its own dialect. The engine knows nothing of HTTP, the codecs
nothing of llama.cpp. Everything here is frozen, and crosses the process border as JSON
(:func:`task_document`, :func:`event_document` and their inverses).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, Literal

FinishReason = Literal["stop", "length", "cancelled"]
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a message, checked by :mod:`runtime.server.images` but not decoded.

    Attributes:
        data: The file, in base64.
        at: Where it stands in the message's content: before the character at this offset.
        pixels: How many it has, as its header says.
    """

    data: str
    at: int = 0
    pixels: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: Text; never parsed for special tokens.
        thinking: Reasoning of an assistant turn, kept apart from its content.
        tool_calls: Of an assistant turn: ``{"function": {"name", "arguments": object}}``.
        tool_name: Of a tool turn: which tool answers.
        tool_call_id: Of a tool turn: which call it answers.
        images: In the order in which they stand in the content.
    """

    role: Role
    content: str
    thinking: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_name: str | None = None
    tool_call_id: str | None = None
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, to be rendered by the model's chat template inside the worker.

    Attributes:
        messages: In order.
        tools: JSON descriptions as the client sent them, for the template.
        template: A Jinja template instead of the model's own.
        context: Token ids that come before (``/api/generate``'s ``context``).
        think: Whether the model shall think first; None leaves it to the template.
        must_call: Names of tools of which one must be called; empty if none must.
        parallel: Whether several calls may be made at once.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    template: str | None = None
    context: tuple[int, ...] = ()
    think: bool | None = None
    must_call: tuple[str, ...] = ()
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Text:
    """A bare prompt, completed as it stands.

    Attributes:
        text: The prompt.
        special: Whether special tokens written in the text count as such (Ollama's ``raw``).
        context: Token ids that come before.
        suffix: Text after the gap, for fill-in-the-middle.
    """

    text: str
    special: bool = False
    context: tuple[int, ...] = ()
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Names and defaults are Ollama's (Modelfile parameters).

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 is off.
        top_p: 1 is off.
        min_p: 0 is off.
        typical_p: 1 is off.
        repeat_last_n: Tokens looked back on for penalties; 0 off, -1 the whole context.
        repeat_penalty: 1 is off.
        presence_penalty: 0 is off.
        frequency_penalty: 0 is off.
        seed: Same seed, same answer; -1 draws one.
        num_predict: Most tokens to make; -1 until the model stops or the context is full.
        num_keep: Tokens kept when a context is shifted.
        stop: Strings that end the answer and are not part of it.
        logit_bias: Token id (as text) to an added bias.
        logprobs: Whether each piece carries its log-probability.
        top_logprobs: How many alternatives with it, at most 20.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = -1
    num_predict: int = -1
    num_keep: int = 4
    stop: tuple[str, ...] = ()
    logit_bias: dict[str, float] = field(default_factory=dict, hash=False)
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to generate.

    Attributes:
        id: Unique among the jobs of one worker.
        prompt: What to continue.
        sampling: How.
        want_context: Whether :class:`Finished` carries the token ids of prompt and answer.
        truncate: Whether a prompt longer than the context loses its oldest messages (else it is
            refused with the error code ``prompt-too-long``).
        format: A JSON Schema, as JSON text, that the answer must be valid by; empty for any text.
        shift: Whether an answer goes on when the context is full, without half of what came before.
    """

    id: int
    prompt: Chat | Text
    sampling: Sampling = Sampling()
    want_context: bool = False
    truncate: bool = True
    format: str = ""
    shift: bool = False


@dataclass(frozen=True, slots=True)
class Embed:
    """Texts to make vectors of.

    Attributes:
        id: As of :class:`Job`.
        texts: At least one.
        truncate: Whether a text longer than the context loses its end (else it is refused with the
            error code ``prompt-too-long``).
    """

    id: int
    texts: tuple[str, ...]
    truncate: bool = True


@dataclass(frozen=True, slots=True)
class Tokenize:
    """A text to cut into tokens, or tokens to put together.

    Attributes:
        id: As of :class:`Job`.
        prompt: What to cut; a conversation is rendered by the model's template first.
        tokens: What to put together, if there is no prompt.
    """

    id: int
    prompt: Chat | Text | None = None
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rank:
    """Texts to say of how well they answer a question.

    Attributes:
        id: As of :class:`Job`.
        query: The question.
        texts: At least one.
        truncate: Whether a text that is too long together with the question loses its end (else it
            is refused with the error code ``prompt-too-long``).
    """

    id: int
    query: str
    texts: tuple[str, ...]
    truncate: bool = False


Task = Job | Embed | Rank | Tokenize
_TASKS: Final[dict[str, type[Task]]] = {c.__name__: c for c in (Job, Embed, Rank, Tokenize)}


def task_document(task: Task) -> dict[str, Any]:
    """The JSON form of a task, tagged with its type."""
    result = asdict(task)
    if isinstance(task, Job | Tokenize) and task.prompt is not None:
        result["prompt"]["type"] = type(task.prompt).__name__
    return {"type": type(task).__name__, **result}


def task_from_document(document: dict[str, Any]) -> Task:
    """The inverse of :func:`task_document`; only ever fed by our own front-end."""
    fields: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in document.items()
    }
    kind = _TASKS[fields.pop("type")]
    if fields.get("prompt") is not None:
        fields["prompt"] = _prompt(fields["prompt"])
    if "sampling" in fields:
        sampling = dict(fields["sampling"])
        sampling["stop"] = tuple(sampling["stop"])
        fields["sampling"] = Sampling(**sampling)
    return kind(**fields)


def _prompt(fields: dict[str, Any]) -> Chat | Text:
    prompt: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()
    }
    if prompt.pop("type") == "Text":
        return Text(**prompt)
    prompt["messages"] = tuple(_message(message) for message in prompt["messages"])
    return Chat(**prompt)


def _message(fields: dict[str, Any]) -> Message:
    images = tuple(Image(**image) for image in fields["images"])
    return Message(**{**fields, "tool_calls": tuple(fields["tool_calls"]), "images": images})


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt is in the context; the first token comes next.

    Attributes:
        job: Its id.
        prompt_tokens: All tokens of the prompt, reused ones too.
        cached_tokens: Of these, taken over from an earlier request.
        prompt_ns: Time from submission's turn to here.
    """

    kind: ClassVar[str] = "started"
    job: int
    prompt_tokens: int
    cached_tokens: int
    prompt_ns: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of the answer: whole characters, never part of a stop string.

    Attributes:
        job: Its id.
        text: May be empty when only log-probabilities are reported.
        logprobs: Per token, if asked for: ``{"token", "logprob", "bytes", "top_logprobs": [...]}``.
        thinking: Whether it is thinking, and no part of the answer's content.
    """

    kind: ClassVar[str] = "piece"
    job: int
    text: str
    logprobs: tuple[dict[str, Any], ...] = ()
    thinking: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """Some of a tool call.

    Attributes:
        job: Its id.
        number: Of the call in this answer, from 0.
        name: Of the tool, with the first part of a call; else empty.
        text: Some more of the arguments, which together are a JSON object.
        last: Whether the call is complete.
    """

    kind: ClassVar[str] = "call"
    job: int
    number: int
    name: str
    text: str
    last: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete. The last event of a job that did not fail.

    Attributes:
        job: Its id.
        reason: Why it ended.
        prompt_tokens: As in :class:`Started`.
        output_tokens: Tokens made, an end-of-generation token not counted.
        prompt_ns: Time for the prompt.
        eval_ns: Time for the answer.
        context: Token ids of prompt and answer, if asked for.
        stop: The stop string that ended the answer, if one did.
        thinking_tokens: Of ``output_tokens``, those that were thinking.
    """

    kind: ClassVar[str] = "finished"
    job: int
    reason: FinishReason
    prompt_tokens: int
    output_tokens: int
    prompt_ns: int
    eval_ns: int
    context: tuple[int, ...] = ()
    stop: str = ""
    thinking_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Embedded:
    """All vectors of an :class:`Embed`; its last event.

    Attributes:
        job: Its id.
        vectors: One per text, of length 1: little-endian 32-bit floats in base64.
        prompt_tokens: Of all texts together.
    """

    kind: ClassVar[str] = "embedded"
    job: int
    vectors: tuple[str, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """What became of a :class:`Rank`; its last event.

    Attributes:
        job: Its id.
        scores: One per text, as the model gives them: higher is better, and bounds differ.
        prompt_tokens: Of all pairs of question and text together.
    """

    kind: ClassVar[str] = "ranked"
    job: int
    scores: tuple[float, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What became of a :class:`Tokenize`; its last event.

    Attributes:
        job: Its id.
        tokens: Ids, with what the model wants in front.
        text: What tokens make, if these were given.
    """

    kind: ClassVar[str] = "tokenized"
    job: int
    tokens: tuple[int, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a job that failed.

    Attributes:
        job: Its id.
        code: The ``code`` of a class in :mod:`schemas.errors`.
        what: That error's three parts.
        why: As above.
        hint: As above.
    """

    kind: ClassVar[str] = "failed"
    job: int
    code: str
    what: str
    why: str = ""
    hint: str = ""


Event = Started | Piece | Call | Finished | Embedded | Ranked | Tokenized | Failed
LAST: Final = (Finished, Embedded, Ranked, Tokenized, Failed)
"""With one of these a task ends."""
_EVENTS: Final[dict[str, type[Event]]] = {
    c.kind: c for c in (Started, Piece, Call, Finished, Embedded, Ranked, Tokenized, Failed)
}


def event_document(event: Event) -> dict[str, Any]:
    """The JSON form of an event, tagged with ``kind``."""
    # Not asdict(): it copies deeply, and this runs for every token.
    return {"kind": event.kind, **{name: getattr(event, name) for name in event.__slots__}}


def event_from_document(document: dict[str, Any]) -> Event:
    """The inverse of :func:`event_document`.

    Raises:
        KeyError, TypeError: The worker sent what no worker of ours sends.
    """
    fields = dict(document)
    kind = _EVENTS[fields.pop("kind")]
    for key in ("context", "logprobs", "vectors", "scores", "tokens"):
        if key in fields:
            fields[key] = tuple(fields[key])
    return kind(**fields)


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker process is told when it starts.

    Attributes:
        model_path: The GGUF blob, absolute.
        projector_path: The same of what makes embeddings of pictures for it; empty if nothing does.
        adapter_path: The same of a LoRA adapter; empty if there is none.
        context_length: Tokens of context per sequence; already capped to the trained length.
        num_parallel: Sequences decoded together.
        num_threads: For decoding; 0 lets the engine choose.
        num_batch: Prompt tokens per step.
        num_gpu: Layers on a GPU; -1 lets the engine choose.
        template: A Jinja chat template that replaces the GGUF's own.
        kv_type: Type of keys and values: ``f16``, ``q8_0`` or ``q4_0``.
        flash_attention: ``auto``, ``on`` or ``off``.
        main_gpu: The GPU that holds everything where ``split_mode`` is ``none``.
        split_mode: ``none``, ``layer`` or ``row``.
        tensor_split: Shares of several GPUs, as in ``3,1``; empty: by their free memory.
        prompt_cache: Bytes for prompts whose sequence another one took, and never more than all
            sequences' keys and values take; 0 keeps none.
    """

    model_path: str
    context_length: int = 4096
    num_parallel: int = 1
    num_threads: int = 0
    num_batch: int = 512
    num_gpu: int = -1
    template: str | None = None
    kv_type: str = "f16"
    flash_attention: str = "auto"
    main_gpu: int = 0
    split_mode: str = "layer"
    tensor_split: str = ""
    prompt_cache: int = 0
    projector_path: str = ""
    adapter_path: str = ""


@dataclass(frozen=True, slots=True)
class QuantizeSpec:
    """All that a worker process is told that is to quantize a file, and then to end.

    Attributes:
        source_path: A GGUF file, absolute.
        target_path: The empty file to write, absolute.
        file_type: What to make, a number of ``llama_ftype`` in llama.cpp's ``llama.h``.
    """

    source_path: str
    target_path: str
    file_type: int


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """What a worker reports once its model is loaded and its sandbox closed.

    Attributes:
        pid: The worker's process id.
        load_ns: Time to load.
        context_length: Tokens of context per sequence, as the engine made it.
        model_bytes: Weights in memory.
        kv_bytes: Key/value cache in memory.
        copied_bytes: Of the weights, what is not mapped from the file.
        device_bytes: Of everything, what lies on accelerators.
        sandbox: The report of :mod:`runtime.sandbox`, as a JSON object.
        engine: Name, version and instruction flags, for people.
    """

    pid: int
    load_ns: int
    context_length: int
    model_bytes: int
    kv_bytes: int
    sandbox: dict[str, Any] = field(default_factory=dict, hash=False)
    engine: str = ""
    copied_bytes: int = 0
    device_bytes: int = 0
