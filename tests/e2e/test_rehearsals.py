"""The rehearsals in examples/airgap: they end with an error where anything is believed wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "rehearsal-years.sh",
            ["rollback-detected", "content-mismatch", "expired-metadata", "audit-broken"],
        ),
        ("rehearsal-two-publishers.sh", ["policy-refused", "approves their own request"]),
    ],
)
def test_rehearsal(script: str, told: list[str], repository: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [repository / "examples" / "airgap" / script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(tmp_path),
        },
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    assert "=== Done: " in done.stdout
    for word in told:
        assert word in said
    assert list(tmp_path.iterdir()) == []
