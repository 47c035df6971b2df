"""The worker process: ``python -m runtime.worker FD PARENT``, started by the launcher.

It reads one frame, the :class:`runtime.messages.WorkerSpec`; confines itself; loads the model;
answers ``ready`` or ``failed``; and serves until the other end of the socket closes. Nothing of the
model file is read before the sandbox is closed. Told to quantize a file instead, it does so,
answers ``quantized`` or ``failed``, and ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from runtime.engine import Engine
from runtime.engine.threads import physical_cores
from runtime.launcher.starting import die_with_parent, name_process
from runtime.messages import (
    Event,
    Piece,
    QuantizeSpec,
    WorkerReady,
    WorkerSpec,
    event_document,
    task_from_document,
)
from runtime.sandbox import SandboxReport, attempt_all, confine_quantizer, confine_worker
from runtime.worker import NAME
from runtime.worker.frames import FrameDecoder, NeedData, encode
from schemas.errors import LoadFailed, SealiftError

_RECEIVE_BYTES: Final = 64 * 1024  # more would be mapped and unmapped for every token
# The engine and its libraries: our own or installed code, loaded before the gates close.
_ENGINE: Final = "runtime.engine.llama"
_VISION: Final = "runtime.engine.llama.vision"
_QUANTIZING: Final = "runtime.engine.llama.quantizing"


class Channel:
    """The worker's end of the socketpair."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = FrameDecoder()

    def send(self, document: dict[str, Any]) -> None:
        """Send one frame, waiting for the front-end to take it."""
        self._connection.sendall(encode(document))

    def receive(self, *, wait: bool) -> list[dict[str, Any]]:
        """All documents that have arrived; at least one if ``wait``.

        Raises:
            EOFError: The front-end is gone.
        """
        documents: list[dict[str, Any]] = []
        while True:
            while not isinstance(document := self._decoder.next_document(), NeedData):
                documents.append(document)
            flags = 0 if wait and not documents else socket.MSG_DONTWAIT
            try:
                data = self._connection.recv(_RECEIVE_BYTES, flags)
            except BlockingIOError:
                return documents
            except ConnectionError as error:
                raise EOFError from error
            if not data:
                raise EOFError
            self._decoder.feed(data)


class Outbox:
    """Events on their way to the front-end.

    What only continues answers waits until the next tokens are decoded: decoding takes every
    processor, so a front-end that writes answers is in its way; choosing tokens takes one.

    Args:
        channel: Where they go.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._held: list[Event] = []

    def put(self, events: list[Event], *, busy: bool) -> None:
        """Send events, now if somebody may wait for more than the next piece of an answer.

        Args:
            events: What came of a step.
            busy: Whether there will be another one at once.
        """
        self._held += events
        if not busy or not all(isinstance(event, Piece) for event in events):
            self.flush()

    def flush(self) -> None:
        """Send what is held."""
        if self._held:
            self._channel.send({"events": [event_document(event) for event in self._held]})
            self._held.clear()


def serve(channel: Channel, engine: Engine) -> None:
    """Serve until the front-end is gone or says ``stop``.

    Raises:
        EOFError: The front-end is gone.
    """
    outbox = Outbox(channel)
    while True:
        for document in channel.receive(wait=not engine.busy):
            operation = document["op"]
            if operation == "submit":
                engine.submit(task_from_document(document["task"]))
            elif operation == "cancel":
                engine.cancel(document["id"])
            elif operation == "probe":
                channel.send({"probe": [attempt.document() for attempt in attempt_all()]})
            elif operation == "stop":
                return
        if engine.busy:
            outbox.put(engine.step(outbox.flush), busy=engine.busy)


def load(spec: WorkerSpec, descriptor: int) -> tuple[Engine, WorkerReady]:
    """Confine this process, then load the model.

    Raises:
        SealiftError: It cannot be confined or loaded; the process must end.
    """
    began = time.monotonic_ns()
    if spec.num_threads <= 0:
        spec = replace(spec, num_threads=physical_cores())
    report = _confine(spec, descriptor)
    from runtime.engine.llama import LlamaEngine

    engine = LlamaEngine(spec)
    return engine, WorkerReady(
        pid=os.getpid(),
        load_ns=time.monotonic_ns() - began,
        context_length=engine.context_length,
        model_bytes=engine.model_bytes,
        kv_bytes=engine.kv_bytes,
        sandbox=report.document(),
        engine=engine.description,
        copied_bytes=engine.copied_bytes,
        device_bytes=engine.device_bytes,
    )


def _confine(spec: WorkerSpec, descriptor: int) -> SandboxReport:
    files = [Path(spec.model_path)]
    modules = [_ENGINE]
    if spec.projector_path:
        files.append(Path(spec.projector_path))
        modules.append(_VISION)
    if spec.adapter_path:
        files.append(Path(spec.adapter_path))
    return confine_worker(readable=files, keep_descriptors=[descriptor], preload=modules)


def quantize(spec: QuantizeSpec, descriptor: int) -> SandboxReport:
    """Confine this process, then make one file out of another.

    Raises:
        SealiftError: It cannot be confined, or the engine refuses; the process must end.
    """
    threads = physical_cores()  # asked while it can be seen
    report = confine_quantizer(
        readable=Path(spec.source_path),
        writable=Path(spec.target_path),
        keep_descriptors=[descriptor],
        preload=[_QUANTIZING],
    )
    from runtime.engine.llama import quantizing

    quantizing.quantize(spec, threads)
    return report


def main() -> None:
    """Entry point."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the front-end decides when a worker ends
    channel = Channel(socket.socket(fileno=descriptor))
    with contextlib.suppress(ImportError):  # confinement says what is missing
        import runtime.engine.llama  # noqa: F401 - before somebody waits for it
    try:
        task = channel.receive(wait=True)[0]
        name_process(NAME)  # from here on it is somebody's
        try:
            if "quantize" in task:
                report = quantize(QuantizeSpec(**task["quantize"]), descriptor)
                channel.send({"quantized": report.document()})
                return
            engine, ready = load(WorkerSpec(**task["spec"]), descriptor)
        except SealiftError as error:
            channel.send({"failed": error.document()})
            return
        except MemoryError:
            channel.send({"failed": LoadFailed("the model does not fit in memory").document()})
            return
        gc.collect()
        gc.freeze()  # what is loaded stays; later collections need not look through it
        channel.send({"ready": asdict(ready)})
        serve(channel, engine)
    except EOFError:
        pass
    except ConnectionError:
        pass


if __name__ == "__main__":
    main()
    # No tearing down of a model that the kernel frees faster.
    os._exit(0)
