"""The process sandbox: what a worker and the front-end can no longer do once they have called it.

>>> report = confine_worker(readable=[model], keep_descriptors=[channel.fileno()])  # doctest: +SKIP

seccomp is mandatory and fails closed. Namespaces and Landlock are taken where the machine gives
them; the report says which.
"""

from __future__ import annotations

from runtime.sandbox.confine import (
    confine_courier,
    confine_front_end,
    confine_quantizer,
    confine_worker,
)
from runtime.sandbox.egress import EgressAttempt, attempt_all
from runtime.sandbox.report import SandboxReport

__all__ = [
    "EgressAttempt",
    "SandboxReport",
    "attempt_all",
    "confine_courier",
    "confine_front_end",
    "confine_quantizer",
    "confine_worker",
]
