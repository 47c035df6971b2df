"""Projectors: which headers may reach an engine, and what a model with one is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from registry import oci
from registry.digest import Digest
from registry.gguf import is_projector, projector_bytes, read_header, read_header_file
from registry.modelpack import file_descriptor
from registry.oci import Descriptor
from registry.parts import weights_of
from registry.weights import WeightFacts, together, weight_facts
from schemas.errors import MalformedModel
from tests.gguf_files import tiny_gguf
from tests.support.vision import write_projector

GOOD: dict[str, Any] = {
    "clip.has_vision_encoder": True,
    "clip.projector_type": "mlp",
    "clip.vision.image_size": 56,
    "clip.vision.patch_size": 14,
    "clip.vision.embedding_length": 32,
    "clip.vision.attention.head_count": 2,
    "clip.vision.block_count": 2,
    "clip.vision.feed_forward_length": 64,
    "clip.vision.projection_dim": 64,
    "clip.vision.image_mean": [0.5, 0.5, 0.5],
    "clip.vision.image_std": [0.5, 0.5, 0.5],
}


def header(path: Path, **changes: Any) -> bytes:
    """A projector's header with keys changed, or left out if None; two underscores are a dot."""
    import numpy as np

    writer = gguf.GGUFWriter(path, "clip")
    known = {**GOOD, **{key.replace("__", "."): value for key, value in changes.items()}}
    adders: dict[type, Callable[[str, Any], None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        str: writer.add_string,
        list: writer.add_array,
        float: writer.add_float32,
    }
    for key, value in known.items():
        if value is not None:
            adders[type(value)](key, value)
    writer.add_tensor("v.patch_embd.weight", np.zeros((32, 3, 14, 14), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_a_projector_is_read_where_one_may_be(tmp_path: Path) -> None:
    path = write_projector(tmp_path / "mmproj.gguf")
    found = read_header_file(path, projectors=True)
    assert is_projector(found)
    assert projector_bytes(found) > path.stat().st_size - found.data_offset
    with pytest.raises(
        MalformedModel, match=r"it is a projector.*no model of its own|not taken"
    ) as caught:
        read_header_file(path)
    assert "projector" in caught.value.line()


BROKEN: dict[str, dict[str, Any]] = {
    "sound only": {"clip__has_vision_encoder": False},
    "says nothing": {"clip__has_vision_encoder": None},
    "number for yes": {"clip__has_vision_encoder": 1},
    "no type": {"clip__projector_type": None},
    "long type": {"clip__projector_type": "m" * 41},
    "odd type": {"clip__projector_type": "mlp\n"},
    "no image": {"clip__vision__image_size": None},
    "no pixels": {"clip__vision__image_size": 0},
    "huge image": {"clip__vision__image_size": 2**31},
    "text for a number": {"clip__vision__image_size": "56"},
    "no patch": {"clip__vision__patch_size": 0},
    "patch larger than the image": {"clip__vision__patch_size": 57},
    "no width": {"clip__vision__embedding_length": 0},
    "no heads": {"clip__vision__attention__head_count": 0},
    "heads that do not divide": {"clip__vision__attention__head_count": 3},
    "too many blocks": {"clip__vision__block_count": 513},
    "wide feed-forward": {"clip__vision__feed_forward_length": 2**30},
    "wide projection": {"clip__vision__projection_dim": 2**30},
    "no mean": {"clip__vision__image_mean": None},
    "grey": {"clip__vision__image_std": [0.5]},
    "whole numbers": {"clip__vision__image_std": [1, 1, 1]},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_projector_is_refused(tmp_path: Path, name: str) -> None:
    good = header(tmp_path / "good")
    read_header(good, len(good), projectors=True)
    data = header(tmp_path / "bad", **BROKEN[name])
    with pytest.raises(MalformedModel):
        read_header(data, len(data), projectors=True)


def facts_of(path: Path) -> WeightFacts:
    data = path.read_bytes()
    return weight_facts(io.BytesIO(data), len(data))


def layer(number: int) -> Descriptor:
    return file_descriptor(oci.WEIGHT_RAW, Digest.of(bytes([number])), 1, f"{number}.gguf")


def test_a_model_with_a_projector_sees(tmp_path: Path) -> None:
    model = facts_of(tiny_gguf(tmp_path / "model"))
    sees = facts_of(write_projector(tmp_path / "mmproj"))
    for order, at in (([model, sees], 1), ([sees, model], 0)):
        whole = together(order)
        document = whole.document()
        assert whole.model.architecture == "llama"
        assert whole.model.parameters == model.model.parameters
        assert document["capabilities"][-1] == "vision"
        assert document["projector"]["file"] == at
        assert weights_of([layer(0), layer(1)], document) == (layer(1 - at), layer(at))
    assert "projector" not in together([model]).document()
    assert weights_of([layer(0)], together([model]).document()) == (layer(0), None)


def test_what_is_not_one_of_each_is_not_guessed_at(tmp_path: Path) -> None:
    model = facts_of(tiny_gguf(tmp_path / "model"))
    sees = facts_of(write_projector(tmp_path / "mmproj"))
    for many in ([model, sees, sees], [model, model, sees]):
        document = together(many).document()
        assert "projector" not in document
        assert "vision" not in document["capabilities"]
        assert weights_of([layer(n) for n in range(3)], document) is None
    with pytest.raises(MalformedModel, match="there is no model"):
        together([sees])


@pytest.mark.parametrize("known", [None, 1, {}, {"file": 7}, {"file": -1}, {"file": "0"}])
def test_facts_that_make_no_sense_name_no_projector(known: object) -> None:
    assert weights_of([layer(0)], {"projector": known}) == (layer(0), None)
