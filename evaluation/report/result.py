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
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.contracts.notebook import ShownAsText
from cxr_compare.data_prep.contracts.opened_objects import OpenedFromFolder
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import TIDY_COLUMNS, image_blind_name
from cxr_compare.evaluation.paired_tests import PairTests
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.given_thresholds import given_threshold_lines
from cxr_compare.evaluation.report.summary_table import TableRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cxr_compare.evaluation.report.cases import CaseSource
from cxr_compare.evaluation.report.report_content import FreshContent, ReportContent, StoredContent


@dataclass(frozen=True, eq=False)
class Report(OpenedFromFolder):
    """Result of comparing detectors and classifiers: conclusion, tables, charts and drawn images.

    Attributes:
        content: Metrics, tests and charts, computed from a comparison in memory or read from a
            folder.
        folder: Folder of the report; None if it was not written.
        cases_source: Function without arguments that returns an object which draws test images;
            None for a report that was read from its folder.
        writer: Function that writes the report into a given folder and returns it; None for a
            report that was read from its folder.

    Example:
        >>> import cxr_compare
        >>> cxr_compare.Report.open("no-such-folder")
        Traceback (most recent call last):
        ...
        cxr_compare...WrongFolderError: no-such-folder: no such folder; ...
    """

    content: ReportContent = field(repr=False)
    folder: Path | None = None
    cases_source: Callable[[], CaseSource | None] | None = field(default=None, repr=False)
    writer: Callable[[str | Path], Report] | None = field(default=None, repr=False)

    @classmethod
    def from_comparison(
        cls,
        comparison: Comparison,
        *,
        rows: Sequence[TableRow] = (),
        seed: int = 0,
        cases_source: Callable[[], CaseSource | None] | None = None,
        writer: Callable[[str | Path], Report] | None = None,
    ) -> Report:
        """Make a report from a comparison in memory, without writing a folder.

        Args:
            comparison: Result of comparing systems (detectors or classifiers): metrics with
                intervals, tests, and the decision of each system on each test image.
            rows: Rows of `table`, each a metric and the rule for its threshold; if empty, the
                usual rows.
            seed: Random seed for drawing some of the images that all systems decide rightly.
            cases_source: Function without arguments that returns an object which draws test images,
                for `overlay`; None if there are no image files.
            writer: Function that writes the report into a given folder and returns it, for `save`;
                None if it cannot be written.

        Returns:
            The report, whose ``folder`` is None.
        """
        content = FreshContent(comparison, tuple(rows), seed)
        return cls(content, None, cases_source, writer)

    @classmethod
    def open(cls, folder: str | Path) -> Report:
        """Open the folder of a finished report, which ``cxr compare`` wrote.

        Args:
            folder: Folder with ``report.html`` and ``metrics.json``.

        Returns:
            The report, whose tables are read when they are needed.

        Raises:
            InputError: The folder does not exist or holds no finished report.
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
        lines = [self.headline, *self._answer.get("margin", [])]
        if any(policy.startswith("threshold=") for policy in self.content.policies):
            lines += given_threshold_lines(self.figures)
        lines += self._answer.get("declared", [])
        lines += [f"Caution: {caution}" for caution in self.cautions]
        if self.page is not None:
            lines += [f"Report: {self.page}", self._contents_of_page]
        return "\n".join(lines)

    @property
    def _contents_of_page(self) -> str:
        """Sentence on what a reader gets to whom the page is sent."""
        drawn = bool(self.content.overlays)
        hidden = bool((self._payload["provenance"] or {}).get("names_hidden"))
        images = "images" if drawn else "no images"
        names = "file names" if drawn and not hidden else "no file names"
        return f"This file can be sent as it is; it holds {images} and {names}."

    def _repr_html_(self) -> str:
        """Return the answer, its cautions and the table as HTML, for a notebook."""
        cautions = "".join(f"<li>{html.escape(caution)}</li>" for caution in self.cautions)
        table = self.table.to_html().replace("<td>", '<td style="white-space: nowrap">')
        return f"<p><b>{html.escape(self.headline)}</b></p><ul>{cautions}</ul>{table}"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``, the file of a report that programs read.

        Some keys are ``answer`` (the conclusion in sentences), ``systems`` (their names),
        ``metrics`` (one dictionary for each value), ``tests`` and ``provenance``.
        """
        return self._payload

    @property
    def _payload(self) -> dict[str, Any]:
        return self.content.payload

    @property
    def _answer(self) -> dict[str, Any]:
        return self.content.answer

    @property
    def next_steps(self) -> list[str]:
        """Usual next steps of a user in words, such as to open the page; empty without a folder."""
        return [] if self.page is None else [f"open {shlex.quote(str(self.page))} in a browser"]

    @property
    def page(self) -> Path | None:
        """Path of ``report.html``; None if the report was not written to a folder."""
        return None if self.folder is None else self.folder / files.PAGE

    @property
    def headline(self) -> str:
        """Main conclusion of the comparison in one sentence: which system is better, if one is.

        It claims no more than the intervals support.
        """
        return str(self._answer["headline"])

    @property
    def cautions(self) -> tuple[str, ...]:
        """Reasons why the main conclusion may be wrong, the most harmful first."""
        return tuple(self._answer["cautions"])

    @property
    def findings(self) -> tuple[str, ...]:
        """Results of further comparisons beside the main conclusion, one sentence each."""
        return tuple(self._answer["findings"])

    @property
    def systems(self) -> list[str]:
        """Names of the compared detectors and classifiers, the reference system first."""
        return list(self._payload["systems"])

    @property
    def _not_differences(self) -> list[str]:
        """Names of the systems, and of their image-blind baselines."""
        return [*self.systems, *map(image_blind_name, self.systems)]

    @property
    def table(self) -> pd.DataFrame:
        """Main table of the report as texts: metrics by row, systems and differences by column.

        The index has two levels: a heading (rule for the threshold) and the title of the metric. A
        cell holds a value with its interval, such as ``0.912 (0.880 to 0.940)``.
        """
        return self.content.summary

    @property
    def figures(self) -> pd.DataFrame:
        """Table with one row for each system and metric, with the value and its 95 % interval.

        Localisation figures also have rows of the image-blind baseline of each system, which is
        called ``image-blind with NAME's scores``: the best constant positions with the scores of
        NAME. Some columns are ``unit`` (``image``, ``study`` or ``patient``), ``subgroup``,
        ``system``, ``policy`` (rule by which the threshold was chosen), ``metric``, ``estimate``,
        ``ci_low`` and ``ci_high``.
        """
        table = self.content.figures
        return table[table["system"].isin(self._not_differences)].reset_index(drop=True)

    @property
    def differences(self) -> pd.DataFrame:
        """Table with one row for each metric and difference of two systems.

        The column ``system`` holds the name of the difference, ``A - B``. Some other columns are
        ``unit``, ``subgroup``, ``policy`` (rule by which the threshold was chosen), ``metric``,
        ``estimate``, ``ci_low`` and ``ci_high``.
        """
        table = self.content.figures
        return table[~table["system"].isin(self._not_differences)].reset_index(drop=True)

    @property
    def tests(self) -> pd.DataFrame:
        """Table of the tests of differences between systems, one row for each test.

        Some columns are ``first`` and ``second`` (names of the systems), ``metric``, ``policy``
        (rule by which the threshold was chosen), ``method``, ``estimate`` (first minus second
        system), ``p_value`` and ``p_holm`` (corrected by Holm's method). A row on the AUROC of a
        single system has an empty ``second`` and no p-value.
        """
        return self.content.tests

    @property
    def failures(self) -> pd.DataFrame:
        """Table of metrics in groups of images and lesions, such as age groups, and of errors.

        Some columns are ``topic`` (such as ``sex``), ``group`` (such as ``F``), ``system``,
        ``metric``, ``estimate``, the ends of its interval, ``ci_low`` and ``ci_high``, and
        ``p_value``.
        """
        return self.content.failures

    @property
    def decisions(self) -> pd.DataFrame:
        """Table with one row for each test image and system: label, score and decisions.

        Some columns are ``image_id``, ``system``, ``label`` (1.0 or 0.0), ``score`` and
        ``probability`` (NaN without calibration). For each rule by which a threshold was chosen,
        such as ``max_f1``, a column ``decision_max_f1`` is True if the system calls the image
        positive.
        """
        return self.content.decisions

    @property
    def policy(self) -> str:
        """Rule, such as ``max_f1``, whose thresholds are used where only one is shown."""
        return self.content.policy

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row for each system or difference and metric, by image.

        Returns:
            A DataFrame with the columns ``system``, ``metric``, ``policy`` (rule for the
            threshold), ``subgroup``, ``estimate``, ``ci_low``, ``ci_high``, ``p_value``,
            ``n_images``, ``n_patients`` and ``n_positive``. In a row of a difference the column
            ``system`` is ``A - B``, and ``p_value`` is not corrected for several comparisons; it is
            NaN without a test. Undefined values are NaN. A metric that is undefined for every
            system, such as an average precision without true boxes, has no row. ``n_patients`` is
            missing where patients are unknown.
        """
        table = self.content.figures
        table = table[table["unit"] == "image"]
        by_metric = table.groupby(["subgroup", "metric", "policy"])["estimate"]
        table = table[by_metric.transform("count") > 0].reset_index(drop=True)
        by_image = self.tests[self.tests["unit"] == "image"] if len(self.tests) else self.tests
        tests = PairTests(by_image)
        pairs = {
            f"{a} - {b}": (a, b)
            for a in self.systems
            for b in (*self.systems, image_blind_name(a))
            if a != b
        }
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

    @with_known_keywords
    def cases(self, per_kind: int = 4) -> pd.DataFrame:
        """Return the test images that the report shows as examples, such as misses.

        Args:
            per_kind: Largest number of images of each kind of outcome.

        Returns:
            A table with ``kind`` (such as images that all systems miss), ``image_id``, and ``of``,
            the number of all test images of this kind.

        Raises:
            InputError: There is no threshold, so no image is called positive or negative.
        """
        from cxr_compare.evaluation.report.case_selection import select_cases
        from cxr_compare.evaluation.report.joint_table import read_joint_system

        if not self.policy:
            raise InputError(
                "cases: there is no threshold, so no image is called positive or negative; give "
                "compare validation images (the role val), or policy=['threshold=0.5']"
            )
        kinds = select_cases(
            self.decisions,
            self.systems,
            self.policy,
            per_category=per_kind,
            seed=self.content.seed,
            joint=read_joint_system(self._payload),
        )
        rows = [(kind.title, image, kind.total) for kind in kinds for image in kind.image_ids]
        return pd.DataFrame(rows, columns=["kind", "image_id", "of"])

    @with_known_keywords
    def overlay(self, *image_ids: str, panel: int = 360) -> Figure:
        """Draw test images: plain, with the true lesions, and with the prediction of each system.

        Args:
            *image_ids: Ids of test images. A report that was opened from its folder has only the
                example images that it drew.
            panel: Length of the longer side of each drawn image in px. A report that was opened
                from its folder ignores it.

        Returns:
            A matplotlib figure with one row for each test image.

        Raises:
            InputError: An id is not of a test image, the opened report did not draw this image,
                its file cannot be read, or no image files are known.
        """
        from cxr_compare.evaluation.overlays.draw import as_figure

        evaluated = set(self.decisions["image_id"])
        for image_id in image_ids:
            if image_id not in evaluated:
                raise InputError(f"image '{image_id}' is none of the test images of this report")
        if self.cases_source is not None:
            source = self.cases_source()
            if source is None:
                raise InputError(
                    "overlay: the images are not known; give compare the folder of their files, as "
                    "images=FOLDER"
                )
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

    @with_known_keywords
    def plot(self, name: str = "roc") -> Figure:
        """Draw one chart of the report with matplotlib.

        Args:
            name: ``roc``, ``pr`` (precision-recall), ``froc-iou`` (a box finds a lesion by its
                IoU), ``froc-centre`` (by its centre), ``calibration``, ``net-benefit`` (decision
                curve), ``forest`` (figures and differences with intervals) or ``confusion``.

        Returns:
            A matplotlib figure with the chart and its legend.

        Raises:
            InputError: The comparison has no such chart. The message lists its charts.
        """
        from cxr_compare.evaluation.report.plots import chart_names, draw

        content = self.content
        names = chart_names(content.curves, content.chart_facts)
        if name not in names:
            raise InputError(f"there is no chart '{name}'; this comparison has {', '.join(names)}")
        systems = list(content.payload["systems"])
        return draw(name, content.curves, content.figures, systems, content.chart_facts)

    @with_known_keywords
    def save(self, folder: str | Path) -> Report:
        """Write the report into a folder: ``report.html``, tables, figures and drawn images.

        Args:
            folder: Folder to write; it may be missing or empty. The files of an earlier report in
                it are replaced, but a report that was opened from its folder needs an empty one.

        Returns:
            The report in the new folder.

        Raises:
            InputError: The folder holds something other than a report, or it is not empty and this
                report was opened from its folder.
        """
        folder = Path(folder)
        if self.writer is not None:
            return self.writer(folder)
        require_only_files(folder, (), "report")
        shutil.copytree(self.folder or folder, folder, dirs_exist_ok=True)
        return Report.open(folder)


@dataclass(frozen=True, repr=False)
class ReportsByTarget(ShownAsText):
    """Reports on several findings (disease signs), with one page that links them.

    Attributes:
        reports: Report on each finding, by the finding's name, such as ``mass``.
        page: Path of the HTML page that links the reports.
    """

    reports: Mapping[str, Report]
    page: Path

    def __str__(self) -> str:
        return f"All targets: {self.page}"

    def to_dict(self) -> dict[str, Any]:
        """Return the path of the report folder of each finding, by the finding's name.

        Returns:
            ``{"targets": {name: path}}``.
        """
        return {"targets": {name: str(report.folder) for name, report in self.reports.items()}}
