-- The audit log as a Merkle tree (RFC 6962 §2.1). Entry `seq` is leaf `seq - 1`; its document's bytes
-- are what is hashed. A row here is a complete subtree, in the order in which they come to be; see
-- registry/merkle.py. Entries from before this table are taken in by the migration itself.
CREATE TABLE audit_nodes (
    position INTEGER PRIMARY KEY CHECK (position >= 0),
    hash     BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TRIGGER audit_nodes_keep BEFORE UPDATE ON audit_nodes
BEGIN
    SELECT raise(ABORT, 'the audit log only grows');
END;
CREATE TRIGGER audit_nodes_stay BEFORE DELETE ON audit_nodes
BEGIN
    SELECT raise(ABORT, 'the audit log only grows');
END;

-- Signed notes about the log at some size: by the site itself, and by those who countersigned it.
-- `signer` is the SHA-256 of `public`, a SubjectPublicKeyInfo in DER.
CREATE TABLE audit_checkpoints (
    size     INTEGER NOT NULL CHECK (size >= 0),
    signer   TEXT NOT NULL,
    root     BLOB NOT NULL CHECK (length(root) = 32),
    own      INTEGER NOT NULL CHECK (own IN (0, 1)),
    public   BLOB NOT NULL,
    note     BLOB NOT NULL,
    added_at INTEGER NOT NULL,
    PRIMARY KEY (size, signer, root)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER audit_checkpoints_keep BEFORE UPDATE ON audit_checkpoints
BEGIN
    SELECT raise(ABORT, 'the audit log only grows');
END;
CREATE TRIGGER audit_checkpoints_stay BEFORE DELETE ON audit_checkpoints
BEGIN
    SELECT raise(ABORT, 'the audit log only grows');
END;

-- The site's signature over a receipt (DSSE); receipts from before this have none.
ALTER TABLE receipts ADD COLUMN signature BLOB;
ALTER TABLE receipts ADD COLUMN public BLOB;
