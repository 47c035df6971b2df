"""A worker killed again and again: in a prompt, in an answer, while it loads; and who notices.

Two models over one file, so that each has a worker of its own: one is the victim, the other's
answer goes on beside it and must be what it always is.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from runtime.worker import NAME

PHASES: Final = ("prefill", "decode", "load")
_CONTEXT: Final = 2048
_SECONDS: Final = 60
_PIECES: Final = 3  # of an answer before its worker is killed
_INTO_PROMPT: Final = 0.15  # seconds after a long prompt was sent
_ASK: Final = "Count from one to twenty."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one kill.

    Attributes:
        phase: One of :data:`PHASES`.
        errors: Errors that the victim's request was answered with: one, if all is well.
        code: Of the error.
        completed: Whether the request nevertheless says that it is done.
        bystander: Whether the other model's answer was what it always is.
        again: Whether the victim's next answer was what it always is.
        seconds: From the kill to that answer's end.
    """

    phase: str
    errors: int
    code: str
    completed: bool
    bystander: bool
    again: bool
    seconds: float

    @property
    def good(self) -> bool:
        """One clear error, and nothing else."""
        return (
            self.errors == 1
            and self.code == "worker-failed"
            and not self.completed
            and self.bystander
            and self.again
        )


@dataclass(slots=True)
class _Answer:
    """What came of a request."""

    text: str = ""
    errors: list[Mapping[str, Any]] = field(default_factory=list)
    done: bool = False


class Faults:
    """Kills the worker of one model of a running server.

    Args:
        pid: Of the front-end.
        port: On 127.0.0.1.
        victim: Name of a model.
        bystander: Name of another model over the same file.
    """

    def __init__(self, pid: int, port: int, victim: str, bystander: str) -> None:
        self._server = psutil.Process(pid)
        self._port = port
        self._victim = victim
        self._bystander = bystander
        self._number = 0
        self._expected = self._ask(victim, _ASK).text
        self._ask(bystander, _ASK)

    def once(self, phase: str) -> Outcome:
        """Kill the victim's worker in one phase."""
        self._number += 1
        beside: list[_Answer] = []
        other = threading.Thread(target=lambda: beside.append(self._ask(self._bystander, _ASK)))
        pid = self._reload() if phase != "load" else self._unload()
        other.start()
        answer = self._kill(phase, pid)
        began = time.monotonic()
        again = self._ask(self._victim, _ASK)
        seconds = time.monotonic() - began
        other.join(_SECONDS)
        return Outcome(
            phase=phase,
            errors=len(answer.errors),
            code=str(answer.errors[0].get("code", "")) if answer.errors else "",
            completed=answer.done,
            bystander=bool(beside) and beside[0].text == self._expected,
            again=again.text == self._expected,
            seconds=seconds,
        )

    def _kill(self, phase: str, pid: int) -> _Answer:
        """Make a request of the victim's and kill its worker in this phase; the request's answer.

        Args:
            phase: See :data:`PHASES`.
            pid: The worker's; 0 where it has yet to be started.
        """
        if phase == "decode":
            return self._ask(self._victim, "Tell a very long story.", kill=pid, most=600)
        answers: list[_Answer] = []
        # The number comes first: nothing of the prompt is there from before.
        prompt = f"{self._number} " + "words and words " * (400 if phase == "prefill" else 1)
        before = self._workers()
        request = threading.Thread(target=lambda: answers.append(self._ask(self._victim, prompt)))
        request.start()
        if phase == "prefill":
            time.sleep(_INTO_PROMPT)
        else:
            pid = self._new_worker(before)
        os.kill(pid, signal.SIGKILL)
        request.join(_SECONDS)
        return answers[0] if answers else _Answer()

    # -- workers ----------------------------------------------------------------------------------

    def _workers(self) -> set[int]:
        found = set()
        for process in self._server.children(recursive=True):
            try:
                if process.name() == NAME:
                    found.add(process.pid)
            except psutil.Error:  # it ended meanwhile
                continue
        return found

    def _new_worker(self, before: set[int]) -> int:
        ends = time.monotonic() + _SECONDS
        while not (new := self._workers() - before):
            if time.monotonic() > ends:
                msg = "no worker was started"
                raise TimeoutError(msg)
            time.sleep(0.005)
        return new.pop()

    def _unload(self) -> int:
        self._post({"model": self._victim, "keep_alive": 0, "messages": []})
        return 0

    def _reload(self) -> int:
        """Have the victim loaded afresh; its worker's process id."""
        self._unload()
        before = self._workers()
        self._ask(self._victim, "Hi", most=1)
        return self._new_worker(before)

    # -- requests ---------------------------------------------------------------------------------

    def _ask(self, model: str, text: str, *, kill: int = 0, most: int = 24) -> _Answer:
        """One streamed answer; its worker is killed after some pieces if ``kill`` names it."""
        answer = _Answer()
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "options": {"temperature": 0, "seed": 1, "num_predict": most, "num_ctx": _CONTEXT},
        }
        for number, line in enumerate(self._lines(body), 1):
            if "error" in line:
                answer.errors.append(line)
            answer.text += line.get("message", {}).get("content", "")
            answer.done = answer.done or line.get("done", False)
            if kill and number == _PIECES:
                os.kill(kill, signal.SIGKILL)
        return answer

    def _lines(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=_SECONDS)) as to:
            to.request("POST", "/api/chat", json.dumps(body))
            for line in to.getresponse():
                yield json.loads(line)

    def _post(self, body: Mapping[str, Any]) -> None:
        for _ in self._lines({**body, "stream": False}):
            pass
