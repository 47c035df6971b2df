"""Ollama's ``options`` and Modelfile parameters: names, types, bounds and how they combine.

What a request leaves open comes from the model's own parameters, and what those leave open from the
defaults of :class:`runtime.messages.Sampling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from runtime.messages import Sampling
from schemas import limits
from schemas.errors import UsageError

Kind = Literal["integer", "float32", "boolean", "array"]


@dataclass(frozen=True, slots=True)
class _Option:
    kind: Kind
    low: float = 0
    high: float = 0


# Names and types: Ollama's api/types.go "Options" and "Runner". The bounds are ours: outside of
# them a value has no meaning (a negative probability) or would only cost memory.
_SAMPLING: Final[Mapping[str, _Option]] = {
    "num_keep": _Option("integer", -1, limits.CONTEXT_TOKENS),
    "seed": _Option("integer", -limits.JSON_INTEGER, limits.JSON_INTEGER),
    "num_predict": _Option("integer", -2, limits.CONTEXT_TOKENS),
    "top_k": _Option("integer", -1, limits.CONTEXT_TOKENS),
    "top_p": _Option("float32", 0, 1),
    "min_p": _Option("float32", 0, 1),
    "typical_p": _Option("float32", 0, 1),
    "repeat_last_n": _Option("integer", -1, limits.CONTEXT_TOKENS),
    "temperature": _Option("float32", 0, 100),
    "repeat_penalty": _Option("float32", 0, 100),
    "presence_penalty": _Option("float32", -100, 100),
    "frequency_penalty": _Option("float32", -100, 100),
    "stop": _Option("array"),
}
_RUNNER: Final[Mapping[str, _Option]] = {
    "num_ctx": _Option("integer", 0, limits.CONTEXT_TOKENS),
    "num_batch": _Option("integer", 0, 65_536),
    "num_gpu": _Option("integer", -1, 65_536),
    "num_thread": _Option("integer", 0, 1024),
    "main_gpu": _Option("integer", -1, 65_536),
}
# Taken for their type's sake; this build has no use for them, as docs/compatibility.md tells.
_WITHOUT_EFFECT: Final[Mapping[str, _Option]] = {
    "use_mmap": _Option("boolean"),
    "draft_num_predict": _Option("integer", -1, limits.CONTEXT_TOKENS),
}
_ZERO_MEANS: Final = frozenset({"num_gpu", "main_gpu"})  # elsewhere it leaves things open
_ALL: Final = {**_SAMPLING, **_RUNNER, **_WITHOUT_EFFECT}
KINDS: Final[Mapping[str, Kind]] = {name: option.kind for name, option in _ALL.items()}
"""Every option, and what it must be."""
# Parameters of old that Ollama warns of and drops.
RETIRED: Final = frozenset(
    (
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "numa",
    )
)
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # Go's strconv.ParseBool
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SEEDS: Final = (
    2**32 - 1
)  # llama.cpp's seed is 32 bits wide, and its highest value means "draw one"


@dataclass(frozen=True, slots=True)
class Options:
    """What somebody asked for, and nothing that they left open.

    Attributes:
        sampling: Values of :class:`Sampling`'s fields.
        runner: ``num_ctx``, ``num_batch``, ``num_gpu``, ``main_gpu``, ``num_thread``: how the model
            is loaded.
    """

    sampling: Mapping[str, Any] = field(default_factory=dict, hash=False)
    runner: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling", MappingProxyType(dict(self.sampling)))
        object.__setattr__(self, "runner", MappingProxyType(dict(self.runner)))

    def over(self, base: Options) -> Options:
        """These options, with another's where they leave something open."""
        return Options({**base.sampling, **self.sampling}, {**base.runner, **self.runner})

    def make_sampling(self) -> Sampling:
        """The complete sampling, defaults where all leave something open."""
        return Sampling(**self.sampling)


NO_OPTIONS: Final = Options()


