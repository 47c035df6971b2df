"""Chat templates: out of a model file or a Modelfile, rendered so that user text stays user text.

Most are Jinja: the environment is that of Hugging Face transformers (``chat_template_utils.py``),
in Jinja's immutable sandbox. Those in Go's language are :mod:`runtime.gotemplate`'s.

Every string that a client wrote is marked on its way in, so that in the rendered prompt it is
known, character for character, what the template said and what the user said; only what the
template said may count as special tokens (:mod:`runtime.engine.marks`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.engine.marks import (
    MARKS,
    PICTURE,
    Encloser,
    Span,
    SpecialTokens,
    breaker_for,
    clean,
    spans_of,
)
from runtime.gotemplate import GoChat, GoError, NotShown, TooMuch, is_go
from runtime.messages import Message
from schemas import limits
from schemas.errors import MalformedModel, UnsupportedRequest, UsageError

# What llama-server and transformers fall back to for models without a template of their own.
CHATML: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_NEEDLE: Final = "needle"
_INTEGER_BITS: Final = 4096


class _GenerationTag(Extension):
    """``{% generation %}``: marks training targets in transformers; here its body and no more."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it as a plain set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with the two operators that make much out of little under control."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        if operator == "**" and not _small_power(left, right):
            raise MemoryError
        if operator == "*" and not _small_product(left, right):
            raise MemoryError
        return super().call_binop(context, operator, left, right)


def _small_power(left: Any, right: Any) -> bool:
    if isinstance(left, int) and isinstance(right, int):
        return abs(left).bit_length() * abs(right) <= _INTEGER_BITS
    return True


def _small_product(left: Any, right: Any) -> bool:
    if isinstance(left, int) and isinstance(right, int):
        return left.bit_length() + right.bit_length() <= _INTEGER_BITS
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int):
            return len(sequence) * times <= limits.RENDERED_PROMPT_BYTES
    return True


class ChatTemplate:
    """One compiled template. Compile and render inside a :class:`runtime.engine.guard.Guard`.

    Args:
        source: Jinja text, or a Go template.
        bos: The spelling of the beginning-of-sequence token, as the template may write it.
        eos: The same of the end-of-sequence token.

    Raises:
        MalformedModel: It is too long, or does not parse.
    """

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        if len(source) > limits.TEMPLATE_CHARS:
            raise MalformedModel("the model's chat template is too long")
        self._in_parts = False
        self._go = _go_template(source) if is_go(source) else None
        if self._go is not None:
            return
        environment = _Environment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        environment.filters["tojson"] = _tojson
        environment.globals.pop("lipsum", None)
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._constants = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, SyntaxError, ValueError) as error:
            raise MalformedModel(
                "the model's chat template does not parse", why=str(error)
            ) from error
        if "type" in source:
            self._in_parts = self._reads_parts()

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        special: SpecialTokens,
        *,
        think: bool | None = None,
    ) -> list[Span]:
        """Render a conversation up to where the assistant speaks.

        A last message of the assistant's is left open, to be continued.

        Args:
            messages: In order.
            tools: As clients describe them.
            special: Spellings that must not count as such in what the client wrote.
            think: Whether the model shall think; None leaves it to the template.

        Returns:
            The prompt, as what the template said and what the client said.

        Raises:
            UnsupportedRequest: The template refuses these messages.
            MalformedModel: The template fails, or makes too much text.
        """
        extra: dict[str, Any] = {"tools": tools}
        if think is not None:
            extra |= {"enable_thinking": think, "thinking": think}
        opening = ""
        if messages and messages[-1].role == "assistant" and not messages[-1].tool_calls:
            opening = clean(messages[-1].content)
            messages = messages[:-1]
        breaker = breaker_for(special)
        plain = self._once(messages, extra, lambda _role, text: text, lambda text: text)
        marked = ""
        for roles in (_EVERYBODY, _NOT_ASSISTANT, _NOBODY):
            encloser = Encloser(roles, breaker)
            marked = self._once(messages, extra, encloser, breaker)
            if MARKS.sub("", marked) == plain and encloser.intact_in(marked):
                break
        spans = spans_of(marked)
        return [*spans, Span(opening, trusted=False)] if opening else spans

    def _once(
        self,
        messages: Sequence[Message],
        extra: dict[str, Any],
        content: Callable[[str, str], str],
        other: Callable[[str], str],
    ) -> str:
        return self._generate(
            extra, [_for_template(message, content, other) for message in messages], other
        )

    def _generate(
        self, extra: dict[str, Any], messages: list[dict[str, Any]], other: Callable[[str], str]
    ) -> str:
        if self._go is not None:
            tools = [_map_strings(tool, other) for tool in extra["tools"]]
            return _by_go(self._go, messages, tools, extra.get("thinking"))
        if self._in_parts:
            messages = [_as_part(message) for message in messages]
        variables = {
            **self._constants,
            **extra,
            "messages": messages,
            "tools": [_map_strings(tool, other) for tool in extra["tools"]] or None,
            "documents": None,
            "add_generation_prompt": True,
        }
        try:
            return _bounded(self._template.generate(variables))
        except _Refused as error:
            raise UnsupportedRequest(
                "the model's chat template refuses these messages", why=str(error)
            ) from None
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise MalformedModel("the model's chat template fails", why=str(error)) from error

    def _reads_parts(self) -> bool:
        """Whether a content is only shown if it is a list of parts, as of some models that see."""
        self._in_parts = False
        message = {"role": "user", "content": _NEEDLE}
        for self._in_parts in (False, True):
            try:
                if _NEEDLE in self._generate({"tools": ()}, [message], str):
                    return self._in_parts
            except (MalformedModel, UnsupportedRequest):
                continue
        return False


