"""The rule of two, or more, persons: one asks, others approve, each with a key of their own.

A request and an approval are files, each signed by one person. They may travel to a machine that
has neither the bundle nor the site's store. See :mod:`.documents` for what they say and
:mod:`.quorum` for when they suffice.
"""
