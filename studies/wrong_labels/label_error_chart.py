"""Chart of AUROC against the share of wrong labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cxr_compare.evaluation.report.study_page import (
    add_legend,
    draw_band,
    draw_line,
    line_style,
    new_chart,
)
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.studies.wrong_labels import wrong_label_sentences
from cxr_compare.studies.wrong_labels.overturning_labels import RandomErrors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEP = 0.1


def label_error_chart(
    systems: Sequence[str], aurocs: Mapping[str, float], errors: Sequence[RandomErrors]
) -> Figure:
    """Draw the AUROCs of two systems if labels are wrong at random.

    The x axis is the share of labels that are wrong, the y axis the AUROC. Each curve has a band
    from the lowest to the highest of the random draws.
    """
    figure, axes = new_chart("AUROC against wrong labels", "Labels that are wrong (%)", "AUROC")
    shares = np.array([0.0, *(each.share for each in errors)])
    lowest = 0.5
    ranges = [[each.first for each in errors], [each.second for each in errors]]
    for position, (name, drawn) in enumerate(zip(systems, ranges, strict=True)):
        value = aurocs[name]
        middle, low, high = np.array([(value, value, value), *drawn]).T
        lowest = min(lowest, float(low.min()))
        draw_band(axes, shares, low, high, position)
        draw_line(axes, shares, middle, **line_style(position), label=f"{name}: {number(value)}")
    low_end = math.floor(lowest / _STEP) * _STEP
    ticks = np.arange(round(low_end / _STEP), 11) * _STEP
    axes.set(xlim=(0, float(shares.max())), ylim=(low_end, 1))
    axes.set_yticks(ticks, [f"{tick:.1f}" for tick in ticks])
    across = [share for share in (0.0, 0.1, 0.2, 0.3, 0.4) if share <= shares.max()]
    axes.set_xticks(across, [f"{100 * share:.0f}" for share in across])
    add_legend(axes, wrong_label_sentences.LABEL_ERRORS_NOTE)
    return figure
