"""Difference between the AUROC on part of the images and that on all, paired by patient.

Both AUROCs share images, so their difference is much more exact than two separate intervals say.
Its variance is summed by patient: each patient adds the difference of his or her contributions to
the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_compare.evaluation.statistics.clustered_auroc import FEW_PATIENTS, AurocParts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import satterthwaite_freedom
from cxr_compare.evaluation.statistics.intervals import NO_WIDTH

PAIRED_BY_PATIENT = "difference of contributions by patient, after Obuchowski 1997"
"""Name of the method in results."""


def part_minus_whole(part: Sequence[AurocParts], whole: Sequence[AurocParts]) -> ClusteredEstimate:
    """Estimate the AUROC on some of the images minus the AUROC on all images.

    The two AUROCs are correlated, because the part is contained in the whole. Both have one item
    for each training seed, in the same order and with the same numbering of patients; the result is
    the difference of their means, with its uncertainty over patients only.

    Source:
        Obuchowski 1997 for the contributions; Mancl and DeRouen 2001 for their leverage.

    Example:
        >>> from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
        >>> truth, scores = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 2, 5, 3, 4, 6.0])
        >>> patients = np.arange(6)
        >>> whole = auroc_parts(truth, scores, patients, 6)
        >>> part = auroc_parts(truth[:5], scores[:5], patients[:5], 6)
        >>> round(part_minus_whole([part], [whole]).estimate, 3)
        -0.111
    """
    of_part = AurocParts.mean(part)
    of_whole = AurocParts.mean(whole)
    value = of_part.value - of_whole.value
    first, second = of_part.contributions, of_whole.contributions
    if first is None or second is None:
        return ClusteredEstimate(value, None, note=FEW_PATIENTS, method=PAIRED_BY_PATIENT)
    contributions = first - second
    variance = float((contributions**2).sum())
    effective = of_part.effective_patients
    if variance < 1e-24:  # no image is left out
        return ClusteredEstimate(
            value, None, note=NO_WIDTH, effective_patients=effective, method=PAIRED_BY_PATIENT
        )
    freedom = min(of_part.freedom, of_whole.freedom, satterthwaite_freedom(contributions))
    return ClusteredEstimate(
        value,
        float(np.sqrt(variance)),
        freedom=freedom,
        effective_patients=effective,
        method=PAIRED_BY_PATIENT,
    )
