"""The table and the page of the full-size study, from its reports.

    python -m tools.full_size.results OUT

Writes ``results.csv`` (every figure), ``results.md`` (the table, the goals and the price of the
leak) and ``results.html`` (the page).
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.contracts.page_templates import template_environment
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.statistics.figure_text import DASH, number, range_text
from tools.full_size.protocol import GoalKeys, Protocol
from tools.full_size.record import read_record, recorded_protocol, seconds_by_system
from tools.full_size.runner import duration
from tools.full_size.steps import CHALLENGE_SET, LEAKY_SET, POOLED, TRAINING_SET, folds_of
from tools.full_size.steps import study_steps as all_steps

POOLED_TITLE = "all folds together"
FOLDS_TITLE = "mean over folds"
CHALLENGE_TITLE = "images of the challenge"
LEAK_TITLE = "all folds, split by image minus by patient"
LEAKY_FOLDS_TITLE = "mean over folds, split by image"
_METRICS = ("auroc", "average_precision", "ap50", "froc_mean", "rsna_score")
_TITLES = {"pooled": POOLED_TITLE, "folds": FOLDS_TITLE, "challenge": CHALLENGE_TITLE}


@dataclass(frozen=True)
class Figure:
    """A figure of the study with its 95 % interval.

    Attributes:
        on: Which images and intervals are meant, in words.
        system: Name of the system, or of a difference of two systems.
        metric: Short name of the metric.
        estimate: The figure; NaN if it is undefined.
        low: Lower end of the interval; NaN without an interval.
        high: Upper end of the interval; NaN without an interval.
        n_images: Number of test images.
    """

    on: str
    system: str
    metric: str
    estimate: float
    low: float
    high: float
    n_images: int

    @property
    def half_width(self) -> float:
        """Half of the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class GoalResult:
    """What became of a goal.

    Attributes:
        goal: The goal of the protocol.
        system: Name of the system.
        figure: The figure that was demanded; None if the study does not have it.
        met: True or False; None for a goal without bounds, or without a figure.
    """

    goal: GoalKeys
    system: str
    figure: Figure | None
    met: bool | None


def read_figures(protocol: Protocol, out: Path) -> list[Figure]:
    """Read the figures of all reports of a study.

    Args:
        protocol: Its protocol.
        out: Its folder of results.

    Returns:
        The figures, those over all images first.
    """
    reports = out / "reports"
    figures = [*_of_report(reports / POOLED, POOLED_TITLE)]
    figures += _of_folds(out / f"means-{TRAINING_SET}", FOLDS_TITLE)
    if protocol.data.challenge:
        figures += _of_report(reports / CHALLENGE_SET, CHALLENGE_TITLE)
    if protocol.leak.used:
        figures += _of_folds(out / f"means-{LEAKY_SET}", LEAKY_FOLDS_TITLE)
        for system in protocol.system:
            report = reports / f"leak-{system.name.replace(' ', '-')}"
            for figure in _of_report(report, LEAK_TITLE):
                if figure.system == "by image - by patient":
                    figures.append(Figure(**{**vars(figure), "system": system.name}))
    return figures


def _of_report(folder: Path, on: str) -> Iterator[Figure]:
    report = read_json(folder / "metrics.json", "metrics")
    for row in report["metrics"]:
        if row["metric"] in _METRICS and row["subgroup"] == "all" and row["unit"] == "image":
            yield _figure(on, row, "estimate", int(row["n_images"] or 0))


def _of_folds(folder: Path, on: str) -> Iterator[Figure]:
    means = read_json(folder / "folds.json", "folds")
    for row in means["figures"]:
        if row["metric"] in _METRICS and row["subgroup"] == "all" and row["unit"] == "image":
            yield _figure(on, row, "mean", sum(means["n_images"]))


