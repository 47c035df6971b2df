"""Deltas from end to end: index of the old blob, recipe, stored form, rebuilt blob."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundler.archive import delta
from bundler.archive.codec import Compression, Encoding
from bundler.archive.pieces import Segment
from bundler.archive.rebuild import Rebuilt, rebuild
from bundler.archive.recipe import RECIPE_BYTES, check_bases
from bundler.chunks.recipes import LEAST_COPIED, Delta
from registry.digest import Digest
from schemas import limits
from schemas.errors import ContentMismatch, MalformedArchive
from tests.gguf_files import Pieces, string, strings
from tests.gguf_files import tensor as gguf_tensor
from tests.support.deltas import Open, delta_of, digest_of, noise, safetensors_file

LAYERS = {f"blk.{number}": noise(300_000 + number * 10_007, number) for number in range(12)}


@dataclass(frozen=True)
class Sent:
    """What a bundle carries of a delta; segments and size are signed."""

    bases: tuple[Digest, ...]
    size: int
    segments: tuple[Segment, ...]
    stored: tuple[bytes, ...]

    @property
    def stored_size(self) -> int:
        return sum(segment.size for segment in self.segments)


def send(path: Path, made: Delta, mode: Compression = Compression.AUTO) -> Sent:
    with path.open("rb") as file:
        pieces = list(delta.store_delta(made.recipe, file.fileno(), mode=mode))
    return Sent(
        made.bases,
        made.recipe.size,
        tuple(piece.segment for piece in pieces),
        tuple(piece.data for piece in pieces),
    )


def receive(
    sent: Sent, bases: Sequence[Path], out: Path, digest: Digest, stored: Sequence[bytes] = ()
) -> Rebuilt:
    stored = stored or sent.stored
    check_bases(digest, sent.bases)
    first = stored[0][: delta.recipe_size(sent.segments)]
    sizes = [base.stat().st_size for base in bases]
    recipe = delta.read_recipe(first, sent.segments, size=sent.size, base_sizes=sizes)
    with Open(out, *bases) as fds:
        literals = delta.read_literals(stored[1:], sent.segments, recipe)
        return rebuild(recipe, fds.bases, literals, fds.out, digest)


def carried(new: Path, *bases: Path) -> Sent:
    """Make, send, receive and compare."""
    made = delta_of(new, bases)
    assert made is not None
    sent = send(new, made)
    by_digest = {digest_of(base): base for base in bases}
    out = new.with_suffix(".out")
    receive(sent, [by_digest[digest] for digest in sent.bases], out, digest_of(new))
    assert out.read_bytes() == new.read_bytes()
    return sent


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return safetensors_file(tmp_path / "old", LAYERS)


def test_longer_metadata_shift_everything_and_cost_next_to_nothing(
    tmp_path: Path, old: Path
) -> None:
    new = safetensors_file(tmp_path / "new", LAYERS, {"note": "x" * 1001})
    sent = carried(new, old)
    assert sent.stored_size < 0.005 * new.stat().st_size


def test_one_layer_of_twelve_costs_one_twelfth(tmp_path: Path, old: Path) -> None:
    new = safetensors_file(tmp_path / "new", LAYERS | {"blk.5": noise(len(LAYERS["blk.5"]), 99)})
    sent = carried(new, old)
    assert sent.stored_size < len(LAYERS["blk.5"]) + 2000


def test_layers_in_another_order_and_from_two_models(tmp_path: Path, old: Path) -> None:
    other = safetensors_file(tmp_path / "other", {"a": noise(700_000, 50), "b": noise(5, 51)})
    merged = dict(reversed(LAYERS.items())) | {"a": noise(700_000, 50)}
    new = safetensors_file(tmp_path / "new", merged)
    sent = carried(new, old, other)
    assert set(sent.bases) == {digest_of(old), digest_of(other)}
    assert sent.stored_size < 5000


def gguf(path: Path, *, name: str, layers: Sequence[bytes]) -> Path:
    """A GGUF of 8-bit tensors, none of whole alignment, with a vocabulary to fill the header."""
    entries = []
    data = b""
    for number, layer in enumerate(layers):
        entries.append(gguf_tensor(f"blk.{number}.weight", (len(layer),), 24, len(data)))
        data += layer + bytes(-len(layer) % 32)
    pieces = (
        Pieces(tensors=tuple(entries), data_bytes=0)
        .with_value("general.name", string(name))
        .with_value("tokenizer.ggml.tokens", strings(*(f"token-{n}" for n in range(4000))))
        .without("tokenizer.ggml.scores")
        .without("tokenizer.ggml.token_type")
    )
    path.write_bytes(pieces.build() + data)
    return path


def test_gguf_with_a_longer_name(tmp_path: Path) -> None:
    layers = [noise(200_001 + 7 * number, number) for number in range(6)]
    before = gguf(tmp_path / "old", name="short", layers=layers)
    after = gguf(tmp_path / "new", name="much longer than it was before" * 3, layers=layers)
    sent = carried(after, before)
    assert sent.stored_size < 20_000 < after.stat().st_size // 50


def test_files_without_a_table(tmp_path: Path) -> None:
    old = tmp_path / "old"
    new = tmp_path / "new"
    data = noise(5_000_000, 1)
    old.write_bytes(data)
    new.write_bytes(data[:1_000_000] + b"inserted" + data[1_000_000:4_000_000])
    sent = carried(new, old)
    assert sent.stored_size < 600_000


def test_literals_are_compressed_when_that_pays(tmp_path: Path, old: Path) -> None:
    text = b"some text that is all but new " * 20_000
    new = safetensors_file(tmp_path / "new", LAYERS | {"text": text})
    made = delta_of(new, [old])
    assert made is not None
    packed, plain = (send(new, made, mode) for mode in (Compression.AUTO, Compression.NONE))
    assert packed.stored_size < 20_000 < len(text) < plain.stored_size
    for sent in (packed, plain):
        receive(sent, [old], tmp_path / "out", digest_of(new))


def test_literals_of_many_pieces(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(limits, "SAMPLE_BYTES", 50_000)
    new = safetensors_file(tmp_path / "new", LAYERS | {"new": noise(555_555, 9)})
    assert len(carried(new, old).segments) == 7


def test_nothing_but_copies(tmp_path: Path) -> None:
    data = noise(3_000_000, 4)
    (tmp_path / "old").write_bytes(data)
    (tmp_path / "new").write_bytes(data + data)
    made = delta_of(tmp_path / "new", [tmp_path / "old"])
    assert made is not None
    assert made.recipe.literal_size < 600_000
    tensors = {"a": noise(200_000, 1), "b": noise(200_000, 2)}
    safetensors_file(tmp_path / "old", tensors, {"v": "1"})
    safetensors_file(tmp_path / "twice", tensors, {"v": "1"})
    assert delta_of(tmp_path / "twice", [tmp_path / "old"]) is None  # it is the same blob


def test_no_delta_where_little_is_alike(tmp_path: Path, old: Path) -> None:
    strange = safetensors_file(tmp_path / "strange", {"x": noise(3_000_000, 77)})
    assert delta_of(strange, [old]) is None
    assert delta_of(old, []) is None
    share = int(3_000_000 * LEAST_COPIED)
    below = {"x": noise(3_000_000, 78), "y": LAYERS["blk.0"][: share - 40_000]}
    base = safetensors_file(tmp_path / "base", {"y": below["y"]})
    assert delta_of(safetensors_file(tmp_path / "below", below), [base]) is None


def test_no_delta_where_it_would_be_too_long(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECIPE_OPERATIONS", 5)
    new = safetensors_file(tmp_path / "new", dict(reversed(LAYERS.items())))
    assert delta_of(new, [old]) is None


def test_bases_beyond_the_limit_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECIPE_BASES", 2)
    bases = [safetensors_file(tmp_path / name, {name: data}) for name, data in LAYERS.items()]
    new = safetensors_file(tmp_path / "new", LAYERS)
    made = delta_of(new, bases)
    assert made is not None
    assert len(made.bases) == 2


def test_padding_is_copied_in_its_place_and_nowhere_else(tmp_path: Path) -> None:
    """Sixteen zeros are found everywhere; an operation for them would cost more than they do."""
    layers = [noise(100_001, number) for number in range(40)]
    before = gguf(tmp_path / "old", name="a", layers=layers)
    after = gguf(
        tmp_path / "new", name="a", layers=[*layers[:20], noise(100_001, 99), *layers[21:]]
    )
    made = delta_of(after, [before])
    assert made is not None
    assert len(made.recipe) == 3


Attack = Callable[[Sent], Sequence[bytes]]


def flip(sent: Sent, number: int) -> list[bytes]:
    parts = list(sent.stored)
    parts[number] = parts[number][:-1] + bytes([parts[number][-1] ^ 1])
    return parts


ATTACKS: dict[str, Attack] = {
    "recipe-flipped": lambda sent: flip(sent, 0),
    "literals-flipped": lambda sent: flip(sent, 1),
    "recipe-cut": lambda sent: [sent.stored[0][:-20], *sent.stored[1:]],
    "literals-cut": lambda sent: [sent.stored[0], sent.stored[1][:-1]],
    "literals-for-recipe": lambda sent: [sent.stored[1], sent.stored[1]],
    "recipe-for-literals": lambda sent: [sent.stored[0], sent.stored[0]],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_changed_bytes_are_seen(attack: str, tmp_path: Path, old: Path) -> None:
    new = safetensors_file(tmp_path / "new", LAYERS | {"new": noise(100_000, 9)})
    made = delta_of(new, [old])
    assert made is not None
    sent = send(new, made)
    with pytest.raises(ContentMismatch):
        receive(sent, [old], tmp_path / "out", digest_of(new), ATTACKS[attack](sent))


def test_a_signed_delta_of_wrong_segments_is_refused(tmp_path: Path, old: Path) -> None:
    new = safetensors_file(tmp_path / "new", LAYERS | {"new": noise(100_000, 9)})
    made = delta_of(new, [old])
    assert made is not None
    sent = send(new, made)
    for wrong in ([], [Segment(RECIPE_BYTES + 1, Digest.of(b""))]):
        with pytest.raises(MalformedArchive, match="start with a recipe"):
            delta.recipe_size(wrong)
    for segments in (sent.segments[:1], (*sent.segments, sent.segments[1])):
        with pytest.raises(MalformedArchive, match="segments"):
            delta.read_recipe(
                sent.stored[0], segments, size=sent.size, base_sizes=[old.stat().st_size]
            )
    with pytest.raises(MalformedArchive, match="signed are others"):
        delta.read_recipe(
            sent.stored[0], sent.segments, size=sent.size - 1, base_sizes=[old.stat().st_size]
        )


def test_an_identity_piece_of_another_length_is_refused(tmp_path: Path, old: Path) -> None:
    new = safetensors_file(tmp_path / "new", LAYERS | {"new": noise(100_000, 9)})
    made = delta_of(new, [old])
    assert made is not None
    sent = send(new, made, Compression.NONE)
    short = sent.stored[1][:-1]
    wrong = Sent(
        sent.bases,
        sent.size,
        (sent.segments[0], Segment(len(short), Digest.of(short))),
        (sent.stored[0], short),
    )
    with pytest.raises(MalformedArchive, match="no piece"):
        receive(wrong, [old], tmp_path / "out", digest_of(new))


def test_a_base_that_rotted_since_is_seen(tmp_path: Path, old: Path) -> None:
    new = safetensors_file(tmp_path / "new", LAYERS | {"blk.5": noise(1000, 99)})
    made = delta_of(new, [old])
    assert made is not None
    sent = send(new, made)
    data = bytearray(old.read_bytes())
    data[len(data) // 4] ^= 1
    old.write_bytes(data)
    with pytest.raises(ContentMismatch, match="came out wrong"):
        receive(sent, [old], tmp_path / "out", digest_of(new))


def test_a_source_that_shrinks_while_it_is_bundled_is_seen(tmp_path: Path, old: Path) -> None:
    new = safetensors_file(tmp_path / "new", LAYERS | {"new": noise(100_000, 9)})
    made = delta_of(new, [old])
    assert made is not None
    new.write_bytes(new.read_bytes()[:-50_000])
    with pytest.raises(ContentMismatch, match="too early"):
        send(new, made)


def test_literals_read_as_one_stream(tmp_path: Path, old: Path) -> None:
    new = safetensors_file(
        tmp_path / "new", LAYERS | {"blk.3": noise(5000, 9), "blk.7": noise(7000, 8)}
    )
    made = delta_of(new, [old])
    assert made is not None
    with new.open("rb") as file:
        whole = delta.LiteralReader(made.recipe, file.fileno()).read()
        assert len(whole) == made.recipe.literal_size
        reader = delta.LiteralReader(made.recipe, file.fileno())
        assert b"".join(iter(lambda: reader.read(999), b"")) == whole
        assert reader.sample(4000, 5000) == whole[4000:9000]
    assert noise(5000, 9) + noise(7000, 8) in whole


def test_the_encoding_of_the_literals_is_part_of_the_recipe(tmp_path: Path, old: Path) -> None:
    new = safetensors_file(tmp_path / "new", LAYERS | {"text": b"again and again " * 20_000})
    made = delta_of(new, [old])
    assert made is not None
    sent = send(new, made)
    sizes = [old.stat().st_size]
    recipe = delta.read_recipe(sent.stored[0], sent.segments, size=sent.size, base_sizes=sizes)
    assert recipe.encoding is Encoding.ZSTD
