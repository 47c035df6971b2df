"""A whole chat, with a capture on every interface: no packet but loopback's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serving import install
from tests.support.captured import OUTSIDE, TUNNEL

pytestmark = pytest.mark.model
NAME = "smollm2:135m"


def namespace() -> list[str]:
    """The command that runs another one in a network of its own."""
    assert shutil.which("unshare"), "install util-linux"
    for options in (["--net"], ["--user", "--map-root-user", "--net"]):
        command = ["unshare", *options, "--"]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.fail("this system forbids network namespaces: allow user namespaces, or run as root")


@pytest.fixture(scope="module")
def seen(model_gguf: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("captured") / "home"
    install(home, model_gguf, f"library/{NAME}")
    done = subprocess.run(
        [*namespace(), sys.executable, "-m", "tests.support.captured", str(home), NAME],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_the_capture_sees_what_leaves(seen: Any) -> None:
    (packet,) = seen["control"]
    assert packet.startswith(f"{TUNNEL}: 0x0800 ")
    assert packet.endswith(f"> {OUTSIDE}")


def test_a_chat_sends_nothing_but_loopback_packets(seen: Any) -> None:
    assert seen["status"] == 200
    assert seen["answer"].strip()
    assert seen["egress"] == "off"
    assert seen["strange"] == []
    assert seen["packets"].keys() == {"lo", TUNNEL}
    assert seen["packets"]["lo"] > 100
    assert seen["packets"][TUNNEL] == 1, "the control's own"
