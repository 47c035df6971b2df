"""The import arrows of the architecture, read from the syntax tree.

Imports under ``TYPE_CHECKING`` and inside functions count like any other, as do the names that
``importlib.import_module`` and ``__import__`` are called with.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

OURS = ("bundler", "registry", "runtime", "schemas")
UMBRELLA = "runtime.cli.main"
# May import by a computed name: the sandbox loads what its caller lists before it shuts the door.
COMPUTED = {UMBRELLA, "runtime.sandbox.confine"}

# package → the packages of ours that it may import beside itself.
ARROWS: dict[str, frozenset[str]] = {
    "schemas": frozenset(),
    "registry": frozenset({"schemas"}),
    "bundler": frozenset({"registry", "schemas"}),
    "runtime": frozenset({"registry", "schemas"}),
}
# The store's HTTP server is nobody's library.
CLOSED = "registry.http"

# foreign package → the module prefixes of ours that may import it.
CONFINED: dict[str, tuple[str, ...]] = {
    "tuf": ("bundler.trust",),
    "securesystemslib": ("bundler.trust",),
    "pkcs11": ("bundler.trust.tokens",),
    "zstandard": ("bundler.archive",),
    "pyeclib": ("bundler.parity.code",),
    "segno": ("bundler.inventory.qr",),
    "jinja2": ("bundler.scanning", "runtime.engine"),
    "llama_cpp": ("runtime.engine.llama",),
    "llguidance": ("runtime.engine.constraint",),
    "prometheus_client": ("runtime.server.metrics",),
    "aiohttp": ("runtime.server", "registry.http"),
    "oras": ("bundler.sources", "bundler.push", "bundler.pull"),
    "huggingface_hub": ("bundler.sources",),
    "typer": ("bundler.cli", "runtime.cli", "schemas.cli"),
    "click": ("bundler.cli", "runtime.cli"),
    "rich": ("bundler.cli", "runtime.cli"),
    "gguf": (),  # the tests' oracle only
}
RENDERERS = re.compile(r"(^|\.)render$")  # modules that may use rich wherever they are

# distribution → import name, where they differ.
IMPORT_NAMES = {
    "llama-cpp-python": "llama_cpp",
    "jsonschema-rs": "jsonschema_rs",
    "python-pkcs11": "pkcs11",
    "prometheus-client": "prometheus_client",
}


def imported(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Every absolute dotted name that a module's source imports, at any depth.

    ``from a.b import c`` gives ``a.b.c``: ``c`` may be a module. A dynamic import by anything but
    a literal gives ``?``.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package=is_package)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _is_dynamic(node.func):
            yield _literal(node.args[0] if node.args else None)


def violation(module: str, name: str) -> str | None:
    """Why a module must not import a name, or None where it may."""
    package = module.partition(".")[0]
    top = name.partition(".")[0]
    if name == "?":
        return None if module in COMPUTED else "dynamic import of a computed name"
    if top in OURS:
        if top != package and top not in ARROWS[package] and module != UMBRELLA:
            return f"{package} must not import {top}"
        inside = _within(module, CLOSED) or module == UMBRELLA
        if _within(name, CLOSED) and not inside and package != "registry":
            return f"{CLOSED} is closed to {package}"
        return None
    if top in CONFINED and not any(_within(module, allowed) for allowed in CONFINED[top]):
        if top == "rich" and RENDERERS.search(module):
            return None
        return f"{top} is confined to {', '.join(CONFINED[top]) or 'the tests'}"
    return None


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _absolute(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _is_dynamic(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"import_module", "__import__"}


def _literal(argument: ast.expr | None) -> str:
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return argument.value
    return "?"


def _sources(root: Path) -> Iterator[tuple[str, bool, str]]:
    for package in OURS:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            yield name, is_package, path.read_text(encoding="utf-8")


def test_our_modules_keep_the_arrows(repository: Path) -> None:
    found = [
        f"{module}: {why} ({name})"
        for module, is_package, source in _sources(repository)
        for name in imported(source, module, is_package=is_package)
        if (why := violation(module, name))
    ]
    assert not found, "\n".join(found)


def test_every_foreign_import_is_a_declared_dependency(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[^A-Za-z0-9._-]", entry)[0] for entries in lists for entry in entries}
    declared = {IMPORT_NAMES.get(name, name) for name in names}
    known = declared | set(OURS) | sys.stdlib_module_names | {"?"}
    undeclared = {
        f"{module}: {name}"
        for module, is_package, source in _sources(repository)
        for name in imported(source, module, is_package=is_package)
        if name.partition(".")[0] not in known
    }
    assert not undeclared, "\n".join(sorted(undeclared))


def test_the_tree_has_all_four_packages_to_look_at(repository: Path) -> None:
    seen = {module.partition(".")[0] for module, _, _ in _sources(repository)}
    assert seen == set(OURS)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("schemas.errors", "import registry"),
        ("schemas.errors", "from registry.digest import Digest"),
        ("registry.blobs", "from bundler import create"),
        ("registry.blobs", "import runtime.cli"),
        ("bundler.create", "from runtime import messages"),
        ("bundler.create", "from registry import http"),
        ("runtime.server.app", "import registry.http.app"),
        ("runtime.cli.serve", "from bundler.importer import x"),
        ("runtime.engine.types", "def f():\n    import bundler"),
        (
            "registry.blobs",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bundler",
        ),
        ("registry.blobs", "import importlib\nimportlib.import_module('runtime.cli')"),
        ("registry.blobs", "__import__('bundler')"),
        ("bundler.create", "import importlib\nimportlib.import_module(name)"),
        ("bundler.create", "from tuf.api.metadata import Root"),
        ("bundler.trustworthy", "import tuf"),
        ("bundler.trust.keys", "import zstandard"),
        ("registry.blobs", "import aiohttp"),
        ("runtime.cli.client", "import aiohttp"),
        ("runtime.engine.llama_extra", "import llama_cpp"),
        ("runtime.server.app", "from llama_cpp import llama_cpp"),
        ("runtime.server.app", "import typer"),
        ("registry.store", "import rich"),
        ("registry.gguf", "import gguf"),
    ],
)
def test_a_wrong_import_is_seen(module: str, source: str) -> None:
    assert [name for name in imported(source, module) if violation(module, name)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("registry.blobs", "from schemas.errors import SealiftError"),
        ("bundler.create", "from registry.digest import Digest\nimport schemas.limits"),
        ("bundler.trust.keys", "from securesystemslib.signer import CryptoSigner\nimport tuf"),
        ("bundler.archive.codec", "import zstandard"),
        ("runtime.engine.llama", "def f():\n    import llama_cpp"),
        ("runtime.server.app", "from aiohttp import web"),
        ("registry.http.app", "from aiohttp import web\nfrom registry.http import ranges"),
        ("runtime.cli.main", "def f():\n    from bundler.cli import app\n    import registry.http"),
        ("bundler.cli", "import typer"),
        ("registry.render", "from rich.table import Table"),
    ],
)
def test_a_right_import_is_let_through(module: str, source: str) -> None:
    assert not [name for name in imported(source, module) if violation(module, name)]


@pytest.mark.parametrize(
    ("module", "is_package", "source", "expected"),
    [
        ("registry.gguf.parse", False, "from . import types", "registry.gguf.types"),
        ("registry.gguf", True, "from .parse import f", "registry.gguf.parse.f"),
        ("registry.gguf.parse", False, "from ..digest import D", "registry.digest.D"),
        ("runtime.cli.main", False, "import bundler.cli as b", "bundler.cli"),
    ],
)
def test_relative_imports_are_resolved(
    module: str,
    is_package: bool,
    source: str,
    expected: str,
) -> None:
    assert list(imported(source, module, is_package=is_package)) == [expected]
