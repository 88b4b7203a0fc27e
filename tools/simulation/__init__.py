"""Simulations on generated data that measure how often reports are wrong.

`draw` draws labels, scores and boxes. `designs` is the table of the designs: how many patients and
images, which systems, and which claims are counted. `claims` counts them in the result of
`cxr_compare.compare`, and names the rows of docs/validity.md. `folds` has the designs of another
function than `compare`.
``python -m tools.simulation`` runs designs and writes the page.
"""
