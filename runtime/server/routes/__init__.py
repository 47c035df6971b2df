"""Which path calls what: one module per API."""
