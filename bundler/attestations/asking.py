"""``bundle bom``: the bill of materials of a model in the store, or of a bundle."""

from __future__ import annotations

from pathlib import Path

from bundler.attestations.extracting import find_bom
from bundler.clock import now
from bundler.files import open_regular
from bundler.finding import find_bundle
from bundler.head import advice, open_head
from bundler.importer import staged_head
from bundler.inspecting import read_bom
from bundler.reading import read_front
from bundler.volumes import look
from registry.reference import Reference
from registry.store import Store
from schemas.errors import NotFound


def bill(home: Path, target: str, *, unverified: bool = False) -> bytes:
    """A bill of materials as it was made: CycloneDX 1.6, JSON.

    Args:
        home: The store.
        target: A model's name; or a bundle, its head, or the folder that it lies in.
        unverified: Take what a bundle says without asking whom to believe; no store is needed.

    Raises:
        NotFound: No such model, or it came without one.
        ContentError, TrustError: The bundle is not to be believed.
        EnvironmentFault: It cannot be read.
    """
    path = Path(target)
    if path.exists():
        found = _of_bundle(home, path, unverified=unverified)
    else:
        with Store.open(home, create=False) as store:
            record = store.catalogue.resolve(Reference.from_user(target))
            if record is None:
                raise NotFound(
                    f"there is neither a bundle nor a model {target[:120]}",
                    hint="See: sealift list",
                )
            found = find_bom(store, record) or b""
    if not found:
        raise NotFound(f"{target[:120]} came without a bill of materials")
    return found


def _of_bundle(home: Path, path: Path, *, unverified: bool) -> bytes:
    media = look([path])
    if unverified:
        head, _ = find_bundle(media)
        with open_regular(head) as source, advice():
            return read_bom(read_front(source))
    with Store.open(home) as store:
        head, _ = find_bundle(media, lambda bundle: staged_head(store, bundle))
        with open_regular(head) as source:
            trusted = open_head(store.catalogue, source, anchor=None, now=now())
            return trusted.read_rest(lambda _: None).bom