def _go_template(source: str) -> GoChat:
    try:
        return GoChat.parse(source)
    except UsageError as error:
        raise MalformedModel(
            "the model's chat template does not parse", why=error.why or error.what
        ) from None


def _by_go(
    template: GoChat,
    messages: Sequence[dict[str, Any]],
    tools: Sequence[dict[str, Any]],
    think: bool | None,  # noqa: FBT001 - as in a request
) -> str:
    try:
        return template.render(messages, tools, think=think)
    except NotShown as error:
        raise UnsupportedRequest(
            "the model's chat template refuses these messages", why=error.what
        ) from None
    except TooMuch as error:
        raise MalformedModel("the model's chat template does too much", why=str(error)) from None
    except GoError as error:
        raise MalformedModel("the model's chat template fails", why=str(error)) from None


def _as_part(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def check_syntax(source: str) -> None:
    """Whether a chat template parses. Nothing of it runs.

    Raises:
        UsageError: It is neither Jinja nor a Go template, or nested too deeply.
    """
    if is_go(source):
        GoChat.parse(source)
        return
    environment = _Environment(extensions=[loopcontrols, _GenerationTag])
    try:
        environment.parse(source)
    except (jinja2.TemplateError, SyntaxError, ValueError) as error:
        raise UsageError("template error", why=str(error)) from None
    except RecursionError:
        raise UsageError("template error", why="it is nested too deeply") from None


class _Refused(jinja2.TemplateError):
    """What ``raise_exception`` raises."""


_EVERYBODY: Final = frozenset({"system", "user", "assistant", "tool"})
_NOT_ASSISTANT: Final = _EVERYBODY - {"assistant"}
_NOBODY: Final[frozenset[str]] = frozenset()


def _raise_exception(message: object = "") -> NoReturn:
    raise _Refused(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - transformers' signature
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """As in transformers: no HTML escapes, unlike Jinja's own."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _for_template(
    message: Message, content: Callable[[str, str], str], other: Callable[[str], str]
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "role": message.role,
        "content": content(message.role, _with_pictures(message)),
    }
    if message.thinking is not None:
        thinking = content(message.role, clean(message.thinking))
        result |= {"reasoning_content": thinking, "thinking": thinking}
    if message.tool_calls:
        calls = [_map_strings(call, other) for call in message.tool_calls]
        result["tool_calls"] = [{"type": "function", **call} for call in calls]
    if message.tool_name is not None:
        result |= dict.fromkeys(("name", "tool_name"), other(clean(message.tool_name)))
    if message.tool_call_id is not None:
        result["tool_call_id"] = other(clean(message.tool_call_id))
    return result


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(clean(value))
    if isinstance(value, dict):
        return {change(clean(key)): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(item, change) for item in value]
    return value


def _with_pictures(message: Message) -> str:
    """A message's content with a mark where each picture stands."""
    text = clean(message.content)
    parts, done = [], 0
    for image in message.images:
        at = min(max(image.at, done), len(text))
        parts += [text[done:at], PICTURE]
        done = at
    return "".join([*parts, text[done:]])


def _bounded(parts: Iterator[str]) -> str:
    collected: list[str] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > limits.RENDERED_PROMPT_BYTES:
            raise MalformedModel("the model's chat template makes too much text")
        collected.append(part)
    return "".join(collected)
