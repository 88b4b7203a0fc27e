"""Charts of a reader study: the curve of each reader, the mean curve, and each system."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.report.study_page import Axis, Chart, Curve, Point, ShownChart
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.ranking import roc_and_pr_curves
from cxr_compare.studies.readers import reader_sentences
from cxr_compare.studies.readers.reader_analysis import ReaderAnalysis
from cxr_compare.studies.readers.reader_statements import reader_statements
from cxr_compare.studies.readers.reader_study import MarkedStudy, ReaderStudy

_STEPS = np.linspace(0.0, 1.0, 401)


def reader_chart(analysis: ReaderAnalysis) -> Chart:
    """Draw the mean curve of the readers of each modality, and the results of each system.

    A modality is a way of reading, such as with or without help; a system is a program that read
    the cases alone.

    Args:
        analysis: Result of the analysis of a reader study, from
            `studies.readers.reader_analysis.analyse_readers`.

    Returns:
        The chart: ROC curves if readers rated cases, weighted AFROC curves if they marked lesions,
        or points if they only decided between positive and negative.
    """
    study = analysis.study
    drawn: list[Curve] = []
    for at, modality in enumerate(study.modalities):
        readings = study.readings[study.readings["modality"] == modality]
        drawn += _modality_curves(analysis, readings, modality, at)
    curve = reader_curve_name(study) if study.has_ratings else ""
    title = reader_sentences.chart_title(curve)
    has_points = study.has_decisions and not isinstance(study, MarkedStudy)
    note = reader_sentences.chart_note(study.has_ratings, has_points)
    description = f"{title}: {reader_statements(analysis)[0].text}"
    curves = (*drawn, *_system_curves(analysis))
    return _framed(
        study, key="readers", title=title, curves=curves, description=description, note=note
    )


def reader_curve_name(study: ReaderStudy) -> str:
    """Return the name of the curves that are drawn for a reader study.

    Args:
        study: Readings of the readers with the true labels.

    Returns:
        "Weighted AFROC" if readers marked lesions, else "ROC".
    """
    return "Weighted AFROC" if isinstance(study, MarkedStudy) else "ROC"


def _framed(study: ReaderStudy, **options: Any) -> Chart:
    """Make a chart of readers' curves with its axes."""
    if isinstance(study, MarkedStudy):
        x = "Cases without a lesion that have a false positive"
        y = "Lesions found, weighted"
        return Chart(x=Axis(x), y=Axis(y), **options)
    x = "1 − specificity (false alarms among negatives)"
    y = "Sensitivity"
    guides = (((0, 1), (0, 1)),)
    return Chart(x=Axis(x), y=Axis(y), guides=guides, guide_label="guessing", **options)


def charts_by_reader(analysis: ReaderAnalysis) -> Iterator[ShownChart]:
    """Draw a chart for each reader: one curve for each modality, and the curve of each system.

    A modality is a way of reading, such as with or without help; a system is a program that read
    the cases alone.

    Args:
        analysis: Result of the analysis of a reader study, from
            `studies.readers.reader_analysis.analyse_readers`.

    Yields:
        One chart for each reader, in the order of the readings.
    """
    study = analysis.study
    for position, (reader, readings) in enumerate(study.readings.groupby("reader", sort=False)):
        curves = []
        for modality, rows in readings.groupby("modality", sort=False):
            name = f"{reader}, {modality}"
            at = study.modalities.index(str(modality))
            point = _point(analysis, rows, name, ".")
            curves.append(Curve(name, at, *_line(analysis, rows), point))
        title = f"Reader {reader}" if str(reader).isdigit() else str(reader)
        yield ShownChart(
            _framed(
                study,
                key=f"reader-{position}",
                title=title,
                curves=(*curves, *_system_curves(analysis)),
                description=f"{reader_curve_name(study)} of {title}",
            )
        )


def _system_curves(analysis: ReaderAnalysis) -> Iterator[Curve]:
    study = analysis.study
    systems = study.systems.groupby("reader", sort=False)
    for at, (name, rows) in enumerate(systems, len(study.modalities)):
        line = _line(analysis, rows) if study.has_ratings else (np.empty(0), np.empty(0))
        yield Curve(str(name), at, *line, _point(analysis, rows, str(name), "D"))


def _modality_curves(
    analysis: ReaderAnalysis, readings: pd.DataFrame, modality: str, at: int
) -> Iterator[Curve]:
    nothing = np.empty(0)
    heights: list[Floats] = []
    points: list[Point] = []
    for reader, rows in readings.groupby("reader", sort=False):
        label = f"{reader}, {modality}"
        point = _point(analysis, rows, label, ".")
        points += point
        if analysis.study.has_ratings:
            heights.append(np.interp(_STEPS, *_line(analysis, rows)))
        if point:
            yield Curve(label, at, nothing, nothing, point, faint=True)
    middle: tuple[Point, ...] = ()
    if points:
        x, y = (float(np.mean([getattr(point, axis) for point in points])) for axis in "xy")
        middle = (Point(x, y, reader_sentences.mean_point(modality, len(points)), "D"),)
    if heights:
        mean = np.concatenate([[0.0], np.mean(heights, axis=0)])
        yield Curve(modality, at, np.concatenate([[0.0], _STEPS]), mean, middle)
    elif middle:
        yield Curve(modality, at, nothing, nothing, middle)


def _line(analysis: ReaderAnalysis, rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return the ROC curve of ratings, or the weighted AFROC curve of marks."""
    if isinstance(analysis.study, MarkedStudy):
        finds, weight = analysis.study.finds(rows)
        return finds.afroc_curve(weight)
    line = roc_and_pr_curves(analysis.study.truth["label"].loc[rows["case"]], rows["rating"])
    return line["fpr"], line["tpr"]


def _point(
    analysis: ReaderAnalysis, rows: pd.DataFrame, label: str, marker: str
) -> tuple[Point, ...]:
    """Return the point of a reader's decisions on an ROC curve; empty without decisions."""
    of_marks = isinstance(analysis.study, MarkedStudy)
    if of_marks or "decision" not in rows or rows["decision"].isna().any():
        return ()
    truth = analysis.study.truth["label"].loc[rows["case"]].to_numpy(dtype=bool)
    called = rows["decision"].to_numpy() == 1
    kinds = (truth & called, ~truth & called, ~truth & ~called, truth & ~called)
    values = rates(*(kind.sum() for kind in kinds))
    sensitivity = float(values["recall"])
    specificity = float(values["specificity"])
    text = reader_sentences.decision_point(label, sensitivity, specificity)
    return (Point(1 - specificity, sensitivity, text, marker),)
