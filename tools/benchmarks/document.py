"""docs/benchmarks.md: one section per figure, each replaced on its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tools.benchmarks import FIGURES
from tools.benchmarks.results import Section, table

_HEAD: Final = """\
# Benchmarks

Written by `make bench`, good or bad as it came out; edits between the markers are lost. Every
figure stands beside a public tool that was run on the same machine in the same run, in turn with
ours; what counts are the ratios. `make bench PART="import rss"` measures those sections anew.
"""


def write(path: Path, sections: dict[str, tuple[Section, str]]) -> None:
    """Replace the given sections, keep the others.

    Args:
        path: The document; made where it is missing.
        sections: Key to section and the line about its machine.
    """
    old = path.read_text() if path.exists() else ""
    parts = [_HEAD]
    for key in FIGURES:
        if key in sections:
            section, machine = sections[key]
            parts.append(_marked(key, _body(section, machine)))
        elif kept := _kept(old, key):
            parts.append(_marked(key, kept))
    path.write_text("\n".join(parts))


def _body(section: Section, machine: str) -> str:
    rows = [[f.name, f.measured, f.aim or "-", f.verdict or "-"] for f in section.figures]
    results = table(["figure", "measured", "aim", "verdict"], rows)
    return f"## {section.title}\n\n{machine}\n\n{results}\n\n{section.text}\n"


def _kept(old: str, key: str) -> str:
    found = re.search(f"{re.escape(_begin(key))}\n(.*?){re.escape(_end(key))}", old, re.DOTALL)
    return found[1] if found else ""


def _marked(key: str, body: str) -> str:
    return f"{_begin(key)}\n{body}{_end(key)}\n"


def _begin(key: str) -> str:
    return f"<!-- bench:{key} -->"


def _end(key: str) -> str:
    return f"<!-- /bench:{key} -->"
