"""Result of a comparison, which `compare` returns and a report folder stores.

A result that was read from its folder shows its stored figures. It evaluates nothing, loads no
model and logs nothing.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.notebook import OpenedFromFolder
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.own_parts import own_function, problem_of
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.evaluation.figures import TIDY_COLUMNS
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.answer import AnswerInfo, AnswerTable, answer_record
from cxr_compare.evaluation.report.compared import Compared
from cxr_compare.evaluation.report.metric_table import marks_note
from cxr_compare.evaluation.report.summary_table import summary_frame
from cxr_compare.evaluation.report.tidy_tables import tidy_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cxr_compare.evaluation.report.chart_style import ShownChart

# matplotlib and what draws images are imported where something is drawn.


@dataclass(frozen=True, eq=False, repr=False)
class Result(OpenedFromFolder):
    """Result of comparing detectors and classifiers: the answer, and five tables behind it.

    ``answer`` is a dictionary; ``figures``, ``tests``, ``groups``, ``decisions`` and ``curves`` are
    DataFrames.

    Attributes:
        compared: Comparison in memory, of which the tables are made; None for a result that was
            opened from its folder, whose tables are read when they are needed.
        folder: Folder of the report; None if it was not written.

    Example:
        >>> import cxr_compare
        >>> cxr_compare.Result.open("no-such-folder")
        Traceback (most recent call last):
        ...
        cxr_compare...InputError: no-such-folder: no such folder; ...
    """

    compared: Compared | None
    folder: Path | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Result:
        """Open the folder of a finished report, which ``cxr compare`` wrote.

        Args:
            folder: Folder with ``report.html`` and ``answer.json``.

        Returns:
            The result.

        Raises:
            InputError: The folder does not exist or holds no finished report.
        """
        folder = Path(folder)
        require_kind(folder, "report")
        return cls(None, folder)

    @cached_property
    def answer(self) -> AnswerInfo:
        """Content of ``answer.json``: the answer in sentences, and the facts behind it.

        Some attributes are ``headline``, ``cautions``, ``findings``, ``claims``, ``systems``,
        ``thresholds``, ``costs`` and ``provenance``.
        """
        if self.compared is None:
            return AnswerInfo.read(self._opened / files.ANSWER)
        table = self.table.to_dict("split")
        table["index"] = [
            [name] if isinstance(name, str) else list(name) for name in table["index"]
        ]
        return AnswerInfo(
            **answer_record(self.compared.comparison),
            table=AnswerTable(**table),
            seed=self.compared.seed,
            overlays={},
            call=None,
        )

    @property
    def _opened(self) -> Path:
        if self.folder is None:
            raise ValueError("a result is made of a comparison, or opened from its folder")
        return self.folder

    def _table(self, name: str) -> pd.DataFrame:
        if self.compared is None:
            path = self._opened / f"{name}.parquet"
            return read_table(path, name, files=self.answer.files)
        return tidy_table(self.compared.comparison, name)

    @cached_property
    def figures(self) -> pd.DataFrame:
        """Table of all figures and paired differences with their 95 % intervals, one in each row.

        The column ``kind`` is ``system``, ``difference`` (the figure of the system in ``first``
        minus that of the system in ``second``, which is empty in other rows) or ``image-blind``:
        the baseline of localisation figures, which is called ``image-blind with NAME's scores``:
        the best constant positions with the scores of NAME. Some further columns are ``unit``
        (``image``, ``study`` or ``patient``), ``subgroup``, ``policy`` (rule by which the threshold
        was chosen), ``metric``, ``estimate``, ``ci_low``, ``ci_high`` and ``p_value`` (of a
        difference of 0, or of an AUROC of 0.5; not corrected).
        """
        return self._table("figures")

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
    def groups(self) -> pd.DataFrame:
        """Table of figures in groups of images and lesions, such as age groups, and of errors.

        Some columns are ``topic`` (such as ``sex``), ``group`` (such as ``F``), ``system``,
        ``metric``, ``estimate``, the ends of its interval, ``ci_low`` and ``ci_high``, and
        ``p_value``.
        """
        return self._table("groups")

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Table with one row for each test image and system: label, score and decisions.

        Some columns are ``image_id``, ``system``, ``label`` (1.0 or 0.0), ``score`` and
        ``probability`` (NaN without calibration). For each rule by which a threshold was chosen,
        such as ``max_f1``, a column ``decision_max_f1`` is True if the system calls the image
        positive.
        """
        return self._table("decisions")

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Table of the points of all curves, such as ROC curves, that `plot` draws.

        The columns are ``chart`` (such as ``roc``), ``system``, ``kind`` (``curve``, ``points``,
        ``band``, ``image-blind`` or ``guide``), ``policy`` (rule of a marked threshold), ``x`` and
        ``y``, and the ends of an interval of y, ``low`` and ``high``.
        """
        return self._table("curves")

    @cached_property
    def table(self) -> pd.DataFrame:
        """Main table of the report as texts, with size and time where they are known.

        A cell holds a value with its interval, such as ``0.912 (0.880 to 0.940)``. One or two
        systems and their difference are columns; the index then has two levels, a heading (rule
        for the threshold) and the title of the metric. Of three or more systems each is a row.
        """
        if self.compared is not None:
            return summary_frame(self.compared.comparison, self.compared.rows)
        stored = self.answer.table.to_json()
        index: pd.Index = pd.MultiIndex.from_tuples([tuple(names) for names in stored["index"]])
        if index.nlevels == 1:
            index = index.get_level_values(0)
        return pd.DataFrame(stored["data"], index=index, columns=stored["columns"])

    @property
    def table_note(self) -> str:
        """Meaning of the marks in `table`; empty if it has no differences."""
        texts = self.table.to_numpy().ravel().tolist()
        return marks_note(texts, self.answer.joint_system)

    @property
    def headline(self) -> str:
        """Main conclusion of the comparison in one sentence: which system is better, if one is.

        It claims no more than the intervals support.
        """
        return self.answer.headline

    @property
    def cautions(self) -> tuple[str, ...]:
        """Reasons why the main conclusion may be wrong, the most harmful first."""
        return self.answer.cautions

    @property
    def findings(self) -> tuple[str, ...]:
        """Results of further comparisons beside the main conclusion, one sentence each."""
        return self.answer.findings

    @property
    def systems(self) -> list[str]:
        """Names of the compared detectors and classifiers, the reference system first."""
        return list(self.answer.systems)

    @property
    def policy(self) -> str:
        """Rule, such as ``max_f1``, whose thresholds are used where only one is shown."""
        return self.answer.policy

    @property
    def page(self) -> Path | None:
        """Path of ``report.html``; None if the report was not written to a folder."""
        return None if self.folder is None else self.folder / files.PAGE

    def __repr__(self) -> str:
        images = self.decisions["image_id"].nunique()
        where = self.page or "not written"
        systems = " and ".join(self.systems)
        return f"<Result of {systems} on {self.answer.target}: {images} test images, {where}>"

    def __str__(self) -> str:
        lines = [self.headline, self.answer.ranking, *self.answer.margin]
        lines += self.answer.at_given_thresholds
        lines += [f"Caution: {caution}" for caution in self.cautions]
        lines += [f"Note: {note}" for note in self.answer.reading]
        if self.page is not None:
            lines += [f"Report: {self.page}", self._contents_of_page]
        return "\n".join(filter(None, lines))

    @property
    def _contents_of_page(self) -> str:
        """Sentence on what a reader gets to whom the page is sent."""
        drawn = bool(self.answer.overlays)
        hidden = self.answer.provenance.names_hidden
        images = "images" if drawn else "no images"
        names = "no file names"
        if not hidden and (drawn or self.answer.names_images):
            names = "file names"
        elif not hidden and len(self.systems) > 1:
            names = "ids of images"  # those of the largest disagreements
        first, second = sorted((images, names), key=lambda held: held.startswith("no "))
        return f"This file can be sent as it is; it holds {first} and {second}."

    def _repr_html_(self) -> str:
        """Return the answer, its cautions and notes and the table as HTML, for a notebook."""
        notes = [*self.cautions, *(f"Note: {note}" for note in self.answer.reading)]
        items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
        table = self.table.to_html()
        if self.table.index.nlevels > 1:  # the many columns of three or more systems are broken
            table = table.replace("<td>", '<td style="white-space: nowrap">')
        note = f"<p>{html.escape(self.table_note)}</p>" if self.table_note else ""
        return f"<p><b>{html.escape(self.headline)}</b></p><ul>{items}</ul>{table}{note}"

    def to_dict(self) -> dict[str, Any]:
        """Return what ``cxr compare --json`` prints: the answer and all figures.

        Returns:
            The content of `answer`, and under ``figures`` the rows of `to_frame` as dictionaries,
            in which undefined values are None.
        """
        frame = self.to_frame()
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        answer = self.answer.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return {**answer, "figures": rows}

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row for each system or difference and metric, by image.

        Returns:
            A DataFrame with the columns ``first``, ``second``, ``metric``, ``policy`` (rule for the
            threshold), ``subgroup``, ``estimate``, ``ci_low``, ``ci_high``, ``p_value``,
            ``n_images``, ``n_patients`` and ``n_positive``. ``second`` is empty in the row of one
            system; else the row is the difference of both, first minus second, and its ``p_value``
            is not corrected for several comparisons. It is NaN without a test. Undefined values are
            NaN. A metric that is undefined for every system, such as an average precision without
            true boxes, has no row. ``n_patients`` is missing where patients are unknown.
        """
        table = known_of_any(self.figures[self.figures["unit"] == "image"])
        is_tested = (table["kind"] == "difference") & (table["subgroup"] == ALL)
        return table.assign(p_value=table["p_value"].where(is_tested))[list(TIDY_COLUMNS)]

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

        facts = self.answer.charts
        names = chart_names(self.curves, facts)
        if name not in names:
            raise InputError(f"there is no chart '{name}'; this comparison has {', '.join(names)}")
        return draw(name, self.curves, self.figures, self.systems, facts)

    def own_charts(self) -> dict[str, Figure]:
        """Draw the charts of the user's own, by functions of this result, by ``MODULE:NAME``."""
        from matplotlib.figure import Figure

        figures = {}
        for name in () if self.compared is None else self.compared.charts:
            function = own_function(name, "charts")
            try:
                figures[name] = function(self)
            except Exception as error:
                raise InputError(f"charts: {name}: {problem_of(error)}") from error
            if not isinstance(figures[name], Figure):
                kind = type(figures[name]).__name__
                raise InputError(f"charts: {name}: returned a {kind}; return a matplotlib Figure")
        return figures

    def _shown_charts(self) -> dict[str, ShownChart]:
        """Draw each chart of the page, the user's own last, by name."""
        from cxr_compare.evaluation.report.chart_style import ShownChart
        from cxr_compare.evaluation.report.plots import chart_names, chart_note

        facts = self.answer.charts
        charts = {
            name: ShownChart(self.plot(name), chart_note(name, self.curves, facts))
            for name in chart_names(self.curves, facts)
        }
        own = {name: ShownChart(each, f"By {name}.") for name, each in self.own_charts().items()}
        return charts | own

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
            seed=self.answer.seed,
            joint=self.answer.joint_system,
            made_of_others=self.answer.made_of_others,
        )
        rows = [(kind.title, image, kind.total) for kind in kinds for image in kind.image_ids]
        return pd.DataFrame(rows, columns=["kind", "image_id", "of"])

    @with_known_keywords
    def overlay(self, *image_ids: str, panel: int = 360) -> Figure:
        """Draw test images: plain, with the true lesions, and with the prediction of each system.

        Args:
            *image_ids: Ids of test images. A result that was opened from its folder has only the
                example images that its report drew.
            panel: Length of the longer side of each drawn image in px. A result that was opened
                from its folder ignores it.

        Returns:
            A matplotlib figure with one row for each test image.

        Raises:
            InputError: An id is not of a test image, the report did not draw this image, its file
                cannot be read, or no image files are known.
        """
        from cxr_compare.evaluation.overlays.draw import as_figure

        evaluated = set(self.decisions["image_id"])
        for image_id in image_ids:
            if image_id not in evaluated:
                raise InputError(f"image '{image_id}' is none of the test images of this report")
        if self.compared is None:
            return as_figure([self._stored_overlay(image_id) for image_id in image_ids])
        from cxr_compare.evaluation.report.cases import read_cases

        comparison, pixels = self.compared.comparison, self.compared.pixels
        if pixels is None:
            raise InputError(
                "overlay: the images are not known; give compare the folder of their files, as "
                "images=FOLDER"
            )
        source = read_cases(comparison, self.compared.truth, pixels, comparison.main_policy)
        return as_figure([source.draw(image_id, panel=panel).sheet() for image_id in image_ids])

    def _stored_overlay(self, image_id: str) -> np.ndarray:
        from PIL import Image

        name = self.answer.overlays.get(image_id)
        if name is None:
            raise InputError(
                f"image '{image_id}' is not among the cases that this report drew; draw it with "
                "cxr overlay SYSTEM --data DATA --image ID"
            )
        with Image.open(self._opened / files.OVERLAYS / name) as image:
            return np.asarray(image.convert("RGB"))

    @with_known_keywords
    def save(self, folder: str | Path) -> Result:
        """Write the report into a folder: ``report.html``, tables, figures and drawn images.

        Args:
            folder: Folder to write; it may be missing or empty. The files of an earlier report in
                it are replaced, but a result that was opened from its folder needs an empty one.

        Returns:
            The result in the new folder.

        Raises:
            InputError: The folder holds something other than a report, or it is not empty and this
                result was opened from its folder.
        """
        folder = Path(folder)
        if self.compared is None:
            require_only_files(folder, (), "report")
            shutil.copytree(self._opened, folder, dirs_exist_ok=True)
            return Result.open(folder)
        require_only_files(folder, files.OF_ONE_TARGET, "report")
        make_folder(folder)
        with folder_lock(folder):
            self.write(folder)
        return Result.open(folder)

    def write(
        self,
        folder: Path,
        *,
        call: dict[str, Any] | None = None,
        progress: Callable[..., None] | None = None,
    ) -> None:
        """Write all files of the report into a folder that nothing else writes to at this time.

        ``answer.json`` is written last, so its presence shows that the folder is complete.

        Args:
            folder: Folder that exists.
            call: Resolved call of the command that made the result; None to store none.
            progress: Function without arguments, called once for each drawn image.
        """
        from cxr_compare.evaluation.report.report import write_page

        (folder / files.ANSWER).unlink(missing_ok=True)
        if self.compared is None:
            raise ValueError("a result that was opened from its folder is copied")
        overlays = write_page(self.compared, self._shown_charts(), folder, progress)
        digests = {}
        for name in files.TABLES:
            table = getattr(self, name)
            digests[f"{name}.parquet"] = write_table(table, folder / f"{name}.parquet", name)
        write_csv(known_of_any(self.figures), folder / files.FIGURES_CSV)
        write_csv(self.tests, folder / files.TESTS_CSV)
        write_csv(self.groups, folder / files.GROUPS_CSV)
        answer = self.answer.with_values(overlays=overlays, call=call, files=digests)
        answer.write(folder / files.ANSWER)


def known_of_any(figures: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the metrics that at least one system has."""
    by_metric = figures.groupby(["target", "unit", "subgroup", "metric", "policy"])["estimate"]
    return figures[by_metric.transform("count") > 0].reset_index(drop=True)
