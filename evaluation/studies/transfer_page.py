"""The page of `cxr transfer`: systems by data sets, and the loss away from home."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.chart import Axis, Chart, Curve, Point
from cxr_compare.evaluation.report.inline_svg import legend_sample
from cxr_compare.evaluation.report.table import Table, figure_text
from cxr_compare.evaluation.statistics.figure_text import (
    DASH,
    interval_text,
    number,
    p_equation,
    range_text,
)
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.studies.study_page import (
    Section,
    ShownChart,
    Statement,
    StudyPage,
    write_study,
)
from cxr_compare.evaluation.studies.study_sentences import study_sentence
from cxr_compare.evaluation.studies.transfer_analysis import Transfer, TransferCell

_OVER_PATIENTS = "95 % over test patients"
_OVER_CHOICES = "90 % of choices of local patients"
_SHORTCUT = "best prediction without the lungs"
_COMMON = (
    "system",
    "data_set",
    "home",
    "n_images",
    "n_patients",
    "n_positive",
    "n_seen",
    "n_not_run",
)


def drops(transfer: Transfer) -> list[Statement]:
    """Return sentences on how much lower AUROCs are on data sets that systems were not trained on.

    A drop is the AUROC of a system (model) on the data set that it was trained on, minus its AUROC
    on another data set.

    Args:
        transfer: Results of all systems on all data sets.

    Returns:
        The sentences, each with whether its drop is statistically shown.

    Example:
        >>> drops(Transfer([], [], "max_f1", []))
        []
    """
    return [statement for statement, _ in _sized_drops(transfer)]


def _sentence(macro: str, *values: Any) -> str:
    return study_sentence("transfer", macro, *values)


def _sized_drops(transfer: Transfer) -> list[tuple[Statement, float]]:
    sized = []
    n_drops = sum(cell.p_value is not None for cell in transfer.cells)
    for cell in transfer.cells:
        if cell.home or cell.auroc is None or cell.drop is None:
            continue
        size = abs(cell.drop.estimate)
        drop_range = ""
        if cell.drop.bounded:
            low, high = cell.drop.low, cell.drop.high
            if low * high > 0:  # both ends have the sign that the sentence names
                low, high = sorted((abs(low), abs(high)))
            drop_range = range_text(low, high)
        auroc = figure_text(cell.auroc.as_interval)
        standing = _standing(cell, n_drops)
        text = _sentence("drop", cell, auroc, size, drop_range, standing)
        sized.append((Statement(text, cell.drop_shown), size))
    return sorted(sized, key=lambda item: (not item[0].shown, -item[1]))


def _headline(transfer: Transfer) -> str:
    """Return the losses that are shown on each data set."""
    sets = []
    for data in transfer.sets:
        cells = [cell for cell in transfer.cells if cell.data_set == data.name and cell.drop]
        if not cells:
            continue
        lost = []
        for cell in cells:
            if _is_loss(cell) and cell.auroc is not None and cell.drop is not None:
                home = cell.auroc.value + cell.drop.estimate
                lost.append({"system": cell.system, "home": home, "here": cell.auroc.value})
        sets.append({"name": data.name, "compared": len(cells), "lost": lost})
    return _sentence("headline", sets)


def _is_loss(cell: TransferCell) -> bool:
    """Return True if the AUROC is shown to be lower than at home."""
    if cell.auroc is None or cell.drop is None:
        return False
    return cell.drop_shown and cell.drop.estimate > 0


def _standing(cell: TransferCell, n_drops: int) -> str:
    """Return a text that says whether a drop is shown.

    The interval is for this drop alone, and the p-value is corrected for all drops.
    """
    if cell.p_value is None or cell.drop is None:
        return _sentence("few_images", cell.n_images)
    p = p_equation(cell.p_value)
    if cell.drop_shown:
        return _sentence("shown", p)
    if cell.drop.low * cell.drop.high > 0:
        return _sentence("shown_alone", n_drops, p)
    return _sentence("not_shown", p)


def write_transfer(transfer: Transfer, out: Path) -> Path:
    """Write the results of systems on several data sets as a table, a JSON file and a page.

    The files are ``transfer.csv``, ``transfer.json`` and, last, ``transfer.html``. A system is a
    model.

    Args:
        transfer: Results of all systems on all data sets.
        out: Folder that the files are written into.

    Returns:
        Path of the page ``transfer.html``.

    Example:
        >>> import tempfile
        >>> from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
        >>> from cxr_compare.evaluation.studies.transfer_analysis import EvaluatedSet
        >>> auroc = ClusteredEstimate(0.8, 0.02, bounded=True)
        >>> counts = {"n_images": 100, "n_patients": 80, "n_positive": 30}
        >>> cell = TransferCell("CheXNet", "NIH", home=True, auroc=auroc, **counts)
        >>> transfer = Transfer([EvaluatedSet("NIH", "opacity", None)], [cell], "max_f1", [])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_transfer(transfer, Path(folder))
        >>> page.name
        'transfer.html'
    """
    stored = _transfer_dict(transfer)
    return write_study(out, "transfer", stored["figures"], stored, _page(transfer).render())


def _transfer_dict(transfer: Transfer) -> dict[str, Any]:
    """Return the content of ``transfer.json``."""
    return {
        "findings": [
            {"text": drop.text, "shown": drop.shown, "size": size}
            for drop, size in _sized_drops(transfer)
        ],
        "notes": list(transfer.notes),
        "policy": transfer.policy,
        "sets": [vars(data) for data in transfer.sets],
        "figures": [row for cell in transfer.cells for row in _tidy(cell)],
        "provenance": provenance(),
    }


def _tidy(cell: TransferCell) -> Iterator[dict[str, Any]]:
    """Return the figures of a cell as rows: figure, threshold, estimate and interval."""
    common = {name: getattr(cell, name) for name in _COMMON}

    def row(
        metric: str, threshold: str, figure: Interval, of: str = _OVER_PATIENTS, **rest: Any
    ) -> dict[str, Any]:
        return {
            **common,
            "metric": metric,
            "threshold": threshold,
            **figure.to_dict(),
            "interval": of,
            "note": cell.note,
            **rest,
        }

    yield row("auroc", "", Interval() if cell.auroc is None else cell.auroc.as_interval)
    if cell.drop is not None:
        yield row("auroc_drop", "", cell.drop, p_holm=cell.p_value)
    for name, interval in cell.frozen.items():
        yield row(name, "home", interval)
    for refit in cell.refits:
        whole = refit.positives is None
        here = "local, all" if whole else f"local, {refit.positives} positive"
        rest: dict[str, Any] = {
            "of": _OVER_PATIENTS if whole else _OVER_CHOICES,
            "labelled_images": refit.images,
            "n_choices": refit.n_draws,
        }
        for name, figure in refit.figures.items():
            yield row(name, here, figure, **rest)


def _page(transfer: Transfer) -> StudyPage:
    chart = _chart(transfer)
    statements = drops(transfer)
    markers = dict.fromkeys(transfer.systems, ".") | {_SHORTCUT: "s"}
    legend = [
        (legend_sample(chart.key, at, marker), name)
        for at, (name, marker) in enumerate(markers.items())
    ]
    rates = {name: _rate_table(transfer, name) for name in ("recall", "specificity", "f1")}
    further = [_rate_table(transfer, name) for name in ("precision", "accuracy")]
    return StudyPage(
        title="External validation",
        kicker=_sentence("kicker", len(transfer.systems), len(transfer.sets)),
        answer=_headline(transfer),
        scope=[_sentence("scope")] if statements else [],
        statements=statements,
        notes=transfer.notes,
        sections=[
            Section(
                "auroc",
                "Where each system finds the disease",
                charts=[ShownChart(chart, legend)],
                beside=_auroc_table(transfer),
            ),
            Section(
                "decisions",
                "Decisions: the threshold from home, and thresholds chosen there",
                lead=_sentence("decisions_lead", transfer.policy),
                tables=[*rates.values(), _calibration_table(transfer)],
                folded={"Precision and accuracy": further},
            ),
        ],
        methods=[_sentence(kind) for kind in _METHODS],
    )


_METHODS = (
    "method_images",
    "method_scores",
    "method_intervals",
    "method_drops",
    "method_shortcuts",
)
"""Kinds of the sentences on the methods."""


def _columns(transfer: Transfer) -> tuple[str, ...]:
    return tuple(f"{data.name}: {data.finding}" for data in transfer.sets)


def _per_system(
    transfer: Transfer, say: Callable[[TransferCell | None], str]
) -> list[tuple[str, ...]]:
    """Return one row for each system, with a text for its cell on each data set."""
    return [
        (system, *(say(transfer.cell(system, data.name)) for data in transfer.sets))
        for system in transfer.systems
    ]


def _auroc(cell: TransferCell | None) -> str:
    if cell is None:
        return "no such finding"
    if cell.auroc is None:
        return cell.note
    text = figure_text(cell.auroc.as_interval)
    return text + (" home" if cell.home else " ▼ shown" if _is_loss(cell) else "")


def _auroc_table(transfer: Transfer) -> Table:
    shortcuts = [_shortcut_text(data.shortcut) for data in transfer.sets]
    counts = [_counted(transfer, data.name) for data in transfer.sets]
    below = (("Best prediction without the lungs", *shortcuts), ("Test images", *counts))
    rows = (*_per_system(transfer, _auroc), *below)
    lead = _sentence("auroc_lead")
    return Table.from_rows("AUROC", lead, ("System", *_columns(transfer)), rows)


def _shortcut_text(shortcut: Mapping[str, Any] | None) -> str:
    if shortcut is None:
        return DASH
    low, high = shortcut["ci_low"], shortcut["ci_high"]
    ends = "" if low is None else range_text(low, high)
    return _sentence("shortcut", shortcut["auroc"], ends, shortcut["fact"])


def _counted(transfer: Transfer, data_set: str) -> str:
    """Return the number of images on a data set, and the systems that are evaluated on fewer."""
    cells = [cell for cell in transfer.cells if cell.data_set == data_set]
    most = max(cells, key=lambda cell: cell.n_images)
    fewer = [(cell.system, cell.n_images) for cell in cells if cell.n_images < most.n_images]
    return _sentence("counts", most.n_images, most.n_patients, most.n_positive, fewer)


def _rate_table(transfer: Transfer, metric: str) -> Table:
    """Return a figure at the threshold from home and at local ones, one row for each threshold."""
    chosen = {refit.positives for cell in transfer.cells for refit in cell.refits}
    numbers = sorted(
        chosen, key=lambda positives: (positives is None, positives)
    )  # None, which means all local patients, comes last
    rows = []
    for system in transfer.systems:
        cells = [transfer.cell(system, data.name) for data in transfer.sets]
        rows.append((_sentence("home_row", system), *(_frozen(cell, metric) for cell in cells)))
        for positives in numbers:
            title = _sentence("threshold_row", system, positives)
            rows.append((title, *(_local(cell, positives, metric) for cell in cells)))
    return Table.from_rows(metric_title(metric), "", ("System", *_columns(transfer)), tuple(rows))


def _frozen(cell: TransferCell | None, metric: str) -> str:
    interval = None if cell is None else cell.frozen.get(metric)
    return DASH if interval is None or not interval.known else figure_text(interval)


def _local(cell: TransferCell | None, positives: int | None, metric: str) -> str:
    refits = (
        [] if cell is None else [refit for refit in cell.refits if refit.positives == positives]
    )
    if not refits:
        return DASH
    figure = refits[0].figures[metric]
    if not figure.known:
        return DASH
    if positives is None or not figure.bounded:
        return figure_text(figure)
    return f"{number(figure.estimate)} [{interval_text(figure)}]"


def _calibration(cell: TransferCell | None) -> str:
    if cell is None or cell.mean_probability is None:
        return DASH
    share = cell.n_positive / cell.n_images
    return _sentence("calibration_cell", cell.mean_probability, share)


def _calibration_table(transfer: Transfer) -> Table:
    rows = _per_system(transfer, _calibration)
    lead = _sentence("calibration_lead")
    return Table.from_rows("Mean probability", lead, ("System", *_columns(transfer)), rows)


def _chart(transfer: Transfer) -> Chart:
    """Draw the AUROC of each system on each data set, with its interval."""
    n = len(transfer.systems) + 1
    curves = []
    for at, system in enumerate(transfer.systems):
        points = list[Point]()
        ends = list[tuple[float, float]]()
        for column, data in enumerate(transfer.sets):
            cell = transfer.cell(system, data.name)
            if cell is None or cell.auroc is None:
                continue
            to = column + (at - (n - 1) / 2) * 0.6 / n
            auroc = cell.auroc.value
            ends.append(cell.auroc.interval or (auroc, auroc))
            text = figure_text(cell.auroc.as_interval)
            label = _sentence("point", system, data.name, text)
            points.append(Point(to, auroc, label, "D" if cell.home else "."))
        curves.append(Curve.from_points(system, at, points, ends))
    shortcuts = list[Point]()
    spans = list[tuple[float | None, float | None]]()
    for column, data in enumerate(transfer.sets):
        shortcut = data.shortcut
        if shortcut is not None:
            to = column + (n - 1) / 2 * 0.6 / n
            label = _sentence("shortcut_point", data.name, shortcut["fact"], shortcut["auroc"])
            shortcuts.append(Point(to, shortcut["auroc"], label, "s"))
            spans.append((shortcut["ci_low"], shortcut["ci_high"]))
    curves.append(Curve.from_points(_SHORTCUT, n - 1, shortcuts, spans))
    lowest = min([0.5, *(value for curve in curves for value in curve.y if not np.isnan(value))])
    low = np.floor(lowest * 10) / 10
    ticks = tuple((float(t), f"{t:.1f}") for t in np.arange(low, 1.05, 0.1))
    names = [data.name[: 48 // len(transfer.sets)] for data in transfer.sets]
    sets = tuple((float(column), name) for column, name in enumerate(names))
    return Chart(
        key="transfer",
        title="AUROC by data set",
        x=Axis("Data set", sets, -0.5, len(transfer.sets) - 0.5),
        y=Axis("AUROC", ticks, float(low), 1.0),
        curves=tuple(curves),
        guides=(((-0.5, len(transfer.sets) - 0.5), (0.5, 0.5)),),
        guide_label="guessing",
        note=_sentence("chart_note"),
        description=_sentence("chart_description"),
    )
