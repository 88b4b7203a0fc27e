"""Sentences on wrong labels of the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number

NOTHING_SHOWN = (
    "The answer of this report shows no difference in AUROC, so there is none that wrong labels "
    "could overturn."
)
RANDOM_ERRORS = "Labels are wrong at random. Bands: lowest and highest of the draws at each share."


def overturned(
    systems: Sequence[str],
    n_labels: int,
    fewest: int | None,
    fewest_share: float | None,
    at_random: float | None,
    most_tried: float,
) -> str:
    """Say how many wrong labels overturn a difference, at worst and at random.

    ``fewest`` and its share are None if no set of labels was found, ``at_random`` if the difference
    is still shown at the largest share that was tried.
    """
    text = f"The difference in AUROC between {listing(systems)} rests on the labels of "
    text += f"{n_labels:,} images. "
    if fewest is None or fewest_share is None:
        text += "No set of wrong labels was found with which it is no longer shown; "
    else:
        verb = "is" if fewest == 1 else "are"
        text += (
            f"If the {counted(fewest, 'most harmful label')} ({_percent(fewest_share)}) {verb} "
            "wrong, it is no longer shown; "
        )
    text += "with labels that are wrong at random it is "
    if at_random is None:
        return f"{text}still shown in most draws at a share of {_percent(most_tried)}."
    return (
        f"{text}no longer shown in at least half of the draws at a share of {_percent(at_random)}."
    )


def correction(sensitivity: float, specificity: float) -> str:
    """Name the correction for a known error of the labels, and when its figures are too high."""
    return (
        f"Corrected for labels that find {_percent(sensitivity)} of the diseased images and clear "
        f"{_percent(specificity)} of the healthy ones, with errors that do not depend on what a "
        "system says (Rogan and Gladen 1978): the figures are too high where hard images carry the "
        "wrong labels. Thresholds are fixed."
    )


def outside(value: float) -> str:
    """Say that a correction gives an impossible value."""
    return (
        f"none: the correction gives {number(value)}, which is impossible, so the stated error "
        "does not fit these labels and scores"
    )


def curves_in_words(systems: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Describe the AUROC of each system by the share of labels that are wrong at random."""
    parts = []
    for name, values in systems.items():
        points = ", ".join(f"{number(value)} at {_percent(share)}" for share, value in values)
        parts.append(f"{name}: {points}")
    return f"AUROC against the share of labels that are wrong at random. {'; '.join(parts)}."


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
