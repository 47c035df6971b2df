"""What a site lets in, beyond what is signed: the model, its file, and how it is evaluated.

A signature says who made a bundle. Whether this site wants it, is the site's own rule: see
:mod:`.model` for the rules, :mod:`.reading` for the file, :mod:`.evaluate` for the verdicts,
:mod:`.gate` for the one object that an import asks.
"""
