"""Where and when a figure was measured: the line above every table."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]


def line(folder: Path, load_before: float) -> str:
    """Date, commit, processor, memory, file system, kernel, load; one paragraph of Markdown.

    Args:
        folder: Whose file system was measured.
        load_before: One-minute load average when it began.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    parts = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"commit {commit()}",
        f"{os.cpu_count()} x {_processor()}",
        f"{memory:.0f} GiB",
        f"{_file_system(folder)}",
        f"Linux {'.'.join(platform.release().split('.')[:2])}",
        f"Python {platform.python_version()}",
        f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after",
    )
    return "_" + ", ".join(parts) + "_"


def commit() -> str:
    """The commit that is checked out, and whether anything but documents differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_ROOT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return (head or "unknown") + (" with changes" if changed else "")


def _processor() -> str:
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = text.partition(":")
        if key.strip() == "model name":
            return value.strip().replace("(R)", "").replace("(TM)", "")
    return platform.machine()


def _file_system(folder: Path) -> str:
    command = ["stat", "--file-system", "--format=%T", str(folder)]
    kind = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {"ext2/ext3": "ext4"}.get(kind, kind) or "unknown file system"
