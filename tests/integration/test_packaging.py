"""The wheel, installed where nothing else is: what is in it, and what it needs."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PACKAGES = {"bundler", "registry", "runtime", "schemas"}
SCRIPTS = ("bundle", "sealift")
# Nothing of this is loaded by `--help`, which must answer in under 0.2 s.
HEAVY = {
    "aiohttp",
    "cryptography",
    "jinja2",
    "jsonschema_rs",
    "llama_cpp",
    "numpy",
    "oras",
    "securesystemslib",
    "tuf",
    "zstandard",
}


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree without a network."""
    folder = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], repository)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def verify_only(
    wheel: Path,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A fresh virtual environment with the wheel and the locked base dependencies alone."""
    root = tmp_path_factory.mktemp("fresh")
    venv.create(root / "venv", with_pip=False)
    python = root / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    _run([*pip, "--quiet", "--no-deps", "--no-index", str(wheel)], root)
    borrowed = root / "borrowed"
    borrowed.mkdir()
    lock = (repository / "requirements" / "verify.txt").read_text(encoding="ascii")
    for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE):
        _borrow(name, borrowed)
    (site,) = (root / "venv" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    return root / "venv"


def test_the_wheel_holds_exactly_our_four_packages(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path, repository: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    source = {
        path.relative_to(repository).as_posix()
        for package in PACKAGES
        for path in (repository / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert source <= packed
    assert {f"{package}/py.typed" for package in PACKAGES} <= packed
    assert any(re.fullmatch(r"schemas/files/.+\.schema\.json", name) for name in packed)
    assert any(re.fullmatch(r"registry/migrations/.+\.sql", name) for name in packed)


def test_the_wheel_carries_the_licence(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
        assert archive.read(name) == (repository / "LICENSE").read_bytes()


def test_base_dependencies_are_those_of_a_verifying_host(wheel: Path) -> None:
    base, extras = _dependencies(wheel)
    assert not base & {"llama-cpp-python", "oras", "huggingface-hub", "aiohttp", "numpy"}
    assert {"cryptography", "securesystemslib", "tuf", "zstandard"} <= base
    assert not extras["serve"] & {"oras", "huggingface-hub"}
    assert "llama-cpp-python" not in extras["connect"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run_with_the_base_dependencies_alone(
    verify_only: Path,
    tmp_path: Path,
    name: str,
) -> None:
    python = [str(verify_only / "bin" / "python"), "-X", "importtime"]
    done = _run([*python, str(verify_only / "bin" / name), "--help"], tmp_path)
    assert "Usage" in done.stdout
    loaded = set(re.findall(r"\|\s+([a-z_0-9]+)(?:\.\S+)?$", done.stderr, re.MULTILINE))
    assert "runtime" in loaded or "bundler" in loaded
    assert not loaded & HEAVY


def test_every_module_of_the_verifying_side_imports_without_extras(
    verify_only: Path,
    tmp_path: Path,
) -> None:
    code = (
        "import importlib, pkgutil, bundler, registry, schemas\n"
        "for package in (bundler, registry, schemas):\n"
        "    names = pkgutil.walk_packages(package.__path__, package.__name__ + '.')\n"
        "    for name in (item.name for item in names):\n"
        "        if not name.startswith(('registry.http', 'bundler.sources')):\n"
        "            importlib.import_module(name)\n"
        "print(bundler.__file__)\n"
    )
    done = _run([str(verify_only / "bin" / "python"), "-c", code], tmp_path)
    assert done.stdout.strip().startswith(str(verify_only))


def test_lock_files_agree_and_name_no_host(repository: Path) -> None:
    folder = repository / "requirements"
    pins = {
        path.name: set(re.findall(r"^\S+==\S+", path.read_text(encoding="ascii"), re.MULTILINE))
        for path in folder.glob("*.txt")
    }
    for part in ("verify.txt", "serve.txt", "connect.txt"):
        assert pins[part]
        assert pins[part] <= pins["dev.txt"]
    for path in folder.iterdir():
        text = path.read_text(encoding="ascii")
        assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)
        if path.suffix == ".txt":
            assert text.count("==") <= text.count("--hash=sha256:") + text.count(" ; ")


def _dependencies(wheel: Path) -> tuple[set[str], dict[str, set[str]]]:
    (name,) = (
        name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA")
    )
    with zipfile.ZipFile(wheel) as archive:
        metadata = importlib.metadata.PathDistribution(
            zipfile.Path(archive, f"{name[:-8]}")
        ).requires
    parsed = [Requirement(line) for line in metadata or ()]
    base = {
        entry.name for entry in parsed if entry.marker is None or "extra" not in str(entry.marker)
    }
    extras = {
        extra: {
            entry.name
            for entry in parsed
            if entry.marker
            and "extra" in str(entry.marker)
            and entry.marker.evaluate({"extra": extra})
        }
        for extra in ("serve", "connect")
    }
    return base, extras


def _borrow(name: str, folder: Path) -> None:
    """Links the files of one installed distribution into a folder."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # locked for another Python or platform
    tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
    for top in tops - {"__pycache__"}:
        link = folder / top
        if not link.exists():
            link.symlink_to(Path(str(distribution.locate_file(top))))


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs to the end outside the source tree's reach; the output is part of the failure."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env["NO_COLOR"] = "1"
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done
