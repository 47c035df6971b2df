"""Write a model file of a few KiB that no engine can run: tiny_model.py FILE NAME [LICENCE]."""

import sys
from pathlib import Path

from tests.gguf_files import tiny_gguf

file, name, *licence = sys.argv[1:]
tiny_gguf(Path(file), name=name, licence=licence[0] if licence else "apache-2.0")
