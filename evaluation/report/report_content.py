"""Content of a report, from a comparison in memory or from a finished folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.metrics_json import metrics_json
from cxr_compare.evaluation.report.summary_table import TableRow, summary_frame
from cxr_compare.evaluation.report.tidy_tables import all_units, failures_table, tests_table

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.chart import Chart


_TABLES = ("metrics", "tests", "where")


class ReportContent(Protocol):
    """Content of a report, from a comparison in memory or from a folder."""

    @property
    def payload(self) -> dict[str, Any]:
        """Content of ``metrics.json``, the file of a report that programs read."""

    @property
    def figures(self) -> pd.DataFrame:
        """Table with one row for each figure of a system and each difference of two systems.

        A row has the metric, the policy of its threshold, the value and its 95 % interval. Figures
        by study and by patient follow those by image, if they were evaluated.
        """

    @property
    def tests(self) -> pd.DataFrame:
        """Table of the tests of differences, with one row for each pair of systems and metric."""

    @property
    def failures(self) -> pd.DataFrame:
        """Table of figures in groups of images, lesions and patients, such as age groups."""

    @property
    def decisions(self) -> pd.DataFrame:
        """Table with one row for each image and system: label, score, probability and decisions.

        There is one decision (True for positive) for each policy that chose a threshold.
        """

    @property
    def summary(self) -> pd.DataFrame:
        """Main table of the report as texts: figures by row, systems and differences by column."""

    @property
    def charts(self) -> Sequence[Chart]:
        """Charts of the report, such as ROC curves, with their content in data units."""

    @property
    def policies(self) -> list[str]:
        """Names of the policies by which at least one system has a threshold."""

    @property
    def policy(self) -> str:
        """Name of the policy whose threshold is used for all that is shown at one threshold."""

    @property
    def seed(self) -> int:
        """Random seed by which the shown cases that all systems call rightly were drawn."""

    @property
    def overlays(self) -> Mapping[str, str]:
        """File name of the drawn image of each shown case, by image id.

        The files are in the folder ``overlays`` of the report.
        """


@dataclass(frozen=True)
class FreshContent:
    """Content of a report on a comparison in memory.

    Attributes:
        comparison: A computed comparison: figures, intervals, tests and decisions of all systems.
        rows: Rows of the summary table; if empty, the usual rows of a paper.
        seed: Random seed of the resampling.
        overlays: File of each overlay image, by image id.
        made_charts: Charts that were made before; None makes them when they are needed.
    """

    comparison: Comparison
    rows: Sequence[TableRow] = ()
    seed: int = 0
    overlays: Mapping[str, str] = field(default_factory=dict)
    made_charts: Sequence[Chart] | None = None

    @cached_property
    def payload(self) -> dict[str, Any]:
        """Content of ``metrics.json``, the file of a report that programs read."""
        return metrics_json(self.comparison)

    @cached_property
    def figures(self) -> pd.DataFrame:
        """Table with one row for each figure of a system and each difference of two systems.

        A row has the metric, the policy of its threshold, the value and its 95 % interval. Figures
        by study and by patient follow those by image, if they were evaluated.
        """
        return all_units(self.comparison)

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Table of the tests of differences, with one row for each pair of systems and metric."""
        return tests_table(self.comparison)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """Table of figures in groups of images, lesions and patients, such as age groups."""
        return failures_table(self.comparison)

    @property
    def decisions(self) -> pd.DataFrame:
        """Table with one row for each image and system: label, score, probability and decisions.

        There is one decision (True for positive) for each policy that chose a threshold.
        """
        return self.comparison.decisions

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Main table of the report as texts: figures by row, systems and differences by column."""
        return summary_frame(self.comparison, self.rows)

    @cached_property
    def charts(self) -> Sequence[Chart]:
        """Charts of the report, such as ROC curves, with their content in data units."""
        if self.made_charts is not None:
            return self.made_charts
        from cxr_compare.evaluation.report.charts import report_charts

        return report_charts(self.comparison)

    @property
    def policies(self) -> list[str]:
        """Names of the policies by which at least one system has a threshold."""
        return self.comparison.policies

    @property
    def policy(self) -> str:
        """Name of the policy whose threshold is used for all that is shown at one threshold."""
        return self.comparison.main_policy

    def write(self, out: Path) -> None:
        """Write ``result.json`` with the content that `Report.open` finds in no other file.

        Args:
            out: Folder of the report, to which files are written.
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
            "charts": [_plain(asdict(chart)) for chart in self.charts],
        }
        write_json(out / files.RESULT, "result", content)


