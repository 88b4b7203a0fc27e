"""The page of `cxr transfer`: systems by data sets, and the loss away from home."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
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
from cxr_compare.evaluation.studies.transfer_analysis import Transfer, TransferCell

_OVER_PATIENTS = "95 % over test patients"
_OVER_CHOICES = "90 % of choices of local patients"
_GUESS = "best guess without the lungs"
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
    """Return a statement on each drop: shown ones first, the largest first."""
    return [statement for statement, _ in _sized_drops(transfer)]


def _sized_drops(transfer: Transfer) -> list[tuple[Statement, float]]:
    sized = []
    n_drops = sum(cell.p_value is not None for cell in transfer.cells)
    for cell in transfer.cells:
        if cell.home or cell.auroc is None or cell.drop is None:
            continue
        fell = "is lower" if cell.drop.estimate > 0 else "is higher"
        text = (
            f"{cell.system} on {cell.data_set}: AUROC {figure_text(cell.auroc.as_interval)}, "
            f"which {fell} by {number(abs(cell.drop.estimate))} than at home"
        )
        if cell.drop.bounded:
            ends = cell.drop.low, cell.drop.high
            low, high = sorted(map(abs, ends)) if min(ends) * max(ends) > 0 else ends
            text += f" ({range_text(low, high)})"
        statement = Statement(f"{text}: {_shown_words(cell, n_drops)}", cell.drop_shown)
        sized.append((statement, abs(cell.drop.estimate)))
    return sorted(sized, key=lambda item: (not item[0].shown, -item[1]))


def _headline(transfer: Transfer) -> str:
    """Return the losses that were shown on each data set."""
    parts = []
    for data in transfer.sets:
        cells = [cell for cell in transfer.cells if cell.data_set == data.name and cell.drop]
        lost = {cell.system: words for cell in cells if (words := _loss(cell))}
        who = "Both systems" if len(lost) == len(cells) == 2 else listing(list(lost))
        command = "loses" if len(lost) == 1 else "lose"
        said = f"{who} {command} on {data.name}: AUROC {listing(list(lost.values()))}"
        parts += [said if lost else f"No loss was shown on {data.name}"] if cells else []
    return ". ".join(parts) or "No system was evaluated both at home and elsewhere"


def _loss(cell: TransferCell) -> str:
    """Return AUROC at home and here, empty where no loss was shown."""
    here = cell.auroc
    drop = cell.drop
    if here is None or drop is None or not cell.drop_shown or drop.estimate <= 0:
        return ""
    return f"{number(here.value + drop.estimate, 2)} to {number(here.value, 2)}"


def _shown_words(cell: TransferCell, n_drops: int) -> str:
    """Whether a drop is shown; its interval is of it alone, its p-value of all drops at once."""
    if cell.p_value is None or cell.drop is None:
        return f"{counted(cell.n_images, 'image')} are too few to tell"
    p = p_equation(cell.p_value)
    if cell.drop_shown:
        return f"shown ({p})"
    if cell.drop.low * cell.drop.high > 0:
        return f"not shown over {counted(n_drops, 'drop')} ({p} by Holm; alone it would be)"
    return f"not shown: equal AUROCs can differ as much ({p})"


def write_transfer(transfer: Transfer, out: Path) -> Path:
    """Write ``transfer.csv``, ``transfer.json`` and, last, ``transfer.html``; return the page."""
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
    """Return a cell as rows: figure, threshold, estimate and interval."""
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
    markers = dict.fromkeys(transfer.systems, ".") | {_GUESS: "s"}
    legend = [
        (legend_sample(chart.key, at, marker), name)
        for at, (name, marker) in enumerate(markers.items())
    ]
    rates = {name: _rate_table(transfer, name) for name in ("recall", "specificity", "f1")}
    further = [_rate_table(transfer, name) for name in ("precision", "accuracy")]
    return StudyPage(
        title="External validation",
        kicker=f"External validation · {counted(len(transfer.systems), 'system')} · "
        f"{counted(len(transfer.sets), 'data set')}",
        answer=_headline(transfer),
        scope=[_SCOPE] if statements else [],
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
                lead=f"Policy: {policy_text(transfer.policy)}. {_BRACKETS}",
                tables=[*rates.values(), _calibration_table(transfer)],
                folded={"Precision and accuracy": further},
            ),
        ],
        methods=_METHODS,
    )


_SCOPE = "Over all drops of this page at once (Holm). Not shown is not the same as none."
_BRACKETS = (
    "In round brackets the 95 % interval over test patients. A threshold chosen there is chosen on "
    "validation patients, labelled one by one until so many were positive; in square brackets "
    "where 90 % of such choices lie, on the same test images: too narrow where nearly all positive "
    "validation patients are among them. How many choices gave a threshold is in transfer.csv."
)
_METHODS = (
    "Each system is evaluated on a data set's test images of known label, without patients that it "
    "was trained or selected on: their number is in transfer.csv. Systems of one column can so be "
    "evaluated on different images; cxr compare evaluates them on the same. Who was seen is told "
    "by patient, image name, pixels and a fingerprint that near copies share; of runs trained by "
    "an older version by patient and image name alone.",
    "Boxes become one score an image, and scores become probabilities, by the rules that each "
    "system's home gave.",
    "Intervals are over test patients: each system is one training, and another one of the same "
    "recipe would differ.",
    "AUROC with its variance by patient (Obuchowski 1997). A drop is a difference of two sets of "
    "patients: its interval and p-value follow from the intervals of both (MOVER); p is Holm's "
    "over all drops. A drop can come of other machines and patients, of other labels, of an easier "
    "or harder mix of cases, or of a shortcut that is missing there: the page cannot tell which.",
    "The best guess without the lungs is the strongest of view, sex, age, file facts and image "
    "borders, learned on four fifths of the patients of the test images and evaluated on the rest; "
    "as the best of several on the same images it is somewhat too good.",
)


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
    words = figure_text(cell.auroc.as_interval)
    return words + (" home" if cell.home else " ▼ shown" if _loss(cell) else "")


def _auroc_table(transfer: Transfer) -> Table:
    guesses = [_guess(data.shortcut) for data in transfer.sets]
    counts = [_counted(transfer, data.name) for data in transfer.sets]
    below = (("Best guess without the lungs", *guesses), ("Test images", *counts))
    rows = (*_per_system(transfer, _auroc), *below)
    lead = "AUROC with its 95 % interval by patient. ▼ shown: lower than at home, over all cells."
    return Table.from_rows("AUROC", lead, ("System", *_columns(transfer)), rows)


def _guess(guess: Mapping[str, Any] | None) -> str:
    if guess is None:
        return DASH
    low = guess["ci_low"]
    high = guess["ci_high"]
    ends = "" if low is None else f" ({range_text(low, high)})"
    return f"{number(guess['auroc'])}{ends} by {guess['fact']}"


def _counted(transfer: Transfer, data_set: str) -> str:
    """Return the number of images of a column, and of systems that are evaluated on fewer."""
    cells = [cell for cell in transfer.cells if cell.data_set == data_set]
    most = max(cells, key=lambda cell: cell.n_images)
    text = (
        f"{most.n_images:,} of {counted(most.n_patients, 'patient')}, {most.n_positive:,} positive"
    )
    fewer = [f"{c.system} {c.n_images:,}" for c in cells if c.n_images < most.n_images]
    return f"{text}; {', '.join(fewer)}" if fewer else text


def _rate_table(transfer: Transfer, metric: str) -> Table:
    """Return a figure at the threshold from home and at local ones, a row for each threshold."""
    chosen = {refit.positives for cell in transfer.cells for refit in cell.refits}
    numbers = sorted(chosen, key=lambda wanted: (wanted is None, wanted))  # all of them last
    rows = []
    for system in transfer.systems:
        cells = [transfer.cell(system, data.name) for data in transfer.sets]
        rows.append((f"{system}, threshold from home", *(_frozen(cell, metric) for cell in cells)))
        for wanted in numbers:
            how = "all validation images here" if wanted is None else f"{wanted} positives here"
            rows.append((f"{system}, {how}", *(_local(cell, wanted, metric) for cell in cells)))
    return Table.from_rows(metric_title(metric), "", ("System", *_columns(transfer)), tuple(rows))


def _frozen(cell: TransferCell | None, metric: str) -> str:
    interval = None if cell is None else cell.frozen.get(metric)
    return DASH if interval is None or not interval.known else figure_text(interval)


def _local(cell: TransferCell | None, wanted: int | None, metric: str) -> str:
    refits = [] if cell is None else [r for r in cell.refits if r.positives == wanted]
    if not refits:
        return DASH
    figure = refits[0].figures[metric]
    if not figure.known:
        return DASH
    if wanted is None or not figure.bounded:
        return figure_text(figure)
    return f"{number(figure.estimate)} [{interval_text(figure)}]"


def _calibration(cell: TransferCell | None) -> str:
    if cell is None or cell.mean_probability is None:
        return DASH
    share = cell.n_positive / cell.n_images
    return f"{cell.mean_probability:.0%}; {share:.0%} positive"


def _calibration_table(transfer: Transfer) -> Table:
    rows = _per_system(transfer, _calibration)
    lead = "By the calibration from home; beside the share of images that are positive."
    return Table.from_rows("Mean probability", lead, ("System", *_columns(transfer)), rows)


def _chart(transfer: Transfer) -> Chart:
    """Chart the AUROC of each system on each data set, with its interval."""
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
            label = f"{system} on {data.name}: AUROC {figure_text(cell.auroc.as_interval)}"
            points.append(Point(to, auroc, label, "D" if cell.home else "."))
        curves.append(Curve.from_points(system, at, points, ends))
    guesses = list[Point]()
    spans = list[tuple[float | None, float | None]]()
    for column, data in enumerate(transfer.sets):
        if (guess := data.shortcut) is not None:
            to = column + (n - 1) / 2 * 0.6 / n
            label = f"{data.name}: {guess['fact']} alone, AUROC {number(guess['auroc'])}"
            guesses.append(Point(to, guess["auroc"], label, "s"))
            spans.append((guess["ci_low"], guess["ci_high"]))
    curves.append(Curve.from_points(_GUESS, n - 1, guesses, spans))
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
        note="Diamonds: where a system was trained. Squares: metadata or image borders alone.",
        description="AUROC of each system on each data set; the table beside holds the figures.",
    )
