"""Search over the ways to read boxes from maps, by the figures that the report gives.

Maps are cut once per level; the parts of a level serve every other setting. Folds, figures and
the choice are those of `evaluation.decisions.search`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.errors import InputError
from evaluation.boxes.box_rule import picture_limits
from evaluation.boxes.iou import BoxPairs, pair_boxes, pair_ranked, rank_boxes
from evaluation.boxes.map_boxes import MAP_BOX_LEVELS, LevelOf, MapBoxRule, part_scores
from evaluation.decisions.search import Search, SweepImages, place_figures, search_space
from evaluation.statistics.cross_validation import choose
from evaluation.statistics.ranking import Floats

_WHOLES: tuple[LevelOf, ...] = ("scale", "peak")
_MOST, _MOST_FULL = (None, 1), (None, 1, 2)
_SCALES = (1.0, 0.9, 1.1, 0.8)


@dataclass(frozen=True)
class MapSearchResult:
    """What a search of map boxes chose.

    Attributes:
        rule: How maps become boxes.
        cut: Score from which boxes are called in the RSNA score and by IoBB.
        folds: Fold of each image, shape ``(images,)``.
        record: For ``decisions/<target>.json``: what was searched, and the figures.
        best: The best settings with their figures, best first.
    """

    rule: MapBoxRule
    cut: float | None
    folds: npt.NDArray[np.int64]
    record: dict[str, Any]
    best: list[dict[str, Any]]


def search_levels(search: Search) -> list[MapBoxRule]:
    """The levels of a search: those of the common scale first, the higher first.

    Example:
        >>> len(search_levels(Search("default", "ap50")))
        18
    """
    levels: tuple[float, ...] = MAP_BOX_LEVELS
    if search.space == "full":
        levels = tuple(percent / 100 for percent in range(5, 100, 5))
    return [
        MapBoxRule(level, whole, clipped=True)
        for whole in _WHOLES
        for level in sorted(levels)[::-1]
    ]


def search_map_boxes(
    images: SweepImages,
    maps: pd.DataFrame,
    scores: pd.Series,
    scale: tuple[float, float],
    search: Search,
    advance: Callable[[int], None] | None = None,
) -> MapSearchResult:
    """Try every way to read boxes from maps, and choose by the mean over folds of patients.

    Args:
        images: Validation images only.
        maps: Their maps, one per image.
        scores: Their scores in [0, 1], indexed by image id.
        scale: Low and high end of the map scale, raw units.
        search: ``default`` and ``boxes`` try nine levels, ``full`` nineteen, and more scales.
        advance: Called with the number of levels done; see `search_levels`.

    Returns:
        The choice.

    Raises:
        InputError: The objective judges images, or validation has no lesion to find.
    """
    if search.of_images:
        raise InputError(
            f"--objective {search.objective}: boxes from maps do not change an image's score; "
            "choose ap50, rsna or froc"
        )
    if not len(images.lesions.image):
        raise InputError("--search: no validation image has a box to find; tune without --search")
    space = search_space(search.space)
    settings: list[tuple[MapBoxRule, float | None]] = []
    figures: list[Floats] = []
    for cut_at in search_levels(search):
        for rule, pairs in _tries(images, cut_at, maps, scores, scale, search):
            for cut, figure in place_figures(images, pairs, search.objective, space.cuts):
                settings.append((rule, cut))
                figures.append(figure)
        if advance is not None:
            advance(1)
    plain = [rule == MapBoxRule(rule.level, clipped=True) for rule, _ in settings]
    chosen = choose(np.stack(figures), np.array(plain))
    rule, cut = settings[chosen.best]
    n_settings = len(settings)
    if cut is None:
        boxes = rule.apply(maps, scores, scale, images.sizes)
        pairs = pair_boxes(boxes, images.truth, images.image_ids[images.trusted])
        later = place_figures(images, pairs, "rsna", space.cuts)
        cut = later[choose(np.stack([figure for _, figure in later])).best][0]
        n_settings += len(later)
    record = {
        "space": search.space,
        "objective": search.objective,
        "folds": images.n_folds,
        "settings_tried": n_settings,
        **chosen.record(),
    }
    best = [
        {
            "map_boxes": settings[place][0].to_json(),
            "box_cut": settings[place][1],
            "folds": folds,
            "validation": every,
        }
        for place, folds, every in chosen.leaders
    ]
    return MapSearchResult(rule, cut, images.folds, record, best)


def _tries(
    images: SweepImages,
    cut_at: MapBoxRule,
    maps: pd.DataFrame,
    scores: pd.Series,
    scale: tuple[float, float],
    search: Search,
) -> Iterator[tuple[MapBoxRule, BoxPairs]]:
    """All that may become of the parts of one level, the simpler first, with their lesions."""
    parts = cut_at.parts(maps, scale)
    limits = picture_limits(images.sizes, parts.image_ids)
    judged = images.image_ids[images.trusted]
    image = np.asarray(judged.get_indexer(parts.image_ids))
    full = search.space == "full"
    for score_of in _WHOLES:
        points = part_scores(parts, scores, scale, score_of)
        for most in _MOST_FULL if full else _MOST:
            for factor in search_space("full").scales if full else _SCALES:
                rule = replace(cut_at, score_of=score_of, most=most, scale=factor)
                kept, corners = rule.finish(parts, points, limits)
                boxes = rank_boxes(image[kept], points[kept], corners[kept], len(judged))
                yield rule, pair_ranked(boxes, images.lesions)
