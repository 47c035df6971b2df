"""Chat templates: programs that come with a model and see every word of every conversation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from jinja2 import nodes

from bundler.scanning import jinja
from bundler.scanning.findings import MOST, Finding, Severity, bounded
from bundler.scanning.gotemplate import scan_go
from bundler.scanning.grammar import grammar_findings
from bundler.scanning.hidden import hidden_characters
from bundler.scanning.prose import prose_findings
from bundler.scanning.triggers import trigger_findings
from registry.gotemplate import is_go

_EACH: Final = 10 * MOST  # of one kind of rule, before they are sorted


def scan_template(source: str, where: str = "chat template") -> tuple[Finding, ...]:
    """Say what is unusual about a chat template.

    Args:
        source: Jinja, or a Go template, by whoever made the model.
        where: What it is, for the findings.

    Returns:
        At most :data:`~bundler.scanning.findings.MOST` findings, the worst first.
    """
    if is_go(source):
        return bounded(scan_go(source, where))
    try:
        tree = jinja.parse(source)
    except jinja.Unreadable as error:
        code = "template-too-much" if error.too_much else "template-syntax"
        severity = Severity.DANGER if error.too_much else Severity.WARN
        hidden = hidden_characters(source, where)
        return bounded([Finding(severity, code, where, str(error)), *hidden])
    return bounded(_all(source, tree, where))


def _all(source: str, tree: nodes.Template, where: str) -> Iterator[Finding]:
    plain = list(hidden_characters(source, where))
    yield from plain
    if "\\" in source:
        texts = map(jinja.constant_text, jinja.descend(tree))
        escaped = "\n".join(text for text in texts if text is not None)
        seen = {finding.code for finding in plain}
        for finding in hidden_characters(escaped, f"{where}, written as an escape"):
            if finding.code not in seen:
                yield finding
    yield from islice(grammar_findings(tree, where), _EACH)
    yield from islice(trigger_findings(tree, where), _EACH)
    yield from prose_findings(tree, where)
