"""What of the site's home the confined front-end can reach, and that this is enough."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = Path(__file__).with_name("reach_probe.py")


def test_private_keys_are_out_of_reach_and_the_store_is_not(
    tmp_path: Path, repository: Path
) -> None:
    home = tmp_path / "home"
    secrets = [home / "site" / "key.pem", home / "publisher" / "keys" / "root.pem"]
    own = [home / "access" / "keys.json"]
    for path in [*secrets, *own, home / "config.toml"]:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text("secret")
    done = subprocess.run(
        [sys.executable, str(PROBE), str(home), *map(str, [*secrets, *own])],
        cwd=repository,
        env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *found = (json.loads(line) for line in done.stdout.splitlines())
    if not first["landlock"].startswith("ABI"):
        pytest.fail(f"this kernel has no Landlock: {first['landlock']}")
    reached = {Path(each["path"]): (each["read"], each["write"]) for each in found[:-2]}
    assert {reached[path] for path in secrets} == {(False, False)}
    assert reached[own[0]] == (True, False)
    assert found[-2:] == [{"stored": True}, {"events": 1}]
    names = sorted(path.name for path in (home / "requests").iterdir())
    assert names == ["requests.jsonl", "requests.jsonl.1"]
