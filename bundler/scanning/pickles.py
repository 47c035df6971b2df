"""Pickles: programs that run when they are loaded. Recognised by their opcodes, never loaded.

Python's pickletools names the opcodes; here it reads a bounded start of the data. A file is taken
for a pickle if it starts as one of protocol 2 or later, or is a whole one that calls something.
"""

from __future__ import annotations

import pickletools
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from schemas import limits

_PROTO: Final = 0x80
_PROTOCOLS: Final = range(2, 6)
_STRINGS: Final = frozenset(
    {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"}
)
_CALLS: Final = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
_NAMES: Final = frozenset({"GLOBAL", "INST"})
_SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class Pickle:
    """What a pickle's opcodes say.

    Attributes:
        names: What it would import, as ``module.name``, in order, each once.
        calls: How many opcodes call something.
    """

    names: tuple[str, ...]
    calls: int

    def line(self) -> str:
        """For people."""
        named = ", ".join(self.names[:_SHOWN]) or "nothing by name"
        return f"a pickle, which runs code when it is loaded; it imports {named}"


def find_pickle(data: bytes) -> Pickle | None:
    """Look at the start of a file.

    Args:
        data: Its first bytes; more than ``SCAN_PICKLE_BYTES`` are not looked at.

    Returns:
        None for what is no pickle.
    """
    data = data[: limits.SCAN_PICKLE_BYTES]
    sure = len(data) > 2 and data[0] == _PROTO and data[1] in _PROTOCOLS
    names: dict[str, None] = {}
    strings: list[str] = []
    calls = seen = 0
    stopped = False
    # An error means that it ends here, or is none: what was seen so far decides.
    with suppress(ValueError, IndexError, OverflowError), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # at odd escapes in strings
        for opcode, argument, _ in pickletools.genops(data):
            seen += 1
            if opcode.name in _STRINGS and isinstance(argument, str):
                strings = [*strings[-1:], argument]
            elif opcode.name in _NAMES:
                names[str(argument).replace(" ", ".", 1)] = None
            elif opcode.name == "STACK_GLOBAL" and len(strings) == 2:
                names[".".join(strings)] = None
            calls += opcode.name in _CALLS
            stopped = opcode.name == "STOP"
            if seen > limits.SCAN_PICKLE_OPCODES:
                break
    if sure or (stopped and (names or calls)):
        return Pickle(tuple(names), calls)
    return None
