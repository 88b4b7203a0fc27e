"""Page ``images.html``: all test images as thumbnails, by decision and score.

The page contains no image: thumbnails are files that load when they scroll into view. The facts
about the images are in one script beside the page, so that the page opens from a folder without a
server.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.decisions.subgroups import image_groups
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.overlays.draw import encode_webp
from cxr_compare.evaluation.overlays.shapes import TRUTH_COLOUR, system_colour
from cxr_compare.evaluation.report.files import (
    IMAGES_PAGE,
    IMAGES_TABLE,
    MOST_THUMBNAILS,
    THUMBNAILS,
)
from cxr_compare.evaluation.report.templates import render
from cxr_compare.evaluation.report.threshold_exploration import exploration

THUMBNAIL_SIDE = 192


_QUALITY = 60  # quality of WebP, from 0 to 100


_MOST_BOXES = 12  # largest number of boxes of a system on an image; the most confident are taken


_READERS = min(4, os.cpu_count() or 1)


_CLASS = "x_class"


def write_images_page(
    comparison: Comparison,
    dataset: DataSet,
    out: Path,
    *,
    titles: Mapping[str, str],
    drawn: Mapping[str, Sequence[str]],
    gaps: Mapping[str, float],
    most: int = MOST_THUMBNAILS,
    seed: int = 0,
    progress: Callable[..., None] | None = None,
) -> None:
    """Write the page ``images.html``, on which a reader can look through all test images.

    The page lists all images, its data are in ``images.js``, and small versions of some images are
    in the folder ``thumbs``. Only a few images are in memory at a time.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        dataset: The data set under evaluation, which has the pixels.
        out: Folder of the report.
        titles: Texts in the head of the page: ``title``, ``finding`` (name of the finding as shown
            to readers) and ``data_name`` (name of the data set).
        drawn: For images with a large drawing, by image id: file name of its page (empty for the
            report itself) and name of the drawing on that page, such as ``["", "all-miss-01"]``.
        gaps: How differently the systems rank each image by score, from 0 (equal ranks) to 1, by
            image id.
        most: Largest number of small versions. Images that a system gets wrong are chosen first,
            then others at random.
        seed: Random seed of this choice.
        progress: Function without arguments, called once for each small version; None for no such
            call.
    """
    table = _ImageTable(comparison, dataset)
    make_folder(out / THUMBNAILS)
    for stale in (out / THUMBNAILS).glob("*.webp"):
        stale.unlink()
    chosen = _chosen(table, most if dataset.has_pixels else 0, seed)
    sizes = _write_thumbnails(dataset, table.ids, chosen, out / THUMBNAILS, progress)
    with atomic_path(out / IMAGES_TABLE) as path:
        text = json.dumps(table.content(sizes, drawn, gaps), separators=(",", ":"))
        path.write_text(f"const IMAGES = {text};\n", encoding="utf-8")
    page = render(
        "images.html.jinja",
        **titles,
        systems=comparison.names,
        policies=[(policy, policy_text(policy)) for policy in comparison.policies],
        groups=[(key, _group_title(key), names) for key, names, _ in table.groups],
        truth_colour=TRUTH_COLOUR,
        count=len(table.ids),
        shown=len(sizes),
    )
    write_text(out / IMAGES_PAGE, page)


def _group_title(column: str) -> str:
    return column.removeprefix("x_").replace("_", " ").capitalize()


class _ImageTable:
    """Facts about every evaluated image, column by column, in the order of the ids."""

    def __init__(self, comparison: Comparison, dataset: DataSet) -> None:
        self._comparison = comparison
        self._dataset = dataset
        self._policy = comparison.main_policy
        self._rows = comparison.decisions.drop_duplicates(["image_id", "system"])
        self.ids = pd.Index(np.sort(self._rows["image_id"].unique()), name="image_id")
        first = self._rows.drop_duplicates("image_id").set_index("image_id").reindex(self.ids)
        self.label = first["label"].to_numpy(np.float64)
        self.policies = comparison.policies
        self._of = {
            name: rows.set_index("image_id").reindex(self.ids)
            for name, rows in self._rows.groupby("system")
        }

    @cached_property
    def groups(self) -> list[tuple[str, list[str], npt.NDArray[np.int64]]]:
        """Column, names of the groups, and group of each image (-1 if unknown), by grouping."""
        images = self._dataset.images.drop_duplicates("image_id").set_index("image_id")
        images = images.reindex(self.ids).reset_index()
        groups = dict(image_groups(images))
        subgroups = tuple(self._comparison.protocol.subgroups)
        groups |= image_groups(images, subgroups) if subgroups else {}
        if _CLASS in images:
            kinds = images[_CLASS].astype(object)
            groups = {_CLASS: kinds.where(kinds.notna(), "").to_numpy(object), **groups}
        tables = []
        for column, of_image in groups.items():
            names = sorted({str(name) for name in of_image} - {""})
            if len(names) > 1:
                tables.append((column, names, pd.Index(names).get_indexer(pd.Index(of_image))))
        return tables

    def wrong(self) -> npt.NDArray[np.bool_]:
        """Return True for images that some system calls wrongly or at a wrong location."""
        column = f"decision_{self._policy}"
        wrong = np.zeros(len(self.ids), dtype=bool)
        for rows in self._of.values():
            if column not in rows:
                continue
            called = rows[column].astype("boolean")
            at_fault = (called != (self.label == 1)) & ~np.isnan(self.label)
            wrong |= at_fault.fillna(False).to_numpy(bool)
            misplaced = np.array([step == 0 for step in _places(rows) or ()])
            if len(misplaced):
                lost = called & (self.label == 1) & misplaced
                wrong |= lost.fillna(False).to_numpy(bool)
        return wrong

    def content(
        self,
        sizes: Mapping[int, tuple[int, int]],
        drawn: Mapping[str, Sequence[str]],
        gaps: Mapping[str, float],
    ) -> dict[str, Any]:
        """Return the content of ``images.js``.

        Args:
            sizes: Original width and height of the images with a thumbnail, px, by row.
            drawn: Location of each drawn case as page and anchor, by image id.
            gaps: Disagreement of the systems on each image.

        Returns:
            The content, ready for JSON.
        """
        places = exploration(self._comparison)[1].reindex(self.ids)
        target = self._dataset.target(self._comparison.finding)
        truth = self._dataset.target_boxes(target)
        trusted = self._dataset.boxes_trusted(target)
        shown = list(sizes)
        return {
            "ids": self.ids.astype(str).tolist(),
            "label": [None if np.isnan(label) else int(label) for label in self.label],
            "gap": [gaps.get(str(image_id), 0.0) for image_id in self.ids],
            "policies": {policy: policy_text(policy) for policy in self.policies},
            "policy": self._policy,
            "truth_colour": TRUTH_COLOUR,
            "boxed": self.ids.isin(trusted).astype(int).tolist(),
            "truth": _flat_boxes(truth, self.ids, shown),
            "size": {str(place): list(size) for place, size in sizes.items()},
            "drawn": {
                str(place): [*drawn[image_id]]
                for place, image_id in enumerate(self.ids.astype(str))
                if image_id in drawn
            },
            "groups": [
                {"key": key, "title": _group_title(key), "names": names, "of": of.tolist()}
                for key, names, of in self.groups
            ],
            "systems": [
                self._system(position, name, places[name], shown)
                for position, name in enumerate(self._comparison.names)
            ],
        }

    def _system(
        self, position: int, name: str, places: pd.Series, shown: list[int]
    ) -> dict[str, Any]:
        rows = self._of[name]
        result = self._comparison.systems[name]
        calls = np.zeros(len(self.ids), dtype=np.int64)
        for bit, policy in enumerate(self.policies):
            column = rows.get(f"decision_{policy}")
            called = pd.Series(pd.NA, rows.index) if column is None else column
            calls += (called.astype("boolean").fillna(False).to_numpy(int)) << bit
        thresholds = [result.thresholds.get(policy) for policy in self.policies]
        points = rows.reindex(columns=["point_x", "point_y"]).round(0)
        return {
            "name": name,
            "colour": system_colour(position),
            "maps": result.maps is not None,
            "thresholds": thresholds,
            "decided": [bit for bit, threshold in enumerate(thresholds) if threshold is not None],
            "score": _figures(rows["score"]),
            "probability": _figures(rows.get("probability", rows["score"] * np.nan)),
            "called": calls.tolist(),
            "placed": _places(rows),
            "step": [None if np.isnan(place) else int(place) for place in places],
            "point": {
                str(place): [int(x), int(y)]
                for place, (x, y) in zip(shown, points.to_numpy(np.float64)[shown], strict=True)
                if not np.isnan(x)
            },
            "boxes": {} if result.boxes is None else _flat_boxes(result.boxes, self.ids, shown),
        }


def _figures(values: pd.Series) -> list[float | None]:
    """Round to six digits, which still distinguish thresholds; NaN becomes None."""
    numbers = values.astype("float64").to_numpy(np.float64)
    return [None if np.isnan(value) else float(f"{value:.6g}") for value in numbers]


def _places(rows: pd.DataFrame) -> list[int | None] | None:
    """Return 1 if the scored point lies on a lesion, 2 if near it by one map cell, else 0.

    A value is None where this is unknown; the whole result is None if no image was located.
    """
    if "localised" not in rows:
        return None
    near = rows.get("localised_tolerant", rows["localised"])
    return [
        None if pd.isna(on) else 1 if on else 2 if not pd.isna(by) and by else 0
        for on, by in zip(rows["localised"], near, strict=True)
    ]


def _flat_boxes(boxes: pd.DataFrame, ids: pd.Index, shown: list[int]) -> dict[str, list[float]]:
    """Return the boxes of the shown images as flat lists, the most confident boxes first.

    Args:
        boxes: Boxes with ``image_id``, corners in original px and, where known, ``score``.
        ids: Ids of all images.
        shown: Positions of the shown images among the ids.

    Returns:
        Rounded corners and, where known, the score of each box, by position of the image.

    Example:
        >>> boxes = pd.DataFrame({"image_id": ["b", "b"], "x1": [1.2, 0], "y1": [2, 0],
        ...     "x2": [3, 4], "y2": [4, 4], "score": [0.12, 0.9]})
        >>> _flat_boxes(boxes, pd.Index(["a", "b"]), [1])
        {'1': [0, 0, 4, 4, 0.9, 1, 2, 3, 4, 0.12]}
    """
    positions = ids.get_indexer(pd.Index(boxes["image_id"]))
    kept = np.isin(positions, shown)
    rows = boxes[kept]
    positions = positions[kept]
    corners = rows[EDGES].to_numpy(np.float64).round().astype(int)
    score = rows["score"].to_numpy(np.float64) if "score" in rows else np.zeros(len(rows))
    order = np.lexsort((-score, positions))
    starts = np.flatnonzero(np.diff(positions[order], prepend=-1))
    flat = {}
    for members in np.split(order, starts[1:]) if len(order) else []:
        numbers: list[float] = []
        for row in members[:_MOST_BOXES]:
            numbers += corners[row].tolist()
            numbers += [float(f"{score[row]:.6g}")] if "score" in rows else []
        flat[str(positions[members[0]])] = numbers
    return flat


def _chosen(table: _ImageTable, most: int, seed: int) -> list[int]:
    """Choose the images that get a thumbnail: wrong ones first, then others at random."""
    count = len(table.ids)
    if most >= count:
        return list(range(count))
    chance = np.random.default_rng(seed).random(count)
    return sorted(np.lexsort((chance, ~table.wrong()))[:most].tolist())


def _write_thumbnails(
    dataset: DataSet,
    ids: pd.Index,
    chosen: list[int],
    folder: Path,
    progress: Callable[..., None] | None,
) -> dict[int, tuple[int, int]]:
    """Write a thumbnail of each chosen image, and return the original width and height of each.

    Images whose file cannot be read are left out.
    """

    def write(position: int) -> tuple[int, int] | None:
        try:
            pixels = dataset.read_original(str(ids[position]))
        except InputError:
            return None
        # Files are numbered because ids may contain slashes. No temporary file is needed, because
        # the page that names the files is written last.
        small = encode_webp(pixels, THUMBNAIL_SIDE, quality=_QUALITY, method=2)
        (folder / f"{position:05d}.webp").write_bytes(small)
        return pixels.shape[1], pixels.shape[0]

    sizes = {}
    with ThreadPoolExecutor(_READERS) as pool:
        for position, size in zip(chosen, pool.map(write, chosen), strict=True):
            if size is not None:
                sizes[position] = size
            if progress is not None:
                progress()
    return sizes
