"""What is unusual about a model, in words, before anybody loads it.

Nothing here runs, renders or unpickles anything. A scan is bounded in time and memory, whatever it
is given; what cannot be looked through within the bounds is a danger, not a pass.
"""

from __future__ import annotations

from bundler.scanning.files import scan_file
from bundler.scanning.findings import Finding, Severity, of_severity, worst
from bundler.scanning.header import scan_header
from bundler.scanning.template import scan_template

__all__ = [
    "Finding",
    "Severity",
    "of_severity",
    "scan_file",
    "scan_header",
    "scan_template",
    "worst",
]
