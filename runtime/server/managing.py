"""Models made, brought and given away: create, blobs, pull and push.

Source: Ollama's ``docs/api.md``, ``api/types.go`` and ``server/create.go`` as of v0.33. Bodies in,
recipes out; then the work, in threads, with its lines as they come.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from registry.digest import Digest
from registry.reference import Reference
from registry.staging import StagingArea
from registry.store import Store
from registry.verify import DigestWriter, storage_errors
from runtime.engine.template import check_syntax
from runtime.making import MODEL_FILE, ONE_FILE, Recipe, make, to_quantize
from runtime.messages import Message
from runtime.mirror.remote import Remote
from runtime.mirror.transfers import Tell
from runtime.modelfile import ROLES
from runtime.options import parse_parameters
from runtime.quantizing import parse_kind
from runtime.server.backend import Backend
from runtime.server.body import Fields
from runtime.server.ollama import message
from runtime.server.quantizing import Quantization
from runtime.server.requests import check_template, parse_model
from schemas import limits
from schemas.errors import (
    ContentMismatch,
    InvalidName,
    MalformedModel,
    ServerBusy,
    UnsupportedRequest,
    UsageError,
)

Line = dict[str, Any]
SUCCESS: Final[Line] = {"status": "success"}
_MOST_FILES: Final = 2  # a model and a projector
_NO_MIRROR: Final = "this server reaches no other machine: no mirror is configured"
_HINT: Final = (
    "Models enter by `sealift bundle import`; see the setting mirror in docs/modelfile.md"
)


# -- create -------------------------------------------------------------------------------------


def parse_create(body: dict[str, Any]) -> tuple[Recipe, bool]:
    """``POST /api/create``: what to make, and whether its lines are streamed.

    Raises:
        UsageError: A field is wrong.
        UnsupportedRequest: A field asks for what is not done here.
    """
    fields = Fields(body)
    _, reference = parse_model(fields.text("model") or fields.text("name"))
    _refuse(fields)
    base, files = _source(fields)
    (file, weights), *more = files or [(MODEL_FILE, None)]
    template = check_template(fields.text("template"))
    if template is not None:
        _check_size("template", template)
        check_syntax(template)
    system = fields.text("system")
    if system is not None:
        _check_size("system", system)
    parameters = fields.table("parameters")
    kind = fields.text("quantize") or fields.text("quantization")
    recipe = Recipe(
        reference=reference,
        base=base,
        weights=weights,
        file=file,
        more=tuple((name, digest) for name, digest in more if digest is not None),
        adapter=_adapter(fields),
        template=template,
        system=system,
        parameters=parse_parameters(parameters.value) if parameters else {},
        messages=_messages(fields),
        licenses=_licenses(fields),
        quantize=parse_kind(kind) if kind else None,
    )
    return recipe, fields.flag("stream", default=True)


def _refuse(fields: Fields) -> None:
    """What cannot be done here, in Ollama's words where it has some."""
    for name in ("renderer", "parser", "draft_files", "remote_host"):
        if fields.raw(name):
            raise UnsupportedRequest(f'"{name}" is not supported')


def _source(fields: Fields) -> tuple[Reference | None, list[tuple[str, Digest | None]]]:
    """The base model, or the files with the weights and the blobs that hold them."""
    name = fields.text("from")
    files = fields.table("files")
    if name:
        return parse_model(name)[1], []
    if files is None:
        raise UsageError("neither 'from' or 'files' was specified")
    if not files.value:
        raise UsageError("no files provided to convert")
    if len(files.value) > _MOST_FILES or any(f.endswith(".safetensors") for f in files.value):
        raise UnsupportedRequest(ONE_FILE)
    found = [_file(path, text) for path, text in files.value.items()]
    if len({name.casefold() for name, _ in found}) < len(found):
        raise UsageError("two files have one name")
    return None, list(found)


def _file(path: str, text: object) -> tuple[str, Digest]:
    base = path.rpartition("/")[2]
    if not base or base in (".", "..") or "\\" in path or not base.isprintable() or len(base) > 200:
        raise UsageError(f"file path must be relative: {path[:200]}")
    return base, parse_digest(text if isinstance(text, str) else "")


