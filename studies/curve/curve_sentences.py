"""Sentences of a learning-curve study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number, range_text

TRAINED_ONCE = "This holds for these trained models, since each was trained once."
NO_PAIR = "No two models were compared"
ONE_SEED = (
    "Each model was trained once at each size and fold. Intervals do not include how another "
    "training would differ, and no crossing is shown."
)
ANNOTATED = (
    "Annotated images are those for training and those for validation. Thresholds and shares are "
    "chosen on the validation images."
)
THRESHOLD = (
    "Figures at a threshold use the threshold of each run's own validation images (best F1)."
)
NESTED = (
    "The shares of a seed are nested and the same for all models. Intervals assume that trainings "
    "are independent. If the trainings of a seed vary together, intervals of differences between "
    "models are too wide, and those of a curve and of a crossing are too narrow."
)
SAME_POOL = (
    "All seeds draw from the same patients, and the largest share uses all of them. The intervals "
    "therefore only partly include how a figure would change with other training patients."
)
OVERLAP = "95 % intervals overlap at every size. The table of differences says if models differ."
CROSSING_POINT = "where the fitted curves cross"


class Gap(NamedTuple):
    """Size of a difference that is shown, with the ends of its interval, all above 0."""

    size: float
    low: float
    high: float
    images: float


class Side(NamedTuple):
    """Model that is higher than another, and by how much."""

    winner: str
    loser: str
    gaps: Sequence[Gap]


# Statements


def model(kind: str, all_labels: bool = False) -> str:
    """Return the name of a kind of model inside a sentence."""
    name = "mixed model" if kind == "mixed" else kind
    return f"{name} with all labels" if all_labels else name


def absent(model: str, title: str, reason: str) -> str:
    """Say why a model lacks a figure."""
    return f"The {model} has no {title}: {reason}."


def no_fit(model: str, reason: str) -> str:
    """Say why no curve is fitted."""
    return f"No curve of the {model} is fitted: {reason}."


def misfit(model: str, p: str) -> str:
    """Say that a curve does not fit its points."""
    return (
        f"The points of the {model} depart from a power law ({p}). Its curve is drawn, but nothing "
        "is concluded from it."
    )


def difference(
    title: str, first: str, second: str, higher: Sequence[Side], rest: Sequence[float], unit: str
) -> str:
    """Say which of two models is higher with how many images, and where that is not shown."""
    if not higher:
        return (
            f"A difference in {title} between the {first} and the {second} is not shown, with "
            f"{_numbers(rest, 'or')} {unit}."
        )
    parts = []
    for position, side in enumerate(higher):
        gaps = listing(
            [
                f"{number(gap.size)} ({range_text(gap.low, gap.high)}) with {gap.images:,.0f}"
                for gap in side.gaps
            ]
        )
        start, end = ("the", "") if position else ("The", f" {unit}")
        parts.append(
            f"{start} {title} of the {side.winner} is higher than that of the {side.loser} by "
            f"{gaps}{end}"
        )
    if rest:
        parts.append(f"with {_numbers(rest, 'and')} a difference is not shown")
    return f"{'; '.join(parts)}."


def _numbers(values: Sequence[float], word: str) -> str:
    *most, last = [f"{value:,.0f}" for value in values]
    return f"{', '.join(most)} {word} {last}" if most else last


def cross(title: str, at: float, low: float, high: float, before: str, after: str) -> str:
    """Say where two fitted curves cross."""
    return (
        f"By number of images, the fitted {title} curves cross at {at:,.0f} images ({low:,.0f} to "
        f"{high:,.0f}), where both were measured: with less the {before} is better, with more the "
        f"{after}."
    )


def no_cross(title: str, why: str, measured: tuple[float, float] | None) -> str:
    """Say why a crossing is not shown; ``measured`` are the sizes at which both were measured."""
    if not why:
        why = "there is no number of images at which both were measured"
        if measured:
            why = (
                f"its interval extends beyond the {measured[0]:,.0f} to {measured[1]:,.0f} images "
                "at which both were measured"
            )
    return f"By number of images, a crossing of the fitted {title} curves is not shown: {why}."


# Scope, cautions and notes


def scope(comparisons: int, sizes: int) -> str:
    """Give the number of comparisons, and the rule by which a difference is called shown."""
    return (
        f"{counted(comparisons, 'comparison')} in all. A difference is shown if its 95 % interval "
        "excludes 0 and p is below 0.05 after Holm's correction over "
        f"{counted(sizes, 'size')}. Not shown is not the same as none."
    )


def several_metrics(first: str, others: Sequence[str]) -> str:
    """Say over what p-values are corrected."""
    verb = "is" if len(others) == 1 else "are"
    return (
        "p-values are corrected over the sizes of two models and a metric, not over pairs of "
        f"models, nor over the {len(others) + 1} metrics. {first} was named first; "
        f"{listing(others)} {verb} shown beside it."
    )


def evaluated(images: int, patients: int, length: str) -> str:
    """Name the test images, and the length of training."""
    text = (
        f"Evaluated on {counted(images, 'test image')} of {counted(patients, 'patient')}, the same "
        f"for all models. {length}"
    )
    return text.rstrip()


def boxed(labelled: float, boxed: float) -> str:
    """Say how many of the labelled images the detector learns from."""
    return (
        f"Of {labelled:,.0f} labelled images, {boxed:,.0f} are fully boxed or without a lesion. "
        "The detector learns from these alone, the classifier from all."
    )


def folds(folds: int) -> str:
    """Say that figures are means over folds."""
    return (
        f"Figures are means over {folds} folds. The training images of folds overlap, which the "
        "intervals do not account for."
    )


# Page and charts


def title(target: str, data: str) -> str:
    """Return the title of the page."""
    return f"What do boxes add? {target} on {data}"


def kicker(target: str, data: str, folds: int, seeds: int) -> str:
    """Return the line above the answer."""
    return (
        f"What do boxes add? · {target} on {data} · {counted(folds, 'fold')}, "
        f"{counted(seeds, 'seed')}"
    )


def chart_axis(mixed: bool) -> str:
    """Return the title of the axis of images."""
    return f"Annotated images{' (mixed model: with boxes)' if mixed else ''}"


def images_column(mixed: bool) -> str:
    """Return the title of the column of images."""
    return f"Annotated images{' (mixed model: boxed)' if mixed else ''}"
