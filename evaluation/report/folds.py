"""Figures over the folds of a cross-validation, computed from one report for each fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.special import stdtr, stdtrit

from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.store.identify_folder import REPORT_MARKER, require_kind
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.registry import METRICS, family, metric_title
from cxr_compare.evaluation.overlays.shapes import system_colour
from cxr_compare.evaluation.report.answer import AnswerInfo
from cxr_compare.evaluation.report.files import DECISIONS
from cxr_compare.evaluation.report.table import markdown_rows, text_table, value_text
from cxr_compare.evaluation.statistics.figure_text import DASH, number, p_equation, range_text
from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval
from cxr_compare.evaluation.verdict.verdict_parts import JointSystem

_ROUNDING = 1e-12  # spread that rounding alone gives to folds with one value
KEYS = ["target", "unit", "subgroup", "first", "second", "policy", "metric"]
Pair = tuple[str, str]
"""Two systems of a difference, first minus second; the second is empty for one system."""


@dataclass(frozen=True)
class Folds:
    """Reports on the folds of one cross-validation, read together.

    Attributes:
        folders: Report folder of each fold.
        splits: Name of the division into training, validation and test images that each report
            uses.
        systems: Names of the compared detectors and classifiers, equal in all reports.
        figures: Values of all metrics, one row for each value and fold: ``target`` (evaluated
            finding), ``unit`` (image, study or patient), ``subgroup``, ``first`` (a system) and
            ``second`` (the system that is subtracted, or empty), ``policy`` (rule for the
            threshold), ``metric``, ``fold`` (from 0) and ``estimate``.
        n_images: Number of test images of each fold.
        provenance: For each report, versions, ids and seeds as in its ``answer.json``.
    """

    folders: tuple[Path, ...]
    splits: tuple[str, ...]
    systems: tuple[str, ...]
    figures: pd.DataFrame
    n_images: tuple[int, ...]
    provenance: tuple[dict[str, Any], ...]
    joint: JointSystem | None = None

    @classmethod
    def read(cls, folders: list[Path]) -> Folds:
        """Read the reports of ``cxr compare`` on the folds of one cross-validation.

        An InputError is raised for fewer than two reports, an incomplete one, reports that differ
        in systems, evaluated finding or data, and two reports that test the same patient.
        """
        if len(folders) < 2:
            raise InputError("folds: at least two reports make a cross-validation")
        for folder in folders:
            require_kind(folder, "report")
        reports = [AnswerInfo.read(folder / REPORT_MARKER) for folder in folders]
        made_on = [report.provenance.data_set for report in reports]
        for kind, facts in (
            ("target", [report.target for report in reports]),
            ("systems", [report.systems for report in reports]),
            ("joint system", [report.joint for report in reports]),
            ("images", [None if each is None else each.content_id for each in made_on]),
            ("labels", [None if each is None else each.labels_id for each in made_on]),
        ):
            for folder, fact in zip(folders, facts, strict=True):
                if fact != facts[0]:
                    raise InputError(
                        f"{folder}: other {kind} than {folders[0]} ({fact} instead of {facts[0]}); "
                        "folds are reports on the same systems and data"
                    )
        tested = [
            read_table(folder / DECISIONS, "decisions", files=report.files)
            for folder, report in zip(folders, reports, strict=True)
        ]
        _require_disjoint(folders, [_patients(images) for images in tested])
        frames = [
            read_table(folder / "figures.parquet", "figures", files=report.files).assign(fold=n)
            for n, (folder, report) in enumerate(zip(folders, reports, strict=True))
        ]
        figures = pd.concat(frames, ignore_index=True)
        figures = figures[~figures["metric"].isin(family("counts"))]
        return cls(
            folders=tuple(folders),
            splits=tuple("" if data_set is None else str(data_set.split) for data_set in made_on),
            systems=reports[0].systems,
            figures=figures[[*KEYS, "fold", "estimate"]].astype({"estimate": float}),
            n_images=tuple(int(images["image_id"].nunique()) for images in tested),
            provenance=tuple(report.provenance.to_json() for report in reports),
            joint=reports[0].joint_system,
        )

    @cached_property
    def table(self) -> pd.DataFrame:
        """Mean, standard deviation and interval of every metric over the folds.

        The columns are `KEYS`, then ``mean``, ``sd``, ``ci_low``, ``ci_high``, ``n_folds``,
        ``note`` and each fold's value as ``fold_1`` and so on. Differences of two systems (first
        minus second) also have a p-value in ``p_holm``, adjusted for the number of pairs of systems
        by Holm's method. A difference between a joint system and a member is no such pair, and its
        p-value is not adjusted: only if each of them is shown is the joint system better than its
        members.
        """
        table = summarise_folds(self.figures)
        p_values = table.pop("p")
        claimed = ~table["metric"].isin(family("coco"))  # of boxes as stored nothing is claimed
        pairs = _are(table, self._pairs()) & claimed
        same = [table[key] for key in KEYS if key not in ("first", "second")]
        families = p_values[pairs].fillna(1.0).groupby(same)
        adjusted = families.transform(lambda family: np.array(holm([*family])))
        adjusted = adjusted.where(p_values[pairs].notna())
        of_joint = p_values[_are(table, self._gains()) & claimed]
        return table.assign(p_holm=pd.concat([adjusted, of_joint]).reindex(table.index))

    def _pairs(self) -> list[Pair]:
        """Return the pairs of systems that do not join others."""
        names = [name for name in self.systems if self.joint is None or name != self.joint.name]
        return list(combinations(names, 2))

    def _gains(self) -> list[Pair]:
        """Return the pairs of each member and the joint system."""
        if self.joint is None:
            return []
        return [(member, self.joint.name) for member in self.joint.members]

    def to_markdown(self) -> str:
        """Return a Markdown table of the main metrics, one row for each system and difference.

        Below it are sentences on the pairs of systems that differ, and one on the number of folds
        and images.
        """
        headlines = _main_figures(self.table)
        titles = [_title(metric, policy) for metric, policy in headlines]
        alone = [(name, "") for name in self.systems]
        contrasts = [pair for pair in self._pairs() if pair[0] == self.systems[0]]
        columns = [_of_figure(self.table, *figure) for figure in headlines]
        rows = [
            (" - ".join(filter(None, pair)), *(_cell(column, pair) for column in columns))
            for pair in (*alone, *contrasts)
        ]
        lines = [markdown_rows(text_table("", ("System", *titles), rows).frame), ""]
        lines += filter(None, (self._pair_sentence(*figure) for figure in headlines))
        lines += filter(None, (self._joint_sentence(*figure) for figure in headlines))
        summary = (
            f"Mean over {len(self.folders)} folds ({sum(self.n_images):,} test images in all). The "
            "95 % interval is for what this training recipe reaches on sets like this one when it "
            "learns from as many patients. Because folds share training images, it is wider than "
            "the t interval of independent values (Nadeau and Bengio 2003)."
        )
        return "\n".join([*lines, "", summary, ""])

    def _pair_sentence(self, metric: str, policy: str) -> str:
        """Return a sentence on the pairs that differ in a figure; empty if no pair was tested."""
        rows = self._tested(metric, policy, self._pairs())
        if rows.empty:
            return ""
        shown = [
            f"{row['first']} - {row['second']} {number(row['mean'])} ({p_equation(row['p_holm'])})"
            for row in rows[rows["p_holm"] < 1 - LEVEL].reset_index().to_dict("records")
        ]
        return (
            f"- {_title(metric, policy)}: of {counted(len(rows), 'pair')}, shown to differ (Holm): "
            f"{'; '.join(shown) or 'none'}"
        )

    def _joint_sentence(self, metric: str, policy: str) -> str:
        """Return a sentence on the joint system's gain over each member that has the figure."""
        rows = self._tested(metric, policy, self._gains())
        if self.joint is None or rows.empty:
            return ""
        members = rows.index.get_level_values("first").tolist()
        is_shown = ((rows["mean"] < 0) & (rows["p_holm"] < 1 - LEVEL)).all()
        gains = [
            f"gain over {member} {number(-mean)} ({range_text(-high, -low)})"
            for member, mean, low, high in zip(
                members, rows["mean"], rows["ci_low"], rows["ci_high"], strict=True
            )
        ]
        return (
            f"- {_title(metric, policy)}: {self.joint.name} {'' if is_shown else 'not '}shown to "
            f"be better than {'each' if len(members) > 1 else members[0]}: {'; '.join(gains)}"
        )

    def _tested(self, metric: str, policy: str, pairs: Sequence[Pair]) -> pd.DataFrame:
        """Return the rows of some differences that have a p-value."""
        rows = _of_figure(self.table, metric, policy).dropna(subset="p_holm")
        return rows[rows.index.isin(pairs)]

    def write(self, out: Path) -> None:
        """Write the summary of the folds to a folder: as tables, as a figure, and for programs.

        The files are ``folds.csv``, ``folds.md``, ``folds.png`` and ``folds.json``.
        """
        write_csv(self.table, out / "folds.csv")
        write_text(out / "folds.md", self.to_markdown())
        figure = _figure(self)
        FigureCanvasAgg(figure)
        with atomic_path(out / "folds.png") as temporary:
            figure.savefig(temporary, format="png", dpi=200)
        rows = self.table.astype(object).where(self.table.notna(), None)
        payload = {
            "reports": [str(folder) for folder in self.folders],
            "splits": list(self.splits),
            "n_images": list(self.n_images),
            "systems": list(self.systems),
            "figures": rows.to_dict("records"),
            "of_reports": list(self.provenance),
            "provenance": provenance(),
        }
        write_json(out / "folds.json", "folds", payload)


