"""``llm`` with its Ollama plugin, and with OpenAI's API configured by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ASK, CITY, GPT, LLAMA, URL, V1

OPTIONS: Any = {"temperature": 0}
NAME = f"{LLAMA}:latest"

with tempfile.TemporaryDirectory() as folder:
    os.environ |= {"LLM_USER_PATH": folder, "OLLAMA_HOST": URL, "OPENAI_API_KEY": "none"}
    Path(folder, "extra-openai-models.yaml").write_text(
        f"- model_id: mine\n  model_name: {GPT}\n  api_base: {V1}\n  can_stream: true\n",
        encoding="utf-8",
    )
    import llm

    model = llm.get_model(NAME)
    answer = model.prompt(ASK, num_predict=24, **OPTIONS).text()
    assert "Paris" in answer, answer
    whole = model.prompt(ASK, stream=False, num_predict=24, **OPTIONS).text()
    assert whole == answer
    conversation = model.conversation()
    assert "Paris" in conversation.prompt(ASK, num_predict=24, **OPTIONS).text()
    assert conversation.prompt("And of Spain?", num_predict=8, **OPTIONS).text()
    assert '"name"' in model.prompt(ASK, schema=CITY, num_predict=60, **OPTIONS).text()
    mine = llm.get_model("mine").prompt(ASK, max_tokens=24, **OPTIONS).text()
    assert "Paris" in mine, mine

    # And once as people use it.
    command = [str(Path(sys.executable).with_name("llm")), "-m", NAME, "-o", "num_predict", "24"]
    done = subprocess.run(
        [*command, "-o", "temperature", "0", ASK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == answer.strip()
