"""The umbrella command ``sealift``."""
