"""A mirror that fails or lies: nothing of it is believed, nothing half is kept but to go on with."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from registry.store import Store
from registry.withdrawals import AcceptedList, Action, Withdrawn
from runtime.mirror.address import MirrorAddress
from runtime.mirror.remote import Remote
from runtime.mirror.service import Mirror
from runtime.mirror.transfers import pull, push
from runtime.models import Models
from schemas.errors import (
    AlreadyExists,
    Cancelled,
    ContentMismatch,
    MalformedDocument,
    MalformedModel,
    ModelWithdrawn,
    NotFound,
    RemoteRefused,
    RemoteUnavailable,
    UnsupportedRequest,
    UsageError,
)
from schemas.settings import Serve
from tests.gguf_files import tiny_gguf
from tests.support.certificates import make
from tests.support.simulated_registry import SimulatedRegistry, simulated_registry
from tests.support.vision import write_projector

NAME = Reference.parse("acme/new")
SYSTEM = b"Be kind."


@pytest.fixture
def mirror() -> Iterator[SimulatedRegistry]:
    with simulated_registry() as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as store:
        yield store


@pytest.fixture
def weights(tmp_path: Path, mirror: SimulatedRegistry) -> Digest:
    """A model on the mirror; this is its weights' digest."""
    data = tiny_gguf(tmp_path / "new.gguf", name="New").read_bytes()
    digest = mirror.put(data)
    offer(mirror, layer(oci.WEIGHT_RAW, data))
    return digest


def layer(media_type: str, data: bytes, **annotations: str) -> Descriptor:
    return Descriptor.for_bytes(media_type, data, annotations)


def offer(mirror: SimulatedRegistry, *layers: Descriptor, **annotations: str) -> Manifest:
    mirror.put(b"{}")
    manifest = Manifest(
        config=Descriptor.for_bytes(oci.MODEL_CONFIG, b"{}"),
        layers=layers,
        artifact_type=oci.MODEL_ARTIFACT,
        annotations=annotations,
    )
    mirror.manifests["latest"] = (manifest.to_bytes(), oci.IMAGE_MANIFEST)
    return manifest


def remote(mirror: SimulatedRegistry) -> Remote:
    address = MirrorAddress("http", "127.0.0.1", mirror.port)
    return Remote(address, lambda: socket.create_connection(("127.0.0.1", mirror.port)))


def pulled(store: Store, mirror: SimulatedRegistry, name: Reference = NAME) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    pull(store, remote(mirror), name, lines.append)
    return lines


