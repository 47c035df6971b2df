"""The header of a real model, against the format's own package and the engine's tables."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest

from bundler.scanning import Severity, scan_header, worst
from registry.gguf import GGUFArray, GGUFText, ValueType, read_header_file
from registry.gguf.tables import REMOVED_TENSOR_TYPES, TENSOR_TYPES

pytestmark = pytest.mark.model


def test_it_reads_as_the_package_reads_it(model_gguf: Path) -> None:
    header = read_header_file(model_gguf)
    oracle = gguf.GGUFReader(model_gguf)
    fields = {key: f for key, f in oracle.fields.items() if not key.startswith("GGUF.")}
    assert list(header.metadata) == list(fields)
    for key, found in fields.items():
        value = header.metadata[key]
        assert header.types[key].value == found.types[0].value
        if isinstance(value, GGUFArray) and value.type is ValueType.STRING:
            items = [found.parts[index].tobytes() for index in found.data]
            assert list(value.byte_strings()) == items, key
        elif isinstance(value, GGUFArray):
            numbers = np.concatenate([found.parts[index] for index in found.data])
            assert np.array_equal(value.values(), numbers), key
        else:
            plain = value.text() if isinstance(value, GGUFText) else value
            assert plain == found.contents(), key
    ours = [
        (t.name, t.dims, t.type, t.size_bytes, header.data_offset + t.offset)
        for t in header.tensors
    ]
    assert ours == [
        (t.name, tuple(map(int, t.shape)), t.tensor_type.name, t.n_bytes, t.data_offset)
        for t in oracle.tensors
    ]


def test_it_is_far_faster_than_the_package(model_gguf: Path) -> None:
    read_header_file(model_gguf)
    began = time.process_time()
    read_header_file(model_gguf)
    ours = time.process_time() - began
    began = time.process_time()
    gguf.GGUFReader(model_gguf)
    theirs = time.process_time() - began
    print(f"header: {1000 * ours:.1f} ms of CPU, the gguf package {1000 * theirs:.0f} ms")
    assert ours * 20 < theirs


def test_it_needs_little_memory(model_gguf: Path) -> None:
    script = (
        "import resource, sys\n"
        "import registry.gguf\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "header = registry.gguf.read_header_file(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(model_gguf)], check=True, capture_output=True, text=True
    )
    assert int(run.stdout) < 40 * 1024  # KiB


def test_our_tensor_types_are_the_engines() -> None:
    package = find_spec("llama_cpp")  # found, not imported: only one library of it is needed
    assert package is not None
    assert package.origin is not None
    library = ctypes.CDLL(str(next(Path(package.origin).parent.glob("lib/libggml-base*"))))
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_size.restype = ctypes.c_size_t
    for number in range(43):
        block, size = library.ggml_blck_size(number), library.ggml_type_size(number)
        if number in REMOVED_TENSOR_TYPES:
            assert (block, size) == (0, 0)
        else:
            assert (TENSOR_TYPES[number].block, TENSOR_TYPES[number].block_bytes) == (block, size)


def test_the_scan_finds_nothing_unusual(model_gguf: Path) -> None:
    found = scan_header(read_header_file(model_gguf))
    assert worst(found) is Severity.INFO, found
