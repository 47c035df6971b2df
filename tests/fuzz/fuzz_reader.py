"""Coverage-guided fuzzing of what reads a bundle, a request or a Modelfile: `make fuzz` (atheris).

The first byte of an input chooses what reads the rest. Whatever comes, the only way out is a
:class:`~schemas.errors.SealiftError`; anything else is a defect, and libFuzzer keeps the input.
Signatures and digests cannot be guessed, so the parts behind them are fed directly.

    python tests/fuzz/fuzz_reader.py [libFuzzer options] [corpus folder]
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import atheris  # type: ignore[import-untyped, unused-ignore]  # not on every platform

with atheris.instrument_imports(include=["bundler", "registry", "runtime", "schemas"]):
    from bundler.archive.codec import Encoding, decode_piece
    from bundler.archive.reader import BlobStream
    from bundler.archive.rebuild import rebuild
    from bundler.archive.recipe import Recipe
    from bundler.contents import Part
    from bundler.descriptor import BundleDescriptor
    from bundler.intake import read_part, read_volume
    from bundler.inventory import held, qr, report, wanted
    from bundler.journal import Journal
    from bundler.parity.table import Table
    from bundler.reading import read_body, read_front, read_withdrawn
    from bundler.trust import closedworld, envelope
    from bundler.trust.claims import claimed_withdrawn
    from bundler.trust.site import site_key
    from bundler.volumes import Label, look
    from registry import safetensors
    from registry.digest import Digest
    from registry.gguf import read_header
    from registry.oci import Manifest
    from registry.reference import Reference
    from runtime import gotemplate, modelfile
    from runtime.engine.sight import check_png
    from runtime.server import (
        anthropic,
        embedding,
        listing,
        managing,
        ollama,
        openai,
        rerank,
        responses,
    )
    from runtime.server.body import parse_body
    from schemas import documents, limits, strictjson
    from schemas.documents import Kind
    from schemas.errors import ContentMismatch, SealiftError

from tests.support import go_templates
from tests.support.bundle_simulator import Forgery, digest, members
from tests.support.publisher_simulator import Simulator
from tests.support.sticks import Carried, by_segments, carry, delta, frame, planes, recipe, stored
from tests.support.sticks import weights as model
from tests.support.vision import RED, write_projector

setattr(limits, "GO_TEMPLATE_STEPS", 20_000)  # noqa: B010 - loops are bounded all the same
MODEL: Final = model()
BASE: Final = MODEL[:6000] + model(1)[6000:]
SIMULATOR: Final = Simulator()
STATE: Final = SIMULATOR.state()
CALL: Final = {"function": {"name": "add", "arguments": {"a": 1.5, "b": [True, None, "x"]}}}
TURNS: Final[tuple[dict[str, Any], ...]] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1.5 + x?"},
    {"role": "assistant", "content": "", "thinking": "Well.", "tool_calls": [CALL]},
    {"role": "tool", "content": "2", "tool_name": "add"},
)
PARAMETERS: Final = {"type": "object", "properties": {"a": {"type": ["number", "null"]}}}
TOOLS: Final = ({"function": {"name": "add", "parameters": PARAMETERS}},)
_ENCODINGS = (Encoding.ZSTD, Encoding.PLANES2, Encoding.PLANES4)


def good(encoding: str, most: int | None) -> Carried:
    """A bundle of one small model: in one file, or with so many segments per volume."""
    ways = {digest(MODEL): stored(MODEL, encoding, BASE)}
    needs = {digest(BASE): len(BASE)} if encoding == "delta" else {}
    layout = None if most is None else by_segments(most)
    forgery = Forgery("library/tiny:1", MODEL)
    return carry(SIMULATOR, forgery, encodings=ways, requires=needs, layout=layout)


VOLUMES: Final = good("zstd", 3)
SIGNED: Final = BundleDescriptor.from_bytes(
    next(m.data for m in members(VOLUMES.head) if m.name == "sealift/bundle.json")
)
TRUST: Final = {
    m.name.rpartition("/")[2]: m.data
    for m in members(VOLUMES.head)
    if m.name.startswith("sealift/trust/")
}
SCRATCH: Final = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
_BASES: Final = os.memfd_create("bases"), os.memfd_create("more")
for _fd, _size in zip(_BASES, (4096, 100), strict=True):
    os.write(_fd, MODEL[:_size])


def decode(part: Part, stream: BlobStream) -> None:
    """Every segment of a member, as if its digest were right."""
    entry = part.entry
    for number, segment in enumerate(part.segments, part.first):
        data = stream.read_exactly(min(segment.size, 1 << 20))
        if entry.encoding in _ENCODINGS:
            decode_piece(Encoding(entry.encoding), data, entry.raw_range(number)[1])
        elif entry.encoding == "delta" and number == 0:
            Recipe.from_bytes(data, size=entry.size, base_sizes=[len(BASE)] * len(entry.bases))
    stream.skip(stream.left)


def whole(data: bytes) -> None:
    """A bundle from its front to its end: as if it were signed, what the descriptor predicts."""
    source = io.BytesIO(data)
    front = read_front(source)
    descriptor = BundleDescriptor.from_bytes(front.descriptor_bytes)
    read_withdrawn(front.reader, claimed_withdrawn(front.trust_files))
    body = read_body(front.reader, descriptor, lambda _: None, lambda _: None)
    if body.parity_table is not None:
        Table.decode(body.parity_table)
    needed = {entry.digest for entry in body.large}
    if not descriptor.volumes:
        for entry in body.large:
            read_part(front.reader, Part.all_of(entry), needed, decode)
        front.reader.finish()


def volume(data: bytes) -> None:
    """A volume of a bundle whose head is believed; the first byte says which one."""
    if data:
        needed = {entry.digest for entry in SIGNED.contents}
        number = 1 + data[0] % len(SIGNED.volumes)
        read_volume(SIGNED, number, lambda: io.BytesIO(data[1:]), needed, decode)


def stick(data: bytes) -> None:
    """Finding out what a file on a stick is."""
    path = Path(SCRATCH.name, "file")
    path.write_bytes(data)
    look([path])


def journal(data: bytes) -> None:
    """What an interrupted import left."""
    path = Path(SCRATCH.name, "journal")
    path.write_bytes(data)
    with Journal(path) as found:
        for entry in SIGNED.contents:
            found.segments(entry.digest)
            found.forget(entry.digest)


def piece(data: bytes) -> None:
    """One encoded piece: two bytes choose its encoding and its raw size."""
    if len(data) > 2:
        decode_piece(_ENCODINGS[data[0] % 3], data[2:], data[1] * 64 + 1)


def recipe_alone(data: bytes) -> None:
    """A recipe over two bases."""
    Recipe.from_bytes(data, size=4096, base_sizes=[4096, 100])


def recipe_carried_out(data: bytes) -> None:
    """A recipe and its literals, over two bases, made into a blob; the digest never fits."""
    length = 16 + 8 + 8 + 2 + 2 + 4 + 20 * (int.from_bytes(data[36:40]) % 64)
    found = Recipe.from_bytes(data[:length], size=4096, base_sizes=[4096, 100])
    out = os.memfd_create("out")
    try:
        rebuild(found, _BASES[: found.bases], [data[length:]], out, Digest.of(b""))
    except ContentMismatch:
        return
    finally:
        os.close(out)
    raise AssertionError("other bytes were accepted")


def metadata(data: bytes) -> None:
    """One file of trust metadata of each role."""
    for role in ("root", "timestamp", "snapshot", "targets", "bundle"):
        with suppress(SealiftError):
            envelope.read(role, data)


def trust(data: bytes) -> None:
    """One file among good ones; the first byte says in whose place."""
    if data:
        names = [*TRUST, "2.root.json", "9.targets.json"]
        closedworld.check_members({**TRUST, names[data[0] % len(names)]: data[1:]}, STATE)


def codes(data: bytes) -> None:
    """Texts of QR codes."""
    qr.join(data.decode("latin-1").split("\n"))


def packed(data: bytes) -> None:
    """A report behind its QR codes, as if their checks were right."""
    compressed = zlib.compress(data, 1)
    qr.join([qr._frame(digest(compressed)[7:23].upper(), 1, 1, compressed)])


def inventory(data: bytes) -> None:
    """As if it were signed."""
    held.Inventory.from_document(documents.load(Kind.INVENTORY, data))


def want_list(data: bytes) -> None:
    """As if it were signed."""
    wanted.WantList.from_document(documents.load(Kind.WANT_LIST, data))


REQUESTS: Final[tuple[Callable[[dict[str, Any]], object], ...]] = (
    ollama.parse_generate,
    ollama.parse_chat,
    openai.parse_chats,
    openai.parse_completions,
    responses.parse_response,
    responses.parse_count,
    anthropic.parse_messages,
    anthropic.parse_count,
    lambda body: embedding.parse_embed(body, "input"),
    embedding.parse_openai,
    embedding.parse_tokenize,
    embedding.parse_detokenize,
    rerank.parse_rerank,
    listing.parse_show,
    managing.parse_create,
    managing.parse_transfer,
)


def request(data: bytes) -> None:
    """A body; the first byte says to which path."""
    if data:
        REQUESTS[data[0] % len(REQUESTS)](parse_body(data[1:]))


def recipe_for_a_model(data: bytes) -> None:
    """A Modelfile: what is read and written is read as the same."""
    found = modelfile.parse(data.decode("utf-8", "replace"))
    modelfile.parameters(found)
    if not any('"""' in each.value for each in found):
        again = modelfile.parse(modelfile.render(found))
        words = [[(each.name, each.key, each.value) for each in some] for some in (found, again)]
        assert words[0] == words[1]


