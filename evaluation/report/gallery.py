"""Choose the cases that a reader should see: where each system fails, and an honest sample."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.boxes.map_boxes import cell_words
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.metric import listing
from cxr_compare.evaluation.overlays.draw import encode_webp, to_png, to_svg
from cxr_compare.evaluation.overlays.shapes import (
    NO_CONTOUR,
    TRUTH_COLOUR,
    ImagePrediction,
    ImageTruth,
    Label,
    Shape,
    describe_score,
    describe_truth,
    outcome,
    outcome_kind,
    prediction_shapes,
)
from cxr_compare.evaluation.report.cases import CaseSource, read_cases
from cxr_compare.evaluation.report.files import CASES_PAGE, PAGE

CASES_PER_CATEGORY = 8
"""Drawn of each kind; the first four stand in the report, the others on linked pages."""


@dataclass(frozen=True)
class _Category:
    """One kind of case."""

    key: str
    title: str
    order: str
    image_ids: tuple[str, ...]
    total: int


@dataclass(frozen=True)
class _Table:
    """Decisions as arrays: rows are images (sorted), columns systems."""

    image_ids: npt.NDArray[np.object_]
    systems: tuple[str, ...]
    label: npt.NDArray[np.float64]  # (N,)
    called: npt.NDArray[np.bool_]  # (N, S)
    confidence: npt.NDArray[np.float64]  # (N, S) rank of the score within its system, 0 to 1
    misplaced: npt.NDArray[np.bool_]  # (N, S) called positive, and the place is known to be wrong
    kind: npt.NDArray[np.object_]  # (N,) x_class or ""


def select_cases(
    decisions: pd.DataFrame,
    systems: list[str],
    policy: str,
    *,
    per_category: int = CASES_PER_CATEGORY,
    seed: int = 0,
) -> list[_Category]:
    """Pick the gallery's cases at one policy's thresholds.

    Failures come most confident first, by each score's rank within its system (scores of two
    systems have no common scale). Systems without a decision at this policy are left out.
    """
    if f"decision_{policy}" not in decisions:
        return []
    table = _arrange(decisions, systems, policy)
    if not table.systems or not len(table.image_ids):
        return []
    categories = [
        *_misses(table, per_category),
        _wrong_place(table, per_category),
        *_false_alarms(table, per_category),
        _agreement(table, per_category, np.random.default_rng(seed)),
    ]
    return [category for category in categories if category.image_ids]


def disagreement(decisions: pd.DataFrame, systems: list[str]) -> dict[str, float]:
    """How far apart the systems see each image: the range of its ranks, 0 to 1.

    Scores of two systems have no common scale; their ranks within each system do.

    Example:
        >>> frame = pd.DataFrame({"image_id": ["a", "b"] * 2, "system": list("AABB"),
        ...                       "score": [0.1, 0.2, 0.9, 0.3]})
        >>> disagreement(frame, ["A", "B"])
        {'a': 0.5, 'b': 0.5}
    """
    known = decisions[decisions["system"].isin(systems)].drop_duplicates(["image_id", "system"])
    ranks = known.pivot(index="image_id", columns="system", values="score").rank(pct=True)
    gaps = (ranks.max(axis=1) - ranks.min(axis=1)).fillna(0.0)
    return dict(zip(map(str, gaps.index), gaps.round(4).tolist(), strict=True))


def _arrange(decisions: pd.DataFrame, systems: list[str], policy: str) -> _Table:
    column = f"decision_{policy}"
    decided = decisions[decisions["label"].notna()]
    names = [
        name for name in systems if decided.loc[decided["system"] == name, column].notna().any()
    ]
    decided = decided[decided["system"].isin(names)].drop_duplicates(["image_id", "system"])

    def matrix(name: str) -> pd.DataFrame:
        wide = decided.pivot(index="image_id", columns="system", values=name)
        return wide.reindex(columns=names)

    called = matrix(column).dropna().sort_index()
    ids = called.index
    calls = called.to_numpy(dtype=bool)
    first = decided.drop_duplicates("image_id").set_index("image_id").reindex(ids)
    wrong = np.zeros(calls.shape, dtype=bool)
    for column in ("localised", "localised_tolerant"):  # the second excuses a map within its cell
        if column in decided:
            hit = matrix(column).reindex(ids).to_numpy(dtype=object)
            known = ~pd.isna(hit)
            wrong[known] = ~hit[known].astype(bool)
    kinds = first["x_class"].fillna("") if "x_class" in first else pd.Series("", first.index)
    ranks = matrix("score").reindex(ids).rank(pct=True).fillna(0.0)
    return _Table(
        image_ids=ids.to_numpy(dtype=object),
        systems=tuple(names),
        label=first["label"].to_numpy(dtype=np.float64),
        called=calls,
        confidence=ranks.to_numpy(dtype=np.float64),
        misplaced=wrong & calls,
        kind=kinds.to_numpy(dtype=object),
    )


def _all(table: _Table, one: str, two: str, more: str) -> str:
    """Who is meant by all systems, with the words for one, two and more of them."""
    words = {1: f"{table.systems[0]} {one}", 2: f"Both {two}"}
    return words.get(len(table.systems), f"All {more}")


def _misses(table: _Table, count: int) -> list[_Category]:
    """Positive images that all miss, and those that exactly one system finds."""
    n_found = table.called.sum(axis=1)
    positive = table.label == 1
    title = _all(table, "misses it", "miss it", "miss it")
    missed = positive & (n_found == 0)
    strength = -table.confidence.mean(axis=1)
    categories = [_pick(table, "all-miss", title, missed, strength, count, "lowest scores first")]
    if len(table.systems) == 1:
        return categories
    for position, name in enumerate(table.systems):
        own = table.confidence[:, position]
        only = positive & (n_found == 1) & table.called[:, position]
        only &= ~table.misplaced[:, position]  # those are shown as "wrong place"
        gap = own - (table.confidence.sum(axis=1) - own) / (len(table.systems) - 1)
        key = f"only-{position + 1}"
        title = f"Only {name} finds it"
        categories.append(_pick(table, key, title, only, gap, count, "widest gap in rank first"))
    return categories


def _wrong_place(table: _Table, count: int) -> _Category:
    chosen = (table.label == 1) & table.misplaced.any(axis=1)
    strength = np.where(table.misplaced, table.confidence, 0).max(axis=1, initial=0)
    title = "Right image, wrong place"
    order = "most confident first"
    return _pick(table, "wrong-place", title, chosen, strength, count, order)


def _false_alarms(table: _Table, count: int) -> list[_Category]:
    """False alarms, on normal and on abnormal images apart where the set says so."""
    alarm = (table.label == 0) & table.called.any(axis=1)
    strength = np.where(table.called, table.confidence, 0).max(axis=1, initial=0)
    normal = table.kind == "normal"
    not_normal = table.kind == "not_normal"
    groups = (
        ("normal", " on normal images", normal),
        ("not-normal", " on images that are abnormal in another way", not_normal),
        ("other", "", ~(normal | not_normal)),
    )
    order = "highest ranks first"
    return [
        _pick(table, f"alarm-{key}", f"False alarms{on}", alarm & group, strength, count, order)
        for key, on, group in groups
    ]


def _agreement(table: _Table, count: int, rng: np.random.Generator) -> _Category:
    """A random sample of images that all call rightly, half positive and half negative."""
    right = (table.called == (table.label == 1)[:, None]).all(axis=1)
    right &= ~((table.label == 1) & table.misplaced.any(axis=1))
    chance = rng.random(len(table.image_ids))
    halves: list[int] = []
    counts = []
    for label, size in ((1, (count + 1) // 2), (0, count // 2)):
        members = np.flatnonzero(right & (table.label == label))
        drawn = members[np.argsort(chance[members], kind="stable")][:size]
        halves += drawn.tolist()
        counts.append(len(drawn))
    return _Category(
        "agreement",
        f"{_all(table, 'is right', 'are right', 'are right')}: a random sample",
        f"{counts[0]} positive and {counts[1]} negative, drawn at random with a fixed seed",
        tuple(str(table.image_ids[row]) for row in halves),
        int(right.sum()),
    )


def _pick(
    table: _Table,
    key: str,
    title: str,
    chosen: npt.NDArray[np.bool_],
    strength: npt.NDArray[np.float64],
    count: int,
    order: str,
) -> _Category:
    """Take the strongest of the chosen images; ties in the order of their ids."""
    members = np.flatnonzero(chosen)
    ranked = members[np.argsort(-strength[members], kind="stable")][:count]
    ids = tuple(str(table.image_ids[row]) for row in ranked)
    return _Category(key, title, order, ids, len(members))


MAX_IMAGE_BYTES = 120_000
"""The most that one image may take; less where a page has more than 45."""

_LINE = 1 / 12
_FINE_LINE = 1 / 24  # height of a text on a small and a large panel, of its side
_BRIEF_BOXES = 3
_PANEL = 500  # px of a panel's longer side: four in a row have 300 dpi at a width of 17 cm
_ENCODINGS = ((640, 82), (640, 50), (320, 40))  # longer side in px, quality; the last always fits


@dataclass(frozen=True)
class _Panel:
    """One panel of a case, with its words."""

    title: str
    words: str
    alt: str
    drawing: Markup
    colour: str = ""
    sign: str = ""
    score: str = ""


@dataclass(frozen=True)
class DrawnCase:
    """One case: an image (data URL) that all its panels share."""

    image_id: str
    anchor: str
    facts: str
    width: int
    height: int
    data_url: str
    panels: tuple[_Panel, ...]
    outcomes: tuple[str, ...] = ()
    lesion: float | None = None
    gap: float = 0.0
    crop: str = ""
    brief: Markup = field(default_factory=Markup)
    """One image with all systems: without texts, and the part of it that matters as a view box."""

    @classmethod
    def of(
        cls,
        source: CaseSource,
        image_id: str,
        pixels: npt.NDArray[np.uint8],
        *,
        anchor: str,
        most: int = MAX_IMAGE_BYTES,
        gap: float = 0.0,
    ) -> DrawnCase:
        """Draw one case as SVG over one embedded image of at most so many bytes."""
        height, width = pixels.shape
        truth = source.truth(image_id)
        predictions = source.predictions(image_id)
        words = describe_truth(truth, source.test_set.target.display_name)
        drawing = to_svg(truth.shapes((width, height), 1 / 18), "words names")
        brief = [shape for one in predictions for shape in _brief(one, truth, (width, height))]
        panels = [
            _Panel("Image", "", f"chest X-ray {image_id}", Markup("")),
            _Panel(truth.title, words, f"truth on {image_id}: {words}", drawing, TRUTH_COLOUR),
            *(_panel(image_id, prediction, truth, (width, height)) for prediction in predictions),
        ]
        return cls(
            image_id,
            anchor,
            source.facts(image_id),
            width,
            height,
            _embed(pixels, most),
            tuple(panels),
            gap=gap,
            crop=_crop((width, height), brief),
            brief=to_svg(brief),
            outcomes=tuple(outcome_kind(prediction, truth) for prediction in predictions),
            lesion=_largest_lesion(truth, width * height),
        )


_Drawn = list[tuple[_Category, list[DrawnCase]]]


def _draw_cases(
    categories: list[_Category],
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
            to_png(source.draw(image_id, pixels, panel=_PANEL), folder / f"{anchor}.png")
            gap = gaps.get(image_id, 0.0)
            cases.append(DrawnCase.of(source, image_id, pixels, anchor=anchor, most=most, gap=gap))
            if progress is not None:
                progress()
        drawn.append((category, cases))
    return drawn, missing


def _crop(size: tuple[int, int], shapes: list[Shape]) -> str:
    """A view box, 4 to 3, around all shapes, no narrower than the lungs; as SVG writes it.

    Example:
        >>> _crop((300, 300), [])
        '1.5 23.6 297 222.8'
    """
    aspect = 4 / 3
    least_width = 0.8
    margin = 1.1
    paths = [path.clip(0, size) for shape in shapes for path in shape.paths]
    corners = np.vstack(paths or [np.multiply([(0.05, 0.45), (0.95, 0.45)], size)])
    low = corners.min(axis=0)
    high = corners.max(axis=0)
    needed = margin * (high - low) * (1, aspect)
    width = min(max(*needed, least_width * size[0]), max(size[0], size[1] * aspect))
    window = np.array([width, width / aspect])
    room = size - window  # below 0: black at both sides
    start = np.where(room < 0, room / 2, ((low + high - window) / 2).clip(0, room.clip(0)))
    return " ".join(f"{end:g}" for end in (*start.round(1), *window.round(1)))


def _largest_lesion(truth: ImageTruth, area: int) -> float | None:
    if truth.boxes is None or not len(truth.boxes):
        return None
    sides = truth.boxes[:, 2:4] - truth.boxes[:, :2]
    return round(float(sides.prod(axis=1).max()) / area * 100, 2)


def _panel(
    image_id: str, prediction: ImagePrediction, truth: ImageTruth, size: tuple[int, int]
) -> _Panel:
    sign, words = outcome(prediction, truth)
    score = describe_score(prediction)
    small = [
        shape
        for shape in prediction_shapes(prediction, truth, size, line=_LINE)
        if isinstance(shape, Shape) or shape.layer == "map"  # scores need a large panel
    ]
    large = prediction_shapes(prediction, truth, size, line=_FINE_LINE)
    if prediction.contours and not any(shape.layer == "map" for shape in large):
        score += f"; {NO_CONTOUR}"
    fine = [shape for shape in large if isinstance(shape, Label)]
    return _Panel(
        prediction.system,
        words,
        f"{prediction.system} on {image_id}: {words}, {score}",
        to_svg(small) + to_svg(fine, "words fine"),
        colour=prediction.colour,
        sign=sign,
        score=score,
    )


def _brief(prediction: ImagePrediction, truth: ImageTruth, size: tuple[int, int]) -> list[Shape]:
    """The most confident boxes and one contour, that of 50 % or the nearest to it."""
    first = np.argsort(-prediction.boxes[:, 4], kind="stable")[:_BRIEF_BOXES]
    grid = prediction.grid
    if grid is not None and grid.levels:
        half = min(range(len(grid.levels)), key=lambda n: abs(prediction.contours[n] - 0.5))
        grid = replace(grid, levels=grid.levels[half : half + 1])
    shown = replace(prediction, boxes=prediction.boxes[first], grid=grid)
    shapes = prediction_shapes(shown, truth, size, faint=False)
    return [
        replace(shape, width=2.0, rim=2.0) if shape.layer == "map" else shape
        for shape in shapes
        if isinstance(shape, Shape)
    ]


def _embed(pixels: npt.NDArray[np.uint8], most: int) -> str:
    """The image as a data URL, coarser where it would take more than its share."""
    encoded = b""
    for side, quality in _ENCODINGS:
        encoded = encode_webp(pixels, side, quality=quality, method=3)
        if len(encoded) <= most:
            break
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()


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
    def examples(self) -> list[tuple[_Category, DrawnCase]]:
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


def _anchor(category: _Category, position: int) -> str:
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
        words.append(f"map of {system.name}: {contours}; {cell_words(system.maps)}")
    return words
