-- What an isolated site decides by itself: which publisher a namespace belongs to, how old the first
-- bundle of a publisher may be, and the one way in which the clock's floor may sink.

-- Since no publisher may bring models of a namespace that came from another: by the pinned root's
-- fingerprint, for the name that a site gives to it may be given anew.
CREATE TABLE namespaces (
    name        TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    since       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was imported so far belongs to whom it came from first.
INSERT OR IGNORE INTO namespaces
SELECT substr(name, 1, instr(name, '/') - 1), fingerprint, at
  FROM (SELECT json_extract(m.value, '$.name') AS name, a.fingerprint AS fingerprint, i.at AS at
          FROM receipts AS r
          JOIN imports AS i ON i.id = r.import
          JOIN json_each(CAST(r.document AS TEXT), '$.models') AS m
          JOIN trust_anchors AS a
            ON a.name = json_extract(CAST(r.document AS TEXT), '$.trust.anchor')
         ORDER BY i.at);

-- The least timestamp version that a card names: what protects a fresh site from an old stick.
CREATE TABLE trust_minimums (
    anchor            TEXT NOT NULL PRIMARY KEY REFERENCES trust_anchors (name) ON DELETE CASCADE,
    timestamp_version INTEGER NOT NULL CHECK (timestamp_version >= 1)
) STRICT, WITHOUT ROWID;

-- A clock that was far ahead once would leave a floor in the future for good. A person may lower it;
-- each time is counted, so nothing else can.
ALTER TABLE clock_floor ADD COLUMN lowered INTEGER NOT NULL DEFAULT 0;
DROP TRIGGER clock_floor_rises;
CREATE TRIGGER clock_floor_rises BEFORE UPDATE ON clock_floor
WHEN new.reference_time < old.reference_time AND new.lowered <> old.lowered + 1
BEGIN
    SELECT raise(ABORT, 'the clock floor cannot sink');
END;

-- Requests for which a second operator's approval was used up.
CREATE TABLE used_requests (
    id TEXT NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
