"""What can go wrong with a bundle is found out before a model is read: that may take hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bundler.estimating import Estimate, ways_of
from bundler.files import check_output, free_space
from bundler.forms import Form, volume_path
from bundler.sources import FoundModel, LocalModel
from bundler.workbench import is_placing, sweep, used_by
from schemas.errors import StorageFull, UsageError

_DOUBT: Final = 16  # an estimate may be that part too large: what is a little short may still fit


def check_names(models: Sequence[FoundModel | LocalModel]) -> None:
    """See that there are models, each under a name of its own.

    Raises:
        UsageError: There are none, or two have one name.
    """
    if not models:
        raise UsageError("no model was given", hint="Give the path of a model's file or folder")
    counts = Counter(str(model.reference) for model in models)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice:
        raise UsageError(f"two models are called {twice}", hint="Give each its own --name")


def check_outputs(output: Path, form: Form, volumes: int) -> None:
    """See that a bundle may be written there, whatever of it lies there from an earlier attempt.

    Args:
        output: The bundle, or its head.
        form: How it is written.
        volumes: How many it has, at least.

    Raises:
        AlreadyExists, UsageError, NotFound, StorageFailure: As :func:`bundler.files.check_output`.
        StoreBusy: Another process is writing this bundle.
    """
    sweep(output)
    overwrite = form.overwrite or is_placing(output)
    check_output(output, overwrite=overwrite)
    for kind, count in (("v", volumes), ("p", form.parity)):
        for number in range(1, count + 1):
            check_output(volume_path(output, number, kind), overwrite=overwrite)


def check_room(models: Sequence[FoundModel], output: Path, form: Form) -> None:
    """See that the disk has room, and nothing in the volumes' way, before models are read.

    Against what a site holds, nobody knows yet how much travels; then only names are looked at.

    Args:
        models: What is to be bundled.
        output: The bundle, or its head.
        form: How it is written.

    Raises:
        AlreadyExists, UsageError: Something lies where a volume would.
        StorageFull: There is no room.
        StorageFailure: The disk cannot be looked at.
    """
    if form.held:
        return
    estimate = Estimate(ways_of(models, form), form)
    check_outputs(output, form, len(estimate.volumes))
    check_space(output, estimate.written - estimate.spooled // _DOUBT - used_by(output))


def check_space(output: Path, count: int) -> None:
    """See that the disk has room for so many more bytes.

    Raises:
        StorageFull: It has not.
        StorageFailure: It cannot be looked at.
    """
    free = free_space(output.parent, f"cannot write {output}")
    if free < count:
        raise StorageFull(
            f"not enough space for {output.name}",
            why=f"{count} bytes needed, {free} free",
            hint="Free some space or write to another disk",
        )
