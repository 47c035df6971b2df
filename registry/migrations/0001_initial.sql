-- The catalogue's first schema. Times are microseconds since 1970-01-01 UTC, sizes are bytes,
-- digests are "algorithm:hex".

CREATE TABLE repositories (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- What lies under blobs/. A row exists before anything may refer to the blob.
CREATE TABLE blobs (
    digest     TEXT NOT NULL PRIMARY KEY,
    size       INTEGER NOT NULL CHECK (size >= 0),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The exact bytes of a manifest are a blob. `document` holds the same manifest as this program
-- writes it: what lists and look-ups need, without opening a file per model.
CREATE TABLE manifests (
    digest        TEXT NOT NULL PRIMARY KEY REFERENCES blobs (digest),
    media_type    TEXT NOT NULL,
    artifact_type TEXT,
    size          INTEGER NOT NULL CHECK (size >= 0),
    document      BLOB NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE manifest_blobs (
    manifest   TEXT NOT NULL REFERENCES manifests (digest) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    digest     TEXT NOT NULL REFERENCES blobs (digest),
    media_type TEXT NOT NULL,
    PRIMARY KEY (manifest, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_blobs_by_digest ON manifest_blobs (digest);

-- A blob belongs to a repository through the manifests that the repository holds.
CREATE TABLE repository_manifests (
    repository INTEGER NOT NULL REFERENCES repositories (id),
    manifest   TEXT NOT NULL REFERENCES manifests (digest) ON DELETE CASCADE,
    PRIMARY KEY (repository, manifest)
) STRICT, WITHOUT ROWID;
CREATE INDEX repository_manifests_by_manifest ON repository_manifests (manifest);

CREATE TABLE tags (
    repository INTEGER NOT NULL,
    tag        TEXT NOT NULL,
    manifest   TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (repository, tag),
    FOREIGN KEY (repository, manifest) REFERENCES repository_manifests (repository, manifest)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_manifest ON tags (manifest);

-- OCI distribution-spec 1.1 "Listing Referrers". The subject may come later, or never.
CREATE TABLE referrers (
    subject       TEXT NOT NULL,
    manifest      TEXT NOT NULL REFERENCES manifests (digest) ON DELETE CASCADE,
    artifact_type TEXT,
    PRIMARY KEY (subject, manifest)
) STRICT, WITHOUT ROWID;
CREATE INDEX referrers_by_manifest ON referrers (manifest);

-- What `show` needs of a model: a JSON object of our own making.
CREATE TABLE model_facts (
    manifest TEXT NOT NULL PRIMARY KEY REFERENCES manifests (digest) ON DELETE CASCADE,
    document BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The pinned roots, and the TUF metadata that this site last accepted under each. Every version of
-- the root is kept, for the chain is what a rotation is checked by.
CREATE TABLE trust_anchors (
    name        TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    added_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE trust_roots (
    anchor   TEXT NOT NULL REFERENCES trust_anchors (name) ON DELETE CASCADE,
    version  INTEGER NOT NULL CHECK (version >= 1),
    document BLOB NOT NULL,
    PRIMARY KEY (anchor, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE trust_metadata (
    anchor   TEXT NOT NULL REFERENCES trust_anchors (name) ON DELETE CASCADE,
    role     TEXT NOT NULL CHECK (role <> 'root'),
    document BLOB NOT NULL,
    PRIMARY KEY (anchor, role)
) STRICT, WITHOUT ROWID;

-- The last committed reference time. One row; it only ever rises.
CREATE TABLE clock_floor (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    reference_time INTEGER NOT NULL
) STRICT;
CREATE TRIGGER clock_floor_rises BEFORE UPDATE ON clock_floor
WHEN new.reference_time < old.reference_time
BEGIN
    SELECT raise(ABORT, 'the clock floor cannot sink');
END;

CREATE TABLE imports (
    id        TEXT NOT NULL PRIMARY KEY,
    bundle    TEXT NOT NULL,
    publisher TEXT NOT NULL,
    sequence  INTEGER NOT NULL,
    verdict   TEXT NOT NULL,
    at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE receipts (
    id       TEXT NOT NULL PRIMARY KEY,
    import   TEXT NOT NULL REFERENCES imports (id),
    document BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_log (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    document BLOB NOT NULL
) STRICT;
CREATE TRIGGER audit_log_keeps BEFORE UPDATE ON audit_log
BEGIN
    SELECT raise(ABORT, 'the audit log only grows');
END;
CREATE TRIGGER audit_log_stays BEFORE DELETE ON audit_log
BEGIN
    SELECT raise(ABORT, 'the audit log only grows');
END;
