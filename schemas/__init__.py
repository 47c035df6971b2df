"""The shared vocabulary: errors, limits, settings and the JSON Schemas of every document that crosses a boundary."""
