"""Lay the drawn cases on pages: the first few of each kind in the report, the rest on linked ones.

Every page stands alone, so none may grow with the number of images: each has at most some thirty
cases, and the pictures of a page share a fixed number of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from evaluation.metrics.registry import number
from evaluation.overlays.contours import LEVELS
from evaluation.report.files import CASES_PAGE, PAGE
from evaluation.report.report_cases import MAX_PICTURE_BYTES, DrawnCase, draw_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from data_prep.store.dataset import DataSet
    from evaluation.report.cases import CaseReader
    from evaluation.report.gallery import Category
    from evaluation.report.report_cases import Drawn

IN_REPORT = 4
"""Cases of each kind that stand in the report itself."""

ON_PAGE = 32
"""Cases on a further page."""

_ALL_PICTURES_BYTES = 5_400_000  # 7.2 MB in base64


@dataclass(frozen=True)
class Gallery:
    """The drawn cases of one page by category, or the reason why there are none.

    Args:
        cases: The cases; a category may go on on the next page.
        policy: The threshold policy in words.
        intro: What to do, and what is left out.
        map_words: Where the contours of each system's maps lie.
        reason: Why there are no cases.
        systems: Names, in the order of the panels.
        page: Number of this page, from 1: the report itself.
        pages: File names of all pages.
    """

    cases: Drawn = field(default_factory=list)
    policy: str = ""
    intro: str = ""
    map_words: tuple[str, ...] = ()
    reason: str = ""
    systems: tuple[str, ...] = ()
    page: int = 1
    pages: tuple[str, ...] = (PAGE,)

    @classmethod
    def empty(cls, reason: str) -> Gallery:
        """Return a gallery without cases.

        Example:
            >>> Gallery.empty("No pixels.").reason
            'No pixels.'
        """
        return cls(reason=reason)

    @property
    def count(self) -> int:
        """How many cases this page shows."""
        return sum(len(cases) for _, cases in self.cases)


def build_galleries(
    categories: list[Category],
    reader: CaseReader,
    dataset: DataSet,
    *,
    finding: str,
    policy: str,
    folder: Path,
    gaps: Mapping[str, float] | None = None,
    progress: Callable[..., None] | None = None,
) -> list[Gallery]:
    """Draw the cases and lay them on pages.

    Args:
        categories: The chosen cases.
        reader: Truth and readings.
        dataset: Where the pixels come from.
        finding: Display name of the target.
        policy: The threshold policy in words.
        folder: Gets one PNG a case; made if absent.
        gaps: How far apart the systems see each image.
        progress: Called once per case.

    Returns:
        The report's gallery, then those of ``cases-002.html`` and so on.
    """
    fullest = max(IN_REPORT * len(categories), ON_PAGE)
    drawn, lost = draw_cases(
        categories,
        reader,
        dataset,
        finding=finding,
        folder=folder,
        gaps=gaps,
        most=min(MAX_PICTURE_BYTES, _ALL_PICTURES_BYTES // max(fullest, 1)),
        progress=progress,
    )
    intro = "Choose a picture to enlarge it."
    if lost:
        intro += f" Left out, as the file could not be read: {', '.join(lost)}."
    laid = lay_out(drawn)
    names = (PAGE, *(CASES_PAGE.format(page) for page in range(2, len(laid) + 1)))
    first = Gallery(
        policy=policy,
        intro=intro,
        map_words=tuple(_map_words(reader)),
        systems=tuple(system.name for system in reader.systems),
        pages=names,
    )
    return [replace(first, cases=cases, page=page) for page, cases in enumerate(laid, start=1)]


def lay_out(drawn: Drawn, *, in_report: int = IN_REPORT, on_page: int = ON_PAGE) -> list[Drawn]:
    """Put the first cases of each category on the first page and fill further ones in order.

    Args:
        drawn: Categories with their cases.
        in_report: Of each category on the first page.
        on_page: Cases of all categories on any other.

    Example:
        >>> pages = lay_out([("missed", list("abcde")), ("alarm", list("fg"))],
        ...                 in_report=1, on_page=3)
        >>> pages[0], pages[1], pages[2]
        ([('missed', ['a']), ('alarm', ['f'])], [('missed', ['b', 'c', 'd'])], \
[('missed', ['e']), ('alarm', ['g'])])
    """
    pages: list[Drawn] = [[(category, cases[:in_report]) for category, cases in drawn]]
    room = 0
    for category, cases in drawn:
        rest: list[DrawnCase] = cases[in_report:]
        while rest:
            if not room:
                pages.append([])
                room = on_page
            taken, rest = rest[:room], rest[room:]
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


def _map_words(reader: CaseReader) -> list[str]:
    """Say for each system with maps where its contours lie."""
    words = []
    for system in reader.systems:
        if system.maps is None or not len(system.maps) or system.scale is None:
            continue
        low, high = system.scale
        levels = ", ".join(number(low + share * (high - low), 2) for share in LEVELS)
        words.append(f"map of {system.name}: contours at {levels} (same for all images)")
    return words
