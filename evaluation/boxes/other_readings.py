"""Trial of known mistakes in predicted boxes, such as y written before x, against the true boxes.

If few predicted boxes match a true box, the boxes may have been written in another way than they
were read. The trial tells a user so, in a sentence. It never changes a box, a label or a figure:
boxes are not turned, scaled, mirrored or renumbered because the labels fit better.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.box_readings import BoxForm, corners_of, values_of
from cxr_compare.data_prep.contracts.boxes import box_iou
from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.best_precision import best_precision
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs, pair_boxes
from cxr_compare.evaluation.statistics.arrays import Floats

_IOU = 0.5
_MOST = 0.5  # AP50 from which enough boxes match, and nothing is tried
_LEAST_RISE = 0.1  # by which the AP50 must rise at least, see docs/evaluation.md
_FEWEST = 5  # true boxes that must match by the other reading and by no box as read
_NEAR = 0.02  # difference of AP50 below which the simpler reading comes first
_RECALLS = np.linspace(0.0, 1.0, 101)
_THOUSAND = 1000.0
_SHOWN = 3  # classes that a sentence names
_LEAST_FACTOR = 1.05  # below which boxes are not called scaled
_AGREEMENT = np.log(1.5)  # within which position and size of a box must give one factor
_WINDOW = 0.05  # of the logarithm of a factor, within which votes are for the same one
_LANDED = 0.9  # share of the boxes whose image must exist after renumbering
_UNMATCHED = np.array([-3.0, -3.0, -2.0, -2.0])  # in place of a box without width or height
_FORM_TEXTS: dict[BoxForm, str] = {
    "xyxy": "corners",
    "xywh": "x, y, width and height",
    "cxcywh": "centre, width and height",
}
_FORM_PAIRS: tuple[tuple[BoxForm, BoxForm], ...] = (
    ("xyxy", "xywh"),
    ("xywh", "xyxy"),
    ("xyxy", "cxcywh"),
    ("xywh", "cxcywh"),
    ("cxcywh", "xyxy"),
    ("cxcywh", "xywh"),
)


def reread_form(corners: Floats, read_as: BoxForm, written: BoxForm) -> Floats:
    """Return the corners of boxes whose numbers were read in one form and written in another.

    Example:
        >>> reread_form(np.array([[10.0, 20, 30, 40]]), "xyxy", "xywh").tolist()
        [[10.0, 20.0, 40.0, 60.0]]
    """
    of_px = np.full((len(corners), 2), np.nan)  # the sizes of images matter to shares alone
    return corners_of(values_of(corners, read_as), written, "px", of_px)


def swapped_axes(corners: Floats) -> Floats:
    """Return boxes with x in the place of y, and y in the place of x, shape ``(N, 4)``."""
    return corners[:, [1, 0, 3, 2]]


class OtherReading(NamedTuple):
    """Another way to read predicted boxes, by which far more of them match a true box.

    Attributes:
        name: The reading, as the end of "read ...", such as "as y, x, y, x".
        advice: What the user does if this reading is meant, as an instruction.
        ap50: AP50 that the boxes would have, in [0, 1].
        now: AP50 of the boxes as they were read, in [0, 1].

    Example:
        >>> OtherReading("as y, x, y, x", 'say order="yxyx" to boxes_table', 0.83, 0.02).text()
        'Read as y, x, y, x, the AP50 would be 0.83 (now 0.02); if that is meant, say order=...'
    """

    name: str
    advice: str
    ap50: float
    now: float

    def text(self, system: str = "") -> str:
        """Return the sentence on this reading, with the name of the system if there is one."""
        of_system = f" of {system}" if system else ""
        return (
            f"Read {self.name}, the AP50{of_system} would be {self.ap50:.2f} (now {self.now:.2f}); "
            f"if that is meant, {self.advice}."
        )


class _Candidate(NamedTuple):
    """A reading to try, with the pairs of predicted and true boxes that it gives."""

    name: str
    advice: str
    pairs: BoxPairs


def other_readings(
    boxes: pd.DataFrame, true_boxes: pd.DataFrame, sizes: pd.DataFrame, *, system: str = ""
) -> list[OtherReading]:
    """Try the known mistakes in predicted boxes, if few boxes match a true box.

    Tried are y before x, coordinates from 0 to 1000, sizes taken for corners and the reverse, the
    centre taken for a corner and the reverse, px of a resized image, images mirrored left to right,
    classes that are numbered differently, and numbers of images that count them in another way. A
    reading is returned if the AP50 as read is below 0.5 and the other AP50 is higher by at least
    0.1 (1 / sqrt(n) if the number n of true boxes is below 100), and if at least 5 true boxes match
    by it that no box matches as read. That with the highest AP50 comes first; of readings whose
    AP50 differs by less than 0.02, the simplest one.

    Classes are tried if both tables have the column ``finding``. `sizes` has a row for each
    evaluated image: ``image_id`` and, where known, ``width`` and ``height`` in px, without which
    mirrored boxes and coordinates from 0 to 1000 cannot be recognised. `system` is named in the
    advice on options of ``cxr compare``; empty if only those of `boxes_table` are of use.
    """
    trial = _Trial(boxes, true_boxes, sizes, system)
    pairs = trial.pairs
    if not len(pairs.boxes.score) or not len(pairs.truth.image):
        return []
    now = _ap50(pairs)
    if now >= _MOST:
        return []
    # The second ones are slower, and only tried if the first explain nothing.
    readings = _better(trial.coordinates(), pairs, now) or _better(trial.identities(), pairs, now)
    best = max((reading.ap50 for reading in readings), default=0.0)
    return sorted(readings, key=lambda each: -min(each.ap50, best - _NEAR))


def _better(candidates: Iterable[_Candidate], pairs: BoxPairs, now: float) -> list[OtherReading]:
    """Return the candidates that are far better than the boxes as they were read."""
    least = now + max(_LEAST_RISE, 1 / np.sqrt(len(pairs.truth.image)))
    found_now = _found(pairs)
    readings = []
    for name, advice, other in candidates:
        found = _found(other)
        is_possible = found.mean() >= least - 0.01  # AP50 is at most the recall, in steps of 0.01
        if not is_possible or (found & ~found_now).sum() < _FEWEST:
            continue
        ap50 = _ap50(other)
        if ap50 >= least:
            readings.append(OtherReading(name, advice, ap50, now))
    return readings


def _ap50(pairs: BoxPairs) -> float:
    """Return COCO's AP50 of the pairs."""
    hit = match_pairs(pairs, [_IOU]).hit[:, 0]
    called = np.flatnonzero(hit) + 1
    return float(best_precision(called, len(pairs.truth.image), _RECALLS).mean())


