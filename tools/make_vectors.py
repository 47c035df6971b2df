"""Make tests/vectors anew: small bundles that a second reader can be tested with.

Signatures are random, so every run gives other bytes: run it only when the format changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors"


def main() -> None:
    """Write every vector."""
    sys.path.insert(0, str(VECTORS.parent.parent))
    from tests.gguf_files import tiny_gguf

    VECTORS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "passphrase").write_text("test vectors only\n")
        os.environ["SEALIFT_HOME"] = str(work / "home")
        os.environ["SEALIFT_PASSPHRASE_FILE"] = str(work / "passphrase")
        plain = tiny_gguf(work / "tiny.gguf", name="tiny")
        soft = tiny_gguf(work / "soft.gguf", name="soft", tensors=_soft_tensors())
        _run("keys", "init", "--name", "vectors")
        _run("keys", "root", "-o", str(VECTORS / "root.json"), "--force")
        _bundle("identity.tar", plain, "library/tiny:1", "--compression", "none")
        _bundle("zstd.tar", soft, "library/soft:1", "--compression", "max")
        _bundle(
            "volumes.tar", soft, "library/soft:2", "--compression", "none", "--volume-size", "1050K"
        )
        _delta(work)
    _describe()


def _delta(work: Path) -> None:
    """The soft model with one tensor changed, against a site that has the soft one."""
    from tests.gguf_files import tiny_gguf

    tensors = _soft_tensors()
    for values in tensors.values():
        values[100] *= 0.5
    changed = tiny_gguf(work / "changed.gguf", name="changed", tensors=tensors)
    site = str(work / "site")
    root = VECTORS / "root.json"
    fingerprint = hashlib.sha256(root.read_bytes()).hexdigest()
    trust = ("trust", "init", "--root", str(root), "--fingerprint", fingerprint)
    listing = str(work / "site.inventory")
    for words in (
        trust,
        ("import", str(VECTORS / "zstd.tar")),
        ("inventory", "export", "-o", listing),
    ):
        _run(*words, home=site)
    _bundle("delta.tar", changed, "library/soft:3", "--against", listing)


def _soft_tensors() -> dict[str, Any]:
    """Weights that compress: 1.5 MiB of F32 between -1 and 1."""
    import numpy as np

    values = np.random.default_rng(1).choice(np.array([-1.0, -0.5, 0.25, 1.0], np.float32), 393_216)
    return {"blk.0.ffn_up.weight": values.reshape(256, 1536)}


def _bundle(name: str, source: Path, model: str, *options: str) -> None:
    _run("create", str(source), "-n", model, "-o", str(VECTORS / name), "--force", *options)


def _run(*words: str, home: str | None = None) -> None:
    environment = dict(os.environ) if home is None else {**os.environ, "SEALIFT_HOME": home}
    subprocess.run(
        ["bundle", *words, "--json"], check=True, stdout=subprocess.DEVNULL, env=environment
    )


def _describe() -> None:
    """What a reader must find in each."""
    from datetime import UTC, datetime

    found: dict[str, Any] = {
        "clock": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bundles": {},
        "bases": {"delta.tar": "zstd.tar"},
    }
    for path in sorted(VECTORS.glob("*.tar")):
        if ".v0" in path.name:
            continue
        result = subprocess.run(
            ["bundle", "inspect", str(path), "--json"], check=True, capture_output=True
        )
        models = json.loads(result.stdout)["models"]
        found["bundles"][path.name] = [
            {"name": model["name"], "manifest": model["manifest"]} for model in models
        ]
    (VECTORS / "expected.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
