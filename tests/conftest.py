"""What all tests share: their own home, the model's path, Hypothesis profiles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Shared machines stall for seconds, so no deadline per example: pytest's timeout is the limit.
settings.register_profile("quick", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the caller's store, passphrases or proxies."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("SEALIFT_", "OLLAMA_", "OPENAI_")) or name.lower() in _PROXIES:
                patch.delenv(name)
        patch.setenv("SEALIFT_HOME", str(tmp_path_factory.mktemp("home") / "sealift"))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def model_gguf() -> Path:
    """The real model's file, as ``make test`` passes it in ``MODEL_GGUF``."""
    path = Path(os.environ.get("MODEL_GGUF", ""))
    if not path.is_file():
        pytest.fail(
            "MODEL_GGUF names no file: run `make test`, or set it to what `make model` prints"
        )
    return path