def go(data: bytes) -> None:
    """A chat template in Go's language."""
    with suppress(gotemplate.GoError):
        gotemplate.GoChat.parse(data.decode("utf-8", "replace")).render(TURNS, TOOLS, think=None)


TARGETS: Final[tuple[Callable[[bytes], object], ...]] = (
    whole,
    BundleDescriptor.from_bytes,
    Manifest.parse,
    piece,
    recipe_alone,
    Table.decode,
    Label.from_bytes,
    metadata,
    lambda data: read_header(io.BytesIO(data), len(data) + 64),
    lambda data: safetensors.read_header(io.BytesIO(data), len(data) + 64),
    held.read,
    wanted.read_want_list,
    volume,
    stick,
    journal,
    recipe_carried_out,
    trust,
    codes,
    packed,
    inventory,
    want_list,
    lambda data: strictjson.parse_object(data, what="a document", max_bytes=1 << 20),
    request,
    recipe_for_a_model,
    go,
    lambda data: read_header(io.BytesIO(data), len(data) + 64, projectors=True),
    check_png,
)


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    if data:
        try:
            TARGETS[data[0] % len(TARGETS)](data[1:])
        except SealiftError:
            return


def seeds() -> Iterator[tuple[int, bytes]]:
    """A corpus to begin with, by target: good bundles in every encoding, whole and in parts."""
    for encoding in ("whole", "identity", "zstd", "zstd-planes2", "zstd-planes4", "delta"):
        data = good(encoding, None).head
        yield 0, data
        for member in members(data):
            if member.name.startswith("sealift/trust/"):
                yield 7, member.data
            elif member.name == "sealift/bundle.json":
                yield 1, member.data
            elif len(member.data) < 4096:
                yield 2, member.data
    yield 0, VOLUMES.head
    yield 13, VOLUMES.head
    yield 5, Table(512, (512,), 1, bytes(64)).encode()
    yield 6, Label(SIGNED.id, 1).to_bytes()
    for number, data in enumerate(VOLUMES.volumes):
        yield 12, bytes([number]) + data
        yield 13, data
    for number, data in enumerate(TRUST.values()):
        yield 16, bytes([number]) + data
    raw = MODEL[: 64 * 5 + 1]
    for number in range(3):
        yield 3, bytes([number, 5]) + frame(planes(raw, (1, 2, 4)[number]))
    script = recipe(4096, [(1, 0, 2000), (0, 0, 2000), (2, 4, 96)], 2000, 2)
    yield 4, script
    yield 15, script + bytes(2000)
    yield 15, delta(MODEL[:4096], MODEL[:4096], 1000, 2000).segments[0]
    yield 8, MODEL[:4096]
    yield (
        9,
        b"\x40" + bytes(7) + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(64),
    )
    yield 25, write_projector(Path(SCRATCH.name, "mmproj")).read_bytes()[:8192]
    yield 26, base64.b64decode(RED)
    yield 14, f"{digest(MODEL)[7:]} 1\n{digest(MODEL)[7:]} +4096\n".encode()
    yield from _report_seeds()
    yield from _request_seeds()


