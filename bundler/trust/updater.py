"""python-tuf's client over a bundle's members instead of a network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from bundler.trust import names
from bundler.trust.closedworld import MemberSet
from registry.records import TrustState
from schemas import limits
from schemas.errors import BadSignature

_BASE_URL: Final = "bundle:///metadata/"


class _Members(FetcherInterface):
    """The updater's "network": an exact look-up in memory; never joins a path."""

    def __init__(self, members: Mapping[str, bytes]) -> None:
        self._members = {f"{_BASE_URL}{name}": data for name, data in members.items()}

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """In memory; the client's own way is by a temporary file."""
        data = b"".join(self.fetch(url))
        if len(data) > max_length:
            raise tuf_errors.DownloadLengthMismatchError(f"{url}: {len(data)} > {max_length} bytes")
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._members.get(url)
        if data is None:
            # The updater takes 404 for "no newer root"; any other error would abort it.
            raise tuf_errors.DownloadHTTPError(f"no {url}", 404)
        return iter((data,))


class BundleUpdater(Updater):
    """python-tuf's client at our reference time; pinned to 7.0.* for the underscores.

    Its local copies are kept in memory: a process that is killed leaves no folder behind, and a
    full disk cannot stop a verification.

    Args:
        trusted: Role to metadata that this site accepted before.
        members: What the bundle carries.
        root: The newest root that this site accepted.
        time: What counts as now.
    """

    def __init__(
        self, trusted: Mapping[str, bytes], members: _Members, root: bytes, time: datetime
    ) -> None:
        self._local = dict(trusted)
        super().__init__(
            os.devnull,  # nothing can be below it, should the client look there
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

    def _load_local_metadata(self, rolename: str) -> bytes:
        try:
            return self._local[rolename]
        except KeyError:
            raise FileNotFoundError(rolename) from None  # what the client expects

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        self._local[rolename] = data

    def _persist_root(self, version: int, data: bytes) -> None:
        """Roots are never looked up again."""

    def _update_root_symlink(self) -> None:
        """Nor is the newest one."""

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
    """
    # A copy of the trusted state: the updater keeps what it saw before it fails.
    newest = state.roots[max(state.roots)]
    updater = BundleUpdater(state.metadata, _Members(members), newest, time)
    updater.load(checked)
    return updater
