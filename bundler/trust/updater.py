"""python-tuf's client over a bundle's members instead of a network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from bundler.trust import names
from bundler.trust.closedworld import MemberSet
from registry.records import TrustState
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import BadSignature

_BASE_URL: Final = "bundle:///metadata/"


class _Members(FetcherInterface):
    """The updater's "network": an exact look-up in memory; never joins a path."""

    def __init__(self, members: Mapping[str, bytes]) -> None:
        self._members = {f"{_BASE_URL}{name}": data for name, data in members.items()}

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._members.get(url)
        if data is None:
            # The updater takes 404 for "no newer root"; any other error would abort it.
            raise tuf_errors.DownloadHTTPError(f"no {url}", 404)
        return iter((data,))


class BundleUpdater(Updater):
    """python-tuf's client at our reference time; pinned to 7.0.* for the two underscores."""

    def __init__(self, folder: Path, members: _Members, root: bytes, time: datetime) -> None:
        super().__init__(
            str(folder),
            _BASE_URL,
            fetcher=members,
            config=UpdaterConfig(
                max_root_rotations=limits.TUF_ROOT_ROTATIONS,
                max_delegations=limits.TUF_DELEGATIONS,
                root_max_length=limits.TUF_ROOT_BYTES,
                timestamp_max_length=limits.TUF_TIMESTAMP_BYTES,
                snapshot_max_length=limits.TUF_SNAPSHOT_BYTES,
                targets_max_length=limits.TUF_TARGETS_BYTES,
                prefix_targets_with_hash=False,
            ),
            bootstrap=root,
        )
        self._trusted_set.reference_time = time
        self._carried: tuple[str, ...] = ()

    def load(self, checked: MemberSet) -> None:
        """Run the whole client workflow, every delegated role included.

        Raises:
            BadSignature: What the updater trusts is not what the bundle carries.
        """
        self.refresh()
        for role, parent in checked.parents.items():
            self._load_targets(role, parent)
        self._carried = tuple(checked.parents)
        for role, item in {names.ROOT: checked.root, **checked.roles}.items():
            # A cached file of equal version wins over the bundle's: they must say the same.
            if self._trusted_set[role] != item.signed:
                raise BadSignature(
                    f"there are two different files {item.title}",
                    why="the bundle's is not the one that this site accepted before",
                    hint="Ask the publisher: somebody may hold their keys",
                )

    def find(self, path: str) -> tuple[TargetFile, str] | None:
        """A target and the role that signs for it; all roles are loaded, so no file is touched."""
        found = self.get_targetinfo(path)
        if found is None:
            return None
        for role in self._carried:
            signed = self._trusted_set[role]
            if isinstance(signed, Targets) and signed.targets.get(path) is found:
                return found, role
        return None


def run_updater(
    state: TrustState, members: Mapping[str, bytes], checked: MemberSet, time: datetime
) -> BundleUpdater:
    """Run the client workflow over a bundle, on a copy of the trusted state.

    Args:
        state: What the site trusts; its newest root is the updater's pin.
        members: File name to bytes.
        checked: The same, checked as a closed set.
        time: What counts as now.

    Raises:
        BadSignature: Two different files of one version.
        RepositoryError: python-tuf's verdict.
        DownloadError: A file that the workflow asks for is not there.
        StorageFull: Or :class:`~schemas.errors.StorageFailure`: no temporary folder.
    """
    # Not on the trusted state itself: the updater keeps what it saw before it fails.
    with (
        storage_errors("cannot verify metadata in a temporary folder"),
        tempfile.TemporaryDirectory(prefix="sealift-trust-") as name,
    ):
        folder = Path(name)
        for role, data in state.metadata.items():
            (folder / f"{role}.json").write_bytes(data)
        newest = state.roots[max(state.roots)]
        updater = BundleUpdater(folder, _Members(members), newest, time)
        updater.load(checked)
    return updater