def _patients(images: pd.DataFrame) -> set[str]:
    """Return the patients of test images; where they are unknown, each image counts as one."""
    return set(images["patient_id" if "patient_id" in images.columns else "image_id"])


def _require_disjoint(folders: list[Path], patients: list[set[str]]) -> None:
    for position, folder in enumerate(folders):
        for other in range(position):
            if shared := patients[position] & patients[other]:
                raise InputError(
                    f"{folder}: tests {counted(len(shared), 'patient')} whom {folders[other]} "
                    "tests, too; folds share no patient: take the splits of one cxr split "
                    "--folds"
                )


def summarise_folds(figures: pd.DataFrame) -> pd.DataFrame:
    """Summarise every metric over the folds of a cross-validation: mean, spread, interval, p-value.

    Folds share training images. With ``k`` folds and the standard deviation ``s`` between them, the
    variance of their mean therefore exceeds ``s^2 / k``, and no estimator of this variance is
    unbiased (Bengio and Grandvalet 2004). The test images of a fold are ``1 / (k - 1)`` as many as
    its other images. The variance is then taken as ``s^2 (1 / k + 1 / (k - 1))`` with ``k - 1``
    degrees of freedom. A metric that is undefined in a fold has no mean. One that is the same in
    all folds has no interval and no p-value, because they do not say how much it varies.

    `figures` is that of `Folds`. The result has one row for each combination of `KEYS`, with
    ``mean``, ``sd``, the ends of the 95 % interval ``ci_low`` and ``ci_high``, ``n_folds``,
    ``note`` (says in how many folds the metric is undefined, or why it has no interval), the
    p-value ``p`` of a mean of 0, and each fold's value as ``fold_1`` and so on.

    Source:
        Nadeau and Bengio 2003, Machine Learning 52:239. docs/validity.md reports the coverage of
        these intervals.

    Example:
        >>> row = {"target": "t", "unit": "image", "subgroup": "all", "first": "A", "second": ""}
        >>> row |= {"policy": "", "metric": "auroc"}
        >>> rows = [row | {"fold": n, "estimate": 0.8 + n / 10} for n in (0, 1)]
        >>> table = summarise_folds(pd.DataFrame(rows))
        >>> table.loc[0, ["mean", "sd"]].astype(float).round(3).tolist()
        [0.85, 0.071]
    """
    n_folds = int(figures["fold"].max()) + 1
    wide = figures.pivot(index=KEYS, columns="fold", values="estimate")
    order = figures.drop_duplicates(KEYS).set_index(KEYS).index
    values = wide.reindex(index=order, columns=range(n_folds))
    is_complete = values.notna().all(axis=1)
    mean = values.mean(axis=1).where(is_complete)
    spread = values.std(axis=1, ddof=1).where(is_complete)
    is_constant = is_complete & (spread < _ROUNDING)
    error = (spread * np.sqrt(1 / n_folds + 1 / (n_folds - 1))).mask(is_constant)
    half = stdtrit(n_folds - 1, (1 + LEVEL) / 2) * error
    metrics = order.get_level_values("metric")
    most = np.array([np.inf if METRICS[name].unbounded else 1.0 for name in metrics])
    missing = values.isna().sum(axis=1)
    note = missing.map(lambda count: f"undefined in {count} of {n_folds} folds" if count else "")
    note = note.mask(is_constant, "no interval: the same in all folds")
    values.columns = [f"fold_{n + 1}" for n in range(n_folds)]
    low = np.maximum(mean - half, -most)
    high = np.minimum(mean + half, most)
    p_values = 2 * stdtr(n_folds - 1, -(mean / error).abs())
    table = pd.DataFrame({"mean": mean, "sd": spread, "ci_low": low, "ci_high": high}).assign(
        n_folds=n_folds, note=note, p=p_values
    )
    return table.join(values).reset_index()


