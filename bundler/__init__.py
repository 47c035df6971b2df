"""Connected and isolated side of a bundle: sources, layers, trust, archive, import."""