def _figure(on: str, row: dict[str, Any], value: str, n_images: int) -> Figure:
    estimate, low, high = (
        np.nan if row[key] is None else float(row[key]) for key in (value, "ci_low", "ci_high")
    )
    return Figure(on, row["system"], row["metric"], estimate, low, high, n_images)


def check_goals(protocol: Protocol, figures: Sequence[Figure]) -> list[GoalResult]:
    """Compare the figures with the goals that the protocol stated beforehand.

    Args:
        protocol: The protocol.
        figures: Figures of the study.

    Returns:
        One result for each goal and system.

    Example:
        >>> from tools.full_size.protocol import read_protocol
        >>> protocol = read_protocol(Path("scripts/full_size.toml")).protocol
        >>> found = [Figure(POOLED_TITLE, "CheXNet", "auroc", 0.91, 0.905, 0.915, 26684)]
        >>> [result.met for result in check_goals(protocol, found) if result.figure]
        [True]
    """
    by_key = {(figure.on, figure.system, figure.metric): figure for figure in figures}
    results = []
    for goal in protocol.goal:
        for system in goal.systems:
            figure = by_key.get((_TITLES[goal.on], system, goal.metric))
            met = None
            if figure is not None and not (goal.at_least is None and goal.half_width is None):
                met = goal.at_least is None or figure.estimate >= goal.at_least
                met = met and (goal.half_width is None or figure.half_width <= goal.half_width)
            results.append(GoalResult(goal, system, figure, met))
    return results


def leaked_images(protocol: Protocol, out: Path) -> tuple[int, int]:
    """Count the test images of the leaky folds whose patient is also in training there.

    Args:
        protocol: The protocol.
        out: Folder of results.

    Returns:
        Number of these images, and of all test images of the leaky folds.
    """
    leaky = DataSet.open(out / LEAKY_SET)
    patients = DataSet.open(out / TRAINING_SET).images.set_index("image_id")["patient_id"]
    leaked = 0
    tested = 0
    for name in folds_of(protocol, "leaky"):
        split = leaky.split(name)
        owner = split["image_id"].map(patients)
        is_test = split["role"] == "test"
        trained = set(owner[split["role"] == "train"])
        leaked += int(owner[is_test].isin(trained).sum())
        tested += int(is_test.sum())
    return leaked, tested


