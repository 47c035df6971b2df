"""Ollama's chat templates in Go's language: the two plain forms are understood, others are not.

Templates are Jinja here, as in the model files themselves. Many a Modelfile, though, has a Go
template of one of these forms, with any text between the actions, and means no more by it than
which marks stand around whose words; a Jinja template says the same::

    {{ if .System }}…{{ .System }}…{{ end }}{{ if .Prompt }}…{{ .Prompt }}…{{ end }}…{{ .Response }}
    {{ range .Messages }}…{{ .Role }}…{{ .Content }}…{{ end }}…

The conditions, the system part and what follows the prompt may be missing. (Go's text/template;
``docs/template.md`` of Ollama for what the names stand for.)
"""

from __future__ import annotations

import re
from typing import Final

from schemas.errors import UnsupportedRequest

# An action that begins with a field, a variable or one of the keywords is not Jinja.
_GO: Final = re.compile(
    r"\{\{-?\s*(?:\.|\$|/\*|(?:if|range|with|end|else|template|define|block)\b)"
)
_TRIM_BEFORE: Final = re.compile(r"(?<!\s)\s*\{\{-\s")  # from where white space begins: linear time
_TRIM_AFTER: Final = re.compile(r"\s-\}\}\s*")
_TEXT: Final = r"((?:(?!\{\{).)*)"  # no action in it


def _action(words: str) -> str:
    return r"\{\{\s*" + words.replace(" ", r"\s+").replace(".", r"\.") + r"\s*\}\}"


_TURNS: Final = re.compile(
    rf"(?:{_action('if .System')}{_TEXT}{_action('.System')}{_TEXT}{_action('end')})?"
    rf"(?:{_action('if .Prompt')}{_TEXT}{_action('.Prompt')}{_TEXT}{_action('end')}"
    rf"|{_TEXT}{_action('.Prompt')}())"
    rf"{_TEXT}(?:{_action('.Response')}{_TEXT})?",
    re.DOTALL,
)
_MESSAGES: Final = re.compile(
    rf"{_action('range .Messages')}{_TEXT}{_action('.Role')}{_TEXT}{_action('.Content')}{_TEXT}"
    rf"{_action('end')}{_TEXT}",
    re.DOTALL,
)


def is_go(text: str) -> bool:
    """Whether a template is written in Go's language."""
    return _GO.search(text) is not None


def to_jinja(text: str) -> str | None:
    """The Jinja template that says the same as a Go template; None for one of another form."""
    text = _TRIM_AFTER.sub(" }}", _TRIM_BEFORE.sub("{{ ", text.replace("\r\n", "\n")))
    if found := _MESSAGES.fullmatch(text):
        return _by_message(*found.groups(""))
    if found := _TURNS.fullmatch(text):
        system = None if found[1] is None else (found[1], found[2])
        asked = (found[5], found[6]) if found[3] is None else (found[3], found[4])
        return _by_turn(system, asked, (found[7], found[8] or ""))
    return None


def settled(template: str) -> str:
    """A template as Jinja, whichever of the two languages it is written in.

    Raises:
        UnsupportedRequest: A Go template of another form.
    """
    if not is_go(template):
        return template
    jinja = to_jinja(template)
    if jinja is None:
        raise UnsupportedRequest(
            "this template is a Go template",
            why="templates are Jinja here, as in the model files themselves",
            hint="Leave it out to use the model's own, or write it in Jinja",
        )
    return jinja


def _by_message(before_role: str, before_content: str, behind: str, opening: str) -> str:
    turn = (
        f"{_say(before_role)}{{{{ message.role }}}}{_say(before_content)}"
        f"{{{{ message.content }}}}{_say(behind)}"
    )
    return f"{{% for message in messages %}}{turn}{{% endfor %}}{_at_end(opening)}"


def _by_turn(
    system: tuple[str, str] | None, asked: tuple[str, str], answered: tuple[str, str]
) -> str:
    def turn(marks: tuple[str, str]) -> str:
        return f"{_say(marks[0])}{{{{ message.content }}}}{_say(marks[1])}"

    return (
        "{% for message in messages %}"
        f"{{% if message.role == 'system' %}}{turn(system) if system else ''}"
        f"{{% elif message.role == 'assistant' %}}{turn(answered)}"
        f"{{% else %}}{turn(asked)}{{% endif %}}"
        f"{{% endfor %}}{_at_end(answered[0])}"
    )


def _at_end(opening: str) -> str:
    return f"{{% if add_generation_prompt %}}{_say(opening)}{{% endif %}}" if opening else ""


def _say(text: str) -> str:
    """Text as an expression, so that nothing in it is Jinja and no white space is trimmed."""
    if not text:
        return ""
    literal = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{{{ "{literal}" }}}}'
