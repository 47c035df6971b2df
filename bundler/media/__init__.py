"""Reading a stick back after it was written, past the page cache: is what lies there what was sent?

A stick that lies about its size, or has worn cells, takes every write without a complaint, and the
page cache answers reads with what was meant. The far side would be the first to notice.
"""

from __future__ import annotations

from bundler.media.check import MediaFile, check_media
from bundler.media.expected import Extent, Recorder, extents_of_file, extents_of_table
from bundler.media.readback import FileReadBack, Method, ReadBack, read_back
from bundler.media.result import BadExtent, FileCheck, Kind, MediaCheck, Verdict

__all__ = [
    "BadExtent",
    "Extent",
    "FileCheck",
    "FileReadBack",
    "Kind",
    "MediaCheck",
    "MediaFile",
    "Method",
    "ReadBack",
    "Recorder",
    "Verdict",
    "check_media",
    "extents_of_file",
    "extents_of_table",
    "read_back",
]
