"""The processes of a server."""

from __future__ import annotations

import psutil

from runtime.worker import NAME


def workers(front_end: int) -> list[psutil.Process]:
    """Those of its workers that were given a model; one more may wait for one."""
    children = psutil.Process(front_end).children(recursive=True)
    return [child for child in children if child.name() == NAME]
