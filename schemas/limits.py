"""Every limit by name, with its unit and where it comes from. Nothing reads without one.

Sizes are bytes, times seconds, unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# -- JSON documents (trust notes: size before parse, depth, no floats) ------------------------
JSON_DEPTH: Final = 32
JSON_INTEGER: Final = 2**63 - 1
MANIFEST_BYTES: Final = 4 * MIB  # OCI distribution-spec 1.1: registries accept at least 4 MiB
CONFIG_BYTES: Final = 4 * MIB
INDEX_BYTES: Final = 64 * MIB  # grows with the number of models in a bundle
DESCRIPTOR_BYTES: Final = 64 * MIB  # about 250 bytes per blob: some 250,000 blobs
SETTINGS_BYTES: Final = 1 * MIB

# -- names (OCI distribution-spec 1.1 "pull"; total length as in docker/distribution) -----------
NAME_CHARS: Final = 255
TAG_CHARS: Final = 128

# -- TUF metadata (python-tuf's own defaults, ngclient/config.py) ------------------------------
TUF_ROOT_BYTES: Final = 512_000
TUF_TIMESTAMP_BYTES: Final = 16_384
TUF_SNAPSHOT_BYTES: Final = 2_000_000
TUF_TARGETS_BYTES: Final = 5_000_000
TUF_ROOT_ROTATIONS: Final = 256
TUF_DELEGATIONS: Final = 32
TRUST_MEMBERS: Final = 1024  # metadata files in one bundle: roots, four roles, delegations
TRUST_TOTAL_BYTES: Final = 64 * MIB

# -- the archive --------------------------------------------------------------------------------
IO_CHUNK: Final = 1 * MIB  # one read; large enough for full disk speed, small enough to stay flat
BLOB_BYTES: Final = 4 * 1024 * GIB  # one blob; the largest open weights are well below 2 TiB
BUNDLE_BLOBS: Final = 1_000_000

# -- the store ----------------------------------------------------------------------------------
GC_GRACE_SECONDS: Final = 24 * 3600  # an import may take a day between blobs and commit
STORE_LOCK_SECONDS: Final = 30

# -- the runtime --------------------------------------------------------------------------------
HTTP_BODY_BYTES: Final = 64 * MIB  # images travel as base64 inside JSON bodies
FRAME_BYTES: Final = 96 * MIB  # one front-end/worker frame: a body plus its envelope
RENDERED_PROMPT_BYTES: Final = 32 * MIB
TEMPLATE_SECONDS: Final = 5
MAX_MESSAGES: Final = 10_000
