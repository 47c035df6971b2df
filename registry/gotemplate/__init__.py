"""The syntax of Go's ``text/template``, in which Ollama's chat templates are written.

Read where models are scanned and listed, and where templates are run (:mod:`runtime.gotemplate`).
"""

from __future__ import annotations

import re
from typing import Final

from registry.gotemplate.nodes import Template
from registry.gotemplate.parser import parse

__all__ = ["Template", "is_go", "parse"]

# An action that begins with a field, a variable or one of the keywords is not Jinja; nor are
# functions whose arguments follow without commas and parentheses.
_GO: Final = re.compile(
    r"\{\{-?\s*(?:\.|\$|/\*|(?:if|range|with|end|else|template|define|block)\b"
    r"|(?:and|eq|index|json|len|ne|not|or|print|printf|println|slice)\s+[.$])"
)
# A statement, which Go has not: in Jinja a variable may be called as Go's keywords are.
_JINJA: Final = re.compile(r"\{%[-+]?\s*(?:for|if|set|macro)\s")


def is_go(text: str) -> bool:
    """Whether a chat template is written in Go's language, rather than in Jinja."""
    return _GO.search(text) is not None and _JINJA.search(text) is None
