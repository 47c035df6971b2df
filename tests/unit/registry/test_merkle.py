"""Merkle trees: published vectors, and a second implementation straight from the definitions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import merkle

# The leaves and roots of the reference test of Certificate Transparency
# (google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {  # the first leaf is 0 here
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def grow(entries: Sequence[bytes]) -> tuple[merkle.Peaks, list[bytes]]:
    """The tree, and all that is stored of it."""
    peaks, nodes = merkle.Peaks(), list[bytes]()
    for entry in entries:
        wanted = merkle.completed(peaks.size, merkle.leaf_hash(entry), nodes.__getitem__)
        nodes += peaks.append(merkle.leaf_hash(entry))
        assert nodes[-len(wanted) :] == wanted
    return peaks, nodes


def mth(entries: Sequence[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\1" + mth(entries[:k]) + mth(entries[k:])).digest()


def path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 §2.1.1, word for word."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def subproof(m: int, entries: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """RFC 6962 §2.1.2, word for word."""
    if m == len(entries):
        return [] if whole else [mth(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], whole=whole), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], whole=False), mth(entries[:k])]


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def test_published_roots() -> None:
    for size, wanted in enumerate(ROOTS):
        peaks, nodes = grow(LEAVES[:size])
        assert peaks.root().hex() == wanted
        assert merkle.root(size, nodes.__getitem__).hex() == wanted


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_published_inclusion(index: int, size: int) -> None:
    _, nodes = grow(LEAVES)
    found = merkle.inclusion(index, size, nodes.__getitem__)
    assert [step.hex() for step in found] == INCLUSION[index, size]


@pytest.mark.parametrize(("old", "size"), CONSISTENCY)
def test_published_consistency(old: int, size: int) -> None:
    _, nodes = grow(LEAVES)
    found = merkle.consistency(old, size, nodes.__getitem__)
    assert [step.hex() for step in found] == CONSISTENCY[old, size]


def test_every_small_tree_against_the_definitions() -> None:
    entries = [f"{number}".encode() for number in range(40)]
    _, nodes = grow(entries)
    for size in range(len(entries) + 1):
        wanted = mth(entries[:size])
        assert merkle.root(size, nodes.__getitem__) == wanted
        assert merkle.Peaks.stored(size, nodes.__getitem__).root() == wanted
        for index in range(size):
            found = merkle.inclusion(index, size, nodes.__getitem__)
            assert found == path(index, entries[:size])
            assert merkle.includes(merkle.leaf_hash(entries[index]), index, size, found, wanted)
        for old in range(1, size + 1):
            steps = merkle.consistency(old, size, nodes.__getitem__)
            assert steps == subproof(old, entries[:size], whole=True)
            assert merkle.continues(old, size, steps, mth(entries[:old]), wanted)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=300), st.data())
def test_larger_trees_against_the_definitions(entries: list[bytes], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(entries)))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    peaks, nodes = grow(entries)
    assert peaks.root() == mth(entries)
    assert len(nodes) == merkle.stored_nodes(len(entries))
    assert merkle.inclusion(index, size, nodes.__getitem__) == path(index, entries[:size])
    steps = merkle.consistency(old, size, nodes.__getitem__)
    assert steps == subproof(old, entries[:size], whole=True)


@given(st.integers(0, 2**62))
def test_number_of_nodes_tells_the_size(size: int) -> None:
    assert merkle.tree_size(merkle.stored_nodes(size)) == size


def test_numbers_of_nodes_that_no_tree_has() -> None:
    known = {merkle.stored_nodes(size) for size in range(200)}
    for nodes in range(200):
        assert (merkle.tree_size(nodes) is not None) == (nodes in known)


@given(st.integers(2, 120), st.data())
def test_no_other_leaf_index_size_path_or_root_passes(size: int, data: st.DataObject) -> None:
    entries = [f"{number}".encode() for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    _, nodes = grow(entries)
    leaf, root = merkle.leaf_hash(entries[index]), mth(entries)
    steps = merkle.inclusion(index, size, nodes.__getitem__)
    assert merkle.includes(leaf, index, size, steps, root)
    at = data.draw(st.integers(0, len(steps) - 1))
    forged = [*steps[:at], bytes(32), *steps[at + 1 :]]
    assert not merkle.includes(merkle.leaf_hash(b"else"), index, size, steps, root)
    assert not merkle.includes(leaf, (index + 1) % size, size, steps, root)
    assert not merkle.includes(leaf, size, size, steps, root)
    assert not merkle.includes(leaf, index, size, forged, root)
    assert not merkle.includes(leaf, index, size, steps[:-1], root)
    assert not merkle.includes(leaf, index, size, [*steps, root], root)
    assert not merkle.includes(leaf, index, size, steps, leaf)


@given(st.integers(2, 120), st.data())
def test_no_forged_continuation_passes(size: int, data: st.DataObject) -> None:
    entries = [f"{number}".encode() for number in range(size)]
    old = data.draw(st.integers(1, size - 1))
    _, nodes = grow(entries)
    before, after = mth(entries[:old]), mth(entries)
    steps = merkle.consistency(old, size, nodes.__getitem__)
    assert merkle.continues(old, size, steps, before, after)
    at = data.draw(st.integers(0, len(steps) - 1))
    forged = [*steps[:at], bytes(32), *steps[at + 1 :]]
    assert not merkle.continues(old, size, forged, before, after)
    assert not merkle.continues(old, size, steps[:-1], before, after)
    assert not merkle.continues(old, size, [*steps, after], before, after)
    assert not merkle.continues(old, size, steps, after, after)
    assert not merkle.continues(old, size, steps, before, before)
    rewritten = [b"else", *entries[1:]]
    assert not merkle.continues(old, size, steps, mth(rewritten[:old]), after)
    assert not merkle.continues(size, old, steps, after, before)


def test_peaks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="2 peaks"):
        merkle.Peaks(3, [merkle.EMPTY])
