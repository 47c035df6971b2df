"""Merkle trees as RFC 6962 §2.1 defines them, over SHA-256. Only hashing: no files, no keys.

A tree of ``n`` leaves only ever grows at its right end. The hashes of its complete subtrees never
change once they are there, so they are stored in the order in which they come to be: each leaf,
followed by every subtree that it completes. Where one lies follows from its level and number
(:func:`position`); everything else is put together from a logarithmic number of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

HASH_BYTES: Final = 32
EMPTY: Final = hashlib.sha256(b"").digest()  # the root of no leaves

# Gives the stored hash at a position.
Stored = Callable[[int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """Of one entry: RFC 6962 §2.1, ``SHA-256(0x00 || entry)``."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of two subtrees: RFC 6962 §2.1, ``SHA-256(0x01 || left || right)``."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def stored_nodes(size: int) -> int:
    """How many complete subtrees, leaves included, a tree of ``size`` leaves has."""
    return 2 * size - size.bit_count()


def tree_size(nodes: int) -> int | None:
    """The inverse of :func:`stored_nodes`; None where no tree has so many."""
    low = nodes // 2
    for size in range(low, low + nodes.bit_length() + 1):
        if stored_nodes(size) == nodes:
            return size
    return None


def position(level: int, number: int) -> int:
    """Where the hash of the ``number``-th complete subtree of ``2**level`` leaves is stored."""
    last = ((number + 1) << level) - 1  # the leaf that completes it
    return stored_nodes(last) + level


class Peaks:
    """The complete subtrees that a tree of some size consists of, the largest first.

    All that is needed to go on: to append, and to tell the root. At most 63 hashes.

    Attributes:
        size: Leaves so far.
        hashes: One per bit of the size.
    """

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.hashes = list(hashes)
        if len(self.hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} peaks")

    @classmethod
    def stored(cls, size: int, stored: Stored) -> Peaks:
        """Read those of a stored tree."""
        return cls(size, map(stored, peak_positions(0, size)))

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf's hash.

        Returns:
            The hashes that are to be stored next, in order: the leaf, and what it completes.
        """
        fresh = [leaf]
        rest = self.size
        while rest & 1:
            fresh.append(node_hash(self.hashes.pop(), fresh[-1]))
            rest >>= 1
        self.hashes.append(fresh[-1])
        self.size += 1
        return fresh

    def root(self) -> bytes:
        """MTH of all leaves so far."""
        return _fold(self.hashes)


def peak_positions(start: int, end: int) -> list[int]:
    """Where the complete subtrees lie of which the leaves from ``start`` to ``end`` consist.

    Args:
        start: The first leaf; a multiple of the largest power of two in ``end - start``.
        end: Behind the last leaf.
    """
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append(position(level, start >> level))
        start += 1 << level
    return found


def completed(size: int, leaf: bytes, stored: Stored) -> list[bytes]:
    """What a leaf adds to a stored tree of ``size`` leaves, in the order in which it is stored.

    Reads what the leaf completes and nothing else: one hash on average.
    """
    fresh, level = [leaf], 0
    while size >> level & 1:
        left = stored(position(level, (size >> level) - 1))
        fresh.append(node_hash(left, fresh[-1]))
        level += 1
    return fresh


def root(size: int, stored: Stored) -> bytes:
    """The root of the first ``size`` leaves of a stored tree."""
    return _range(0, size, stored)


def inclusion(index: int, size: int, stored: Stored) -> list[bytes]:
    """The audit path of a leaf: RFC 6962 §2.1.1, ``PATH(index, D[size])``.

    Args:
        index: Of the leaf, from 0 on.
        size: Of the tree in which it is shown; more than ``index``, no more than is stored.
        stored: Reads hashes.
    """
    low, high, path = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append((middle, high))
            high = middle
        else:
            path.append((low, middle))
            low = middle
    return [_range(*part, stored) for part in reversed(path)]


def consistency(old: int, size: int, stored: Stored) -> list[bytes]:
    """That a tree continues another: RFC 6962 §2.1.2, ``PROOF(old, D[size])``.

    Args:
        old: Size of the earlier tree, from 1 on.
        size: Of the later one; no less than ``old``, no more than is stored.
        stored: Reads hashes.
    """
    low, high, path = 0, size, []
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append((middle, high))
            high = middle
        else:
            path.append((low, middle))
            low = middle
    if low:
        path.append((low, high))
    return [_range(*part, stored) for part in reversed(path)]


def includes(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether a leaf is in the tree of this root: RFC 9162 §2.1.3.2."""
    if not 0 <= index < size:
        return False
    number, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if number & 1 or number == last:
            found = node_hash(step, found)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found = node_hash(found, step)
        number, last = number >> 1, last >> 1
    return last == 0 and found == root


def continues(old: int, size: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether the tree of ``new_root`` begins with that of ``old_root``: RFC 9162 §2.1.4.2."""
    if old == size:
        return not path and old_root == new_root
    if not 0 < old < size or (not path and old.bit_count() != 1):
        return False
    steps = list(path)
    if old.bit_count() == 1:
        steps.insert(0, old_root)
    number, last = old - 1, size - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            after = node_hash(after, step)
        number, last = number >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root


def _split(leaves: int) -> int:
    """The largest power of two smaller than a number of leaves, which is 2 or more."""
    return 1 << ((leaves - 1).bit_length() - 1)


def _range(start: int, end: int, stored: Stored) -> bytes:
    return _fold([stored(at) for at in peak_positions(start, end)])


def _fold(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY
    found = peaks[-1]
    for peak in reversed(peaks[:-1]):
        found = node_hash(peak, found)
    return found