@dataclass(frozen=True)
class StoredContent:
    """Content of a report, read from its folder.

    Attributes:
        folder: Folder of the report.
    """

    folder: Path

    @cached_property
    def payload(self) -> dict[str, Any]:
        """Content of ``metrics.json``, the file of a report that programs read."""
        return read_json(self.folder / files.METRICS, "metrics")

    @cached_property
    def _stored(self) -> dict[str, Any]:
        path = self.folder / files.RESULT
        if not path.is_file():
            raise InputError(
                f"{path}: is missing, since an older version wrote this report; make it again "
                "with cxr compare --overwrite"
            )
        return read_json(path, "result")

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
        """Table with one row for each figure of a system and each difference of two systems.

        A row has the metric, the policy of its threshold, the value and its 95 % interval. Figures
        by study and by patient follow those by image, if they were evaluated.
        """
        return self._table("metrics")

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Table of the tests of differences, with one row for each pair of systems and metric."""
        return self._table("tests")

    @cached_property
    def failures(self) -> pd.DataFrame:
        """Table of figures in groups of images, lesions and patients, such as age groups."""
        return self._table("where")

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Table with one row for each image and system: label, score, probability and decisions.

        There is one decision (True for positive) for each policy that chose a threshold.
        """
        return read_table(self.folder / files.DECISIONS, "decisions")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Main table of the report as texts: figures by row, systems and differences by column."""
        stored = self._stored["summary"]
        index = pd.MultiIndex.from_tuples([tuple(row[:2]) for row in stored["rows"]])
        texts = [row[2:] for row in stored["rows"]]
        return pd.DataFrame(texts, index=index, columns=stored["columns"])

    @cached_property
    def charts(self) -> Sequence[Chart]:
        """Charts of the report, such as ROC curves, with their content in data units."""
        return [_read_chart(chart) for chart in self._stored["charts"]]

    @property
    def policies(self) -> list[str]:
        """Names of the policies by which at least one system has a threshold."""
        return list(self._stored["policies"])

    @property
    def policy(self) -> str:
        """Name of the policy whose threshold is used for all that is shown at one threshold."""
        return str(self._stored["policy"])

    @property
    def seed(self) -> int:
        """Random seed by which the shown cases that all systems call rightly were drawn."""
        return int(self._stored["seed"])

    @property
    def overlays(self) -> Mapping[str, str]:
        """File name of the drawn image of each shown case, by image id.

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
    charts: Sequence[Chart] | None = None,
) -> None:
    """Write ``result.json`` with the content that `Report.open` finds in no other file.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        out: Folder of the report, to which files are written.
        rows: Rows of the summary; if empty, the usual rows of a paper.
        seed: Random seed of the sample of cases.
        overlays: File names of the drawn images, by image id; None for none.
        charts: Result of `report_charts`, if it was computed before.
    """
    content = FreshContent(comparison, tuple(rows), seed, overlays or {}, charts)
    content.write(out)


def _plain(value: Any) -> Any:
    """Convert a value for JSON: arrays become lists, and values that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return value


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array(values, dtype=np.float64)  # null becomes NaN


def _read_chart(stored: dict[str, Any]) -> Chart:
    from cxr_compare.evaluation.report.chart import Axis, Chart, Curve, Point

    def axis(stored: dict[str, Any]) -> Axis:
        ticks = tuple((float(tick), str(text)) for tick, text in stored["ticks"])
        return Axis(**stored | {"ticks": ticks})

    def curve(stored: dict[str, Any]) -> Curve:
        band = (
            None if stored["band"] is None else tuple(_array(values) for values in stored["band"])
        )
        points = tuple(Point(**point) for point in stored["points"])
        return Curve(
            **stored
            | {"x": _array(stored["x"]), "y": _array(stored["y"]), "points": points, "band": band}
        )

    guides = tuple((_array(x), _array(y)) for x, y in stored["guides"])
    return Chart(
        **stored
        | {
            "x": axis(stored["x"]),
            "y": axis(stored["y"]),
            "guides": guides,
            "curves": tuple(map(curve, stored["curves"])),
        }
    )