def _adapter(fields: Fields) -> Digest | None:
    """The blob with the one adapter."""
    adapters = fields.table("adapters")
    if adapters is None or not adapters.value:
        return None
    if len(adapters.value) > 1 or any(f.endswith(".safetensors") for f in adapters.value):
        raise UnsupportedRequest("only one adapter, in a GGUF file, can be applied")
    (text,) = adapters.value.values()
    return parse_digest(text if isinstance(text, str) else "")


def _messages(fields: Fields) -> tuple[Message, ...] | None:
    entries = fields.objects("messages")
    if not entries:
        return None
    if len(entries) > limits.PART_MESSAGES:
        raise UsageError(f'"messages" has more than {limits.PART_MESSAGES} entries')
    turns = tuple(map(message, entries))
    for turn in turns:
        if turn.role not in ROLES:
            raise UsageError('message role must be one of "system", "user", or "assistant"')
        if turn.images or turn.tool_calls:
            raise UnsupportedRequest("messages of a model are text")
    _check_size("messages", "".join(turn.content for turn in turns))
    return turns


def _licenses(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("license")
    texts = [value] if isinstance(value, str) else fields.items("license")
    if not all(isinstance(text, str) for text in texts):
        raise UsageError('"license" must be a string or an array of strings')
    if len(texts) > limits.PARTS // 2:
        raise UsageError("too many licences")
    for text in texts:
        _check_size("license", text)
    return tuple(text for text in texts if text)


def _check_size(what: str, text: str) -> None:
    if len(text.encode("utf-8", "replace")) > limits.PART_BYTES // 2:  # JSON may double it
        raise UsageError(f'"{what}" is too large', why=f"over {limits.PART_BYTES // 2} bytes")


async def create(backend: Backend, recipe: Recipe) -> AsyncGenerator[Line, None]:
    """Make a model; yield the lines that tell of it.

    Raises:
        SealiftError: As :func:`runtime.making.make`, and of :class:`Quantization`;
            a header that does not parse is the client's fault here.
    """
    try:
        source = await backend.run(to_quantize, backend.store, recipe)
        if source is not None and recipe.quantize is not None:
            work = Quantization(backend, *source, recipe.quantize)
            async with aclosing(work.lines()) as lines:
                async for line in lines:
                    yield line
            recipe = replace(recipe, quantized=work.result)
        statuses = await backend.run(make, backend.store, recipe)
    except MalformedModel as error:
        if recipe.base is not None:
            raise
        raise UnsupportedRequest("supplied file was not in GGUF format", why=error.line()) from None
    for status in statuses:
        yield {"status": status}


# -- blobs --------------------------------------------------------------------------------------


def parse_digest(text: str) -> Digest:
    """A digest as clients write it, with a colon or, as in file names, a dash.

    Raises:
        UsageError: It is none.
    """
    try:
        digest = Digest.parse(text.replace("-", ":", 1) if ":" not in text else text)
    except InvalidName:
        raise UsageError("invalid digest format") from None
    if digest.algorithm != "sha256":
        raise UsageError("invalid digest format")
    return digest


class Upload:
    """A blob on its way in: chunks of any size, in constant memory, verified at the end.

    Args:
        store: Where it goes.
        digest: What it must have.
    """

    def __init__(self, store: Store, digest: Digest) -> None:
        self._store = store
        self._digest = digest
        self._area: StagingArea | None = None
        self._fd = -1
        self._hash = DigestWriter()
        self._turn = threading.Lock()  # a write may outlast the request that was cancelled

    def open(self) -> None:
        """Make a place for it."""
        self._area = self._store.blobs.stage("upload").__enter__()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with storage_errors(f"cannot store blob {self._digest.short}"):
            self._fd = os.open(self._area.part(self._digest), flags, 0o600)

    def write(self, data: bytes) -> None:
        """Take some more."""
        with self._turn:
            if self._fd >= 0:
                self._write(data)

    def _write(self, data: bytes) -> None:
        if self._hash.size + len(data) > limits.BLOB_BYTES:
            raise UsageError("the blob is too large", why=f"over {limits.BLOB_BYTES} bytes")
        self._hash.write(data)
        with storage_errors(f"cannot store blob {self._digest.short}"):
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        """All of it came: compare, and give it its name.

        Raises:
            ContentMismatch: It is something else; nothing of it stays.
        """
        if self._area is None:
            raise UsageError("the upload is not open")
        if self._hash.digest != self._digest:
            raise ContentMismatch(
                f'digest mismatch, expected "{self._digest}", got "{self._hash.digest}"'
            )
        with storage_errors(f"cannot store blob {self._digest.short}"):
            os.fsync(self._fd)
        self._area.accept(self._digest, self._hash.size)
        with self._store.lock():
            self._area.install()

    def close(self) -> None:
        """Leave nothing behind but what was finished."""
        with self._turn:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            if self._area is not None:
                self._area.__exit__(None, None, None)
                self._area = None


@asynccontextmanager
async def uploading(backend: Backend, digest: Digest) -> AsyncIterator[Upload]:
    """An open :class:`Upload`.

    Raises:
        ServerBusy: ``UPLOADS`` are under way.
    """
    if len(backend.uploads) >= limits.UPLOADS:
        raise ServerBusy("server busy, please try again", why="many blobs are being uploaded")
    upload = Upload(backend.store, digest)
    backend.uploads.add(upload)
    try:
        await backend.run(upload.open)
        yield upload
    finally:
        backend.uploads.discard(upload)
        await asyncio.shield(backend.run(upload.close))


# -- pull and push ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transfer:
    """A pull or a push that somebody asks for.

    Attributes:
        reference: The model, with the host if one was given.
        stream: Whether lines are wanted as they come.
    """

    reference: Reference
    stream: bool


def parse_transfer(body: dict[str, Any]) -> Transfer:
    """``POST /api/pull`` and ``POST /api/push``. ``insecure`` is taken and has no effect.

    Raises:
        UsageError: There is no name.
        InvalidName: It does not parse.
    """
    fields = Fields(body)
    name = fields.text("model") or fields.text("name")
    if not name:
        raise UsageError("model is required")
    fields.flag("insecure", default=False)
    plain = name.strip().removeprefix("http://").removeprefix("https://")
    try:
        reference = Reference.from_user(plain)
    except InvalidName:
        raise InvalidName("invalid model name") from None
    return Transfer(reference, fields.flag("stream", default=True))


async def transfer(
    backend: Backend, work: Callable[[Store, Remote, Reference, Tell], None], wanted: Transfer
) -> AsyncGenerator[Line, None]:
    """Run a pull or push in a thread of the mirror's; yield its lines as they come.

    Closing the iterator ends the transfer.

    Args:
        backend: Has the mirror.
        work: :func:`runtime.mirror.transfers.pull` or ``push``.
        wanted: Of which model.

    Raises:
        UnsupportedRequest: No mirror is configured.
        ServerBusy: ``TRANSFERS`` are under way.
        SealiftError: What the work raises.
    """
    mirror = backend.mirror
    if mirror is None:
        raise UnsupportedRequest(_NO_MIRROR, hint=_HINT)
    if len(mirror.running) >= limits.TRANSFERS:
        raise ServerBusy("server busy, please try again", why="other transfers are under way")
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[Line | None] = asyncio.Queue()
    remote = mirror.connect()
    mirror.running.add(remote)

    def tell(line: Line) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(lines.put_nowait, line)

    done = loop.run_in_executor(mirror.pool, work, backend.store, remote, wanted.reference, tell)

    def over(_: asyncio.Future[None]) -> None:
        mirror.running.discard(remote)
        lines.put_nowait(None)

    done.add_done_callback(over)
    try:
        while (line := await lines.get()) is not None:
            yield line
        await done
    finally:
        if not done.done():
            remote.abort()
            done.add_done_callback(_seen)


def _seen(done: asyncio.Future[None]) -> None:
    """What a transfer that nobody waits for raised is of no interest."""
    if not done.cancelled():
        done.exception()
