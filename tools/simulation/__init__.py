"""Simulations on drawn data that measure how often reports are wrong.

`draw` draws labels, scores and boxes. `designs` is the table of the designs, with what is known to
be true of each. `claims` counts in the result of `cxr_compare.compare` what is false, and names the
rows of docs/validity.md.
``python -m tools.simulation`` runs designs and writes the page.
"""
