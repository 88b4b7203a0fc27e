"""Choose on validation how the boxes of an image become its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.decisions.reduction import CANDIDATES, Reduction
from cxr_compare.evaluation.decisions.system_output import SystemOutput
from cxr_compare.evaluation.metrics.image_metrics import auroc
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_difference

_LEVEL = 0.05
_SAME = 1e-9
_USUAL_SHARE = 0.9


@dataclass(frozen=True)
class ReductionChoice:
    """Chosen reduction, and the validation scores that it gives.

    Attributes:
        reduction: The reduction; `None` for a system that gives image scores.
        scores: Scores of the validation images, shape ``(N,)``.
        tried: Every setting with its AUROC.
        error_share: Share of a guarantee's error that thresholds of these scores may use. The
            images of the guarantee also chose the score, so the errors of all reductions must add
            up to the whole; the usual reduction takes most of it.
    """

    reduction: Reduction | None
    scores: pd.Series
    tried: list[dict[str, Any]]
    error_share: float = 1.0


def choose_reduction(
    output: SystemOutput,
    y_true: pd.Series,
    patients: npt.NDArray[np.str_],
    rules: Sequence[str] = (),
) -> ReductionChoice:
    """Choose the highest box, unless another rule has a significantly higher AUROC on validation.

    Another rule is taken if the p-value of its paired difference, by patient, is below 0.05 divided
    by the number of other rules; of several such rules the one with the highest AUROC. Simply
    taking the highest AUROC would follow sampling error where validation is small: with 68 images
    in a fold it cost 0.010 of AUROC on test.

    Args:
        output: Output on the validation images.
        y_true: Labels of the images, shape ``(N,)``.
        patients: Patient of each image, shape ``(N,)``.
        rules: Rules to choose from; empty for all. Without ``max`` among them, the first of the
            remaining candidates takes its place.

    Returns:
        The reduction with its scores.
    """
    if not output.gives_boxes:
        return ReductionChoice(None, output.scores(None), [])
    candidates = [candidate for candidate in CANDIDATES if not rules or candidate.rule in rules]
    columns = [output.scores(candidate) for candidate in candidates]
    # A constant score has AUROC 0.5, more than a weak detector, and allows no threshold.
    usable = [index for index, column in enumerate(columns) if column.nunique() > 1] or [0]
    usual = usable[0]
    best = usual
    best_gap = 0.0
    level = _LEVEL / max(len(candidates) - 1, 1)
    for index in usable[1:]:
        gap = auroc_difference(y_true, columns[index], columns[usual], patients)
        if gap is None or gap.p_value is None or gap.p_value >= level:
            continue
        if gap.value > best_gap + _SAME:
            best = index
            best_gap = gap.value
    tried = [
        {"rule": candidate.rule, "min_score": candidate.min_score, "auroc": auroc(y_true, column)}
        for candidate, column in zip(candidates, columns, strict=True)
    ]
    share = _error_share(best, len(candidates))
    return ReductionChoice(candidates[best], columns[best], tried, share)


def _error_share(index: int, n_candidates: int) -> float:
    if n_candidates == 1:
        return 1.0
    if index == 0:
        return _USUAL_SHARE
    return (1 - _USUAL_SHARE) / (n_candidates - 1)
