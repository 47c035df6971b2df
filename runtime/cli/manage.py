"""Commands that have the server make, bring and give away models: create, pull, push."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.cli import JsonFlag, Output
from schemas.errors import MalformedDocument, NotFound, StorageFailure, UnsupportedRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runtime.client import Client
    from runtime.modelfile import Instruction
    from schemas.render import Meter

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="As in library/smollm2:135m.")]
_Insecure = Annotated[
    bool, typer.Option("--insecure", hidden=True, help="As Ollama's; has no effect here.")
]


def create(
    model: ModelName,
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="The Modelfile; - reads it piped.")
    ] = "Modelfile",
    *,
    quantize: Annotated[
        str, typer.Option("--quantize", "-q", metavar="TYPE", help="To fewer bits: q4_K_M, q8_0, …")
    ] = "",
    json: JsonFlag = False,
) -> None:
    """Make a model out of another one, or of a GGUF file, by a Modelfile."""
    from runtime.cli.talk import connect
    from runtime.modelfile import parse

    output = Output(json=json)
    text, folder = _modelfile(file)
    body = {"model": model, "quantize": quantize or None, "stream": True}
    client = connect()
    body |= _request(parse(text), folder, client, output)
    body = {key: value for key, value in body.items() if value is not None}
    _follow(client.stream("/api/create", body), output)
    output.result({"model": model, "status": "success"})


def pull(
    model: ModelName,
    *,
    insecure: _Insecure = False,  # noqa: ARG001 - typed out of habit
    json: JsonFlag = False,
) -> None:
    """Bring a model from this site's mirror, where the server has one."""
    _transfer("/api/pull", model, json=json)


def push(
    model: ModelName,
    *,
    insecure: _Insecure = False,  # noqa: ARG001 - typed out of habit
    json: JsonFlag = False,
) -> None:
    """Give a model to this site's mirror, where the server has one."""
    _transfer("/api/push", model, json=json)


def _transfer(path: str, model: str, *, json: bool) -> None:
    from runtime.cli.talk import connect

    output = Output(json=json)
    transfer(connect(), path, model, output)
    output.result({"model": model, "status": "success"})


def transfer(client: Client, path: str, model: str, output: Output) -> None:
    """Have the server pull or push, and show how far it is."""
    _follow(client.stream(path, {"model": model, "stream": True}), output)


def _follow(lines: Iterable[dict[str, Any]], output: Output) -> None:
    """Show what the server tells of its work, and how far it is."""
    with output.progress() as meter:
        status, done = "", 0
        for line in lines:
            if not isinstance(line.get("total"), int):
                output.note(str(line.get("status") or ""))
                continue
            if line.get("status") != status:
                status, done = str(line.get("status")), 0
                meter.begin(status, line["total"])
            completed = line.get("completed")
            if isinstance(completed, int):
                meter.advance(completed - done)
                done = completed


def _modelfile(name: str) -> tuple[str, Path]:
    """Its text, and the folder that its paths start from."""
    from schemas import limits

    try:
        if name == "-":
            data, folder = sys.stdin.buffer.read(4 * limits.MODELFILE_CHARS + 1), Path()
        else:
            path = Path(name).expanduser()
            with path.open("rb") as opened:
                data, folder = opened.read(4 * limits.MODELFILE_CHARS + 1), path.parent
    except FileNotFoundError:
        raise NotFound(f"there is no {name}", hint="Name the Modelfile with -f") from None
    except OSError as error:
        raise StorageFailure(f"cannot read {name}", why=str(error.strerror)) from None
    try:
        return data.decode("utf-8"), folder
    except UnicodeDecodeError:
        raise MalformedDocument(f"{name} is no UTF-8") from None


def _request(
    instructions: Sequence[Instruction], folder: Path, client: Client, output: Output
) -> dict[str, Any]:
    """The body of ``/api/create``; files that it names are uploaded first."""
    from runtime.modelfile import last, parameters

    named = {each.name for each in instructions}
    for name in ("draft", "renderer", "parser"):
        if name in named:
            raise UnsupportedRequest(f"{name.upper()} is not supported")
    values, dropped = parameters(instructions)
    for name in dropped:
        output.warn(f"parameter {name} is deprecated")
    body: dict[str, Any] = {
        "template": last(instructions, "template"),
        "system": last(instructions, "system"),
        "parameters": values or None,
        "license": [each.value for each in instructions if each.name == "license"] or None,
        "messages": [
            {"role": each.key, "content": each.value}
            for each in instructions
            if each.name == "message"
        ]
        or None,
    }
    sources = [each.value for each in instructions if each.name == "from"]
    adapters = [each.value for each in instructions if each.name == "adapter"]
    found = _adapters(adapters, folder, client, output)
    return {**body, **found, **_sources(sources, folder, client, output)}


def _sources(
    sources: Iterable[str], folder: Path, client: Client, output: Output
) -> dict[str, Any]:
    """``from`` or ``files``: a FROM that names a file here is uploaded, another is a model."""
    base, files = None, {}
    with output.progress() as meter:
        for source in sources:
            path = folder / Path(source).expanduser()
            if not path.exists():
                base = source
                continue
            for file in _files(path):
                files[file.name] = _upload(client, file, meter)
    return {"files": files} if files else {"from": base}


def _adapters(names: Iterable[str], folder: Path, client: Client, output: Output) -> dict[str, Any]:
    """``adapters``: the files are uploaded."""
    found = {}
    with output.progress() as meter:
        for name in names:
            path = folder / Path(name).expanduser()
            if not path.is_file():
                raise NotFound(f"there is no {name}", hint="ADAPTER names a GGUF file")
            found[path.name] = _upload(client, path, meter)
    return {"adapters": found} if found else {}


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.gguf"))
    if not found:
        raise UnsupportedRequest(f"there is no GGUF file in {path}")
    return found


def _upload(client: Client, path: Path, meter: Meter) -> str:
    """Have the server hold a file's bytes; returns their digest."""
    from registry.verify import digest_stream

    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            meter.begin(f"hashing {path.name}", size)
            digest = str(digest_stream(file, size, meter.advance))
            if not client.has_blob(digest):
                file.seek(0)
                meter.begin(f"copying {path.name}", size)
                client.put_blob(digest, _Counted(file, meter), size)
    except OSError as error:
        raise StorageFailure(f"cannot read {path}", why=str(error.strerror)) from None
    return digest


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: Any, meter: Meter) -> None:
        self._file = file
        self._meter = meter

    def read(self, n: int = -1, /) -> bytes:
        """Up to ``n`` bytes."""
        data: bytes = self._file.read(n)
        self._meter.advance(len(data))
        return data