def _found(pairs: BoxPairs) -> npt.NDArray[np.bool_]:
    """Return True for the true boxes that overlap enough with any predicted box."""
    found = np.zeros(len(pairs.truth.image), dtype=bool)
    found[pairs.true[pairs.iou >= _IOU]] = True
    return found


class _Trial:
    """Predicted and true boxes, paired as they were read, with all other readings of them."""

    def __init__(
        self, boxes: pd.DataFrame, true_boxes: pd.DataFrame, sizes: pd.DataFrame, system: str
    ) -> None:
        self._ids = pd.Index(sizes["image_id"]).astype(TEXT)
        self._has_classes = "finding" in boxes and "finding" in true_boxes
        self._boxes = _evaluated(boxes, self._ids)
        self._truth = _evaluated(true_boxes, self._ids)
        self._system = system
        self.pairs = self._paired(self._boxes)
        known = sizes.reindex(columns=["width", "height"]).astype(np.float64).to_numpy()
        of_box = positions(self._boxes["image_id"], self._ids)[self.pairs.boxes.row]
        self._sizes = known[of_box]  # (N, 2), width and height of the image of each box

    def _paired(self, boxes: pd.DataFrame) -> BoxPairs:
        """Pair boxes of the same image and, where both are known, of the same class."""
        truth = self._truth
        if self._has_classes:
            boxes = boxes.assign(image_id=boxes["image_id"] + "\n" + boxes["finding"].astype(TEXT))
            truth = truth.assign(image_id=truth["image_id"] + "\n" + truth["finding"].astype(TEXT))
            keys = pd.Index(pd.concat([truth["image_id"], boxes["image_id"]]).unique())
            return pair_boxes(boxes, truth, keys)
        return pair_boxes(boxes, truth, self._ids)

    def coordinates(self) -> Iterator[_Candidate]:
        """Yield the readings by which boxes lie elsewhere in their images, the simplest first."""
        corners = self.pairs.boxes.corners
        swapped = swapped_axes(corners)
        of_order = self._advice("order", "yxyx")
        yield self._moved("as y, x, y, x", f"say {of_order}", swapped)
        yield from self._scaled(corners, "", "")
        yield from self._scaled(swapped, "as y, x, y, x, ", f"say {of_order}, and ")
        for read_as, other in _FORM_PAIRS:
            reread = reread_form(corners, read_as, other)
            name = f"as {_FORM_TEXTS[other]}, not as {_FORM_TEXTS[read_as]}"
            yield self._moved(name, f"say {self._advice('form', other)}", reread)
        x1, y1, x2, y2 = corners.T
        width = self._sizes[:, 0]
        mirrored = np.column_stack([width - x2, y1, width - x1, y2])
        advice = "give x1 = width - x2 and x2 = width - x1"
        yield self._moved("mirrored left to right", advice, mirrored)

    def identities(self) -> Iterator[_Candidate]:
        """Yield the readings by which boxes are of other classes or images."""
        yield from self._renamed()
        yield from self._renumbered()

    def _advice(self, role: str, value: str) -> str:
        """Return the options by which a user states the order or the form of the numbers."""
        option = "box_format" if role == "form" else role
        of_python = f'{option}="{value}" to boxes_table'
        if not self._system:
            return of_python
        return f"{of_python} or --columns {shlex.quote(f'{self._system}.box_{role}={value}')}"

    def _moved(self, name: str, advice: str, corners: Floats) -> _Candidate:
        """Return a reading by which the boxes have other corners in the same images."""
        is_box = np.all(corners[:, :2] < corners[:, 2:], axis=1)  # False for NaN
        moved = np.where(is_box[:, None], corners, _UNMATCHED)
        pairs = self.pairs
        iou = box_iou(moved[pairs.box], pairs.truth.corners[pairs.true])
        return _Candidate(name, advice, replace(pairs, iou=iou))

    def _scaled(self, corners: Floats, name: str, advice: str) -> Iterator[_Candidate]:
        """Yield the units other than px: thousandths of the image, and px of a resized image."""
        sides = np.hstack([self._sizes, self._sizes])
        if not np.isnan(sides).any():
            yield self._moved(
                f"{name}in coordinates from 0 to 1000",
                f"{advice}give x * width / 1000 and y * height / 1000",
                corners * sides / _THOUSAND,
            )
        pairs = self.pairs
        of_pair = corners[pairs.box]
        true = pairs.truth.corners[pairs.true]
        factor = _common_factor(of_pair, true, pairs.boxes.score[pairs.box])
        if factor is not None and abs(np.log(factor)) > np.log(_LEAST_FACTOR):
            said = f"{factor:.3g}"
            yield self._moved(
                f"{name}in px of a resized image (factor {said})",
                f"{advice}give x * {said} and y * {said}",
                corners * float(said),
            )
        if np.isnan(sides).any() or (sides == sides[0, 0]).all():
            return
        share = _common_factor(of_pair, true / sides[pairs.box], pairs.boxes.score[pairs.box])
        if share is not None and abs(np.log(share * _THOUSAND)) > np.log(_LEAST_FACTOR):
            side = f"{1 / share:.0f}"
            yield self._moved(
                f"{name}in px of images resized to {side} x {side}",
                f"{advice}give x * width / {side} and y * height / {side}",
                corners * sides / float(side),
            )

    def _renamed(self) -> Iterator[_Candidate]:
        """Yield the classes by which most boxes match a true box, if they are others."""
        if not self._has_classes:
            return
        pairs = pair_boxes(self._boxes, self._truth, self._ids)
        matching = pairs.iou >= _IOU
        of_boxes = self._boxes["finding"].astype(TEXT)
        of_truth = self._truth["finding"].astype(TEXT)
        order = np.argsort(positions(self._truth["image_id"], self._ids), kind="stable")
        votes = pd.crosstab(
            of_boxes.to_numpy()[pairs.boxes.row[pairs.box[matching]]],
            of_truth.to_numpy()[order[pairs.true[matching]]],
        )
        if votes.empty:
            return
        others = {own: other for own, other in votes.idxmax(axis=1).items() if own != other}
        if not others:
            return
        shown = [f"{own} as {other}" for own, other in list(others.items())[:_SHOWN]]
        more = ", ..." if len(others) > _SHOWN else ""
        renamed = self._boxes.assign(finding=of_boxes.replace(others))
        yield _Candidate(
            f"with other classes ({', '.join(shown)}{more})",
            "state class_names, as the classes may be counted from 0 or from 1",
            self._paired(renamed),
        )

    def _renumbered(self) -> Iterator[_Candidate]:
        """Yield other images of the boxes, if all images have numbers."""
        parts = self._ids.to_series().str.extract(r"^(.*?)(\d{1,15})$")
        if parts.isna().to_numpy().any() or parts[0].nunique() > 1:
            return
        number = parts[1].astype(np.int64).to_numpy()
        if len(np.unique(number)) < len(number):
            return
        order = np.argsort(number)
        ids = self._ids[order]
        number = number[order]
        own = np.arange(len(ids))
        meant = {
            "with images numbered from 0, not from 1": _index(number + 1, number),
            "with images numbered from 1, not from 0": _index(number - 1, number),
            "with the number of an image as its position, counted from 1": number - 1,
            "with the number of an image as its position, counted from 0": number,
            "with the position of an image as its number, counted from 1": _index(own + 1, number),
            "with the position of an image as its number, counted from 0": _index(own, number),
        }
        of_box = positions(self._boxes["image_id"], ids)
        tried = [own]
        for name, image in meant.items():
            image = np.where((image >= 0) & (image < len(ids)), image, -1)
            if any(np.array_equal(image, other) for other in tried):
                continue
            tried.append(image)
            landed = image[of_box] >= 0
            if landed.mean() < _LANDED:
                continue
            moved = self._boxes[landed].assign(image_id=ids[image[of_box][landed]])
            advice = "give the file name of the image of each box in place of a number"
            yield _Candidate(name, advice, self._paired(moved))


