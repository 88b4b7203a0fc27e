"""Sentences on wrong labels of the reference."""

from __future__ import annotations

from collections.abc import Sequence

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number

NOTHING_SHOWN = (
    "The answer of this report shows no difference in AUROC, so there is none that wrong labels "
    "could overturn."
)
LABEL_ERRORS_NOTE = (
    "Labels are wrong at random. Bands: lowest and highest of the draws at each share."
)


def overturned(
    systems: Sequence[str],
    n_labels: int,
    fewest: int | None,
    share: float | None,
    at_random: float | None,
    most_tried: float,
) -> str:
    """Say with how many wrong labels a difference is no longer shown.

    ``fewest`` and ``share`` are those of the most harmful labels, and ``at_random`` is the share of
    labels that are wrong at random; None where none was found.
    """
    harmful = "No set of wrong labels was found with which it is no longer shown;"
    if fewest is not None and share is not None:
        verb = "is" if fewest == 1 else "are"
        harmful = (
            f"If the {counted(fewest, 'most harmful label')} ({_percent(share)}) {verb} wrong, it "
            "is no longer shown;"
        )
    random = f"still shown in most draws at a share of {_percent(most_tried)}."
    if at_random is not None:
        random = (
            f"no longer shown in at least half of the draws at a share of {_percent(at_random)}."
        )
    return (
        f"The difference in AUROC between {listing(systems)} rests on the labels of {n_labels:,} "
        f"images. {harmful} with labels that are wrong at random it is {random}"
    )


def corrected_lead(sensitivity: float, specificity: float) -> str:
    """Say for which errors of the labels figures are corrected."""
    return (
        f"Corrected for labels that find {_percent(sensitivity)} of the diseased images and clear "
        f"{_percent(specificity)} of the healthy ones, with errors that do not depend on what a "
        "system says (Rogan and Gladen 1978); the figures are too high where hard images carry the "
        "wrong labels. Thresholds are fixed."
    )


def corrected_outside(value: float) -> str:
    """Say why a corrected figure is left out."""
    return (
        f"none: the correction gives {number(value)}, which is impossible, so the stated error "
        "does not fit these labels and scores"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