def parse_options(value: object) -> Options:
    """Check a request's ``options`` or a model's parameters.

    Unknown names are ignored, as in Ollama.

    Raises:
        UsageError: A known option has a value of the wrong type or out of bounds.
    """
    if value is None:
        return NO_OPTIONS
    if not isinstance(value, dict):
        raise UsageError('"options" must be an object')
    sampling: dict[str, Any] = {}
    runner: dict[str, int] = {}
    for name, raw in value.items():
        option = _ALL.get(name)
        if option is None or raw is None:
            continue
        checked = _check(name, option, raw)
        if name in _SAMPLING:
            sampling[name] = _settle(name, checked)
        elif name in _RUNNER and (checked or name in _ZERO_MEANS):
            runner[name] = checked
    return Options(sampling, runner)


def parse_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check the parameters of a model that is to be made, for its ``params.json``.

    Unlike a request's options they are kept, so a name that nobody knows is an error; those that
    Ollama dropped are left out.

    Raises:
        UsageError: An unknown name, or a value of the wrong type or out of bounds.
    """
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name in RETIRED or value is None:
            continue
        if name not in _ALL:
            raise UsageError(f"unknown parameter '{name[:80]}'")
        if name == "stop" and isinstance(value, str):
            value = [value]  # noqa: PLW2901 - a Modelfile's only one
        _check(name, _ALL[name], value)
        kept[name] = value
    return kept


def read_parameter(name: str, words: Sequence[str]) -> Any:
    """A parameter as it is written in a Modelfile, or after ``/set parameter``.

    Args:
        name: Of the parameter.
        words: Its value, in one word; of ``stop`` in any number.

    Raises:
        UsageError: In Ollama's words.
    """
    option = _ALL.get(name)
    if option is None:
        raise UsageError(f"unknown parameter '{name[:80]}'")
    if option.kind == "array":
        return list(words)
    text = words[0] if words else ""
    try:
        match option.kind:
            case "integer":
                return int(text, 10)
            case "float32":
                return float(text)
    except ValueError:
        kind = "int" if option.kind == "integer" else "float"
        raise UsageError(f"invalid {kind} value [{text[:80]}]") from None
    if text not in _TRUE | _FALSE:
        raise UsageError(f"invalid bool value [{text[:80]}]")
    return text in _TRUE


def parse_stop(value: object) -> tuple[str, ...]:
    """Stop strings: an array of them; empty strings would end every answer at once and are dropped.

    Raises:
        UsageError: Anything else, too many or too long.
    """
    if not isinstance(value, list):
        raise UsageError('option "stop" must be of type array')
    if not all(isinstance(item, str) for item in value):
        raise UsageError('option "stop" must be of an array of strings')
    if len(value) > limits.STOP_STRINGS or any(len(s) > limits.STOP_CHARS for s in value):
        raise UsageError(
            f'option "stop" takes at most {limits.STOP_STRINGS} strings '
            f"of {limits.STOP_CHARS} characters"
        )
    return tuple(dict.fromkeys(item for item in value if item))


def _check(name: str, option: _Option, raw: object) -> Any:
    if option.kind == "array":
        return parse_stop(raw)
    if option.kind == "boolean":
        if not isinstance(raw, bool):
            raise UsageError(f'option "{name}" must be of type boolean')
        return raw
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise UsageError(f'option "{name}" must be of type {option.kind}')
    # Ollama cuts 40.7 down to 40 where it wants an integer.
    value = int(raw) if option.kind == "integer" else raw
    if not option.low <= value <= option.high:
        raise UsageError(f'option "{name}" must be between {option.low:g} and {option.high:g}')
    return value if option.kind == "integer" else float(value)


def _settle(name: str, value: Any) -> Any:
    """Several ways to say the same become one."""
    match name:
        case "seed":
            return -1 if value < 0 else value % _SEEDS
        case "num_predict" | "top_k" if value < 1:
            return -1 if name == "num_predict" else 0
        case "num_keep":
            return max(value, 0)
        case "repeat_penalty" if value == 0:
            return 1.0
    return value