def _request_seeds() -> Iterator[tuple[int, bytes]]:
    """Bodies with most of what the codecs look at, and a Modelfile."""
    said = [{"role": "user", "content": [{"type": "text", "text": "Hi"}], "images": ["aGk="]}]
    called = {"function": {"name": "f", "arguments": {"a": 1}, "parameters": {"type": "object"}}}
    body = {
        "model": "library/tiny:1", "messages": said, "prompt": "Hi", "input": ["a", "b"],
        "options": {"temperature": 0.5, "stop": ["x"]}, "tools": [{"type": "function", **called}],
        "format": {"type": "object"}, "keep_alive": "5m", "think": "high", "max_tokens": 5,
        "response_format": {"type": "json_object"}, "tool_choice": "auto", "n": 2, "query": "q",
        "documents": ["a", {"text": "b"}], "tokens": [1, 2], "text": "x", "from": "tiny",
        "parameters": {"seed": 1}, "license": ["MIT"], "system": "x", "template": "{{ .Prompt }}",
        "files": {"a.gguf": digest(MODEL)}, "stream": False, "logit_bias": {"1": 2},
    }  # fmt: skip
    for number in range(len(REQUESTS)):
        yield 22, bytes([number]) + json.dumps(body).encode()
        plain = {**body, "messages": [{"role": "user", "content": "Hi"}]}
        yield 22, bytes([number]) + json.dumps(plain).encode()
    yield 23, b'FROM tiny\nPARAMETER stop "a"\nSYSTEM """x\ny"""\nMESSAGE user Hi\nLICENSE z\n'
    template = "{{ if .System }}a{{ .System }}b{{ end }}{{- if .Prompt }}{{ .Prompt }}{{ end }}"
    yield 24, template.encode()
    for template in go_templates.USUAL.values():
        yield 24, template.encode()
    yield 24, b"{{ range .Messages }}{{ .Role }}{{ .Content }}{{ end }}{{ .Response }}"