def test_a_pull(store: Store, mirror: SimulatedRegistry, weights: Digest) -> None:
    found = pulled(store, mirror)
    statuses = list(dict.fromkeys(line["status"] for line in found))
    assert statuses == [
        "pulling manifest",
        f"pulling {weights.short}",
        f"pulling {Digest.of(b'{}').short}",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    (line, *_) = (line for line in found if line.get("completed"))
    size = len(mirror.blobs[str(weights)])
    assert line == {
        "status": f"pulling {weights.short}", "digest": str(weights), "total": size, "completed": size,
    }  # fmt: skip
    (model,) = Models(store).all()
    assert model.made is not None
    assert model.made.line() == f"pulled from http://127.0.0.1:{mirror.port}, signed by nobody"
    assert list((store.home / "staging").iterdir()) == []
    before = len(mirror.asked)
    pulled(store, mirror)
    assert [asked[:2] for asked in mirror.asked[before:]] == [
        ("GET", "/v2/acme/new/manifests/latest")
    ]


def test_ollamas_form_is_taken_too(store: Store, mirror: SimulatedRegistry, tmp_path: Path) -> None:
    data = tiny_gguf(tmp_path / "o.gguf").read_bytes()
    mirror.put(data)
    mirror.put(SYSTEM)
    mirror.put(b"{}")
    manifest = Manifest(
        config=Descriptor.for_bytes("application/vnd.docker.container.image.v1+json", b"{}"),
        layers=(
            layer(f"{oci.OLLAMA_LAYER}model", data),
            layer(f"{oci.OLLAMA_LAYER}system", SYSTEM),
        ),
        media_type=oci.DOCKER_MANIFEST,
    )
    mirror.manifests["latest"] = (manifest.to_bytes(), oci.DOCKER_MANIFEST)
    pulled(store, mirror)
    assert Models(store).get(NAME).system == "Be kind."


@pytest.mark.parametrize("kinds", [("model", "projector"), ("projector", "model"), None])
def test_a_model_that_sees(
    store: Store, mirror: SimulatedRegistry, tmp_path: Path, kinds: tuple[str, str] | None
) -> None:
    """In Ollama's form, whichever comes first, and as ModelPack, which does not say what is what."""
    files = {
        "projector": write_projector(tmp_path / "mmproj.gguf").read_bytes(),
        "model": tiny_gguf(tmp_path / "model.gguf").read_bytes(),
    }
    for data in files.values():
        mirror.put(data)
    forms = [f"{oci.OLLAMA_LAYER}{kind}" for kind in kinds] if kinds else [oci.WEIGHT_RAW] * 2
    order = kinds or ("projector", "model")
    offer(mirror, *(layer(form, files[kind]) for form, kind in zip(forms, order, strict=True)))
    pulled(store, mirror)
    found = Models(store).get(NAME)
    assert found.weights.read_bytes() == files["model"]
    assert found.projector is not None
    assert found.projector.read_bytes() == files["projector"]
    assert "vision" in found.capabilities


def test_two_models_or_a_projector_alone_are_not_kept(
    store: Store, mirror: SimulatedRegistry, tmp_path: Path
) -> None:
    model = tiny_gguf(tmp_path / "model.gguf").read_bytes()
    other = tiny_gguf(tmp_path / "other.gguf", name="Other").read_bytes()
    sees = write_projector(tmp_path / "mmproj.gguf").read_bytes()
    for several in ((model, other), (sees,), (sees, sees[:-4] + b"same")):
        for data in several:
            mirror.put(data)
        offer(mirror, *(layer(oci.WEIGHT_RAW, data) for data in several))
        with pytest.raises((UnsupportedRequest, MalformedModel)):
            pulled(store, mirror)
        assert Models(store).all() == []
        assert list((store.home / "staging").iterdir()) == []


def test_an_interrupted_pull_goes_on(
    store: Store, mirror: SimulatedRegistry, weights: Digest
) -> None:
    mirror.cut = 1000
    with pytest.raises(RemoteUnavailable, match="broke off"):
        pulled(store, mirror)
    assert Models(store).all() == []
    mirror.cut = None
    pulled(store, mirror)
    assert mirror.asked[-2][2] == "bytes=1000-"
    assert len(Models(store).all()) == 1


def test_a_mirror_that_begins_anew(
    store: Store, mirror: SimulatedRegistry, weights: Digest
) -> None:
    mirror.cut = 1000
    with pytest.raises(RemoteUnavailable):
        pulled(store, mirror)
    mirror.cut, mirror.ranges = None, False
    pulled(store, mirror)
    assert len(Models(store).all()) == 1


@pytest.mark.parametrize("kind", ["wrong", "long"])
def test_a_blob_that_is_something_else(
    store: Store, mirror: SimulatedRegistry, weights: Digest, kind: str
) -> None:
    good = mirror.blobs[str(weights)]
    mirror.blobs[str(weights)] = good[:-1] + b"!" if kind == "wrong" else good + b"!"
    with pytest.raises(ContentMismatch, match="digest mismatch"):
        pulled(store, mirror)
    assert Models(store).all() == []
    assert not store.blobs.has(weights)
    mirror.blobs[str(weights)] = good
    pulled(store, mirror)
    assert len(Models(store).all()) == 1, "the next good one goes in"


def test_a_lie_in_the_first_part_is_found_in_the_end(
    store: Store, mirror: SimulatedRegistry, weights: Digest
) -> None:
    good = mirror.blobs[str(weights)]
    mirror.blobs[str(weights)] = b"!" + good[1:]
    mirror.cut = 1000
    with pytest.raises(RemoteUnavailable):
        pulled(store, mirror)
    mirror.blobs[str(weights)], mirror.cut = good, None
    with pytest.raises(ContentMismatch):
        pulled(store, mirror)
    pulled(store, mirror)


def test_what_is_no_model(store: Store, mirror: SimulatedRegistry) -> None:
    data = b"no gguf at all" * 100
    mirror.put(data)
    offer(mirror, layer(oci.WEIGHT_RAW, data))
    with pytest.raises(MalformedModel):
        pulled(store, mirror)
    offer(mirror, layer(oci.DOC_RAW, data))
    with pytest.raises(UnsupportedRequest, match="not a single GGUF"):
        pulled(store, mirror)
    mirror.manifests["latest"] = (b"{}", oci.IMAGE_MANIFEST)
    with pytest.raises(MalformedDocument):
        pulled(store, mirror)
    mirror.manifests["latest"] = (b"{}", oci.IMAGE_INDEX)
    with pytest.raises(RemoteRefused, match="no model under this name"):
        pulled(store, mirror)
    mirror.manifests["latest"] = (b"x" * (4 * 1024 * 1024 + 1), oci.IMAGE_MANIFEST)
    with pytest.raises(RemoteRefused, match="too large"):
        pulled(store, mirror)
    assert Models(store).all() == []


def test_what_the_mirror_has_not(store: Store, mirror: SimulatedRegistry, weights: Digest) -> None:
    with pytest.raises(NotFound, match="pull model manifest: file does not exist"):
        pulled(store, mirror, Reference.parse("acme/new:other"))
    del mirror.blobs[str(weights)]
    with pytest.raises(NotFound, match="has no blob"):
        pulled(store, mirror)


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (401, RemoteRefused, "asks for a login, or says no: because"),
        (403, RemoteRefused, "asks for a login"),
        (500, RemoteRefused, "answered 500: because"),
        (204, RemoteRefused, "answered 204"),
    ],
)
def test_refusals(
    store: Store, mirror: SimulatedRegistry, status: int, kind: type[Exception], text: str
) -> None:
    mirror.status = status
    with pytest.raises(kind, match=text):
        pulled(store, mirror)


