"""Chat templates as syntax trees: parsed within bounds, never compiled, never rendered."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from schemas import limits


class Unreadable(Exception):
    """A template that no tree can be made of.

    Attributes:
        too_much: Whether a bound was passed, rather than a rule of the language broken.
    """

    def __init__(self, why: str, *, too_much: bool) -> None:
        self.too_much = too_much
        super().__init__(why)


class _GenerationTag(Extension):
    """``{% generation %}``: marks training targets in transformers."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it as a plain set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def parse(source: str) -> nodes.Template:
    """The syntax tree of a template.

    Raises:
        Unreadable: It is too large, too deep, or no Jinja.
    """
    if len(source) > limits.TEMPLATE_SCAN_CHARS:
        raise Unreadable(
            f"it has {len(source)} characters, at most {limits.TEMPLATE_SCAN_CHARS} are read",
            too_much=True,
        )
    environment = Environment(  # noqa: S701 - nothing is rendered
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
    )
    try:
        return _parse(environment, source)
    except RecursionError:
        raise Unreadable("it is nested too deeply", too_much=True) from None
    except (TemplateError, ValueError, OverflowError, SyntaxError) as error:
        raise Unreadable(str(error), too_much=False) from error


def _parse(environment: Environment, source: str) -> nodes.Template:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # at odd escapes in strings
        for count, _ in enumerate(environment.lexer.tokeniter(source, None)):
            if count > limits.TEMPLATE_SCAN_TOKENS:
                raise Unreadable(
                    f"it has more than {limits.TEMPLATE_SCAN_TOKENS} tokens", too_much=True
                )
        return environment.parse(source)


def descend(root: nodes.Node | None) -> Iterator[nodes.Node]:
    """A node and all below it; without recursion, for chains may be long."""
    stack = [] if root is None else [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(list(node.iter_child_nodes())))


def constant_text(node: nodes.Node | None) -> str | None:
    """The text that a node stands for, where it is a plain string."""
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return node.value
    return None


def attribute(node: nodes.Node) -> str | None:
    """The name in ``x.name`` and ``x['name']``."""
    if isinstance(node, nodes.Getattr):
        return str(node.attr)
    if isinstance(node, nodes.Getitem):
        return constant_text(node.arg)
    return None
