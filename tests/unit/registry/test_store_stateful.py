"""Any sequence of imports, names, removals, collections and aborted work keeps the promises.

No blob that a name leads to ever vanishes, and what no name leads to is gone after the grace time.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from registry.blobs import StagingArea
from registry.digest import Digest
from registry.gc import collect, scrub
from registry.reference import Reference
from registry.store import Store
from schemas.errors import ContentMismatch, NotFound
from tests.store_models import TinyModel, backdate, install

GRACE = 3600.0
NAMES = st.sampled_from([f"acme/m{n}:1" for n in range(3)] + ["other/m0:1"])
# Few weights and configs, so that models share blobs.
MODELS = st.builds(
    TinyModel,
    weights=st.sampled_from([b"weights a", b"weights b"]),
    config=st.sampled_from([b'{"c":1}', b'{"c":2}', b"weights a"]),
)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="sealift-test-"))
        self.store = Store.open(self.home)
        self.named: dict[str, TinyModel] = {}
        self.under_way: tuple[ExitStack, StagingArea, TinyModel] | None = None

    def teardown(self) -> None:
        self._abort()
        self.store.close()
        shutil.rmtree(self.home)

    @initialize(model=MODELS)
    def first(self, model: TinyModel) -> None:
        self._import(model, "acme/m0:1")

    # -- what people do -------------------------------------------------------------------------

    @rule(model=MODELS, name=NAMES)
    def import_model(self, model: TinyModel, name: str) -> None:
        self._import(model, name)

    def _import(self, model: TinyModel, name: str) -> None:
        install(self.store, model, name)
        self.named[name] = model

    @rule(model=MODELS)
    def import_dies_before_its_commit(self, model: TinyModel) -> None:
        with self.store.blobs.stage() as area:
            for data in (model.weights, model.config, model.manifest.to_bytes()):
                area.add_bytes(data)
            area.install()

    @rule(model=MODELS)
    def import_is_refused(self, model: TinyModel) -> None:
        digest = model.manifest.layers[0].digest
        with pytest.raises(ContentMismatch), self.store.blobs.stage() as area:
            area.add(io.BytesIO(b"tampered!"), digest, len(b"tampered!"))

    @rule(source=NAMES, copy=NAMES)
    def copy_model(self, source: str, copy: str) -> None:
        names = Reference.parse(source), Reference.parse(copy)
        if source in self.named:
            self.store.copy_model(*names)
            self.named[copy] = self.named[source]
        else:
            with pytest.raises(NotFound):
                self.store.copy_model(*names)

    @rule(name=NAMES, prune=st.booleans())
    def remove(self, name: str, prune: bool) -> None:
        if name in self.named:
            self.store.remove_model(Reference.parse(name), prune=prune)
            del self.named[name]
        else:
            with pytest.raises(NotFound):
                self.store.remove_model(Reference.parse(name))

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(self.home)

    # -- an import that takes its time ----------------------------------------------------------

    @precondition(lambda self: self.under_way is None)
    @rule(model=MODELS)
    def begin(self, model: TinyModel) -> None:
        stack = ExitStack()
        area = stack.enter_context(self.store.blobs.stage("slow"))
        for blob, data in zip(model.manifest.blobs, (model.config, model.weights), strict=True):
            if not area.claim(blob.digest, blob.size):
                area.add_bytes(data)
        area.add_bytes(model.manifest.to_bytes())
        self.under_way = (stack, area, model)

    @precondition(lambda self: self.under_way is not None)
    @rule(name=NAMES)
    def commit(self, name: str) -> None:
        assert self.under_way is not None
        stack, area, model = self.under_way
        with stack, self.store.lock():
            area.install()
            reference = Reference.parse(name)
            with self.store.catalogue.transaction() as tx:
                for blob in model.manifest.blobs:
                    tx.put_blob(blob)
                tx.put_manifest(reference.repository, model.descriptor, model.manifest, None)
                tx.set_tag(reference, model.descriptor.digest)
        self.named[name] = model
        self.under_way = None

    @rule()
    def abort(self) -> None:
        self._abort()

    def _abort(self) -> None:
        if self.under_way is not None:
            self.under_way[0].close()
            self.under_way = None

    # -- collection -----------------------------------------------------------------------------

    @rule()
    def collect_with_grace(self) -> None:
        before = {digest: self._age(digest) for digest in self.store.blobs}
        collect(self.store, grace_seconds=GRACE)
        gone = {digest: age for digest, age in before.items() if not self.store.blobs.has(digest)}
        assert all(age >= GRACE for age in gone.values())

    @rule(seconds=st.sampled_from([GRACE / 2, GRACE]))
    def time_passes(self, seconds: float) -> None:
        for digest in self.store.blobs:
            backdate(self.store.blobs.path(digest), seconds)
        self.store.catalogue._connection.execute(
            "UPDATE manifests SET created_at = created_at - ?", (int(seconds * 1_000_000),)
        )

    @rule()
    def collect_everything(self) -> None:
        collect(self.store, grace_seconds=0)
        assert set(self.store.blobs) == self._needed()
        assert self.store.catalogue.blob_sizes().keys() == self._needed()

    # -- the promises ---------------------------------------------------------------------------

    @invariant()
    def every_name_leads_to_all_its_bytes(self) -> None:
        records = self.store.catalogue.models()
        assert {str(r.reference): r.manifest for r in records} == {
            name: model.manifest for name, model in self.named.items()
        }
        assert self._needed() <= set(self.store.blobs)
        for digest in self._needed():
            assert self.store.blobs.verify(digest)

    @invariant()
    def every_file_is_what_its_name_says(self) -> None:
        assert not scrub(self.store).rotted

    @invariant()
    def staging_holds_only_who_is_alive(self) -> None:
        assert self.store.blobs.live_areas() == (self.under_way is not None)

    def _needed(self) -> set[Digest]:
        return {digest for model in self.named.values() for digest in model.digests}

    def _age(self, digest: Digest) -> float:
        path = self.store.blobs.path(digest)
        return time.time() - path.stat().st_mtime


@pytest.mark.timeout(300)
def test_any_sequence_of_work() -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(settings.default, max_examples=20, stateful_step_count=25),
    )
