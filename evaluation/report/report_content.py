"""Content of a report, from a comparison in memory or from a finished folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.metrics_json import answer_json, metrics_json
from cxr_compare.evaluation.report.summary_table import TableRow, summary_frame
from cxr_compare.evaluation.report.tidy_tables import all_units, failures_table, tests_table

_TABLES = ("metrics", "tests", "where")


class ReportContent(Protocol):
    """Content of a report: computed from a comparison in memory, or read from a folder."""

    @property
    def payload(self) -> dict[str, Any]:
        """Content of ``metrics.json``, the file of a report that programs read.

        Some keys are ``answer`` (the conclusion in sentences), ``systems`` (their names),
        ``metrics`` (one dictionary for each value), ``tests`` and ``provenance``.
        """

    @property
    def answer(self) -> dict[str, Any]:
        """Answer in sentences, the part ``answer`` of the payload."""

    @property
    def figures(self) -> pd.DataFrame:
        """Table with one row for each metric of a system and of a difference of two systems.

        Some columns are ``unit`` (``image``, ``study`` or ``patient``), ``subgroup``, ``system``
        (``A - B`` for a difference), ``policy`` (rule by which the threshold was chosen),
        ``metric``, ``estimate``, and the ends of its 95 % interval, ``ci_low`` and ``ci_high``.
        Rows by study or by patient follow those by image, if they were computed.
        """

    @property
    def tests(self) -> pd.DataFrame:
        """Table of the tests of differences between systems, one row for each test.

        Some columns are ``first`` and ``second`` (names of the systems), ``metric``, ``policy``
        (rule by which the threshold was chosen), ``method``, ``estimate`` (first minus second
        system), ``p_value`` and ``p_holm`` (corrected by Holm's method). A row on the AUROC of a
        single system has an empty ``second`` and no p-value.
        """

    @property
    def failures(self) -> pd.DataFrame:
        """Table of metrics in groups of images and lesions, such as age groups, and of errors.

        Some columns are ``topic`` (such as ``sex``), ``group`` (such as ``F``), ``system``,
        ``metric``, ``estimate``, the ends of its interval, ``ci_low`` and ``ci_high``, and
        ``p_value``.
        """

    @property
    def decisions(self) -> pd.DataFrame:
        """Table with one row for each test image and system: label, score and decisions.

        Some columns are ``image_id``, ``system``, ``label`` (1.0 or 0.0), ``score`` and
        ``probability`` (NaN without calibration). For each rule by which a threshold was chosen,
        such as ``max_f1``, a column ``decision_max_f1`` is True if the system calls the image
        positive.
        """

    @property
    def summary(self) -> pd.DataFrame:
        """Main table of the report as texts: metrics by row, systems and differences by column.

        The index has two levels: a heading (rule for the threshold) and the title of the metric. A
        cell holds a value with its interval, such as ``0.912 (0.880 to 0.940)``.
        """

    @property
    def curves(self) -> pd.DataFrame:
        """Table of all curves of the report, as `curve_table` returns it."""

    @property
    def chart_facts(self) -> dict[str, Any]:
        """Facts of the charts beside the curves, as `chart_facts` returns them."""

    @property
    def policies(self) -> list[str]:
        """Rules by which at least one system has a threshold, such as ``max_f1``."""

    @property
    def policy(self) -> str:
        """Rule, such as ``max_f1``, whose thresholds are used where only one is shown."""

    @property
    def seed(self) -> int:
        """Random seed for drawing some of the images that all systems decide rightly."""

    @property
    def overlays(self) -> Mapping[str, str]:
        """File name of the drawn version of each example image, by image id.

        The files are in the folder ``overlays`` of the report.
        """


@dataclass(frozen=True)
class FreshContent:
    """Content of a report, computed from a comparison in memory.

    Attributes:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        rows: Rows of the main table, each a metric and the rule for its threshold; if empty, the
            usual rows.
        seed: Random seed for drawing some of the images that all systems decide rightly.
        overlays: File name of the drawn version of each example image, by image id.
        made_curves: Result of `curve_table`, if it was computed before; None computes it when
            needed.
    """

    comparison: Comparison
    rows: Sequence[TableRow] = ()
    seed: int = 0
    overlays: Mapping[str, str] = field(default_factory=dict)
    made_curves: pd.DataFrame | None = None

    @cached_property
    def payload(self) -> dict[str, Any]:
        """Content of ``metrics.json``, the file of a report that programs read.

        Some keys are ``answer`` (the conclusion in sentences), ``systems`` (their names),
        ``metrics`` (one dictionary for each value), ``tests`` and ``provenance``.
        """
        return metrics_json(self.comparison)

    @cached_property
    def answer(self) -> dict[str, Any]:
        """Answer in sentences, the part ``answer`` of the payload."""
        return answer_json(self.comparison)

    @cached_property
    def figures(self) -> pd.DataFrame:
        """Table with one row for each metric of a system and of a difference of two systems.

        Some columns are ``unit`` (``image``, ``study`` or ``patient``), ``subgroup``, ``system``
        (``A - B`` for a difference), ``policy`` (rule by which the threshold was chosen),
        ``metric``, ``estimate``, and the ends of its 95 % interval, ``ci_low`` and ``ci_high``.
        Rows by study or by patient follow those by image, if they were computed.
        """
        return all_units(self.comparison)

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Table of the tests of differences between systems, one row for each test.

        Some columns are ``first`` and ``second`` (names of the systems), ``metric``, ``policy``
        (rule by which the threshold was chosen), ``method``, ``estimate`` (first minus second
        system), ``p_value`` and ``p_holm`` (corrected by Holm's method). A row on the AUROC of a
        single system has an empty ``second`` and no p-value.
        """
        return tests_table(self.comparison)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """Table of metrics in groups of images and lesions, such as age groups, and of errors.

        Some columns are ``topic`` (such as ``sex``), ``group`` (such as ``F``), ``system``,
        ``metric``, ``estimate``, the ends of its interval, ``ci_low`` and ``ci_high``, and
        ``p_value``.
        """
        return failures_table(self.comparison)

    @property
    def decisions(self) -> pd.DataFrame:
        """Table with one row for each test image and system: label, score and decisions.

        Some columns are ``image_id``, ``system``, ``label`` (1.0 or 0.0), ``score`` and
        ``probability`` (NaN without calibration). For each rule by which a threshold was chosen,
        such as ``max_f1``, a column ``decision_max_f1`` is True if the system calls the image
        positive.
        """
        return self.comparison.decisions

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Main table of the report as texts: metrics by row, systems and differences by column.

        The index has two levels: a heading (rule for the threshold) and the title of the metric. A
        cell holds a value with its interval, such as ``0.912 (0.880 to 0.940)``.
        """
        return summary_frame(self.comparison, self.rows)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Table of all curves of the report, as `curve_table` returns it."""
        if self.made_curves is not None:
            return self.made_curves
        from cxr_compare.evaluation.report.curves import curve_table

        return curve_table(self.comparison)

    @cached_property
    def chart_facts(self) -> dict[str, Any]:
        """Facts of the charts beside the curves, as `chart_facts` returns them."""
        from cxr_compare.evaluation.report.curves import chart_facts

        return chart_facts(self.comparison)

    @property
    def policies(self) -> list[str]:
        """Rules by which at least one system has a threshold, such as ``max_f1``."""
        return self.comparison.policies

    @property
    def policy(self) -> str:
        """Rule, such as ``max_f1``, whose thresholds are used where only one is shown."""
        return self.comparison.main_policy

    def write(self, out: Path) -> None:
        """Write ``result.json``, from which `Report.open` reads what no other file contains.

        Args:
            out: Folder of the report.
        """
        tables = {"metrics": self.figures, "tests": self.tests, "where": self.failures}
        content = {
            "policy": self.policy,
            "policies": self.policies,
            "seed": self.seed,
            "overlays": dict(self.overlays),
            "columns": {
                name: {str(column): str(kind) for column, kind in table.dtypes.items()}
                for name, table in tables.items()
            },
            "summary": {
                "columns": [str(name) for name in self.summary.columns],
                "rows": [
                    [*index, *texts]
                    for index, texts in zip(
                        self.summary.index, self.summary.to_numpy().tolist(), strict=True
                    )
                ],
            },
            "curves": _plain(self.curves.to_dict("list")),
            "charts": self.chart_facts,
        }
        write_json(out / files.RESULT, "result", content)


@dataclass(frozen=True)
class StoredContent:
    """Content of a report, read from its folder when it is needed.

    Attributes:
        folder: Folder of the report, which ``cxr compare`` wrote.
    """

    folder: Path

    @cached_property
    def payload(self) -> dict[str, Any]:
        """Content of ``metrics.json``, the file of a report that programs read.

        Some keys are ``answer`` (the conclusion in sentences), ``systems`` (their names),
        ``metrics`` (one dictionary for each value), ``tests`` and ``provenance``.
        """
        return read_json(self.folder / files.METRICS, "metrics")

    @property
    def answer(self) -> dict[str, Any]:
        """Answer in sentences, the part ``answer`` of the payload."""
        answer: dict[str, Any] = self.payload["answer"]
        return answer

    @cached_property
    def _stored(self) -> dict[str, Any]:
        return read_json(self.folder / files.RESULT, "result")

    def _table(self, name: str) -> pd.DataFrame:
        columns = self._stored["columns"][name]
        table = pd.DataFrame(self.payload[name], columns=list(columns), dtype=object)
        for column, kind in columns.items():
            if kind.startswith(("float", "Float")):
                table[column] = table[column].astype("float64").astype(kind)
            elif kind != "object":
                table[column] = table[column].astype(kind)
        return table

    @cached_property
    def figures(self) -> pd.DataFrame:
        """Table with one row for each metric of a system and of a difference of two systems.

        Some columns are ``unit`` (``image``, ``study`` or ``patient``), ``subgroup``, ``system``
        (``A - B`` for a difference), ``policy`` (rule by which the threshold was chosen),
        ``metric``, ``estimate``, and the ends of its 95 % interval, ``ci_low`` and ``ci_high``.
        Rows by study or by patient follow those by image, if they were computed.
        """
        return self._table("metrics")

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Table of the tests of differences between systems, one row for each test.

        Some columns are ``first`` and ``second`` (names of the systems), ``metric``, ``policy``
        (rule by which the threshold was chosen), ``method``, ``estimate`` (first minus second
        system), ``p_value`` and ``p_holm`` (corrected by Holm's method). A row on the AUROC of a
        single system has an empty ``second`` and no p-value.
        """
        return self._table("tests")

    @cached_property
    def failures(self) -> pd.DataFrame:
        """Table of metrics in groups of images and lesions, such as age groups, and of errors.

        Some columns are ``topic`` (such as ``sex``), ``group`` (such as ``F``), ``system``,
        ``metric``, ``estimate``, the ends of its interval, ``ci_low`` and ``ci_high``, and
        ``p_value``.
        """
        return self._table("where")

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Table with one row for each test image and system: label, score and decisions.

        Some columns are ``image_id``, ``system``, ``label`` (1.0 or 0.0), ``score`` and
        ``probability`` (NaN without calibration). For each rule by which a threshold was chosen,
        such as ``max_f1``, a column ``decision_max_f1`` is True if the system calls the image
        positive.
        """
        return read_table(self.folder / files.DECISIONS, "decisions")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Main table of the report as texts: metrics by row, systems and differences by column.

        The index has two levels: a heading (rule for the threshold) and the title of the metric. A
        cell holds a value with its interval, such as ``0.912 (0.880 to 0.940)``.
        """
        stored = self._stored["summary"]
        index = pd.MultiIndex.from_tuples([tuple(row[:2]) for row in stored["rows"]])
        texts = [row[2:] for row in stored["rows"]]
        return pd.DataFrame(texts, index=index, columns=stored["columns"])

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Table of all curves of the report, as `curve_table` returns it."""
        columns = self._stored["curves"]
        kinds = dict.fromkeys(("x", "y", "low", "high"), np.float64)
        return pd.DataFrame(columns).astype(kinds)

    @property
    def chart_facts(self) -> dict[str, Any]:
        """Facts of the charts beside the curves, as `chart_facts` returns them."""
        return dict(self._stored["charts"])

    @property
    def policies(self) -> list[str]:
        """Rules by which at least one system has a threshold, such as ``max_f1``."""
        return list(self._stored["policies"])

    @property
    def policy(self) -> str:
        """Rule, such as ``max_f1``, whose thresholds are used where only one is shown."""
        return str(self._stored["policy"])

    @property
    def seed(self) -> int:
        """Random seed for drawing some of the images that all systems decide rightly."""
        return int(self._stored["seed"])

    @property
    def overlays(self) -> Mapping[str, str]:
        """File name of the drawn version of each example image, by image id.

        The files are in the folder ``overlays`` of the report.
        """
        return dict(self._stored["overlays"])


def write_result(
    comparison: Comparison,
    out: Path,
    *,
    rows: Sequence[TableRow] = (),
    seed: int = 0,
    overlays: Mapping[str, str] | None = None,
    curves: pd.DataFrame | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write ``result.json``, from which `Report.open` reads what no other file contains.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        out: Folder of the report.
        rows: Rows of the main table, each a metric and the rule for its threshold; if empty, the
            usual rows.
        seed: Random seed for drawing some of the images that all systems decide rightly.
        overlays: File name of the drawn version of each example image, by image id; None if no
            image was drawn.
        curves: Result of `curve_table`, if it was computed before; None computes it.
        facts: Result of `chart_facts`, if it was computed before; None computes it.
    """
    content = FreshContent(comparison, tuple(rows), seed, overlays or {}, curves)
    if facts is not None:
        content.__dict__["chart_facts"] = facts
    content.write(out)


def _plain(value: Any) -> Any:
    """Convert a value for JSON: values that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
