"""Content-addressed store, OCI types, verified reading and writing, and the catalogue."""
