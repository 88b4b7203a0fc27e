"""Chart of AUROC against the share of wrong labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cxr_compare.evaluation.report.study_page import Axis, Chart, Curve
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.studies.wrong_labels import wrong_label_sentences
from cxr_compare.studies.wrong_labels.overturning_labels import RandomErrors

_STEP = 0.1


def label_error_chart(
    systems: Sequence[str], aurocs: Mapping[str, float], errors: Sequence[RandomErrors]
) -> Chart:
    """Return the chart of the AUROCs of two systems if labels are wrong at random.

    The x axis is the share of labels that are wrong, the y axis the AUROC. Each curve has a band
    from the lowest to the highest of the random draws.
    """
    shares = np.array([0.0, *(each.share for each in errors)])
    curves = []
    texts = []
    lowest = 0.5
    ranges = [[each.first for each in errors], [each.second for each in errors]]
    for position, (name, drawn) in enumerate(zip(systems, ranges, strict=True)):
        value = aurocs[name]
        middle, low, high = np.array([(value, value, value), *drawn]).T
        lowest = min(lowest, float(low.min()))
        curves.append(
            Curve(name, position, shares, middle, figure=number(value), band=(shares, low, high))
        )
        texts.append((name, list(zip(shares.tolist(), middle.tolist(), strict=True))))
    low_end = math.floor(lowest / _STEP) * _STEP
    ticks = np.arange(round(low_end / _STEP), 11) * _STEP
    return Chart(
        key="label-errors",
        title="AUROC against wrong labels",
        x=Axis(
            "Labels that are wrong (%)",
            tuple((share, f"{100 * share:.0f}") for share in (0.0, 0.1, 0.2, 0.3, 0.4)),
            high=float(shares.max()),
        ),
        y=Axis("AUROC", tuple((float(t), f"{t:.1f}") for t in ticks), low=low_end),
        curves=tuple(curves),
        description=wrong_label_sentences.label_errors_description(texts),
        note=wrong_label_sentences.LABEL_ERRORS_NOTE,
    )
