"""Real clients that are no part of our own environment, unmodified, against a real server.

Each runs in a process of its own, in the environment that `make clients` makes from
requirements/clients.txt and tests/e2e/clients/npm/package-lock.json. The models have the names that
people's programs ask for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Server, install, serving

pytestmark = pytest.mark.model
HERE = Path(__file__).parent / "clients"
CLIENTS = Path(sys.prefix) / "clients"
NAMES = (
    "llama3.2:latest",
    "gpt-4o-mini:latest",
    "gpt-3.5-turbo-instruct:latest",
    "claude-3-5-sonnet-latest:latest",
    "nomic-embed-text:latest",
    "text-embedding-3-small:latest",
)
TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{# <tool_call> #}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def server(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clients")
    home, tools = folder / "home", folder / "tools.gguf"
    install(home, model_gguf, *(f"library/{name}" for name in NAMES))
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--force"]
    command += ["--chat-template", TOOL_TEMPLATE, str(model_gguf), str(tools)]
    subprocess.run(command, check=True, capture_output=True)
    install(home, tools, "library/qwen2.5:0.5b")
    tools.unlink()
    with serving(home, context_length="1024", num_parallel="2") as found:
        yield found


def run(*command: str | Path, home: Path) -> None:
    """Run a client in a bare environment; nothing of what it does may go elsewhere."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        list(map(str, command)),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def clients() -> Path:
    """The environment of clients."""
    assert (CLIENTS / "bin" / "python").exists(), "there are no clients: run `make clients`"
    return CLIENTS


@pytest.mark.parametrize(
    "name", ["langchain_ollama", "langchain_openai", "llama_index", "litellm", "llm"]
)
def test_a_python_client(server: Server, clients: Path, tmp_path: Path, name: str) -> None:
    run(clients / "bin" / "python", HERE / f"{name}_client.py", server.url, home=tmp_path)


@pytest.mark.parametrize("name", ["ollama", "openai"])
def test_an_npm_client(server: Server, clients: Path, tmp_path: Path, name: str) -> None:
    run("node", HERE / f"npm_{name}.cjs", server.url, clients / "npm", home=tmp_path)
