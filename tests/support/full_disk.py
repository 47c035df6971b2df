"""Runs the ``bundle`` command over and over on a small disk, with a little more room each time.

Run as a program, in a mount namespace of its own: it puts a tmpfs over a folder. Prints what happened
as JSON lines.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.site import Outcome, Site, check_sound

PAGE = 4096


def fill(disk: Path, room: int) -> Path:
    """Leave so many bytes free."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    with ballast.open("wb") as file:
        file.write(bytes(max(free - room, 0)))
    return ballast


def report(room: int, outcome: Outcome, *, unchanged: bool, models: list[str]) -> None:
    print(
        json.dumps(
            {
                "room": room,
                "code": outcome.code,
                "err": outcome.err,
                "unchanged": unchanged,
                "models": models,
            }
        ),
        flush=True,
    )


def imports(disk: Path, pristine: Path, bundle: str, rooms: list[int]) -> None:
    """Import into a copy of a store for which only so much room is left."""
    for room in rooms:
        site = Site(disk / "home")
        shutil.copytree(pristine, site.home)
        assert site.bundle("trust", "show").code == 0
        before = site.snapshot()
        ballast = fill(disk, room)
        outcome = site.bundle("import", bundle, "--json")
        ballast.unlink()
        report(
            room,
            outcome,
            unchanged=site.snapshot().installed == before.installed,
            models=check_sound(site.home),
        )
        shutil.rmtree(site.home)


def creates(disk: Path, home: Path, argv: list[str], rooms: list[int]) -> None:
    """Write a bundle where only so much room is left; the output is the last argument."""
    output = disk / "models.tar"
    for room in rooms:
        ballast = fill(disk, room)
        outcome = Site(home).bundle("create", *argv, "-o", output, "--json")
        ballast.unlink()
        left = sorted(path.name for path in disk.iterdir())
        report(room, outcome, unchanged=not left, models=left)
        output.unlink(missing_ok=True)


def main() -> None:
    what, disk, home, argv, size, *rooms = sys.argv[1:]
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
    sizes = [int(room) for room in rooms]
    if what == "import":
        imports(Path(disk), Path(home), argv, sizes)
    else:
        creates(Path(disk), Path(home), json.loads(argv), sizes)


if __name__ == "__main__":
    main()
