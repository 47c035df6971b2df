-- Bundles that top up an older one, which has yet to come: what they showed of the publisher's state
-- is a floor for every bundle but that one, until the trusted state itself has come so far.
CREATE TABLE supplements (
    anchor   TEXT NOT NULL REFERENCES trust_anchors (name) ON DELETE CASCADE,
    bundle   TEXT NOT NULL, -- the id of the older one
    versions TEXT NOT NULL, -- JSON: role to version
    names    TEXT NOT NULL, -- JSON: model to manifest, as the newer one named them
    PRIMARY KEY (anchor, bundle)
) STRICT, WITHOUT ROWID;
