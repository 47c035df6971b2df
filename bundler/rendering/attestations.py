"""What the verbs for other tools show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bundler.attestations.extracting import Extracted
from bundler.files import check_output, write_file
from schemas.render import Output


def billed(data: bytes, output: Path | None, *, overwrite: bool) -> None:
    """``bundle bom``: a file gets the very bytes, for they are signed; a person, lines to read."""
    if output is None:
        Output(json=True).result(json.loads(data))
        return
    check_output(output, overwrite=overwrite)
    write_file(output, data)
    Output().note(f"Wrote {output}")


def extracted(out: Output, found: Sequence[Extracted]) -> None:
    """``bundle extract``."""
    for each in found:
        files = "1 file" if len(each.files) == 1 else f"{len(each.files)} files"
        out.line(f"wrote  {each.folder} ({files})")
        if each.signature is None:
            out.note(f"{each.reference} came without a signature for other tools")
        elif each.key is None:
            out.note(f"No publisher trusted here has the key that signed {each.reference}")
        else:
            out.note(
                "Verify it with: model_signing verify key"
                f" --signature {each.signature} --public_key {each.key} {each.folder}"
            )
    out.result(
        {
            "models": [
                {
                    "name": str(each.reference),
                    "path": str(each.folder),
                    "files": list(each.files),
                    "signature": None if each.signature is None else str(each.signature),
                    "key": None if each.key is None else str(each.key),
                }
                for each in found
            ]
        }
    )
