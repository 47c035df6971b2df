"""Killed at any moment, the audit log and its tree agree, and nothing that was said is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from bundler.evidence import auditing, exporting
from registry.store import Store
from tests.support.bundle_simulator import forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_sound

WRITER = """
import sys
from pathlib import Path
from registry.store import Store

with Store.open(Path(sys.argv[1])) as store:
    number = 0
    while True:
        with store.catalogue.transaction() as tx:
            for _ in range(number % 7 + 1):
                index = tx.add_audit_event(store.audit_event("test.event", str(number), {}))
                number += 1
        print(index, flush=True)
"""
BUNDLE = Path(sys.executable).with_name("bundle")


def test_sigkill_while_appending(tmp_path: Path) -> None:
    moments = random.Random(7)
    said = -1
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            time.sleep(moments.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            told = process.stdout.read().split()
            assert process.wait(250) == -signal.SIGKILL
        said = max([said, *map(int, told[:-1])])  # the last line may be cut
        with Store.open(tmp_path) as store:
            found = auditing.audit(store)
            assert found.findings == ()
            assert found.size > said
            exporting.make_checkpoint(store)


def test_sigkill_while_refusing_and_importing(
    site: Site, publisher: Simulator, tmp_path: Path
) -> None:
    """Receipt, entry and checkpoint come together or not at all."""
    target = site.copy(tmp_path / "home")
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    good.write_bytes(forge(twin(publisher)))
    bad.write_bytes(good.read_bytes()[:-4000])
    moments = random.Random(11)
    environment = {**os.environ, "SEALIFT_HOME": str(target.home)}
    for number in range(10):
        process = subprocess.Popen(
            [BUNDLE, "import", bad if number % 2 else good],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(0.3, 1.2))
        process.send_signal(signal.SIGKILL)
        process.wait(250)
        check_sound(target.home)
        outcome = target.bundle("audit", "verify", "--json")
        assert outcome.code == 0, outcome
        assert outcome.document["receipts"] == target.receipts() == outcome.document["checkpoints"]
    assert target.bundle("import", good).code == 0
    assert target.bundle("audit", "verify").code == 0


def test_many_at_once(site: Site, publisher: Simulator, tmp_path: Path) -> None:
    """Imports and refusals beside each other: one log, in some order, without a gap."""
    target = site.copy(tmp_path / "home")
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    good.write_bytes(forge(twin(publisher)))
    bad.write_bytes(b"no bundle" * 1000)
    before = target.receipts()
    codes: list[int] = []

    def run(path: Path) -> None:
        done = subprocess.run(
            [BUNDLE, "import", path],
            env={**os.environ, "SEALIFT_HOME": str(target.home)},
            capture_output=True,
            check=False,
            timeout=250,
        )
        codes.append(done.returncode)

    threads = [threading.Thread(target=run, args=(path,)) for path in (good, bad, bad, good, bad)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes.count(12) == 3
    assert codes.count(0) >= 1
    outcome = target.bundle("audit", "verify", "--json")
    assert outcome.code == 0, outcome
    assert outcome.document["receipts"] == target.receipts() == before + 3 + codes.count(0)
