"""Where models come from. Each source yields files with known digests and checked headers."""

from __future__ import annotations

from bundler.sources.local import examine, hashed, resolve
from bundler.sources.model import FoundModel, LocalBlob, LocalModel, SourceFile

__all__ = ["FoundModel", "LocalBlob", "LocalModel", "SourceFile", "examine", "hashed", "resolve"]
