"""Finished result of a comparison, which `compare` returns and a report folder stores.

A result that was read from its folder shows its stored figures. It evaluates nothing, loads no
model and logs nothing.
"""

from __future__ import annotations

import html
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.notebook import ShownAsText
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.estimates import TIDY_COLUMNS, PairTests
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.summary_table import TableRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cxr_compare.evaluation.report.cases import CaseSource
from cxr_compare.evaluation.report.report_content import FreshContent, ReportContent, StoredContent


@dataclass(frozen=True, eq=False)
class Report:
    """Result of a comparison: the answer, tables, charts and images.

    Attributes:
        content: Figures, tests and charts: computed by this call, or read from the folder.
        folder: Folder of the report; None if nothing was written.
        cases_source: Function that returns the images with truth and predictions; None for a report
            that was read from its folder.
        writer: Function that writes the report folder; None for a report that was read from its
            folder.

    Example:
        >>> import cxr_compare
        >>> cxr_compare.Report.open("no-such-folder")
        Traceback (most recent call last):
        ...
        cxr_compare...WrongFolderError: no-such-folder: no such folder; ...
    """

    content: ReportContent = field(repr=False)
    folder: Path | None = None
    cases_source: Callable[[], CaseSource] | None = field(default=None, repr=False)
    writer: Callable[[str | Path], Report] | None = field(default=None, repr=False)

    @classmethod
    def from_comparison(
        cls,
        comparison: Comparison,
        *,
        rows: Sequence[TableRow] = (),
        seed: int = 0,
        cases_source: Callable[[], CaseSource] | None = None,
        writer: Callable[[str | Path], Report] | None = None,
    ) -> Report:
        """Make the result of a comparison in memory, without a folder.

        Args:
            comparison: Result of comparing systems (detectors or classifiers): metrics with
                intervals, tests, and the decision of each system on each test image.
            rows: Rows of `table`; if empty, the usual rows of a paper.
            seed: Random seed of the sample of cases.
            cases_source: Function that returns the images with truth and predictions, for
                `overlay`; None if there are no images.
            writer: Function that writes a report folder, for `save`; None if none can be written.

        Returns:
            A result without a folder.
        """
        content = FreshContent(comparison, tuple(rows), seed)
        return cls(content, None, cases_source, writer)

    @classmethod
    def open(cls, folder: str | Path) -> Report:
        """Open a finished report folder of ``cxr compare``.

        Args:
            folder: Report folder.

        Returns:
            The stored result.

        Raises:
            InputError: The folder holds no finished report.
        """
        folder = Path(folder)
        require_kind(folder, "report")
        return cls(StoredContent(folder), folder)

    def __repr__(self) -> str:
        images = self.decisions["image_id"].nunique()
        systems = " and ".join(self._payload["systems"])
        where = self.page or "not written"
        return f"<Report of {systems} on {self._payload['target']}: {images} test images, {where}>"

    def __str__(self) -> str:
        lines = [self.headline, *(f"Caution: {caution}" for caution in self.cautions)]
        lines += self._answer.get("readers", [])
        if wrong_labels := self._payload.get("wrong_labels"):
            lines.append(wrong_labels["text"])
        lines += self._answer.get("guarantees", [])
        lines += [f"Triage: {sentence}" for sentence in self._answer.get("triage", [])]
        return "\n".join([*lines, *([] if self.page is None else [f"Report: {self.page}"])])

    def _repr_html_(self) -> str:
        """Return the answer, its cautions and the table as HTML, for a notebook."""
        cautions = "".join(f"<li>{html.escape(caution)}</li>" for caution in self.cautions)
        table = self.table.to_html().replace("<td>", '<td style="white-space: nowrap">')
        return f"<p><b>{html.escape(self.headline)}</b></p><ul>{cautions}</ul>{table}"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``, the file of the report that programs read."""
        return self._payload

    @property
    def _payload(self) -> dict[str, Any]:
        return self.content.payload

    @property
    def _answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._payload["answer"]
        return answer

    @property
    def next_steps(self) -> list[str]:
        """Commands or actions that usually follow a comparison."""
        return [] if self.page is None else [f"open {shlex.quote(str(self.page))} in a browser"]

    @property
    def page(self) -> Path | None:
        """Path of ``report.html``; None if no folder was written."""
        return None if self.folder is None else self.folder / files.PAGE

    @property
    def headline(self) -> str:
        """Answer of the comparison in one sentence.

        It claims no more than the intervals support.
        """
        return str(self._answer["headline"])

    @property
    def cautions(self) -> tuple[str, ...]:
        """Reasons why the answer may be wrong, the most harmful first."""
        return tuple(self._answer["cautions"])

    @property
    def findings(self) -> tuple[str, ...]:
        """Results of further comparisons beside the headline, one sentence each."""
        return tuple(self._answer["findings"])

    @property
    def systems(self) -> list[str]:
        """Display names of the systems. All others are compared with the first one."""
        return list(self._payload["systems"])

    @property
    def table(self) -> pd.DataFrame:
        """Main table of the report as texts: figures and differences with 95 % intervals."""
        return self.content.summary

    @property
    def figures(self) -> pd.DataFrame:
        """Table with one row for each figure of each system, with its interval."""
        table = self.content.figures
        return table[table["system"].isin(self.systems)].reset_index(drop=True)

    @property
    def differences(self) -> pd.DataFrame:
        """Table with one row for each paired difference, whose system is named ``A - B``."""
        table = self.content.figures
        return table[~table["system"].isin(self.systems)].reset_index(drop=True)

    @property
    def tests(self) -> pd.DataFrame:
        """Table of the tests of differences, with one row for each pair of systems and metric."""
        return self.content.tests

    @property
    def failures(self) -> pd.DataFrame:
        """Figures in groups of images, lesions and patients, which show where each system fails."""
        return self.content.failures

    @property
    def decisions(self) -> pd.DataFrame:
        """Table with one row for each image and system: label, score, probability and decisions.

        There is one decision (True for positive) for each policy that chose a threshold.
        """
        return self.content.decisions

    @property
    def policy(self) -> str:
        """Name of the policy whose threshold is used for all that is shown at one threshold."""
        return self.content.policy

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row for each figure and paired difference by image.

        Returns:
            A frame with the columns of `TIDY_COLUMNS`. The system of a paired difference is named
            ``A - B``. Where the difference was tested, its p-value is not corrected for several
            comparisons. Undefined values are NaN. ``n_patients`` is missing where patients are
            unknown.
        """
        table = self.content.figures
        table = table[table["unit"] == "image"].reset_index(drop=True)
        by_image = self.tests[self.tests["unit"] == "image"] if len(self.tests) else self.tests
        tests = PairTests(by_image)
        pairs = {f"{a} - {b}": (a, b) for a in self.systems for b in self.systems if a != b}
        p_values = []
        for system, subgroup, metric, policy in table[
            ["system", "subgroup", "metric", "policy"]
        ].itertuples(index=False):
            pair = pairs.get(system)
            stored = pd.Series(dtype=float)
            if pair is not None and subgroup == "all":
                stored = tests.rows_of(*pair, (metric, policy))
            p_values.append(float(stored.iloc[0]) if len(stored) else np.nan)
        return table.assign(p_value=p_values)[list(TIDY_COLUMNS)]

    def cases(self, per_kind: int = 4) -> pd.DataFrame:
        """Return the cases that the report shows: misses, false alarms, wrong locations, agreement.

        Args:
            per_kind: Largest number of images of each kind.

        Returns:
            A table with ``kind``, ``image_id`` and ``of``, the number of all images of this kind.
        """
        from cxr_compare.evaluation.report.case_selection import select_cases

        kinds = select_cases(
            self.decisions,
            self.systems,
            self.policy,
            per_category=per_kind,
            seed=self.content.seed,
        )
        rows = [(kind.title, image, kind.total) for kind in kinds for image in kind.image_ids]
        return pd.DataFrame(rows, columns=["kind", "image_id", "of"])

    def overlay(self, *image_ids: str, panel: int = 360) -> Figure:
        """Draw test images one below the other: plain, with the truth, and with each system.

        Args:
            *image_ids: Ids of images in `decisions`. A report opened from its folder has only its
                cases.
            panel: Longer side of each panel, px. A report opened from its folder ignores it.

        Returns:
            Figure with one row of panels for each image.

        Raises:
            InputError: An image was not evaluated, was not drawn, or its file cannot be read.
        """
        from cxr_compare.evaluation.overlays.draw import as_figure

        evaluated = set(self.decisions["image_id"])
        for image_id in image_ids:
            if image_id not in evaluated:
                raise InputError(f"image '{image_id}' is none of the test images of this report")
        if self.cases_source is not None:
            source = self.cases_source()
            return as_figure([source.draw(image_id, panel=panel) for image_id in image_ids])
        return as_figure([self._stored_overlay(image_id) for image_id in image_ids])

    def _stored_overlay(self, image_id: str) -> np.ndarray:
        from PIL import Image

        name = self.content.overlays.get(image_id)
        if name is None or self.folder is None:
            raise InputError(
                f"image '{image_id}' is not among the cases that this report drew; draw it with "
                "cxr overlay SYSTEM --data DATA --image ID"
            )
        with Image.open(self.folder / files.OVERLAYS / name) as image:
            return np.asarray(image.convert("RGB"))

    def plot(self, name: str = "roc") -> Figure:
        """Draw one chart of the report.

        Args:
            name: ``roc``, ``pr``, ``froc-iou``, ``calibration``, or another chart of the report.

        Returns:
            Figure with the chart and its legend.

        Raises:
            InputError: The comparison has no such chart. The message lists its charts.
        """
        from cxr_compare.evaluation.report.chart_drawing import draw_with_legend
        from cxr_compare.evaluation.report.charts import policy_markers

        charts = {chart.key: chart for chart in self.content.charts}
        if name not in charts:
            raise InputError(f"there is no chart '{name}'; this comparison has {', '.join(charts)}")
        drawn = {point.marker for curve in charts[name].curves for point in curve.points}
        markers = policy_markers(self.content.policies)
        return draw_with_legend(charts[name], [marker for marker in markers if marker[0] in drawn])

    def save(self, folder: str | Path) -> Report:
        """Write the report folder with ``report.html``, tables, figures and overlays.

        Args:
            folder: Folder to write.

        Returns:
            The result of the new folder.

        Raises:
            InputError: The folder holds something else.
        """
        folder = Path(folder)
        if self.writer is not None:
            return self.writer(folder)
        require_only_files(folder, (), "report")
        shutil.copytree(self.folder or folder, folder, dirs_exist_ok=True)
        return Report.open(folder)


@dataclass(frozen=True, repr=False)
class ReportsByTarget(ShownAsText):
    """Reports on several targets, with the page that joins them.

    Attributes:
        reports: Report of each target, by name of the target.
        page: File of the page over all targets.
    """

    reports: Mapping[str, Report]
    page: Path

    def __str__(self) -> str:
        return f"All targets: {self.page}"

    def to_dict(self) -> dict[str, Any]:
        """Return the path of the report folder of each target, by name of the target."""
        return {"targets": {name: str(report.folder) for name, report in self.reports.items()}}
