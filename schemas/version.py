"""The tool's name and version, as they stand in documents."""

from typing import Final

TOOL: Final = "sealift"
VERSION: Final = "0.1.0"
