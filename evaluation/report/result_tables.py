"""The answer of a comparison and the five tables behind it, which are read when first used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.folders import OpenedFromFolder
from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.report.answer import ReportAnswer
from cxr_compare.evaluation.report.case_selection import (
    ImageKind,
    Outcomes,
    image_kinds,
    select_cases,
)
from cxr_compare.evaluation.verdict.margin import GATE_STATUS

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.cases import CaseSource

_MOST_SHOWN = 12  # systems of a page
_COUNTS = ("tp", "fn", "fp", "tn")
MOST_DRAWN = 100
"""Images that a report draws: cases, and other errors."""


@dataclass(frozen=True, eq=False, repr=False)
class ResultTables(OpenedFromFolder):
    """Content of a `Result`, of which pages and charts are drawn; `Result` explains it."""

    answer: ReportAnswer
    table_of: Callable[[str], pd.DataFrame]
    images: CaseSource | None = None
    folder: Path | None = None
    comparison: Comparison | None = None
    gate: bool = False

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