def _index(values: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the position of each value among sorted numbers; -1 where it is not among them."""
    found = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[found] == values, found, -1)


def _common_factor(predicted: Floats, true: Floats, weights: Floats) -> float | None:
    """Return the factor from predicted to true boxes by which most pairs agree, by their weights.

    A pair (corners in rows, shape ``(pairs, 4)``) votes if its centres, its widths and its heights
    give nearly the same factor. None if no pair votes.
    """
    positive = _centre_and_size(predicted) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(_centre_and_size(true) / _centre_and_size(predicted))
    votes = positive.all(axis=1) & (np.ptp(logs, axis=1) <= _AGREEMENT)  # False for NaN
    if not votes.any():
        return None
    factors = logs[votes].mean(axis=1)
    order = np.argsort(factors)
    factors = factors[order]
    sums = np.append(0.0, np.cumsum(weights[votes][order]))
    first = np.searchsorted(factors, factors - _WINDOW)
    last = np.searchsorted(factors, factors + _WINDOW, side="right")
    best = int(np.argmax(sums[last] - sums[first]))
    return float(np.exp(factors[first[best] : last[best]].mean()))


def _centre_and_size(corners: Floats) -> Floats:
    """Return centre, width and height of boxes, shape ``(N, 4)``."""
    return values_of(corners, "cxcywh")


def _evaluated(table: pd.DataFrame, ids: pd.Index) -> pd.DataFrame:
    """Return the rows of the evaluated images, with ids as texts."""
    table = table.assign(image_id=table["image_id"].astype(TEXT))
    return table[is_member(table["image_id"], ids)].reset_index(drop=True)
