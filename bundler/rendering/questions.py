"""What the four questions (inspect, verify, plan, diff) answer, for people and for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from bundler.clock import rfc3339
from bundler.comparing import Difference
from bundler.contents import Entry
from bundler.costs import Cost, Plan
from bundler.exporting import Exported
from bundler.inspecting import Contents, Inspected, ModelClaim, VolumeClaim
from schemas.render import Output, bytes_text, duration_text

NOT_VERIFIED: Final = "NOT VERIFIED: this is what the bundle says of itself, whoever wrote it."
_SHOWN: Final = 100  # rows of a table for people; --json has all


def inspected(out: Output, result: Inspected) -> None:
    """``bundle inspect``."""
    contents, claims = result.contents, result.claims
    descriptor = contents.descriptor
    out.line(NOT_VERIFIED)
    out.fields(
        [
            ("bundle", f"{descriptor.sequence} of {descriptor.publisher}"),
            ("id", descriptor.id),
            ("issued", descriptor.issued_at),
            *((f"root v{root.version}", root.fingerprint.hex) for root in claims.roots),
            ("payload", _payload(descriptor.contents)),
            ("requires", _requires(contents)),
        ]
    )
    _models(out, contents.models)
    attested = Counter(each for model in contents.models for each in model.attestations)
    for kind, count in sorted(attested.items()):
        out.line(f"for other tools: {kind} of {count} models")
    _blobs(out, contents.large)
    _volumes(out, contents.volumes)
    if contents.withdrawn:
        out.line(f"withdrawals: {len(contents.withdrawn)}")
    if descriptor.parity is not None:
        out.line(f"parity: {descriptor.parity.volumes} more volumes")
    newest = claims.roots[-1:]
    expiries = [("root", root.version, root.expires) for root in newest]
    expiries += [(role, version, moment) for role, (version, moment) in claims.roles.items()]
    rows = ((role, version, rfc3339(moment)) for role, version, moment in expiries)
    _table(out, ("ROLE", "VERSION", "EXPIRES"), rows, ("VERSION",))
    out.note("Whom to believe says `bundle verify`; its root must be the one on paper.")
    out.result({"verified": False, **contents_document(contents), "trust": _trust(result)})


def difference(out: Output, result: Difference) -> None:
    """``bundle diff``."""
    for side in (result.before, result.after):
        if not side.verified:
            out.line(f"NOT VERIFIED: {side.name}: {side.doubt}")
    before, after = result.before.models, result.after.models
    for mark, names in (("-", result.removed), ("+", result.added)):
        for name in names:
            out.line(f"{mark} {name}  {(after if mark == '+' else before)[name].short}")
    for name in result.changed:
        out.line(f"~ {name}  {before[name].short} → {after[name].short}")
    if not (result.added or result.removed or result.changed):
        out.line("the models are the same")
    shared, fresh = result.shared, result.fresh
    pairs = [
        ("unchanged", f"{len(result.unchanged)} models"),
        ("shared", f"{len(shared)} blobs, {bytes_text(sum(shared.values()))}"),
        ("new", f"{len(fresh)} blobs, {bytes_text(sum(fresh.values()))}"),
        ("to carry", bytes_text(result.transfer)),
    ]
    if result.absent:
        size = bytes_text(sum(result.absent.values()))
        pairs.append(("not carried", f"{len(result.absent)} blobs, {size}: to be there already"))
    out.fields(pairs)
    out.result(_difference_document(result))


def _difference_document(result: Difference) -> dict[str, Any]:
    before, after = result.before.models, result.after.models
    sides = {
        key: {"name": side.name, "verified": side.verified, "doubt": side.doubt}
        for key, side in (("before", result.before), ("after", result.after))
    }
    groups = {"shared": result.shared, "new": result.fresh, "notCarried": result.absent}
    return {
        **sides,
        "same": before == after,
        "added": [{"name": name, "manifest": str(after[name])} for name in result.added],
        "removed": [{"name": name, "manifest": str(before[name])} for name in result.removed],
        "changed": [
            {"name": name, "before": str(before[name]), "after": str(after[name])}
            for name in result.changed
        ],
        "unchanged": list(result.unchanged),
        **{
            key: {"blobs": len(blobs), "bytes": sum(blobs.values())}
            for key, blobs in groups.items()
        },
        "transferBytes": result.transfer,
    }


def planned(out: Output, result: Plan) -> None:
    """``bundle plan``; the same words whichever side asks."""
    if result.doubt:
        out.line(f"NOT VERIFIED: {result.doubt}")
    carried = ", ".join(f"{bytes_text(n)} {name}" for name, n in result.carried.items() if n)
    out.fields(
        [
            ("models", f"{len(result.models)}, {bytes_text(sum(n for _, n in result.models))}"),
            ("to carry", f"{bytes_text(result.carry)}: {carried}" if carried else "nothing"),
            ("volumes", _volumes_text(result)),
            ("parity", _parity_text(result)),
            ("there already", _blobs_text(result.held)),
            ("lacking", _blobs_text(result.lacking)),
            ("trusted as", result.anchor),
        ]
    )
    _costs(out, result)
    speed = result.speed
    rates = [
        ("reads", speed.read),
        ("writes", speed.write),
        ("copies", speed.copy),
        ("encodes", speed.encode),
    ]
    text = ", ".join(f"{verb} {bytes_text(int(rate))}/s" for verb, rate in rates if rate)
    if not result.exact:
        out.note("How much travels is an estimate: samples were encoded, not all of it.")
    out.note(f"Times are estimates. Measured here, with a few MiB: {text or 'nothing'}.")
    for name, cost in (("connected", result.connected), ("isolated", result.isolated)):
        if cost is not None and cost.fits is False:
            out.warn(f"the disk of the {name} side is too small ({cost.folder})")
    out.result(_plan_document(result))


def _costs(out: Output, result: Plan) -> None:
    sides = (result.connected, result.isolated)
    unknown = "?"

    def row(label: str, pick: Callable[[Cost], str | None]) -> tuple[str, ...]:
        return (label, *((pick(c) or unknown) if c is not None else "done" for c in sides))

    def size(count: int | None) -> str | None:
        return None if count is None else bytes_text(count)

    def span(seconds: float | None) -> str | None:
        return None if seconds is None else f"about {duration_text(seconds)}"

    rows = [
        row("read", lambda c: size(c.read)),
        row("written", lambda c: size(c.write)),
        row("peak disk", lambda c: size(c.peak)),
        row("free space", lambda c: size(c.free)),
        row("time", lambda c: span(c.seconds)),
    ]
    headers = ("", "CONNECTED SIDE", "ISOLATED SIDE")
    _table(out, headers, rows, headers[1:])


def _volumes_text(result: Plan) -> str:
    if not result.volumes:
        return "none, one file"
    text = f"{result.volumes} of at most {bytes_text(result.volume_size)}"
    if not result.missing:
        return text
    numbers = ", ".join(map(str, result.missing[:20]))
    more = ", …" if len(result.missing) > 20 else ""
    return f"{text}; still missing: {numbers}{more}"


def _parity_text(result: Plan) -> str:
    if not result.parity:
        return ""
    text = f"{len(result.parity)} of {bytes_text(max(result.parity))}"
    return text if result.connected is not None else f"{text} at hand; they stand in for as many"


def _blobs_text(found: tuple[int, int]) -> str:
    count, size = found
    return f"{count} blobs, {bytes_text(size)}" if count else ""


def _plan_document(result: Plan) -> dict[str, Any]:
    def blobs(found: tuple[int, int]) -> dict[str, int]:
        return {"blobs": found[0], "bytes": found[1]}

    def cost(side: Cost | None) -> dict[str, Any] | None:
        if side is None:
            return None
        return {
            "readBytes": side.read,
            "writtenBytes": side.write,
            "peakBytes": side.peak,
            "freeBytes": side.free,
            "fits": side.fits,
            "seconds": side.seconds,
            "folder": str(side.folder) if side.folder else None,
        }

    speed = result.speed
    return {
        "estimate": True,
        "verified": result.anchor is not None,
        "anchor": result.anchor,
        "doubt": result.doubt,
        "models": [{"name": name, "bytes": size} for name, size in result.models],
        "carryBytes": result.carry,
        "encodings": dict(result.carried),
        "volumes": result.volumes,
        "volumeBytes": result.volume_size,
        "missingVolumes": list(result.missing),
        "parityVolumes": list(result.parity),
        "headBytes": result.head or None,
        "exact": result.exact,
        "held": blobs(result.held),
        "lacking": blobs(result.lacking),
        "connected": cost(result.connected),
        "isolated": cost(result.isolated),
        "bytesPerSecond": {
            "read": speed.read,
            "write": speed.write,
            "copy": speed.copy,
            "encode": speed.encode,
        },
    }


def exported(out: Output, result: Exported) -> None:
    """``bundle export``."""
    for model in result.models:
        out.line(f"model  {model.reference}  {model.manifest.digest.short}")
    size = sum(result.blobs.values())
    out.line(f"wrote  {result.folder} ({bytes_text(size)} in {len(result.blobs)} blobs)")
    if result.models:
        name = result.models[0].reference
        out.note(f"Next: skopeo copy oci:{result.folder}:{name} docker://REGISTRY/{name}")
    out.result(
        {
            "path": str(result.folder),
            "bundle": result.descriptor.id,
            "anchor": result.anchor,
            "bytes": size,
            "blobs": len(result.blobs),
            "models": [
                {"name": str(model.reference), "manifest": str(model.manifest.digest)}
                for model in result.models
            ],
        }
    )


def contents_document(contents: Contents) -> dict[str, Any]:
    """What a bundle says that it holds."""
    descriptor = contents.descriptor
    return {
        "bundle": {
            "id": descriptor.id,
            "sequence": descriptor.sequence,
            "issuedAt": descriptor.issued_at,
            "publisher": descriptor.publisher,
            "bytes": contents.stored_size,
        },
        "models": [
            {
                "name": str(model.bundled.reference),
                "manifest": str(model.bundled.manifest.digest),
                "bytes": model.size,
                "architecture": model.architecture,
                "quantization": model.quantization,
                "parameters": model.parameters,
                "licenses": list(model.licenses),
                "attestations": list(model.attestations),
            }
            for model in contents.models
        ],
        "withdrawals": [entry.document() for entry in contents.withdrawn],
        "contents": [
            {
                "digest": str(entry.digest),
                "bytes": entry.size,
                "encoding": entry.encoding,
                "stored": entry.stored_size,
                "segments": len(entry.parts),
                "bases": [str(base) for base in entry.bases],
            }
            for entry in descriptor.contents
        ],
        "requires": [{"digest": str(digest), "bytes": n} for digest, n in descriptor.requires],
        "volumes": [_volume(volume) for volume in contents.volumes],
        "parityVolumes": descriptor.parity.volumes if descriptor.parity else 0,
        "bom": str(descriptor.bom[0]) if descriptor.bom else None,
    }


def _volume(volume: VolumeClaim) -> dict[str, Any]:
    return {
        "number": volume.number,
        "bytes": volume.size,
        "parts": volume.parts,
        "path": str(volume.path) if volume.path else None,
        "found": volume.found,
    }


def _trust(result: Inspected) -> dict[str, Any]:
    return {
        "roots": [
            {
                "version": root.version,
                "fingerprint": str(root.fingerprint),
                "expires": rfc3339(root.expires),
            }
            for root in result.claims.roots
        ],
        "roles": {
            role: {"version": version, "expires": rfc3339(moment)}
            for role, (version, moment) in result.claims.roles.items()
        },
    }


def _models(out: Output, models: tuple[ModelClaim, ...]) -> None:
    rows = (
        (
            model.bundled.reference,
            bytes_text(model.size),
            model.architecture or "?",
            model.quantization or "?",
            ", ".join(model.licenses) or "none given",
        )
        for model in models
    )
    _table(out, ("MODEL", "SIZE", "ARCH", "QUANT", "LICENCE"), rows, ("SIZE",))


def _blobs(out: Output, entries: tuple[Entry, ...]) -> None:
    rows = (
        (e.digest.short, bytes_text(e.size), e.encoding, bytes_text(e.stored_size), len(e.parts))
        for e in entries
    )
    right = ("SIZE", "STORED", "SEGMENTS")
    _table(out, ("BLOB", "SIZE", "ENCODING", "STORED", "SEGMENTS"), rows, right)


def _volumes(out: Output, volumes: tuple[VolumeClaim, ...]) -> None:
    rows = ((v.number, bytes_text(v.size), v.parts, _found(v)) for v in volumes)
    _table(out, ("VOLUME", "SIZE", "PARTS", "FILE"), rows, ("VOLUME", "SIZE", "PARTS"))


def _found(volume: VolumeClaim) -> str:
    if volume.path is None:
        return "not here"
    if volume.found == volume.size:
        return volume.path.name
    return f"{volume.path.name}, but it has {volume.found} of {volume.size} bytes"


def _table(
    out: Output,
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Sequence[str],
) -> None:
    """A table after an empty line; none without rows, and its front where it is long."""
    everything = list(rows)
    if not everything:
        return
    out.line()
    out.table(headers, everything[:_SHOWN], right=right)
    if len(everything) > _SHOWN:
        out.line(f"… and {len(everything) - _SHOWN} more; --json shows all")


def _payload(entries: tuple[Entry, ...]) -> str:
    size = sum(entry.size for entry in entries)
    return f"{bytes_text(size)}, stored in {encodings_text(entries)}"


def encodings_text(entries: Iterable[Entry]) -> str:
    """How many bytes are stored how: ``1.2 GB zstd, 93 MB identity``."""
    stored: Counter[str] = Counter()
    for entry in entries:
        stored[entry.encoding] += entry.stored_size
    return ", ".join(f"{bytes_text(n)} {encoding}" for encoding, n in stored.most_common())


def _requires(contents: Contents) -> str:
    required = contents.descriptor.requires
    if not required:
        return ""
    size = sum(size for _, size in required)
    return f"{len(required)} blobs ({bytes_text(size)}) that must be there already"
