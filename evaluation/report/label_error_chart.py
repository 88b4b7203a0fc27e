"""Chart of AUROC against the share of wrong labels."""

from __future__ import annotations

import math

import numpy as np

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.report.chart import Axis, Chart, Curve
from cxr_compare.evaluation.report.templates import CHARTS, sentence
from cxr_compare.evaluation.statistics.figure_text import number

_STEP = 0.1


def label_error_charts(comparison: Comparison) -> list[Chart]:
    """Return the chart that shows how the AUROCs of two systems change if some labels are wrong.

    The x axis is the share of labels that are wrong at random, the y axis the AUROC.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        A list with one chart, which has a curve with a band for each of the two systems of the main
        conclusion; an empty list if the main conclusion states no difference in AUROC.
    """
    labels = comparison.wrong_labels
    if labels is None:
        return []
    errors = labels.found.curve
    shares = np.array([0.0, *(each.share for each in errors)])
    curves = []
    texts = []
    lowest = 0.5
    ranges = [[each.first for each in errors], [each.second for each in errors]]
    systems = (labels.claim.first, labels.claim.second)
    for name, value, found in zip(systems, labels.claim.values, ranges, strict=True):
        middle, low, high = np.array([(value, value, value), *found]).T
        lowest = min(lowest, float(low.min()))
        curves.append(
            Curve(
                name,
                comparison.names.index(name),
                shares,
                middle,
                figure=number(value),
                band=(shares, low, high),
            )
        )
        texts.append((name, list(zip(shares.tolist(), middle.tolist(), strict=True))))
    low_end = math.floor(lowest / _STEP) * _STEP
    ticks = np.arange(round(low_end / _STEP), 11) * _STEP
    return [
        Chart(
            key="label-errors",
            title="AUROC against wrong labels",
            x=Axis(
                "Labels that are wrong (%)",
                tuple((share, f"{100 * share:.0f}") for share in (0.0, 0.1, 0.2, 0.3, 0.4)),
                high=float(shares.max()),
            ),
            y=Axis("AUROC", tuple((float(t), f"{t:.1f}") for t in ticks), low=low_end),
            curves=tuple(curves),
            description=sentence("label_errors_description", texts, template=CHARTS),
            note=sentence("label_errors_note", template=CHARTS),
        )
    ]
