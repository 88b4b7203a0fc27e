"""Sentences on where the boxes of detectors lie, and whether they were read as they are meant."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.boxes.placement import NEAR, Boxes, Placement, Reading
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.replicates import SystemFigures
from cxr_compare.evaluation.statistics.arrays import Integers
from cxr_compare.evaluation.truth import Truth
from cxr_compare.evaluation.verdict.prose import listing


def placed_boxes(truth: Truth, pairs: BoxPairs, *, ranks: bool = True) -> Boxes:
    """Return predicted and true boxes on the images of a truth whose lesions all have boxes."""
    boxed = truth.is_boxed
    patients: Integers = truth.patients[boxed]
    return Boxes(pairs, truth.sizes[boxed], patients, ranks=ranks)


def box_notes(systems: Mapping[str, SystemFigures]) -> list[Note]:
    """Note where the boxes of each detector lie: a caution if another reading fits far better."""
    notes = []
    for name, system in systems.items():
        if system.output.boxes is not None and system.pairs is not None:
            boxes = placed_boxes(system.truth, system.pairs, ranks=system.output.ranks)
            notes += placement_notes(boxes, name)
    return notes


def placement_notes(boxes: Boxes, name: str) -> list[Note]:
    """Note where boxes lie; nothing for the pairs of fewer than ten patients that fit as well."""
    placement = boxes.placement()
    line = "" if placement is None else _placement_text(placement, name, in_px=not boxes.is_sized)
    reading = boxes.better_reading(placement)
    if reading is None:
        return [Note(line)] if line else []
    text = (
        f"{line} {_reading_text(reading, boxes)}, the AP50 of {name} would be "
        f"{reading.after:.2f} (now {reading.now:.2f}). Draw some boxes: was the file read as it is "
        "meant?"
    )
    page = "docs/evaluation.md#where-the-boxes-lie"
    return [Note(text.strip(), "other_reading", page=page)]


def _placement_text(placement: Placement, name: str, *, in_px: bool) -> str:
    """Say which offsets and ratios are shown, each axis apart."""
    parts = []
    for value, is_shown, side, ways in zip(
        placement.values[:2],
        placement.shown[:2],
        ("width", "height"),
        (("left", "right"), ("higher", "lower")),
        strict=True,
    ):
        size = f"{abs(value):.0f} px" if in_px else f"{100 * abs(value):.1f} % of the {side}"
        if is_shown and float(size.split()[0]):
            to = "further " if side == "width" else ""
            parts.append(f"{size} {to}{ways[int(value > 0)]}")
    for value, is_shown, shape in zip(
        placement.values[2:], placement.shown[2:], ("wide", "high"), strict=True
    ):
        if is_shown and f"{value:.2f}" != "1.00":
            parts.append(f"{value:.2f} times as {shape}")
    pairs = f"medians of {placement.n_pairs:,} pairs"
    begin = f"Boxes of {name} against the nearest true ones ({pairs})"
    if parts:
        return f"{begin}: {', '.join(parts)}."
    if placement.iou < NEAR:
        return f"{begin}: IoU {placement.iou:.2f}, so that most do not lie on the lesions."
    return ""


def _reading_text(reading: Reading, boxes: Boxes) -> str:
    """Return the beginning of a sentence on another reading, with what to say or to write."""
    name, *turned = reading.name.split()
    order = " with y before x (box_order=yxyx)"
    if name == "order":
        return f"Read{order}"
    if name == "form":
        form_read, written = reading.details
        return f"Read as {written}, not as {form_read} (box_form={written})"
    if name == "mirrored":
        return "Read mirrored left to right"
    if name == "moved":
        return "Corrected by these medians"
    start, step = np.asarray(reading.details)
    way = f"Read{order if turned else ''}"
    if name == "scaled" and not ((step == 1).all() or not boxes.is_one_size):
        step, name = step * boxes.sizes[0], "copy"
    if name == "scaled":
        factors = [
            f"{axis} times {1 / factor:.3g}"
            for axis, factor in zip("xy", step, strict=True)
            if factor != 1
        ]
        way += f" with {listing([*_subtracted(start), *factors])}"
        return f"{way}, as px of resized images" if factors else way
    size = f"about {step[0]:.0f} x {step[1]:.0f} px"
    way += f" as px of copies of {size}" + ", padded to a square" * (name == "padded")
    if start.any():
        return f"{way}, after {listing(_subtracted(start))}"
    if name == "padded":
        return way
    return f"{way} (write this size as image_width and image_height beside each box)"


def _subtracted(start: np.ndarray) -> list[str]:
    """Return what is to be subtracted from the numbers that were read."""
    signs = ["minus" if value > 0 else "plus" for value in start]
    return [
        f"{axis} {sign} {abs(value):.0f}"
        for axis, sign, value in zip("xy", signs, start, strict=True)
        if value
    ]
