"""The shared vocabulary: errors, limits, settings, and the schemas of documents that travel."""
