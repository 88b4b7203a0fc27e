"""The drawn cases of a report, laid out on its pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.boxes.map_boxes import cell_size_text
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.overlays.draw import to_png
from cxr_compare.evaluation.report.case_selection import CaseCategory, select_cases
from cxr_compare.evaluation.report.cases import CaseSource, read_cases
from cxr_compare.evaluation.report.drawn_case import MAX_IMAGE_BYTES, PANEL, DrawnCase
from cxr_compare.evaluation.report.files import CASES_PAGE, PAGE

_Drawn = list[tuple[CaseCategory, list[DrawnCase]]]


def _draw_cases(
    categories: list[CaseCategory],
    source: CaseSource,
    folder: Path,
    gaps: Mapping[str, float],
    most: int,
    progress: Callable[..., None] | None,
) -> tuple[_Drawn, list[str]]:
    """Draw one image after another: the cases by category, and images whose file is gone."""
    make_folder(folder)
    drawn = []
    missing = []
    for category in categories:
        cases = []
        for position, image_id in enumerate(category.image_ids):
            try:
                pixels = source.test_set.dataset.read_original(image_id)
            except InputError:
                missing.append(image_id)
                continue
            anchor = _anchor(category, position)
            to_png(source.draw(image_id, pixels, panel=PANEL), folder / f"{anchor}.png")
            gap = gaps.get(image_id, 0.0)
            cases.append(DrawnCase.of(source, image_id, pixels, anchor=anchor, most=most, gap=gap))
            if progress is not None:
                progress()
        drawn.append((category, cases))
    return drawn, missing


IN_REPORT = 4
"""Cases of each kind that stand in the report itself."""


_ON_PAGE = 32
"""Cases on a further page."""


_ALL_IMAGES_BYTES = 5_400_000  # 7.2 MB in base64


_MOST_EXAMPLES = 3


_EXAMPLES = ("agreement", "only-", "wrong-place", "all-miss", "alarm-")  # how their keys begin


@dataclass(frozen=True)
class Gallery:
    """The drawn cases of one page by category, or the reason why there are none."""

    cases: _Drawn = field(default_factory=list)
    policy: str = ""
    intro: str = ""
    map_words: tuple[str, ...] = ()
    reason: str = ""
    systems: tuple[str, ...] = ()
    page: int = 1
    pages: tuple[str, ...] = (PAGE,)

    @property
    def examples(self) -> list[tuple[CaseCategory, DrawnCase]]:
        """One case that all get right, one that only one finds, and one in the wrong place.

        Where a kind has no image another kind of failure stands in for it.
        """
        drawn = [(category, cases[0]) for category, cases in self.cases if cases]
        firsts = []
        for kind in _EXAMPLES:
            firsts += [pair for pair in drawn if pair[0].key.startswith(kind)][:1]
        return firsts[:_MOST_EXAMPLES]


def draw_galleries(
    comparison: Comparison,
    dataset: DataSet,
    folder: Path,
    gaps: Mapping[str, float],
    *,
    per_category: int,
    seed: int,
    progress: Callable[..., None] | None,
) -> list[Gallery]:
    """Choose the cases, draw them and lay them on pages, or say why there are none."""
    if not dataset.has_pixels:
        return [Gallery(reason="The data set has no pixels, so no image is shown: figures only.")]
    policy = comparison.main_policy
    categories = select_cases(
        comparison.decisions, comparison.names, policy, per_category=per_category, seed=seed
    )
    if not categories:
        reason = "No system has a threshold, so no image is right or wrong yet: see cxr tune."
        return [Gallery(reason=reason)]
    source = read_cases(comparison, dataset, policy)
    fullest = max(IN_REPORT * len(categories), _ON_PAGE)
    most = min(MAX_IMAGE_BYTES, _ALL_IMAGES_BYTES // fullest)
    drawn, missing = _draw_cases(categories, source, folder, gaps, most, progress)
    intro = "Choose an id to open a case with its scores, an image to enlarge it."
    if missing:
        intro += f" Left out, as the file could not be read: {', '.join(missing)}."
    laid = _lay_out(drawn)
    names = (PAGE, *(CASES_PAGE.format(page) for page in range(2, len(laid) + 1)))
    first = Gallery(
        policy=policy,
        intro=intro,
        map_words=tuple(_map_words(source)),
        systems=tuple(system.name for system in source.systems),
        pages=names,
    )
    return [replace(first, cases=cases, page=page) for page, cases in enumerate(laid, start=1)]


def overlay_files(
    comparison: Comparison, folder: Path, *, per_category: int, seed: int
) -> dict[str, str]:
    """Return the file name of each case's overlay that `draw_galleries` drew, by image id."""
    categories = select_cases(
        comparison.decisions,
        comparison.names,
        comparison.main_policy,
        per_category=per_category,
        seed=seed,
    )
    names = {
        image_id: f"{_anchor(category, position)}.png"
        for category in categories
        for position, image_id in enumerate(category.image_ids)
    }
    return {image_id: name for image_id, name in names.items() if (folder / name).is_file()}


def _anchor(category: CaseCategory, position: int) -> str:
    """Return the name of a case on the pages and of its overlay's file."""
    return f"{category.key}-{position + 1:02d}"


def _lay_out(drawn: _Drawn) -> list[_Drawn]:
    """Put the first cases of each category on the first page and fill further ones in order."""
    pages: list[_Drawn] = [[(category, cases[:IN_REPORT]) for category, cases in drawn]]
    room = 0
    for category, cases in drawn:
        rest: list[DrawnCase] = cases[IN_REPORT:]
        while rest:
            if not room:
                pages.append([])
                room = _ON_PAGE
            taken = rest[:room]
            rest = rest[room:]
            pages[-1].append((category, taken))
            room -= len(taken)
    return pages


def case_places(galleries: list[Gallery]) -> dict[str, list[str]]:
    """Where each drawn image stands: ``[page, anchor]``, the page empty for the report itself."""
    return {
        case.image_id: ["" if gallery.page == 1 else gallery.pages[gallery.page - 1], case.anchor]
        for gallery in reversed(galleries)
        for _, cases in gallery.cases
        for case in cases
    }


def _map_words(source: CaseSource) -> list[str]:
    """Say for each system with maps where its contours lie and how coarse it is."""
    words = []
    for system in source.systems:
        if system.maps is None or not len(system.maps):
            continue
        shares = listing([f"{share:.0%}".replace("%", " %") for share in system.levels])
        what = "probability" if system.calibrated else "score (not calibrated)"
        contours = f"contours at {what} {shares}" if shares else f"no map reaches a {what} of 25 %"
        words.append(f"map of {system.name}: {contours}; {cell_size_text(system.maps)}")
    return words
