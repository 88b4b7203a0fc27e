"""Result of a comparison: the answer and five tables, in memory or in a report folder."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import require_unchanged
from cxr_compare.data_prep.base.folders import OpenedFromFolder, require_folder
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.figures import COLUMNS
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.answer import ReportAnswer, answer_of
from cxr_compare.evaluation.report.case_selection import (
    ImageKind,
    Outcomes,
    image_kinds,
    select_cases,
)
from cxr_compare.evaluation.report.cells import shown_text
from cxr_compare.evaluation.report.faces import as_terminal
from cxr_compare.evaluation.report.tables import main_table
from cxr_compare.evaluation.verdict.margin import GATE_STATUS, gate_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

    from cxr_compare.evaluation.report.cases import CaseSource


_MOST_SHOWN = 12  # systems of a page
_COUNTS = ("tp", "fn", "fp", "tn")
MOST_DRAWN = 100
"""Images that a report draws: cases, and other errors."""


@dataclass(frozen=True, eq=False, repr=False)
class Result(OpenedFromFolder):
    """Result of comparing detectors and classifiers: the answer, and five tables behind it.

    ``answer`` is the content of ``answer.json``; ``figures``, ``groups``, ``lesions``,
    ``decisions`` and ``curves`` are DataFrames, which are computed or read when first used.

    Attributes:
        table_of: Function that returns one of the tables by its name.
        images: Drawing of the test images; None without image files, or if opened from a folder.
        folder: Folder of the report; None if it was not written.
        comparison: What the tables are made of; None if the result was opened from its folder.
        gate: True if the exit status of the command is the decision by the margin.
    """

    answer: ReportAnswer
    table_of: Callable[[str], pd.DataFrame]
    images: CaseSource | None = None
    folder: Path | None = None
    comparison: Comparison | None = None
    gate: bool = False

    @classmethod
    def of(
        cls,
        comparison: Comparison,
        images: CaseSource | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
        files: Sequence[dict[str, Any]] = (),
    ) -> Result:
        """Return the result of a comparison in memory, of a call with these options and files."""
        tables = partial(table_of, comparison)
        answer = answer_of(comparison, options, files)
        result = cls(answer, tables, comparison=comparison)
        if images is None:
            return result
        return replace(result, images=images.in_order(answer.systems, result.ordered))

    @classmethod
    def open(cls, folder: str | Path) -> Result:
        """Open the folder of a finished report, which ``cxr compare`` wrote.

        Raises:
            InputError: The folder does not exist or holds no finished report.
        """
        folder = Path(folder)
        require_folder(folder, "report")
        answer = ReportAnswer.read(folder / files.ANSWER)
        return cls(
            answer,
            lambda name: files.read_report_table(
                folder / f"{name}.parquet", answer.files.get(f"{name}.parquet")
            ),
            folder=folder,
        )

    @cached_property
    def figures(self) -> pd.DataFrame:
        """All figures and paired differences with 95 % intervals, one in each row.

        ``p_holm`` is corrected by Holm's method over all pairs of systems in the same figure, and
        over all findings.
        """
        return self.table_of("figures")

    @cached_property
    def of_systems(self) -> pd.DataFrame:
        """Figures of systems: the rows of `figures` that have no second one."""
        return self.figures[self.figures["second"] == ""]

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Paired differences of two systems, first minus second: the rows of `figures` with both.

        One in which nothing is claimed, as one system has no boxes of its own, has the reason as
        ``note``, and no p-value.
        """
        return self.figures[self.figures["second"] != ""].reset_index(drop=True)

    @cached_property
    def shown(self) -> list[str]:
        """Systems that charts, cases and tables of the page show.

        Of many they are the reference, the joint system, and those of the highest primary figure.
        """
        always = [self.systems[0], *filter(None, [self.answer.joint])]
        chosen = list(dict.fromkeys([*always, *self.ordered]))[:_MOST_SHOWN]
        return [name for name in self.ordered if name in chosen]

    @property
    def shown_single(self) -> list[str]:
        """Those of `shown` that join no others."""
        return [name for name in self.shown if name != self.answer.joint]

    @cached_property
    def confusion(self) -> dict[str, dict[str, int]]:
        """True and false positives and negatives of each shown system that has decisions."""
        rows = self.of_systems.dropna(subset="estimate")
        rows = rows[rows["metric"].isin(_COUNTS) & (rows["policy"] == self.answer.policy)]
        counts = rows.pivot(index="first", columns="metric", values="estimate").astype(int)
        by_system = counts.to_dict("index")
        return {
            name: {cell: by_system[name][cell] for cell in _COUNTS}
            for name in self.shown
            if name in by_system
        }

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Figures in groups of images."""
        return self.table_of("groups")

    @cached_property
    def lesions(self) -> pd.DataFrame:
        """Kinds of errors with boxes, and lesions found by size and view."""
        return self.table_of("lesions")

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """One row for each test image and system: label, score and decisions."""
        return self.table_of("decisions")

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Points of all curves, such as ROC curves, that `plot` draws."""
        return self.table_of("curves")

    @cached_property
    def ordered(self) -> list[str]:
        """Names of the systems as pages, tables and charts show them: the highest one first.

        Systems without the primary figure come last.
        """
        highest = self.primary_rows.set_index("first")["estimate"].reindex(self.systems)
        return list(highest.sort_values(ascending=False, kind="stable").index)

    @property
    def primary_rows(self) -> pd.DataFrame:
        """Rows of the primary figure of systems and baselines."""
        rows, (metric, policy) = self.of_systems, self.answer.primary
        return rows[(rows["metric"] == metric) & (rows["policy"] == policy)]

    @property
    def systems(self) -> list[str]:
        """Names of the compared detectors and classifiers, the reference system first."""
        return list(self.answer.systems)

    @property
    def exit_status(self) -> int:
        """Exit status of the command: 0, or of a gate what the margin shows."""
        return GATE_STATUS[self.answer.margin["gate"]] if self.gate else 0

    @property
    def policies(self) -> list[str]:
        """Rules by which at least one system has a threshold."""
        return list(self.answer.policies)

    def drawn_ids(self) -> list[str]:
        """Return the images that a report draws: its cases, then other errors, at most 100."""
        cases = self.cases()["image_id"].tolist()
        errors = self.outcomes(self.answer.single).errors
        return [*cases, *(image for image in errors if image not in {*cases})][:MOST_DRAWN]

    def outcomes(self, systems: Sequence[str]) -> Outcomes:
        """Return what came of each image, by systems of this comparison."""
        return Outcomes.of(self.decisions, systems, f"decision_{self.answer.policy}")

    @cached_property
    def kinds(self) -> list[ImageKind]:
        """Test images by what came of them, the worst of each kind first.

        Kinds of one system are those of `shown`.
        """
        kinds = image_kinds(self.outcomes(self.answer.single))
        return [kind for kind in kinds if kind.system in ("", *self.shown)]

    def cases(self, per_kind: int = 4) -> pd.DataFrame:
        """Return the test images that the report shows as examples, such as misses.

        Returns:
            A table with ``kind``, ``image_id``, ``of``, the number of all images of this kind, and
            ``among``, of which images these are. For what one system alone calls positive,
            ``n_boxed`` is the number of these with boxes, and ``on_lesion`` that of those at whose
            lesion it points; both are 0 for other kinds.

        Raises:
            InputError: There is no threshold, so no image is called positive or negative.
        """
        answer = self.answer
        if not answer.policy:
            raise InputError(
                "cases: there is no threshold, so no image is called positive or negative; give "
                "compare validation images (the role val), or policy=['threshold=0.5']"
            )
        return select_cases(self.outcomes(answer.single), self.kinds, per_kind)

    @property
    def headline(self) -> str:
        """Main conclusion of the comparison; it claims no more than the intervals support."""
        return self.answer.headline

    @property
    def cautions(self) -> tuple[str, ...]:
        """Reasons why the main conclusion may be wrong, the most harmful first."""
        return self.answer.cautions

    @property
    def page(self) -> Path | None:
        """Path of ``report.html``; None if the report was not written to a folder."""
        return None if self.folder is None else self.folder / files.PAGE

    @property
    def table(self) -> pd.DataFrame:
        """Main table of the report as texts: a row for each system, the highest one first."""
        return main_table(self).map(shown_text)

    def __repr__(self) -> str:
        return f"<Result of {' and '.join(self.systems)} on {self.answer.target}>"

    def __str__(self) -> str:
        answer = self.answer
        both = answer.both_line(self.ordered)
        # The page and JSON have the long sentence on the joint system.
        headline = answer.headline.removesuffix(f" {answer.sentences[-1]}" if both else "")
        lines = [headline, *filter(None, [both]), *answer.findings]
        lines += [f"Caution: {caution}" for caution in self.cautions]
        lines += [f"Note: {note}" for note in self.answer.notes]
        lines += ["", as_terminal(main_table(self))]
        lines += ["", f"Report: {self.page}"] if self.page else []
        lines += [gate_line({"": answer.margin}, answer.margin["gate"])] if self.gate else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(caution)}</li>" for caution in self.cautions)
        return f"<p><b>{html.escape(self.headline)}</b></p><ul>{items}</ul>{self.table.to_html()}"

    def to_dict(self) -> dict[str, Any]:
        """Return what ``cxr compare --json`` prints: the answer, and all figures as rows."""
        answer = self.answer.model_dump(mode="json", exclude_unset=True)
        return {**answer, "figures": files.records_of(self.to_frame())}

    def to_frame(self) -> pd.DataFrame:
        """Return the figures and differences: one row for each that is defined."""
        return self.figures.dropna(subset="estimate").reset_index(drop=True)[list(COLUMNS)]

    def plot(self, name: str = "roc", ax: Axes | None = None) -> Figure:
        """Draw one chart of the report with matplotlib.

        Args:
            name: Chart, such as ``roc``, ``pr``, ``froc`` or ``forest``.
            ax: Axes of matplotlib to draw into; a figure of its own without them.

        Raises:
            InputError: The comparison has no such chart. The message lists its charts. Or a chart
                of several panels is to be drawn into axes that no ``subplots()`` made.
        """
        from cxr_compare.evaluation.report.charts import PANELS, chart_names, draw

        if name not in (names := chart_names(self)):
            raise InputError(f"there is no chart '{name}'; this comparison has {', '.join(names)}")
        if ax is not None and name in PANELS and ax.get_subplotspec() is None:
            raise InputError(f"ax: chart '{name}' has several panels; give axes of subplots()")
        return draw(name, self, ax)

    def overlay(self, image_id: str, side: int = 480) -> Image.Image:
        """Draw a test image: plain, with the true lesions, and with the answer of each system.

        Raises:
            InputError: The image is no test image, no image files are known, or a result that was
                opened from its folder did not draw it.
        """
        from PIL import Image

        if image_id not in {*self.decisions["image_id"], *self.answer.overlays}:
            raise InputError(f"image '{image_id}' is none of the test images of this report")
        if self.images is not None:
            return self.images.draw(image_id, side=side)
        drawn = self.answer.overlays.get(image_id)
        if drawn is None or self.folder is None:
            raise InputError(
                f"image '{image_id}' is not drawn in this report; draw it with cxr overlay"
            )
        name = f"{files.OVERLAYS}/{drawn}"
        require_unchanged(self.folder / name, self.answer.files.get(name))
        with Image.open(self.folder / name) as picture:
            return picture.copy()

    def save(self, folder: str | Path) -> Result:
        """Write the report into a folder: ``report.html``, tables, charts and drawn images.

        Raises:
            InputError: The folder holds something other than a report.
        """
        return files.saved(self.write_all, folder, "report")

    def write_all(self, folder: Path) -> Result:
        """Write all files into a folder that nothing else writes to, and open the report there.

        ``answer.json`` is written last, so its presence shows that the folder is complete.
        """
        from cxr_compare.evaluation.report.page import write_page

        (folder / files.ANSWER).unlink(missing_ok=True)
        overlays = write_page(self, folder)
        for name in files.TABLES:
            files.write_report_table(getattr(self, name), folder / f"{name}.parquet")
        for name in files.AS_CSV:
            write_csv(getattr(self, name), folder / f"{name}.csv")
        answer = self.answer.with_values(overlays=overlays, files=files.digests_of(folder))
        answer.write(folder / files.ANSWER)
        return Result.open(folder)


def table_of(comparison: Comparison, name: str) -> pd.DataFrame:
    """Return one of the five tables of a comparison."""
    from cxr_compare.evaluation.groups.images import group_table
    from cxr_compare.evaluation.groups.lesions import lesion_table
    from cxr_compare.evaluation.report.curves import curve_table

    make: dict[str, Callable[[Comparison], pd.DataFrame]] = {
        "figures": lambda made: made.figures,
        "groups": group_table,
        "lesions": lesion_table,
        "decisions": lambda made: made.decisions,
        "curves": curve_table,
    }
    table = make[name](comparison)
    if not comparison.truth.patients_known:
        if "method" in table:
            by_image = table["method"].map(
                lambda name: name.replace("patient", "image"), na_action="ignore"
            )
            table = table.assign(method=by_image)
        if "n_patients" in table:
            table = table.assign(n_patients=np.nan)
        table = table.drop(columns="patient_id", errors="ignore")
    return files.with_texts(table)
