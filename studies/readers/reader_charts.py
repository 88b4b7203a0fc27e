"""Charts of a reader study: the curve of each reader, the mean curve, and each system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.report.study_page import (
    GUIDE,
    ShownChart,
    add_legend,
    draw_line,
    line_style,
    marker_style,
    new_chart,
    share_axis,
)
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.ranking import roc_and_pr_curves
from cxr_compare.studies.readers import reader_sentences
from cxr_compare.studies.readers.reader_analysis import ReaderAnalysis
from cxr_compare.studies.readers.reader_statements import reader_statements
from cxr_compare.studies.readers.reader_study import MarkedStudy, ReaderStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEPS = np.linspace(0.0, 1.0, 401)


def reader_chart(analysis: ReaderAnalysis, names: Sequence[str]) -> ShownChart:
    """Draw the mean curve of the readers of each modality, and the results of each system.

    A modality is a way of reading, such as with or without help; a system is a program that read
    the cases alone.

    `names` are texts of the legend for the modalities and then the systems. The curves are ROC
    curves if readers rated cases, weighted AFROC curves if they marked lesions, or points if they
    only decided between positive and negative.
    """
    study = analysis.study
    curve = reader_curve_name(study) if study.has_ratings else ""
    figure, axes = _new_chart(study, reader_sentences.chart_title(curve))
    for at, modality in enumerate(study.modalities):
        readings = study.readings[study.readings["modality"] == modality]
        _draw_modality(axes, analysis, readings, at, names[at])
    _draw_systems(axes, analysis, names[len(study.modalities) :])
    _complete(axes, study)
    has_points = study.has_decisions and not isinstance(study, MarkedStudy)
    note = reader_sentences.chart_note(study.has_ratings, has_points)
    return ShownChart(figure, note, reader_statements(analysis)[0].text)


def reader_curve_name(study: ReaderStudy) -> str:
    """Return the name of a study's curves: "Weighted AFROC" of marked lesions, else "ROC"."""
    return "Weighted AFROC" if isinstance(study, MarkedStudy) else "ROC"


def _new_chart(study: ReaderStudy, title: str) -> tuple[Figure, Axes]:
    """Return a figure with the axes of readers' curves."""
    if isinstance(study, MarkedStudy):
        x, y = "Cases without a lesion that have a false positive", "Lesions found, weighted"
    else:
        x, y = "1 − specificity (false alarms among negatives)", "Sensitivity"
    return new_chart(title, x, y)


def _complete(axes: Axes, study: ReaderStudy) -> None:
    """Draw the line of guessing, set the axes, and write the legend."""
    if not isinstance(study, MarkedStudy):
        axes.plot([0, 1], [0, 1], **GUIDE, label="guessing")
    share_axis(axes, "x")
    share_axis(axes, "y")
    add_legend(axes)


def charts_by_reader(analysis: ReaderAnalysis, names: Sequence[str]) -> Iterator[ShownChart]:
    """Draw a chart for each reader, with one curve for each modality and each system.

    `names` are those of `reader_chart`. The charts are in the order of the readings.
    """
    study = analysis.study
    for reader, readings in study.readings.groupby("reader", sort=False):
        title = f"Reader {reader}" if str(reader).isdigit() else str(reader)
        figure, axes = _new_chart(study, title)
        for modality, rows in readings.groupby("modality", sort=False):
            at = study.modalities.index(str(modality))
            draw_line(axes, *_line(analysis, rows), **line_style(at), label=names[at])
            _draw_point(axes, _point(analysis, rows), ".", at)
        _draw_systems(axes, analysis, names[len(study.modalities) :])
        _complete(axes, study)
        yield ShownChart(figure, description=f"{reader_curve_name(study)} of {title}")


def _draw_systems(axes: Axes, analysis: ReaderAnalysis, names: Sequence[str]) -> None:
    study = analysis.study
    systems = study.systems.groupby("reader", sort=False)
    first = len(study.modalities)
    for at, (name, (_, rows)) in enumerate(zip(names, systems, strict=True), first):
        line = _line(analysis, rows) if study.has_ratings else (np.empty(0), np.empty(0))
        draw_line(axes, *line, **line_style(at), label=name)
        _draw_point(axes, _point(analysis, rows), "D", at)


def _draw_modality(
    axes: Axes, analysis: ReaderAnalysis, readings: pd.DataFrame, at: int, name: str
) -> None:
    """Draw the mean curve of the readers, the point of each reader, and the mean of the points."""
    heights: list[Floats] = []
    points: list[tuple[float, float]] = []
    for _, rows in readings.groupby("reader", sort=False):
        point = _point(analysis, rows)
        if analysis.study.has_ratings:
            heights.append(np.interp(_STEPS, *_line(analysis, rows)))
        if point is not None:
            points.append(point)
            _draw_point(axes, point, ".", at)
    x, y = np.empty(0), np.empty(0)
    if heights:
        x = np.concatenate([[0.0], _STEPS])
        y = np.concatenate([[0.0], np.mean(heights, axis=0)])
    draw_line(axes, x, y, **line_style(at), label=name)
    if points:
        middle = np.mean(points, axis=0)
        _draw_point(axes, (float(middle[0]), float(middle[1])), "D", at)


def _draw_point(axes: Axes, point: tuple[float, float] | None, marker: str, at: int) -> None:
    if point is not None:
        style = marker_style(marker, line_style(at)["color"])
        axes.plot(point[:1], point[1:], **style)


def _line(analysis: ReaderAnalysis, rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return the ROC curve of ratings, or the weighted AFROC curve of marks."""
    if isinstance(analysis.study, MarkedStudy):
        finds, weight = analysis.study.finds(rows)
        return finds.afroc_curve(weight)
    line = roc_and_pr_curves(analysis.study.truth["label"].loc[rows["case"]], rows["rating"])
    return line["fpr"], line["tpr"]


def _point(analysis: ReaderAnalysis, rows: pd.DataFrame) -> tuple[float, float] | None:
    """Return the point of a reader's decisions on an ROC curve; None without decisions."""
    of_marks = isinstance(analysis.study, MarkedStudy)
    if of_marks or "decision" not in rows or rows["decision"].isna().any():
        return None
    truth = analysis.study.truth["label"].loc[rows["case"]].to_numpy(dtype=bool)
    called = rows["decision"].to_numpy() == 1
    kinds = (truth & called, ~truth & called, ~truth & ~called, truth & ~called)
    values = rates(*(kind.sum() for kind in kinds))
    return 1 - float(values["specificity"]), float(values["recall"])
