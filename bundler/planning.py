"""``bundle plan``: what a transfer costs, before anything moves; the same words on both sides.

What is known exactly is told exactly; the rest is estimated from samples of the data and from
speeds that are measured on the spot, with a few MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bundler.clock import now
from bundler.comparing import store_if_any
from bundler.costs import Plan
from bundler.files import open_regular
from bundler.finding import find_bundle
from bundler.forms import Form
from bundler.importer import Wishes, staged_head
from bundler.planning_create import plan_models
from bundler.planning_import import plan_import
from bundler.volumes import look
from registry.verify import storage_errors
from schemas.errors import UsageError
from schemas.render import Meter

_WEIGHTS: Final = frozenset({".gguf", ".safetensors"})


def plan(
    home: Path,
    sources: Sequence[str],
    names: Sequence[str],
    output: Path,
    form: Form,
    wishes: Wishes,
    progress: Meter,
) -> Plan:
    """What it costs to bundle models, or to import a bundle: by what the sources are.

    Args:
        home: The store, if there is one; nothing is changed in it.
        sources: Model files; or the files and folders of one bundle.
        names: Of models: none, or one per source.
        output: Of models: where the bundle would be written, or its folder.
        form: Of models: how it would be written.
        wishes: Of a bundle: which models, and whom to believe.
        progress: Told of bytes that must be read: only against what a site holds.

    Raises:
        UsageError: Both kinds at once, or another number of names.
        SealiftError: As :func:`plan_models` and :func:`plan_import`.
    """
    models = [source for source in sources if _is_model(source)]
    if models and len(models) < len(sources):
        raise UsageError(
            "models and bundles cannot be planned at once",
            why=f"{models[0]} is a model",
            hint="Give the models that are to be bundled, or the bundle that is to be imported",
        )
    if models:
        folder = output if output.is_dir() else output.parent
        return plan_models(home, models, names, folder.absolute(), form, progress)
    media = look(Path(source) for source in sources)
    with store_if_any(home) as store:
        head, _ = find_bundle(
            media, lambda bundle: staged_head(store, bundle) if store is not None else None
        )
        return plan_import(store, home, head, media, wishes, now())


def _is_model(source: str) -> bool:
    if "://" in source:
        return True
    path = Path(source)
    with storage_errors(f"cannot read {source}"):
        if path.is_dir():  # a model's, or that of a bundle
            suffixes = {each.suffix.lower() for each in path.iterdir()}
            return not suffixes.isdisjoint(_WEIGHTS) and ".tar" not in suffixes
    with open_regular(path) as file, storage_errors(f"cannot read {source}"):
        return file.read(4) == b"GGUF" or path.suffix.lower() in _WEIGHTS
