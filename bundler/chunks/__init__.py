"""Chunks: what two versions of a blob have in common, found without the older one.

A model file is cut by its own tensor table, so a tensor is found again wherever it moved to; texts
and headers by their content. The digests of a blob's chunks make its index, some 50 bytes per MiB,
which the publisher keeps; from a new blob and the indexes of old ones comes a recipe.
"""
