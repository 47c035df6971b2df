"""Does a model fit in memory? Told from its header alone, before anything is loaded."""

from __future__ import annotations

from runtime.fit.devices import offloads
from runtime.fit.estimate import (
    Estimate,
    embedding,
    estimate,
    longest_context,
    most_sequences,
)
from runtime.fit.gate import Held, Memory, Need, Verdict, placed, shape_at
from runtime.fit.room import Meter, Room
from runtime.fit.shape import Layer, Shape, shape_of

__all__ = [
    "Estimate",
    "Held",
    "Layer",
    "Memory",
    "Meter",
    "Need",
    "Room",
    "Shape",
    "Verdict",
    "embedding",
    "estimate",
    "longest_context",
    "most_sequences",
    "offloads",
    "placed",
    "shape_at",
    "shape_of",
]