_MAIN_FIGURES = (  # metric and policy of the rows in the figure and in the Markdown table
    ("auroc", ""),
    ("average_precision", ""),
    ("ap50", ""),
    ("ap50_decided", ""),
    ("rsna_score", ""),
    ("vinbigdata_score", ""),
    ("froc_mean", ""),
    ("f1", "max_f1"),
    ("recall", "specificity>=0.90"),
)


def _main_figures(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the metric and policy of each main figure that any system has."""
    there = set(zip(table["metric"], table["policy"], strict=True))
    return [figure for figure in _MAIN_FIGURES if figure in there]


def _title(metric: str, policy: str) -> str:
    return metric_title(metric) + (f", {policy_text(policy)}" if policy else "")


def _of_figure(table: pd.DataFrame, metric: str, policy: str) -> pd.DataFrame:
    """Return the rows of one figure on all images by pair, for the first unit in the table."""
    rows = table[
        (table["metric"] == metric) & (table["policy"] == policy) & (table["subgroup"] == ALL)
    ]
    return rows.drop_duplicates(["first", "second"]).set_index(["first", "second"])


def _are(table: pd.DataFrame, pairs: Sequence[Pair]) -> pd.Series:
    """Return True for the rows of these pairs of systems."""
    return pd.Series(pd.MultiIndex.from_frame(table[["first", "second"]]).isin(pairs), table.index)


def _cell(rows: pd.DataFrame, pair: Pair) -> str:
    """Return mean and interval of a pair, or why there is none."""
    if pair not in rows.index:
        return DASH
    row: Any = rows.loc[pair]
    if pd.isna(row["mean"]):
        return row["note"] or DASH
    return value_text(Interval(row["mean"], row["ci_low"], row["ci_high"]))


def _figure(folds: Folds) -> Figure:
    """Draw a panel for each figure, with a ring for each fold and the mean with its interval."""
    table = folds.table
    shown = _main_figures(table)
    height = 0.9 + 0.42 * len(folds.systems)
    figure = Figure(figsize=(2.3 * len(shown) + 1.2, height + 0.4), layout="constrained")
    for axes, (metric, policy) in zip(
        figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True
    ):
        _panel(axes, folds, _of_figure(table, metric, policy))
        axes.set_title(_title(metric, policy), fontsize=8)
    return figure


def _panel(axes: Axes, folds: Folds, rows: pd.DataFrame) -> None:
    names = [f"fold_{n + 1}" for n in range(len(folds.folders))]
    known = rows.dropna(subset="mean")
    for position, system in enumerate(folds.systems):
        if (system, "") not in known.index:
            continue
        row: Any = known.loc[(system, "")]
        colour = system_colour(position)
        axes.plot(
            row[names], [position] * len(names), "o", color=colour, fillstyle="none", alpha=0.6
        )
        axes.plot(
            [row["ci_low"], row["ci_high"]], [position, position], color=colour, linewidth=1.4
        )
        axes.plot(row["mean"], position, "D", color=colour, markersize=6)
    axes.set_yticks(range(len(folds.systems)), folds.systems, fontsize=8)
    axes.set_ylim(len(folds.systems) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", color="#E3E3E3", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
