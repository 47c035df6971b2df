"""What every dialect's request comes down to, and what every dialect's answer offers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from registry.reference import Reference
from runtime.gotemplate import GoChat, is_go
from runtime.messages import Call, Chat, Finished, Job, Message, Piece, Started, Text
from runtime.models import Model
from runtime.options import NO_OPTIONS, Options
from runtime.server.body import Fields
from schemas import limits
from schemas.errors import InvalidName, SealiftError, UnsupportedRequest, UsageError

COMPLETION: Final = "completion"
INSERT: Final = "insert"
THINKING: Final = "thinking"
TOOLS: Final = "tools"
VISION: Final = "vision"
ANY_OBJECT: Final = '{"type":"object"}'  # JSON mode: any object


@dataclass(frozen=True, slots=True)
class Generation:
    """One request for text, whatever dialect it came in.

    Attributes:
        name: The model's name as the client wrote it; answers repeat it.
        reference: The same, parsed.
        prompt: What to continue; None only loads the model, or unloads it.
        verb: For the message about a model that cannot: ``chat`` or ``generate``.
        options: What the request sets; the model's parameters fill the rest.
        stream: Whether the answer comes in pieces.
        keep_alive_ms: How long the model stays loaded afterwards; None leaves that to the settings.
        needs: Capabilities that the request asks for beside ``completion``.
        think: None if the request does not say.
        want_context: Whether the answer carries the token ids.
        truncate: Whether an over-long conversation may lose its oldest messages.
        shift: Whether an answer goes on when the context is full, without half of what came before.
        echo: Text to repeat before the answer (``/v1/completions``).
        include_usage: Whether a stream ends with token counts (``stream_options``).
        format: A JSON Schema, as JSON text, that the answer must be valid by; empty for any text.
    """

    name: str
    reference: Reference
    prompt: Chat | Text | None
    verb: str
    options: Options = NO_OPTIONS
    stream: bool = True
    keep_alive_ms: int | None = None
    needs: frozenset[str] = frozenset()
    think: bool | None = None
    want_context: bool = False
    truncate: bool = True
    shift: bool = False
    echo: str = ""
    include_usage: bool = False
    format: str = ""

    @property
    def unloads(self) -> bool:
        """Whether this asks to free the model: nothing to do, and no time to stay."""
        return self.prompt is None and self.keep_alive_ms == 0


@dataclass(frozen=True, slots=True)
class Timing:
    """What an answer tells about time, in nanoseconds.

    Attributes:
        total_ns: Since the request arrived.
        load_ns: Of this, until the model was there and its turn had come.
    """

    total_ns: int
    load_ns: int


@dataclass(slots=True)
class ToolCall:
    """A tool call of an answer.

    Attributes:
        name: Of the tool.
        arguments: JSON text.
    """

    name: str
    arguments: str

    def value(self) -> Any:
        """The arguments as an object; what was cut off is none."""
        try:
            return json.loads(self.arguments)
        except ValueError:
            return {}


@dataclass(slots=True)
class Parts:
    """What an answer consists of, gathered from its events.

    Attributes:
        text: Its content.
        thinking: What came before.
        calls: In order.
        logprobs: Of its tokens.
    """

    text: str = ""
    thinking: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[Piece | Call]) -> Parts:
        """Gather a whole answer."""
        parts = cls()
        texts: list[str] = []
        thoughts: list[str] = []
        for event in events:
            if isinstance(event, Call):
                parts.add(event)
            else:
                (thoughts if event.thinking else texts).append(event.text)
                parts.logprobs += event.logprobs
        parts.text, parts.thinking = "".join(texts), "".join(thoughts)
        return parts

    def add(self, call: Call) -> None:
        """Take some more of a call."""
        if call.number == len(self.calls):
            self.calls.append(ToolCall(call.name, call.text))
        else:
            self.calls[call.number].arguments += call.text


def tools_of(entries: Iterable[Fields]) -> tuple[dict[str, Any], ...]:
    """The tools that a request offers.

    Raises:
        UsageError: One is no function with a name.
    """
    tools = []
    for entry in entries:
        function = entry.table("function")
        if function is None or not function.text("name"):
            raise UsageError(f'"{entry.name("function.name")}" is missing')
        function.table("parameters")
        tools.append(entry.value)
    if len(tools) > limits.TOOLS:
        raise UsageError(f"more than {limits.TOOLS} tools")
    return tuple(tools)


class Answer(Protocol):
    """Events in, bytes of one dialect out. Pure: no sockets, no clock but the one it was given."""

    stream_type: str
    """Content type of a streamed answer."""

    def started(self, started: Started) -> None:
        """The prompt is in the context."""
        ...

    def opening(self) -> bytes:
        """What a stream begins with; may be empty."""
        ...

    def piece(self, piece: Piece) -> bytes:
        """One piece of a stream."""
        ...

    def call(self, call: Call) -> bytes:
        """Some of a tool call in a stream; may be empty."""
        ...

    def closing(self, finished: Finished, timing: Timing) -> bytes:
        """What a complete stream ends with."""
        ...

    def broken(self, error: SealiftError) -> bytes:
        """What a stream ends with that could not be completed."""
        ...

    def whole(self, pieces: list[Piece | Call], finished: Finished, timing: Timing) -> bytes:
        """The answer in one document."""
        ...


def image_needs(messages: Sequence[Message]) -> set[str]:
    """What the pictures of a conversation ask of a model.

    Raises:
        UsageError: There are too many.
    """
    images = [image for message in messages for image in message.images]
    if len(images) > limits.IMAGES:
        raise UsageError(f"more than {limits.IMAGES} images")
    if sum(image.pixels for image in images) > limits.IMAGE_PIXELS_TOGETHER:
        most = limits.IMAGE_PIXELS_TOGETHER // 10**6
        raise UsageError("the images are too large together", why=f"over {most} million pixels")
    return {VISION} if images else set()


def parse_model(name: str | None) -> tuple[str, Reference]:
    """A request's model name, and what it refers to.

    Raises:
        UsageError: There is none.
        InvalidName: It does not parse.
    """
    if not name:
        raise UsageError("model is required")
    try:
        return name, Reference.from_user(name).local
    except InvalidName:
        raise InvalidName("invalid model name") from None


def schema_text(schema: dict[str, Any]) -> str:
    """A JSON Schema as JSON text, for :attr:`Generation.format`.

    Raises:
        UsageError: It is too large.
    """
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    if len(text) > limits.FORMAT_BYTES:
        raise UsageError("the format is too large", why=f"over {limits.FORMAT_BYTES} characters")
    return text


def check_template(template: str | None) -> str | None:
    """A chat template sent with a request.

    Raises:
        UsageError: It is a Go template that does not parse.
    """
    if template and is_go(template):
        GoChat.parse(template)
    return template or None


def check_capabilities(request: Generation, model: Model) -> None:
    """Refuse what the model or this build cannot do, rather than answer something else.

    Raises:
        UnsupportedRequest: With Ollama's words where it has some.
    """
    if COMPLETION not in model.capabilities:
        raise UnsupportedRequest(f'"{request.name}" does not support {request.verb}')
    for need in sorted(request.needs):
        if need in model.capabilities:
            continue
        if need == VISION:  # Ollama's words
            raise UnsupportedRequest("this model is missing data required for image input")
        raise UnsupportedRequest(f'"{request.name}" does not support {need}')


def make_job(request: Generation, model: Model, job_id: int) -> Job:
    """The job for the engine: the request, with the model's own settings where it is silent.

    Raises:
        UnsupportedRequest: As :func:`check_capabilities`.
    """
    check_capabilities(request, model)
    prompt = request.prompt
    if prompt is None:
        raise UsageError("there is no prompt")
    if isinstance(prompt, Chat):
        # The model's own template is the worker's already.
        think = request.think
        if think is None and THINKING in model.capabilities:
            think = True  # as Ollama: a model that can think does, unless told not to
        prompt = replace(prompt, messages=_with_model_messages(prompt, model), think=think)
    return Job(
        id=job_id,
        prompt=prompt,
        sampling=request.options.over(model.options).make_sampling(),
        want_context=request.want_context,
        truncate=request.truncate,
        shift=request.shift,
        format=request.format,
    )


def _with_model_messages(chat: Chat, model: Model) -> tuple[Message, ...]:
    """As Ollama: the model's system text unless the conversation brings one, then its messages."""
    if chat.context:
        return chat.messages  # a conversation that goes on: the earlier turns have them already
    own = model.messages
    has_system = bool(chat.messages) and chat.messages[0].role == "system"
    if not model.system or has_system:
        return (
            (*own, *chat.messages)
            if not has_system
            else (chat.messages[0], *own, *chat.messages[1:])
        )
    return (Message("system", model.system), *own, *chat.messages)
