"""What `make bench` measures: one module per figure, each beside a public tool in the same run."""

from __future__ import annotations

from typing import Final

# Name on the command line to module with ``measure(bench) -> Section | None``, in this order.
FIGURES: Final = {
    "import": "importing",
    "create": "creating",
    "rss": "memory",
    "disk": "disk",
    "scale": "scale",
    "startup": "startup",
    "tokens": "tokens",
    "serving": "serving",
    "soak": "soak",
    "compression": "compression",
    "delta": "delta",
    "parity": "parity",
    "trusting": "trusting",
    "audit": "audit",
    "fuzz": "fuzzing",
}
