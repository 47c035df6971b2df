"""Models as ModelPack artifacts."""

from __future__ import annotations

import pytest

from bundler.modelpack import spdx


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("mit", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("llama3.2", "LicenseRef-llama3.2"),
        ("my own/licence", "LicenseRef-my-own-licence"),
    ],
)
def test_licences_are_written_as_spdx_does(name: str, wanted: str) -> None:
    assert spdx(name) == wanted