def _report_seeds() -> Iterator[tuple[int, bytes]]:
    """What a site sends: an inventory and a want-list, as files, as codes, and unsigned."""
    home = Path(SCRATCH.name, "home")
    home.mkdir()
    key, now, blobs = site_key(home), SIMULATOR.now, {Digest.of(MODEL): len(MODEL)}
    known = held.KnownPublisher(STATE.fingerprint, {"root": 1, "timestamp": 2})
    model_held = held.HeldModel(Reference.parse("library/tiny:1"), Digest.of(MODEL))
    there = held.Inventory(key.fingerprint, now, now, (known,), (model_held,), blobs)
    listing = report.write(Kind.INVENTORY, there.document(), key, held.about)
    wants = wanted.export_want_list(home, "0" * 32, 1, blobs, now=now)
    for file, whole_target, bare in ((listing, 10, 19), (wants, 11, 20)):
        signed = report.parse(file)
        yield whole_target, file
        yield bare, signed.payload
        yield 17, "\n".join(qr.frames(file)).encode()
        yield 18, qr._pack(file)


def main() -> None:
    """Run libFuzzer with the given options."""
    with tempfile.TemporaryDirectory() as corpus, SCRATCH:
        for number, (target, data) in enumerate(seeds()):
            Path(corpus, str(number)).write_bytes(bytes([target]) + data)
        # New findings go into the first folder, so the caller's comes before the seeds.
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
