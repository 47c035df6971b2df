"""Requests that Schemathesis makes of ``/openapi.json``, good and bad, to the real front-end.

The store is real, the workers are simulated, so that thousands of requests are answered in time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.http_server import served

CLIENTS = Path(sys.prefix) / "clients"
HOOKS = Path(__file__).parents[1] / "e2e" / "clients" / "schemathesis_hooks.py"
# Other names of /v1/rerank.
TWINS = ("/rerank", "/reranking", "/v1/reranking")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)


@pytest.mark.timeout(300)
async def test_every_operation_answers_as_the_document_says(tmp_path: Path) -> None:
    command = CLIENTS / "bin" / "schemathesis"
    assert command.exists(), "there are no clients: run `make clients`"
    async with served(tmp_path / "home") as site:
        url = f"http://127.0.0.1:{site.port}"
        process = await asyncio.create_subprocess_exec(
            *(str(command), "run", f"{url}/openapi.json", "--url", url),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "5", "--generation-deterministic", "--workers", "1"),
            *(f"--exclude-path={path}" for path in TWINS),
            *("--suppress-health-check", "all", "--no-shrink", "--no-color"),
            *("--request-timeout", "20", "--warnings", "off"),
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
                "PYTHONPATH": str(HOOKS.parent),
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-20_000:]
