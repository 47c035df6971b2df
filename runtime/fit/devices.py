"""Whether the installed engine can use accelerators, without loading it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

# ggml's backends are libraries of their own (ggml/src/CMakeLists.txt, ggml_add_backend); these two
# compute on the processor.
_PLAIN: Final = ("cpu", "base", "blas")


def offloads() -> bool:
    """Whether the engine was built for accelerators."""
    found = find_spec("llama_cpp")
    if found is None or found.origin is None:
        return False
    libraries = (Path(found.origin).parent / "lib").glob("libggml-*")
    backends = (path.name.removeprefix("libggml-").partition(".")[0] for path in libraries)
    return any(not backend.startswith(_PLAIN) for backend in backends)