def table_lines(protocol: Protocol, figures: Sequence[Figure]) -> list[str]:
    """Return the table of results as Markdown: one row for each system and kind of images."""
    metrics = [name for name in _METRICS if any(figure.metric == name for figure in figures)]
    heads = ["images", "system", *map(metric_title, metrics)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    by_key = {(figure.on, figure.system, figure.metric): figure for figure in figures}
    for on in dict.fromkeys(figure.on for figure in figures):
        systems = dict.fromkeys(figure.system for figure in figures if figure.on == on)
        for system in systems:
            cells = [_cell(by_key.get((on, system, name))) for name in metrics]
            lines.append(f"| {' | '.join([on, system, *cells])} |")
    return lines


def _cell(figure: Figure | None) -> str:
    if figure is None or np.isnan(figure.estimate):
        return DASH
    ends = "" if np.isnan(figure.low) else f" ({range_text(figure.low, figure.high)})"
    return number(figure.estimate) + ends


def goal_sentence(result: GoalResult) -> str:
    """Return a sentence on a goal: what was demanded, what was found, and whether it is met."""
    goal = result.goal
    demands = []
    if goal.at_least is not None:
        demands.append(f"at least {goal.at_least:g}")
    if goal.half_width is not None:
        demands.append(f"a half-width of at most {goal.half_width:g}")
    title = f"{metric_title(goal.metric)} of {result.system}, {_TITLES[goal.on]}"
    demanded = " and ".join(demands) or "to be stated with its interval, without a bound"
    if result.figure is None or np.isnan(result.figure.estimate):
        return f"{title}: demanded {demanded}; this study does not have the figure."
    found = f"{_cell(result.figure)}, half-width {result.figure.half_width:.3f}"
    verdict = {True: " The goal is met.", False: " The goal is not met.", None: ""}[result.met]
    return f"{title}: demanded {demanded}; found {found}.{verdict}"


def write_results(out: Path) -> Path:
    """Write the table and the page of a study.

    Args:
        out: Folder of results, whose reports are complete.

    Returns:
        Path of the page.
    """
    protocol = recorded_protocol(out)
    record = read_record(out)
    figures = read_figures(protocol, out)
    goals = check_goals(protocol, figures)
    rows = [{**vars(figure), "half_width": figure.half_width} for figure in figures]
    write_csv(pd.DataFrame(rows), out / "results.csv")
    steps = all_steps(protocol, out, rehearsal=record["rehearsal"])
    costs = {system: duration(seconds) for system, seconds in seconds_by_system(out, steps).items()}
    leak = ""
    if protocol.leak.used:
        leaked, tested = leaked_images(protocol, out)
        leak = (
            f"In the folds that were split by image, {leaked:,} of {tested:,} test images "
            f"({100 * leaked / tested:.1f} %) have a patient who is also in training. Of the "
            f'figures "{LEAK_TITLE}" a positive difference is the price of this leak: what it '
            "adds to a figure."
        )
    lines = [f"# {protocol.name}", ""]
    if record["rehearsal"]:
        lines += [REHEARSED, ""]
    lines += [*table_lines(protocol, figures), "", "## Goals stated beforehand", ""]
    lines += [f"- {goal_sentence(result)}" for result in goals]
    lines += ["", "## What it cost", ""]
    lines += [
        f"- {name}: {text} for its trainings on the folds by patient"
        for name, text in costs.items()
    ]
    lines += ["", leak, ""] if leak else [""]
    write_text(out / "results.md", "\n".join(lines))
    return _write_page(out, protocol, record, figures, goals, costs, leak)


REHEARSED = (
    "This is a rehearsal: small networks, small images, one epoch. It shows that every step runs; "
    "its figures mean nothing."
)


def _is_known(figures: Sequence[Figure], on: str, metric: str) -> bool:
    """Return True if a metric is defined for any system on these images."""
    return any(
        (figure.on, figure.metric) == (on, metric) and not np.isnan(figure.estimate)
        for figure in figures
    )


def _write_page(
    out: Path,
    protocol: Protocol,
    record: dict[str, Any],
    figures: Sequence[Figure],
    goals: Sequence[GoalResult],
    costs: dict[str, str],
    leak: str,
) -> Path:
    metrics = [name for name in _METRICS if any(figure.metric == name for figure in figures)]
    by_key = {(figure.on, figure.system, figure.metric): figure for figure in figures}
    sections = []
    for on in dict.fromkeys(figure.on for figure in figures):
        systems = dict.fromkeys(figure.system for figure in figures if figure.on == on)
        shown = [name for name in metrics if _is_known(figures, on, name)]
        rows = [
            [system, *(_cell(by_key.get((on, system, name))) for name in shown)]
            for system in systems
        ]
        sections.append({"title": on, "heads": ["system", *map(metric_title, shown)], "rows": rows})
    plot = base64.b64encode((out / f"means-{TRAINING_SET}" / "folds.png").read_bytes()).decode()
    html = (
        template_environment(Path(__file__).parent)
        .get_template("results.html.jinja")
        .render(
            protocol=protocol,
            record=record,
            rehearsed=REHEARSED if record["rehearsal"] else "",
            sections=sections,
            goals=[(goal_sentence(result), result.met) for result in goals],
            costs=costs,
            leak=leak,
            plot=plot,
            reports=sorted(path.parent.name for path in (out / "reports").glob("*/report.html")),
        )
    )
    return write_text(out / "results.html", html)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    print(write_results(parser.parse_args().out))


if __name__ == "__main__":
    main()