@pytest.mark.parametrize(
    "location", ["http://192.0.2.1{}", "https://127.0.0.1{}", "//evil.example{}", "ftp://x", ""]
)
def test_no_redirect_leaves_the_host(
    store: Store, mirror: SimulatedRegistry, weights: Digest, location: str
) -> None:
    mirror.location = location or "http://localhost:1{}"
    with pytest.raises(RemoteRefused, match="sends us elsewhere"):
        pulled(store, mirror)


def test_redirects_on_the_host_end_some_time(
    store: Store, mirror: SimulatedRegistry, weights: Digest
) -> None:
    mirror.location = "{}"
    with pytest.raises(RemoteRefused, match="redirects without end"):
        pulled(store, mirror)


def test_nobody_listens(store: Store) -> None:
    def dial() -> socket.socket:
        raise RemoteUnavailable("the mirror does not answer", why="nobody there")

    there = Remote(MirrorAddress("http", "127.0.0.1", 9), dial)
    with pytest.raises(RemoteUnavailable, match="nobody there"):
        pull(store, there, NAME, lambda _: None)


def test_a_pull_can_be_ended(store: Store, mirror: SimulatedRegistry, weights: Digest) -> None:
    mirror.hang = threading.Event()
    there = remote(mirror)
    ended: list[BaseException] = []

    def work() -> None:
        try:
            pull(store, there, NAME, lambda _: None)
        except Cancelled as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while len(mirror.asked) < 2:
        thread.join(0.01)
    there.abort()
    thread.join(10)
    assert len(ended) == 1
    assert Models(store).all() == []


def test_what_is_denied_is_not_fetched(
    store: Store, mirror: SimulatedRegistry, weights: Digest
) -> None:
    store.deny(weights, "", "known bad")
    with pytest.raises(ModelWithdrawn, match="known bad"):
        pulled(store, mirror)
    assert len(mirror.asked) == 1


def test_the_withdrawal_of_a_named_base_holds(
    store: Store, mirror: SimulatedRegistry, weights: Digest
) -> None:
    acme, base = Digest.of(b"acme"), Digest.of(b"a manifest that acme once signed")
    offer(
        mirror,
        layer(oci.WEIGHT_RAW, mirror.blobs[str(weights)]),
        **{oci.BASE_DIGEST: str(base)},
    )
    pulled(store, mirror)
    assert Models(store).get(NAME).withdrawal is None
    with store.catalogue.transaction() as tx:
        tx.add_anchor("acme", acme)
        tx.withdrawals.vouch(base, acme)
        at = datetime(2026, 12, 1, tzinfo=UTC)
        last = {base: Withdrawn(base, Action.BLOCK, "it lies", 1, at)}
        tx.withdrawals.accept(acme, AcceptedList(1, 1, b"{}"), last)
    found = Models(store).get(NAME).withdrawal
    assert found is not None
    assert found.stops
    with pytest.raises(ModelWithdrawn):
        pulled(store, mirror, Reference.parse("acme/again"))
    with pytest.raises(ModelWithdrawn):
        push(store, remote(mirror), NAME, lambda _: None)


