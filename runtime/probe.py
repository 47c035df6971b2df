"""A process that confines itself as a worker or the front-end does, tries to get out, and tells.

Run as ``python -I -m runtime.probe worker`` (or ``front-end``, or ``unconfined`` as the control):
one JSON document on standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

from runtime.sandbox import SandboxReport, attempt_all, confine_front_end, confine_worker
from schemas import limits
from schemas.errors import SandboxUnavailable, SealiftError

PROCESSES: Final = ("worker", "front-end", "unconfined")


def probe(process: str) -> dict[str, Any]:
    """Start such a process and return what it tells.

    Returns:
        ``sandbox``: a :class:`SandboxReport` as JSON, None for the control; ``attempts``: a list of
        :class:`~runtime.sandbox.EgressAttempt` as JSON.

    Raises:
        SandboxUnavailable: It could not be confined, or did not survive it.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "runtime.probe", process],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=limits.PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise SandboxUnavailable(f"a confined {process} did not answer") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = lines[-1] if lines else f"exit status {done.returncode}"
        raise SandboxUnavailable(f"a {process} cannot be confined", why=why)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _confine(process: str) -> SandboxReport | None:
    if process == "worker":
        return confine_worker(readable=(), keep_descriptors=())
    return confine_front_end(keep_descriptors=()) if process == "front-end" else None


def _child(process: str) -> int:
    try:
        report = _confine(process)
    except SealiftError as error:
        sys.stderr.write(f"{error.line()}\n")
        return error.exit_code
    document = {
        "sandbox": report.document() if report else None,
        "attempts": [attempt.document() for attempt in attempt_all()],
    }
    os.write(1, json.dumps(document).encode())
    return 0


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1]))
