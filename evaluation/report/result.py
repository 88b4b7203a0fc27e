"""What `compare` returns: the answer in words, tables, charts and images."""

from __future__ import annotations

import html
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import read_json
from evaluation.compare.comparison import Comparison
from evaluation.decisions.test_set import TestSet
from evaluation.overlays.draw import as_figure
from evaluation.report.cases import CaseSource, read_cases
from evaluation.report.charts import policy_markers, report_charts
from evaluation.report.files import METRICS, PAGE
from evaluation.report.gallery import select_cases
from evaluation.report.plot import draw_with_legend
from evaluation.report.result_tables import metrics_json, summary_frame
from evaluation.report.tables import table_rows


@dataclass(frozen=True)
class Report:
    """The answer of a comparison: in words, tables, charts and images."""

    test_set: TestSet  # what was judged
    # Gives the comparison; of a report that was there before it is judged again, from the same
    # predictions.
    judge: Callable[[], Comparison]
    folder: Path | None = None  # of the report; `None` where nothing was written
    metrics: tuple[str, ...] = ()  # rows of `table`; without any the usual ones of a paper

    def __repr__(self) -> str:
        of = repr(self.comparison).strip("<>").removeprefix("Comparison")
        return f"<Report{of}, {self.page or 'not written'}>"

    def __str__(self) -> str:
        lines = [self.headline, *(f"Caution: {caution}" for caution in self.cautions)]
        lines += self._answer.get("readers", [])
        lines += self._answer.get("promises", [])
        lines += [f"Triage: {told}" for told in self._answer.get("triage", [])]
        return "\n".join([*lines, *([] if self.page is None else [f"Report: {self.page}"])])

    def _repr_html_(self) -> str:
        """The answer, its cautions and the table, in a notebook."""
        cautions = "".join(f"<li>{html.escape(caution)}</li>" for caution in self.cautions)
        table = self.table.to_html().replace("<td>", '<td style="white-space: nowrap">')
        return f"<p><b>{html.escape(self.headline)}</b></p><ul>{cautions}</ul>{table}"

    def to_dict(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        if self.folder is None:
            return metrics_json(self.comparison)
        return read_json(self.folder / METRICS, "metrics")

    @property
    def next_steps(self) -> list[str]:
        """What to do with it."""
        return [] if self.page is None else [f"open {shlex.quote(str(self.page))} in a browser"]

    @property
    def page(self) -> Path | None:
        """``report.html`` where one was written."""
        return None if self.folder is None else self.folder / PAGE

    @cached_property
    def comparison(self) -> Comparison:
        """All of it, as `write_report` takes it."""
        return self.judge()

    @property
    def headline(self) -> str:
        """The answer in one sentence that the intervals support."""
        return str(self._answer["headline"])

    @property
    def cautions(self) -> tuple[str, ...]:
        """What may make the answer wrong, the most harmful first."""
        return tuple(self._answer["cautions"])

    @property
    def findings(self) -> tuple[str, ...]:
        """Further comparisons, a sentence each."""
        return tuple(self._answer["findings"])

    @cached_property
    def _answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.to_dict()["answer"]
        return answer

    @cached_property
    def table(self) -> pd.DataFrame:
        """Table 1 of a paper: figures and paired differences with 95 % intervals, as texts."""
        return summary_frame(self.comparison, table_rows(self.metrics))

    @property
    def figures(self) -> pd.DataFrame:
        """Every figure of every system with its interval, a row each."""
        return self._rows(differences=False)

    @property
    def differences(self) -> pd.DataFrame:
        """Every paired difference with its interval, a row each; its system is ``A - B``."""
        return self._rows(differences=True)

    def _rows(self, *, differences: bool) -> pd.DataFrame:
        of_units = self.comparison.by_unit
        parts = [self.comparison.metrics, *([] if of_units is None else [of_units.table()])]
        table = pd.concat(parts, ignore_index=True)
        of_systems = table["system"].isin(self.comparison.names)
        return table[~of_systems if differences else of_systems].reset_index(drop=True)

    @property
    def tests(self) -> pd.DataFrame:
        """Paired tests of every pair of systems."""
        return self.comparison.told_tests

    @property
    def failures(self) -> pd.DataFrame:
        """Where each system fails: figures of groups of images, lesions and patients."""
        return self.comparison.failures.infer_objects()

    @property
    def decisions(self) -> pd.DataFrame:
        """A row an image and system: label, score, probability, decision at each policy."""
        return self.comparison.decisions

    @cached_property
    def policy(self) -> str:
        """The threshold policy of everything that is shown at one threshold."""
        return self.comparison.main_policy

    def cases(self, per_kind: int = 4) -> pd.DataFrame:
        """The images that the report shows, by its rules: misses, false alarms, wrong places.

        Returns:
            ``kind``, ``image_id``, and ``of``: how many images there are of that kind.
        """
        kinds = select_cases(
            self.decisions, self.comparison.names, self.policy, per_category=per_kind
        )
        rows = [(each.title, image, each.total) for each in kinds for image in each.image_ids]
        return pd.DataFrame(rows, columns=["kind", "image_id", "of"])

    def overlay(self, *image_ids: str, panel: int = 360) -> Figure:
        """Test images, one below the other: as it is, the truth, and what each system shows on it.

        Args:
            *image_ids: Of `decisions`.
            panel: Longer side of each panel, px.

        Raises:
            InputError: One was not judged, or its file cannot be read.
        """
        judged = set(self.decisions["image_id"])
        for image_id in image_ids:
            if image_id not in judged:
                raise InputError(f"image '{image_id}' is none of the test images that were judged")
        return as_figure([self._cases.draw(image_id, panel=panel) for image_id in image_ids])

    @cached_property
    def _cases(self) -> CaseSource:
        return read_cases(self.comparison, self.test_set.dataset, self.policy)

    def chart(self, key: str = "roc") -> Figure:
        """One chart of the report as a matplotlib figure.

        Args:
            key: ``roc``, ``pr``, ``froc-iou``, ``calibration``, or another of the report.

        Raises:
            InputError: The comparison has no such chart; names those that it has.
        """
        made = {chart.key: chart for chart in report_charts(self.comparison)}
        if key not in made:
            raise InputError(f"there is no chart '{key}'; this comparison has {', '.join(made)}")
        drawn = {point.marker for curve in made[key].curves for point in curve.points}
        markers = policy_markers(self.comparison.policies)
        return draw_with_legend(made[key], [each for each in markers if each[0] in drawn])


@dataclass(frozen=True)
class ReportsByTarget:
    """The reports on several targets, and the page that joins them."""

    reports: Mapping[str, Report]  # by target
    page: Path  # over all of them

    def __str__(self) -> str:
        return f"All targets: {self.page}"

    def to_dict(self) -> dict[str, Any]:
        """Each target's folder."""
        return {"targets": {name: str(report.folder) for name, report in self.reports.items()}}
