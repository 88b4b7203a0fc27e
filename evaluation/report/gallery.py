"""Drawn cases of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.overlays.draw import to_png
from cxr_compare.evaluation.overlays.legend import Mark, legend
from cxr_compare.evaluation.overlays.prediction_shapes import boxes_on_lesions
from cxr_compare.evaluation.report.case_selection import (
    CaseCategory,
    disagreement,
    select_cases,
)
from cxr_compare.evaluation.report.cases import CaseSource, read_cases
from cxr_compare.evaluation.report.compared import Compared
from cxr_compare.evaluation.report.drawn_case import DrawnCase

_Drawn = list[tuple[CaseCategory, list[DrawnCase]]]


def _draw_cases(
    categories: list[CaseCategory],
    source: CaseSource,
    folder: Path,
    gaps: Mapping[str, float],
    most: int,
    progress: Callable[..., None] | None,
) -> tuple[_Drawn, list[str]]:
    """Draw the images of all categories, as many at a time as there are processors.

    The cases of each category are returned with the ids of the images whose file cannot be read.
    """
    make_folder(folder)

    def draw(image_id: str, anchor: str) -> DrawnCase | None:
        try:
            pixels = source.pixels.read(image_id)
        except InputError:
            return None
        drawing = source.draw(image_id, pixels)
        to_png(drawing.sheet(), folder / f"{anchor}.png")
        gap = gaps.get(image_id, 0.0)
        return DrawnCase.from_drawing(
            drawing, source, image_id, pixels, anchor=anchor, most=most, gap=gap
        )

    drawn: _Drawn = [(category, []) for category in categories]
    missing = []
    with ThreadPoolExecutor(cpu_count(), "cases") as pool:
        pending = [
            (cases, image_id, pool.submit(draw, image_id, _anchor(category, position)))
            for category, cases in drawn
            for position, image_id in enumerate(category.image_ids)
        ]
        try:
            for cases, image_id, drawing in pending:
                case = drawing.result()
                if case is None:
                    missing.append(image_id)
                    continue
                cases.append(case)
                if progress is not None:
                    progress()
        finally:
            pool.shutdown(cancel_futures=True)
    return drawn, missing


_MOST_CASE_BYTES = 300_000
_ALL_CASES_BYTES = 4_800_000  # 6.4 MB in base64


_MOST_EXAMPLES = 3


_EXAMPLES = ("agreement", "only-", "wrong-place", "all-miss", "alarm-")  # beginnings of their keys


@dataclass(frozen=True)
class Gallery:
    """Drawn example images of the report; there are none without pixels or without thresholds.

    `cases` has each kind of outcome, such as misses, with its drawn images; `missing` the ids of
    images that were left out because their file cannot be read.
    """

    cases: _Drawn = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def examples(self) -> list[tuple[CaseCategory, DrawnCase]]:
        """At most three drawn images with different kinds of outcome, for the top of the report.

        These are an image that all systems get right, an image that only one system finds, and an
        image with a wrong location. Where a kind of outcome has no image, the next kind of error
        takes its position. Of the images of one kind, the first is taken on which a system points
        at a lesion. Where all systems are right, its boxes are on lesions, too.
        """
        drawn = [(category, _first(category, cases)) for category, cases in self.cases if cases]
        firsts = []
        for kind in _EXAMPLES:
            firsts += [pair for pair in drawn if pair[0].key.startswith(kind)][:1]
        return firsts[:_MOST_EXAMPLES]

    @property
    def legend(self) -> list[Mark]:
        """Legend of the drawn images."""
        drawn = [case for _, cases in self.cases for case in cases]
        return legend(mark for case in drawn for mark in case.marks)

    @property
    def brief_legend(self) -> list[Mark]:
        """Legend of the small drawings on top."""
        return legend(mark for _, case in self.examples for mark in case.brief_marks)


def _first(category: CaseCategory, cases: list[DrawnCase]) -> DrawnCase:
    """Return the case of a kind that stands for it: the first of those whose marks are clearest."""

    def clarity(case: DrawnCase) -> tuple[bool, bool]:
        is_elsewhere = any(mark.name == "elsewhere" for mark in case.brief_marks)
        return "placed" in case.outcomes, category.key == "agreement" and not is_elsewhere

    return max(cases, key=clarity)


def draw_gallery(compared: Compared, folder: Path, progress: Callable[..., None] | None) -> Gallery:
    """Select example images, and draw them as PNG files in a folder and for the page.

    `progress` is called once for each drawn image.
    """
    comparison, pixels = compared.comparison, compared.pixels
    if pixels is None:
        return Gallery()
    policy = comparison.main_policy
    categories = select_cases(
        comparison.decisions,
        comparison.names,
        policy,
        seed=compared.seed,
        joint=comparison.joint,
        made_of_others=comparison.made_of_others,
    )
    if not categories:
        return Gallery()
    source = read_cases(comparison, compared.truth, pixels, policy)
    categories = [
        _with_clear_example(category, comparison, source)
        if category.key == "agreement"
        else category
        for category in categories
    ]
    n_images = sum(len(category.image_ids) for category in categories)
    most = min(_MOST_CASE_BYTES, _ALL_CASES_BYTES // n_images)
    gaps = disagreement(comparison.decisions, comparison.names)
    return Gallery(*_draw_cases(categories, source, folder, gaps, most, progress))


def _with_clear_example(
    category: CaseCategory, comparison: Comparison, source: CaseSource
) -> CaseCategory:
    """Add an image that all systems find, with every point and box on a lesion, if it has none."""
    decision = f"decision_{comparison.main_policy}"
    rows = comparison.decisions.dropna(subset=[decision])
    rows = rows[rows["label"] >= 1]
    rows = rows.assign(wrong=~rows[decision].astype(bool) | (rows["localised"] == False))  # noqa: E712
    by_image = rows.groupby("image_id")
    is_placed = ~by_image["wrong"].any() & by_image["localised"].any()
    placed = [str(image_id) for image_id in is_placed.index[is_placed]]
    clear = [image_id for image_id in placed if _boxes_on_lesions(source, image_id)] or placed
    if not clear or set(clear) & set(category.image_ids):
        return category
    return replace(
        category,
        image_ids=(*category.image_ids, clear[0]),
        order=f"{category.order}, and one whose marks lie on the lesion",
    )


def _boxes_on_lesions(source: CaseSource, image_id: str) -> bool:
    truth = source.truth(image_id)
    return all(boxes_on_lesions(one, truth) for one in source.predictions(image_id))


def _anchor(category: CaseCategory, position: int) -> str:
    """Return the name of a case, which is its anchor on the page and names its overlay file."""
    return f"{category.key}-{position + 1:02d}"
