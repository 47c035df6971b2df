"""Models made from a real one: what a Modelfile sets is in force; the session's /save and /load."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import llama_cpp.llama_cpp as lib
import ollama
import pytest

from tests.serving import Server, install, serving
from tests.support.go_templates import QWEN
from tests.support.terminal import SEALIFT, Terminal

pytestmark = [pytest.mark.model, pytest.mark.slow]
BASE = "smollm2:135m"
ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, model_gguf: Path) -> Path:
    home = tmp_path_factory.mktemp("made") / "home"
    install(home, model_gguf, "library/smollm2:135m")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home, context_length="256", num_threads="1") as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as found:
        yield found


@pytest.fixture
def environment(home: Path, server: Server) -> dict[str, str]:
    ours = {"SEALIFT_HOME": str(home), "SEALIFT_HOST": f"{server.host}:{server.port}"}
    return {**os.environ, **ours, "SEALIFT_NOHISTORY": "1"}


def test_parameters_and_system_message_are_in_force(client: ollama.Client) -> None:
    client.create(
        "brief",
        from_=BASE,
        system="You are terse.",
        parameters={"num_predict": 3, "temperature": 0},
    )
    plain = client.chat(BASE, ASK, options={"num_predict": 3, "temperature": 0})
    made = client.chat("brief", ASK)
    assert (made.done_reason, made.eval_count) == ("length", 3)
    assert made.prompt_eval_count != plain.prompt_eval_count
    over = client.chat("brief", ASK, options={"num_predict": 1})
    assert over.eval_count == 1, "what a request says counts more"
    own = [{"role": "system", "content": "You are terse."}, *ASK]
    assert client.chat(BASE, own, options={"num_predict": 1}).prompt_eval_count == (
        made.prompt_eval_count
    )


def test_a_template_is_in_force(client: ollama.Client) -> None:
    client.create("echo", from_=BASE, template="{{ .Prompt }}", parameters={"num_predict": 2})
    short = client.chat("echo", ASK)
    assert (short.prompt_eval_count or 0) < 20
    assert client.show("echo").template == "{{ .Prompt }}"
    client.create("few", from_=BASE, messages=[{"role": "user", "content": "Say A."}, {"role": "assistant", "content": "A"}])  # fmt: skip
    assert (client.chat("few", ASK, options={"num_predict": 1}).prompt_eval_count or 0) > (
        short.prompt_eval_count or 0
    )


def test_a_go_template_speaks_of_tools(server: Server, client: ollama.Client) -> None:
    client.create("caller", from_=BASE, template=QWEN, parameters={"num_ctx": 512})
    assert {"tools", "thinking"} <= set(client.show("caller").capabilities or [])
    tool = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"town": {"enum": ["Ulm"]}},
                "required": ["town"],
            },
        },
    }
    body = {"model": "caller", "messages": ASK, "tools": [tool], "tool_choice": "required"}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    (call,) = response.json()["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"town": "Ulm"}
    plain = client.chat("caller", ASK, options={"num_predict": 1})
    told = client.chat("caller", ASK, tools=[tool], options={"num_predict": 1})
    assert (told.prompt_eval_count or 0) > (plain.prompt_eval_count or 0) + 20


@pytest.fixture(scope="module")
def whole(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with 16 bits a weight."""
    path = tmp_path_factory.mktemp("whole") / "whole.gguf"
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = lib.LLAMA_FTYPE_MOSTLY_F16
    parameters.allow_requantize = True
    arguments = (str(model_gguf).encode(), str(path).encode(), ctypes.byref(parameters))
    assert lib.llama_model_quantize(*arguments) == 0
    return path


def test_a_model_is_quantized_as_it_is_made(
    environment: dict[str, str], client: ollama.Client, whole: Path
) -> None:
    (whole.parent / "Modelfile").write_text("FROM ./whole.gguf\n")
    command = (SEALIFT, "create", "quick", "-f", whole.parent / "Modelfile", "-q", "q4_K_M")
    done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    details = client.show("quick").details
    assert details is not None
    assert details.quantization_level == "Q4_K_M"
    (made,) = [m for m in client.list().models if m.model == "quick:latest"]
    assert (made.size or 0) < 0.5 * whole.stat().st_size
    answer = client.chat("quick", ASK, options={"temperature": 0, "num_predict": 12})
    assert "Paris" in (answer.message.content or "")


def test_a_session_is_saved_and_gone_on_with(
    environment: dict[str, str], client: ollama.Client
) -> None:
    terminal = Terminal(environment, "run", BASE)
    terminal.expect(">>> ")
    terminal.type("/set parameter num_predict 2\n")
    terminal.expect(">>> ")
    terminal.type("/set system Be kind.\n")
    terminal.expect(">>> ")
    terminal.type("Hello\n")
    terminal.expect(">>> ")
    terminal.type("/save kept\n")
    terminal.expect("Created new model 'kept'.")
    terminal.type("/load nothing\n")
    terminal.expect("couldn't find model 'nothing'")
    terminal.type("/load kept\n")
    terminal.expect("Loaded model 'kept'.")
    terminal.type("/show system\n")
    terminal.expect("Be kind.")
    terminal.type("/bye\n")
    assert terminal.end() == 0
    shown = client.show("kept")
    assert shown.parameters == "num_predict                    2"
    assert shown.modelfile is not None
    assert "MESSAGE user Hello" in shown.modelfile


def test_pictures_are_refused_by_a_model_that_does_not_see(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    done = subprocess.run(
        [SEALIFT, "run", BASE, f"What is in {path}?"],
        env=environment,
        input=b"",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"does not take images" in done.stderr


def test_a_base_that_is_denied(environment: dict[str, str], client: ollama.Client) -> None:
    client.create("late", from_=BASE, system="x")
    assert client.chat("late", ASK, options={"num_predict": 1}).done
    deny = [SEALIFT, "deny", "add", BASE, "--reason", "wrong"]
    subprocess.run(deny, env=environment, check=True, capture_output=True)
    with pytest.raises(ollama.ResponseError, match="is not served"):
        client.chat("late", ASK)
    subprocess.run(
        [*deny[:2], "remove", *deny[3:]], env=environment, check=True, capture_output=True
    )
    assert client.chat("late", ASK, options={"num_predict": 1}).done
