"""The installed command on a pseudo-terminal, typed at and read from."""

from __future__ import annotations

import codecs
import os
import pty
import select
import subprocess
import sys
import sysconfig
import termios
import time
from collections.abc import Mapping
from pathlib import Path

SEALIFT = str(Path(sysconfig.get_path("scripts")) / "sealift")

# Makes standard input the controlling terminal, so that Ctrl-C is a signal, then becomes the command.
ON_A_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "os.setsid()\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)


class Terminal:
    """One run of ``sealift``; ``size`` is in rows and columns."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *arguments: str,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.master, slave = pty.openpty()
        if size is not None:
            termios.tcsetwinsize(slave, size)
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL, SEALIFT, *arguments],
            env={**environment, "TERM": "vt100"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def expect(self, text: str, seconds: float = 30) -> str:
        """What was shown up to and including ``text``."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready = select.select([self.master], [], [], deadline - time.monotonic())[0]
            assert ready, f"{text!r} did not come; seen: {self.seen!r}"
            self.seen += self._decoder.decode(os.read(self.master, 4096))
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self, text: str) -> None:
        """Press Ctrl-C at a prompt until ``text`` answers.

        CPython's readline loop can miss a signal that comes between two of its waits; a person
        presses the key again.
        """
        for _ in range(10):
            self.type("\x03")
            if self._shows(text, 1):
                break
        self.expect(text)

    def _shows(self, text: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while text not in self.seen and (left := deadline - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                self.seen += self._decoder.decode(os.read(self.master, 4096))
        return text in self.seen

    def end(self) -> int:
        code = self.process.wait(30)
        os.close(self.master)
        return code