def test_a_signed_name_is_not_taken(
    store: Store, mirror: SimulatedRegistry, weights: Digest
) -> None:
    pulled(store, mirror)
    record = store.catalogue.resolve(NAME)
    assert record is not None
    with store.catalogue.transaction() as tx:
        tx.withdrawals.vouch(record.descriptor.digest, Digest.of(b"acme"))
    pulled(store, mirror)  # the same is no conflict
    mirror.put(SYSTEM)
    other = layer(oci.DOC_RAW, SYSTEM)
    offer(mirror, layer(oci.WEIGHT_RAW, mirror.blobs[str(weights)]), other)
    with pytest.raises(AlreadyExists):
        pulled(store, mirror)


@pytest.mark.parametrize("name", ["evil.example/acme/new", "127.0.0.1:1/acme/new"])
def test_other_hosts_are_refused(store: Store, mirror: SimulatedRegistry, name: str) -> None:
    for work in (pull, push):
        with pytest.raises(UsageError, match="is not the mirror"):
            work(store, remote(mirror), Reference.parse(name), lambda _: None)
    assert mirror.asked == []


def test_the_mirrors_own_name_may_stand_in_front(
    store: Store, mirror: SimulatedRegistry, weights: Digest
) -> None:
    pulled(store, mirror, Reference.parse(f"127.0.0.1:{mirror.port}/acme/new"))
    assert Models(store).get(NAME).name == "acme/new:latest"


def test_another_manifest_than_was_asked_for(
    store: Store, mirror: SimulatedRegistry, weights: Digest
) -> None:
    wanted = Digest.of(b"another")
    mirror.manifests[str(wanted)] = mirror.manifests["latest"]
    with pytest.raises(ContentMismatch, match="another manifest"):
        pulled(store, mirror, Reference("acme", "new", digest=wanted))


@pytest.mark.parametrize("trusted", [True, False])
def test_a_mirror_over_tls(store: Store, tmp_path: Path, trusted: bool) -> None:
    own, other = make(tmp_path / "own"), make(tmp_path / "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    login = tmp_path / "login"
    login.write_text("me:secret")
    login.chmod(0o600)
    with simulated_registry(context) as mirror:
        data = tiny_gguf(tmp_path / "tls.gguf").read_bytes()
        mirror.put(data)
        offer(mirror, layer(oci.WEIGHT_RAW, data))
        settings = Serve(
            mirror=f"https://127.0.0.1:{mirror.port}",
            mirror_ca=str((own if trusted else other).ca),
            mirror_login=str(login),
        )
        service = Mirror.start(settings)
        assert service is not None
        with closing(service):
            if trusted:
                pull(store, service.connect(), NAME, lambda _: None)
                assert set(mirror.logins) == {"Basic bWU6c2VjcmV0"}
            else:
                with pytest.raises(RemoteRefused, match="cannot be trusted"):
                    pull(store, service.connect(), NAME, lambda _: None)
                assert mirror.asked == []


def test_a_mirror_under_another_name(store: Store, tmp_path: Path) -> None:
    own = make(tmp_path / "own", address="127.0.0.2")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    with simulated_registry(context) as mirror:
        service = Mirror.start(
            Serve(mirror=f"https://127.0.0.1:{mirror.port}", mirror_ca=str(own.ca))
        )
        assert service is not None
        with closing(service), pytest.raises(RemoteRefused, match="cannot be trusted"):
            pull(store, service.connect(), NAME, lambda _: None)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:5000", MirrorAddress("http", "127.0.0.1", 5000)),
        ("https://registry.site/", MirrorAddress("https", "registry.site", 443)),
        ("HTTPS://[::1]:5000", MirrorAddress("https", "::1", 5000)),
    ],
)
def test_addresses(text: str, address: MirrorAddress) -> None:
    assert MirrorAddress.parse(text) == address
    assert MirrorAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "registry.site", "ftp://x", "http://", "http://u:p@x", "http://x/y", "http://x:0",
        "http://x:99999", "http://x?y", "http://x y", "http://[::1", "unix:///run/x",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="no address of a mirror"):
        MirrorAddress.parse(text)
