"""The bundle file: a POSIX tar in one fixed form, written once and read in one pass."""
