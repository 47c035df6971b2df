-- What may no longer be served. A source is the fingerprint of a publisher's pinned root; what it
-- withdraws is kept though the publisher is no longer trusted.

-- Under whose roots a manifest came: only these can withdraw it.
CREATE TABLE vouchers (
    manifest TEXT NOT NULL,
    source   TEXT NOT NULL,
    PRIMARY KEY (manifest, source)
) STRICT, WITHOUT ROWID;

INSERT OR IGNORE INTO vouchers
SELECT json_extract(m.value, '$.manifest'), a.fingerprint
  FROM receipts AS r
  JOIN json_each(CAST(r.document AS TEXT), '$.models') AS m
  JOIN trust_anchors AS a ON a.name = json_extract(CAST(r.document AS TEXT), '$.trust.anchor')
 WHERE json_extract(m.value, '$.manifest') IS NOT NULL;

-- The last accepted list of each publisher, whole. It only ever grows.
CREATE TABLE advisory_lists (
    source   TEXT NOT NULL PRIMARY KEY,
    version  INTEGER NOT NULL CHECK (version >= 1),
    entries  INTEGER NOT NULL CHECK (entries >= 0),
    document BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER advisory_lists_grow BEFORE UPDATE ON advisory_lists
WHEN new.entries < old.entries
BEGIN
    SELECT raise(ABORT, 'a list of withdrawals only grows');
END;
CREATE TRIGGER advisory_lists_stay BEFORE DELETE ON advisory_lists
BEGIN
    SELECT raise(ABORT, 'a list of withdrawals only grows');
END;

-- What it says last of each digest: 0 nothing any more, 1 warn, 2 quarantine, 3 block.
CREATE TABLE withdrawals (
    digest TEXT NOT NULL,
    source TEXT NOT NULL REFERENCES advisory_lists (source),
    number INTEGER NOT NULL CHECK (number >= 1),
    action INTEGER NOT NULL CHECK (action BETWEEN 0 AND 3),
    reason TEXT NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (digest, source)
) STRICT, WITHOUT ROWID;

-- This site's own list.
CREATE TABLE denied (
    digest TEXT NOT NULL PRIMARY KEY,
    label  TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor  TEXT NOT NULL,
    at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Models that a person here let out of quarantine, each from one advisory.
CREATE TABLE releases (
    manifest TEXT NOT NULL,
    source   TEXT NOT NULL,
    number   INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    actor    TEXT NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (manifest, source, number)
) STRICT, WITHOUT ROWID;
