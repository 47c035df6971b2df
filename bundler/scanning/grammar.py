"""Which parts of Jinja chat templates use, and which none has a reason to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from jinja2 import nodes

from bundler.scanning.findings import Finding, Severity
from bundler.scanning.jinja import attribute, constant_text, descend
from schemas import limits

_NODES: Final = frozenset(
    """
    Template Output TemplateData For If Assign AssignBlock Macro CallBlock FilterBlock With Name
    NSRef Const List Dict Tuple Pair Keyword Getattr Getitem Slice Filter Test Call Compare Operand
    Add Sub Mul Div FloorDiv Mod Pow Neg Pos Not And Or CondExpr Concat Break Continue Scope
    ScopedEvalContextModifier
    """.split()  # noqa: SIM905 - a list of 40 quoted names reads worse
)
_LOADERS: Final = frozenset({"Include", "Import", "FromImport", "Extends"})
_FILTERS: Final = frozenset(
    """
    abs batch capitalize count d default dictsort e escape first float forceescape groupby indent
    int items join last length list lower map max min reject rejectattr replace reverse round safe
    select selectattr slice sort string sum title tojson trim unique upper wordcount from_json
    """.split()  # noqa: SIM905
)
_TESTS: Final = frozenset(
    """
    boolean defined divisibleby eq equalto even false float ge gt in integer iterable le lower lt
    mapping ne none number odd sameas sequence string true undefined upper callable
    == != < > <= >= lessthan greaterthan
    """.split()  # noqa: SIM905
)
_FUNCTIONS: Final = frozenset({"raise_exception", "strftime_now", "namespace", "range", "dict"})
_METHODS: Final = frozenset(
    """
    append capitalize count endswith extend find format get index insert isalnum isalpha isascii
    isdecimal isdigit islower isnumeric isspace isupper items join keys lower lstrip partition pop
    removeprefix removesuffix replace rfind rpartition rsplit rstrip setdefault split splitlines
    startswith strip title update upper values
    """.split()  # noqa: SIM905
)
# Attributes through which sandboxes were left (CVE-2016-10745, CVE-2019-10906, CVE-2024-56326).
_GADGETS: Final = frozenset(
    """
    mro func_globals func_code func_closure gi_frame gi_code cr_frame cr_code ag_frame ag_code
    f_globals f_locals f_builtins tb_frame im_func im_self format_map environment
    """.split()  # noqa: SIM905
)
_STRANGE_NAMES: Final = frozenset({"lipsum", "cycler", "joiner", "self", "config", "request", "os"})
_DUNDER: Final = re.compile(r"__[A-Za-z]+__")
_CALLS_OUT: Final = re.compile(
    r"\b(?:os\.system|os\.popen|subprocess|importlib|builtins|eval\(|exec\(|getattr\(|open\()"
)


def grammar_findings(tree: nodes.Template, where: str) -> Iterator[Finding]:
    """What a template uses that chat templates do not.

    Args:
        tree: Of the template.
        where: What it is, for the findings.
    """
    nodes_of = list(descend(tree))
    macros = {node.name for node in nodes_of if isinstance(node, nodes.Macro)}
    called = {id(node.node) for node in nodes_of if isinstance(node, nodes.Call)}
    for node in nodes_of:
        kind = type(node).__name__
        for severity, code, detail in _judge(node, kind, macros, called):
            yield Finding(severity, code, f"{where}, line {node.lineno}", detail)
    yield from _loops(tree, where)


_Judgement = tuple[Severity, str, str]


def _judge(node: nodes.Node, kind: str, macros: set[str], called: set[int]) -> Iterator[_Judgement]:
    if kind in _LOADERS:
        yield Severity.DANGER, "template-loads", f"loads another file ({kind.lower()})"
    elif kind not in _NODES:
        yield Severity.WARN, "template-statement", f"uses {kind}, which chat templates do not"
    if isinstance(node, nodes.Filter | nodes.Test):
        yield from _filter_or_test(node)
    elif isinstance(node, nodes.Call):
        yield from _call(node, macros)
    elif isinstance(node, nodes.Name) and node.ctx == "load" and node.name in _STRANGE_NAMES:
        yield Severity.WARN, "template-name", f"uses {node.name!r}, known from attacks"
    elif isinstance(node, nodes.Const):
        yield from _constant(node.value)
    elif isinstance(node, nodes.Pow):
        yield Severity.WARN, "template-power", "raises to a power, which grows without bound"
    elif isinstance(node, nodes.Mul):
        yield from _product(node)
    name = attribute(node)
    if name is not None:
        yield from _attribute(name, method=id(node) in called)
    elif isinstance(node, nodes.Getitem) and _is_built(node.arg):
        yield (
            Severity.DANGER,
            "template-built-name",
            "puts the name of an attribute together from pieces",
        )


def _filter_or_test(node: nodes.Filter | nodes.Test) -> Iterator[_Judgement]:
    name = node.name
    if isinstance(node, nodes.Test):
        if name not in _TESTS:
            yield Severity.WARN, "template-test", f"uses the test {name!r}"
    elif name == "attr":
        yield Severity.DANGER, "template-attr", "reads attributes by computed names (attr)"
    elif name == "random":
        yield Severity.WARN, "template-random", "acts by chance (random)"
    elif name not in _FILTERS:
        yield Severity.WARN, "template-filter", f"uses the filter {name!r}"
    for value in (*node.args, *(keyword.value for keyword in node.kwargs)):
        if name in {"map", "selectattr", "rejectattr", "sort", "groupby"} and _is_built(value):
            yield (
                Severity.DANGER,
                "template-built-name",
                "puts the name of an attribute together from pieces",
            )


def _call(node: nodes.Call, macros: set[str]) -> Iterator[_Judgement]:
    target = node.node
    if isinstance(target, nodes.Name):
        if target.name == "range":
            for size in map(_integer, node.args):
                if abs(size) > limits.TEMPLATE_SCAN_REPEAT:
                    yield Severity.DANGER, "template-bomb", f"counts to {size}"
        if target.name not in _FUNCTIONS | macros | {"caller"}:
            yield Severity.INFO, "template-call", f"calls {target.name}()"
    elif not isinstance(target, nodes.Getattr | nodes.Getitem):
        yield Severity.WARN, "template-call", "calls what an expression gives"


def _attribute(name: str, *, method: bool) -> Iterator[_Judgement]:
    if name.startswith("__"):
        yield Severity.DANGER, "template-reserved-name", f"reads {name!r}, the way out of a sandbox"
    elif name in _GADGETS:
        yield Severity.DANGER, "template-reserved-name", f"reads {name!r}, known from attacks"
    elif method and name.startswith("_"):
        yield Severity.WARN, "template-call", f"calls .{name}()"
    elif method and name not in _METHODS:
        yield Severity.INFO, "template-call", f"calls .{name}()"
    if method and name == "format":
        yield Severity.INFO, "template-format", "uses str.format, which can read attributes"


def _constant(value: Any) -> Iterator[_Judgement]:
    if isinstance(value, str):
        if match := _DUNDER.search(value):
            yield (
                Severity.DANGER,
                "template-reserved-name",
                f"has {match.group()!r} in a string, the way out of a sandbox",
            )
        if match := _CALLS_OUT.search(value):
            yield Severity.WARN, "template-code", f"has {match.group()!r} in a string"
        if len(value) > limits.TEMPLATE_SCAN_LITERAL and " " not in value:
            yield Severity.WARN, "template-blob", f"has a string of {len(value)} characters"
    elif isinstance(value, int) and abs(value) > limits.TEMPLATE_SCAN_NUMBER:
        yield Severity.WARN, "template-number", "has a very large number"


def _product(node: nodes.Mul) -> Iterator[_Judgement]:
    times = max(_integer(node.left), _integer(node.right))
    if times > limits.TEMPLATE_SCAN_REPEAT:
        yield Severity.DANGER, "template-bomb", f"repeats something {times} times"


def _integer(node: nodes.Node) -> int:
    if isinstance(node, nodes.Const) and type(node.value) is int:
        return int(node.value)
    return 0


def _is_built(node: nodes.Node | None) -> bool:
    """Whether a string is put together out of literal pieces, which only hides what it is."""
    if isinstance(node, nodes.Concat):
        parts = node.nodes
    elif isinstance(node, nodes.Add):
        parts = [node.left, node.right]
    elif isinstance(node, nodes.Mul):
        return constant_text(node.left) is not None or constant_text(node.right) is not None
    elif isinstance(node, nodes.Filter):
        return node.node is not None and (
            constant_text(node.node) is not None
            or isinstance(node.node, nodes.List | nodes.Tuple)
            or _is_built(node.node)
        )
    elif isinstance(node, nodes.Call):
        base = node.node
        return isinstance(base, nodes.Getattr) and constant_text(base.node) is not None
    else:
        return False
    return any(constant_text(part) is not None or _is_built(part) for part in parts)


def _loops(tree: nodes.Template, where: str) -> Iterator[Finding]:
    """Loops in loops: each level multiplies the work."""
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    deepest, line = 0, 1
    while stack:
        node, depth = stack.pop()
        if isinstance(node, nodes.For):
            depth += 1
            if depth > deepest:
                deepest, line = depth, node.lineno
        stack.extend((child, depth) for child in node.iter_child_nodes())
    if deepest > limits.TEMPLATE_SCAN_LOOPS:
        yield Finding(
            Severity.WARN, "template-loops", f"{where}, line {line}", f"has {deepest} loops in one"
        )
