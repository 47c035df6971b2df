"""Chat templates in Go's ``text/template``, as Ollama's models and Modelfiles have them.

No Python library runs them without Go's own runtime, so this is an interpreter, for what chat
templates need of the language. The syntax is :mod:`registry.gotemplate`'s. A template reaches the
values that it is given and the functions of :mod:`runtime.gotemplate.functions`, and nothing else.
"""

from __future__ import annotations

from registry.gotemplate import is_go
from runtime.gotemplate.chat import GoChat, capabilities
from runtime.gotemplate.values import GoError, NotShown, TooMuch

__all__ = ["GoChat", "GoError", "NotShown", "TooMuch", "capabilities", "is_go"]
