"""The mean over folds as a picture and as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_prep.contracts.folders import atomic_path, provenance
from data_prep.contracts.tables import write_json
from evaluation.compare.intervals import ALL
from evaluation.metrics.registry import metric_words, number, policy_words
from evaluation.report.figures import PAPER_COLOURS
from evaluation.report.folds import Folds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADLINES = (  # metric and policy, as the picture and the Markdown table show them
    ("auroc", ""),
    ("average_precision", ""),
    ("ap50", ""),
    ("rsna_score", ""),
    ("froc_mean", ""),
    ("f1", "max_f1"),
    ("recall", "specificity>=0.90"),
)


def write_folds(folds: Folds, table: pd.DataFrame, out: Path) -> None:
    """Write ``folds.csv``, ``folds.md``, ``folds.png`` and, last, ``folds.json``.

    Args:
        folds: From `evaluation.report.folds.read_folds`.
        table: From `evaluation.report.folds.summarise_folds`.
        out: An existing folder.
    """
    with atomic_path(out / "folds.csv") as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(out / "folds.md") as temporary:
        temporary.write_text(markdown_table(folds, table), encoding="utf-8")
    figure = _picture(folds, table)
    FigureCanvasAgg(figure)
    figure.savefig(out / "folds.png", dpi=200)
    rows = table.astype(object).where(table.notna(), None)
    payload = {
        "reports": [str(folder) for folder in folds.folders],
        "splits": list(folds.splits),
        "n_images": list(folds.n_images),
        "systems": list(folds.systems),
        "figures": rows.to_dict("records"),
        "of_reports": list(folds.provenance),
        "provenance": provenance(),
    }
    write_json(out / "folds.json", "folds", payload)


def markdown_table(folds: Folds, table: pd.DataFrame) -> str:
    """The headline figures, a row a system and a row a contrast with the first: mean (interval).

    Args:
        folds: From `evaluation.report.folds.read_folds`.
        table: From `evaluation.report.folds.summarise_folds`.
    """
    shown = _shown(table)
    titles = [_title(metric, policy) for metric, policy in shown]
    lines = ["| system | " + " | ".join(titles) + " |", "|" + "---|" * (len(titles) + 1)]
    contrasts = [f"{folds.systems[0]} - {other}" for other in folds.systems[1:]]
    for system in [*folds.systems, *contrasts]:
        cells = [_cell(table, system, *figure) for figure in shown]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    k = len(folds.folders)
    return (
        "\n".join(lines) + f"\n\nMean over {k} folds ({sum(folds.n_images):,} test images in all) "
        "and the 95 % t interval of that mean; folds share training images, so the interval "
        "describes this cross-validation.\n"
    )


def _shown(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The headline figures that any system has."""
    there = set(zip(table["metric"], table["policy"], strict=True))
    return [figure for figure in HEADLINES if figure in there]


def _title(metric: str, policy: str) -> str:
    return metric_words(metric).title + (f", {policy_words(policy)}" if policy else "")


def _row(table: pd.DataFrame, system: str, metric: str, policy: str) -> pd.Series | None:
    rows = table[
        (table["system"] == system) & (table["metric"] == metric) & (table["policy"] == policy)
        & (table["subgroup"] == ALL)
    ]  # fmt: skip
    return None if rows.empty else rows.iloc[0]


def _cell(table: pd.DataFrame, system: str, metric: str, policy: str) -> str:
    row = _row(table, system, metric, policy)
    if row is None or pd.isna(row["mean"]):
        return "–" if row is None or not row["note"] else row["note"]
    return f"{number(row['mean'])} ({number(row['ci_low'])} to {number(row['ci_high'])})"


def _picture(folds: Folds, table: pd.DataFrame) -> Figure:
    """A panel a figure, a row a system: each fold a ring, the mean with its interval."""
    shown = _shown(table)
    height = 0.9 + 0.42 * len(folds.systems)
    figure = Figure(figsize=(2.3 * len(shown) + 1.2, height + 0.4), layout="constrained")
    for axes, (metric, policy) in zip(
        figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True
    ):
        _panel(axes, folds, table, metric, policy)
    return figure


def _panel(axes: Axes, folds: Folds, table: pd.DataFrame, metric: str, policy: str) -> None:
    names = [f"fold_{n + 1}" for n in range(len(folds.folders))]
    for place, system in enumerate(folds.systems):
        row = _row(table, system, metric, policy)
        if row is None or pd.isna(row["mean"]):
            continue
        colour = PAPER_COLOURS[place % len(PAPER_COLOURS)]
        axes.plot(row[names], [place] * len(names), "o", color=colour, fillstyle="none", alpha=0.6)
        axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=1.4)
        axes.plot(row["mean"], place, "D", color=colour, markersize=6)
    axes.set_title(_title(metric, policy), fontsize=8)
    axes.set_yticks(range(len(folds.systems)), folds.systems, fontsize=8)
    axes.set_ylim(len(folds.systems) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", color="#E3E3E3", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
