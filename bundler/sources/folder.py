"""A folder with all that belongs to one model, as model hubs lay them out.

Which layer a file becomes follows from its name (CNCF model-spec, "Layer media types"): weights,
their configuration (tokenizers too), documents, code, data. What would run code when it is merely
loaded does not travel, and no file is left out in silence: whoever signs must know what is signed.
Hidden files are left out: they belong to tools (version control, download caches).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundler.checks import check_file_names, is_plain_path
from bundler.files import open_regular
from bundler.sources.model import SourceFile
from registry import oci
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import (
    InvalidName,
    MalformedDocument,
    NotFound,
    UnsupportedRequest,
    UsageError,
)

_WEIGHTS: Final = frozenset({".gguf", ".safetensors"})
_DOCUMENTS: Final = frozenset({".md", ".pdf", ".rst", ".png", ".jpg", ".jpeg", ".gif", ".svg"})
_DOCUMENT_NAMES: Final = ("readme", "license", "licence", "notice", "copying", "citation")
_CODE: Final = frozenset({".py", ".ipynb", ".sh"})
_DATA: Final = frozenset({".parquet", ".csv", ".tsv", ".jsonl", ".arrow"})

# Python's pickle by any name: loading one runs whatever its maker wrote.
_PICKLES: Final = frozenset(
    {".bin", ".ckpt", ".dill", ".joblib", ".mar", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
)
# Keras files may hold marshalled Python functions; the rest are weights that nobody here can check.
_OTHER_WEIGHTS: Final = frozenset(
    {".engine", ".h5", ".hdf5", ".keras", ".mlmodel", ".msgpack", ".onnx", ".pb", ".tflite"}
)
_PICKLE_MAGIC: Final = re.compile(rb"\x80[\x02-\x05]")  # opcode PROTO and its argument
_ZIP_MAGIC: Final = b"PK\x03\x04"  # PyTorch's own container, and NumPy's
_CONFIG_BYTES: Final = 1 * limits.MIB
_README_BYTES: Final = 64 * limits.KIB
# Not parsed: it is other people's JSON, with floats, and only this is wanted of it.
_MODEL_TYPE: Final = re.compile(rb'"model_type"\s*:\s*"([A-Za-z0-9._-]{1,80})"')
_LICENSE: Final = re.compile(r"^license:[ \t]*[\"']?([A-Za-z0-9][A-Za-z0-9.+-]{0,60})[\"']?[ \t]*$")


@dataclass(frozen=True, slots=True)
class Folder:
    """What was found.

    Attributes:
        files: Weights first, then the rest, each by name.
        architecture: As ``config.json`` calls it; empty where it says nothing.
        license: As the front of ``README.md`` says; likewise.
    """

    files: tuple[SourceFile, ...]
    architecture: str
    license: str


def look_into(folder: Path) -> Folder:
    """Find a model's files.

    Raises:
        NotFound: There are no weights.
        UnsupportedRequest: A file may run code when it is loaded, or is of a kind that cannot be
            checked.
        UsageError: Too many files; one that is empty; or one that leads out of the folder.
        InvalidName: A file's name cannot travel.
        StorageFailure: It cannot be read.
    """
    with storage_errors(f"cannot read {folder}"):
        paths = list(_files(folder))
        found = [_file(folder, path) for path in paths]
    if not any(file.media_type == oci.WEIGHT_RAW for file in found):
        raise NotFound(
            f"there is no model in {folder}",
            why="it has no .gguf and no .safetensors file",
            hint="Give the folder that the weights lie in",
        )
    try:
        check_file_names([file.name for file in found])
    except MalformedDocument as error:
        raise InvalidName(error.what, why=error.why, hint="Rename one of them") from None
    order = [*oci.LAYER_KINDS]
    files = sorted(found, key=lambda file: (order.index(file.media_type), file.name))
    return Folder(tuple(files), _architecture(folder), _license(folder))


def _files(folder: Path) -> Iterator[Path]:
    """All files below, hidden ones left out; no more than a model may have."""
    count = 0
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            count += 1
            if count > limits.MODEL_FILES:
                raise UsageError(
                    f"there are more than {limits.MODEL_FILES} files in {folder}",
                    hint="Give the folder of one model",
                )
            yield Path(place, name)


def _raise(error: OSError) -> None:
    raise error


def _file(folder: Path, path: Path) -> SourceFile:
    name = path.relative_to(folder).as_posix()
    if not is_plain_path(name):
        raise InvalidName(
            f"the file name {name[:120]!r} cannot travel",
            why="it has characters that some system would stumble over",
            hint="Rename the file",
        )
    _check_place(folder, path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        front = file.read(512)
    if not size:
        raise UsageError(f"{path} is empty", hint="Remove it: nothing of it could travel")
    _check_kind(path, front)
    return SourceFile(path, name, _media_type(path), size)


def _check_place(folder: Path, path: Path) -> None:
    """Links may not lead to just anywhere: a model that was fetched could name any file here."""
    real = path.resolve()
    allowed = [folder.resolve()]
    if folder.absolute().parent.name == "snapshots":  # a download cache: snapshots link to blobs
        allowed.append((folder.absolute().parent.parent / "blobs").resolve())
    if not any(real.is_relative_to(place) for place in allowed):
        raise UsageError(
            f"{path} is a link that leads out of the folder",
            why=str(real),
            hint="Put a copy in its place if it belongs to the model",
        )


def _check_kind(path: Path, front: bytes) -> None:
    suffix = path.suffix.lower()
    if suffix in _WEIGHTS:
        return  # its header is checked
    pickled = _PICKLE_MAGIC.match(front) or front.startswith(_ZIP_MAGIC)
    if suffix in _PICKLES or pickled:
        raise UnsupportedRequest(
            f"{path.name} does not travel",
            why="it is, or may hold, a Python pickle, which runs code when it is loaded",
            hint="Convert it to safetensors, or move it out of the folder",
        )
    if suffix in _OTHER_WEIGHTS:
        raise UnsupportedRequest(
            f"{path.name} does not travel",
            why="weights of this format cannot be checked; GGUF and safetensors can",
            hint="Convert it, or move it out of the folder",
        )


def _media_type(path: Path) -> str:
    suffix, name = path.suffix.lower(), path.name.lower()
    if suffix in _WEIGHTS:
        return oci.WEIGHT_RAW
    if suffix in _DOCUMENTS or name.startswith(_DOCUMENT_NAMES):
        return oci.DOC_RAW
    if suffix in _CODE:
        return oci.CODE_RAW
    return oci.DATASET_RAW if suffix in _DATA else oci.WEIGHT_CONFIG_RAW


def _architecture(folder: Path) -> str:
    """``LlamaForCausalLM`` says more than ``llama``, but model hubs and engines agree on this."""
    match = _MODEL_TYPE.search(_front(folder / "config.json", _CONFIG_BYTES))
    return match[1].decode() if match else ""


def _license(folder: Path) -> str:
    """From the front matter of the model's card, which model hubs ask for."""
    lines = _front(folder / "README.md", _README_BYTES).decode("utf-8", "replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    for line in lines[1:]:
        if line.strip() == "---":
            break
        if match := _LICENSE.match(line):
            return match[1]
    return ""


def _front(path: Path, size: int) -> bytes:
    try:
        with open_regular(path) as file, storage_errors(f"cannot read {path}"):
            return file.read(size)
    except NotFound:
        return b""
