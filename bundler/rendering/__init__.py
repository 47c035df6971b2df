"""What the ``bundle`` command shows, for people and for scripts; one module per group of verbs."""
