"""Where models come from. Each source yields files with known digests and checked headers."""

from __future__ import annotations

from bundler.sources.local import LocalModel, resolve

__all__ = ["LocalModel", "resolve"]
