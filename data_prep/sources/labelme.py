"""Format `labelme`: a JSON for each image, as labelme and X-AnyLabeling write them.

Rectangles (from any corner), masks, polygons and circles become the box around them. Any other
shape, such as a line or a point, shows no extent, so its image is left out. An image whose JSON has
no shape is negative for every class of the folder. A table of labels and patients may be given
beside the files.

Source:
    https://github.com/wkentaro/labelme/blob/main/labelme/_label_file.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    Mark,
    read_annotations,
    sides_of,
)
from cxr_compare.data_prep.sources.image_files import contains, files_below, has_file
from cxr_compare.data_prep.sources.image_label_files import read_image_files
from cxr_compare.data_prep.sources.label_values import class_finding, dictionary, normal_classes
from cxr_compare.data_prep.sources.outlines import box_around, pairs_of
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.statements import Source

LABELME_MARKS = (rb'"shapes"\s*:', rb'"imagePath"\s*:')
"""Keys by which a JSON of labelme is recognised."""
_FLAG_ROLES = ("finding", "no_finding", "unused")
# Numbers of points that a shape of each type may have.
_POINTS = {"rectangle": (2, 4), "mask": (2,), "rotation": (4,), "circle": (2,)}


def _read(source: Source) -> Iterator[ImageLabels]:
    """Yield the labels of a folder of labelme's files and images."""
    root = source.root
    paths = [path for path in files_below(root, ".json") if contains(root / path, LABELME_MARKS)]
    if not paths:
        raise InputError(f"{root}: holds no JSON of labelme")
    flags_of: dict[str, dict[str, bool]] = {}
    add_marks = partial(_add_marks, flags_of)
    labelled = list(read_image_files(source, paths, partial(_read_file, root), add_marks))
    drawn = list(dict.fromkeys(mark.label for labels in labelled for mark in labels.marks))
    # With a table, --columns name the columns of the table.
    columns = () if source.options.labels else source.options.columns
    meaning = _meaning_of_flags(columns, drawn, flags_of)
    for labels in labelled:
        flags = flags_of.get(labels.image, {})
        labels.absent = [*drawn, *(flag for flag in flags if meaning[flag] == "finding")]
        _take_flags(labels, [flag for flag, is_set in flags.items() if is_set], meaning, source)
        yield labels


def _read_file(source: Path, path: str) -> tuple[dict[str, Any], list[str]]:
    content = read_json_file(source / path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise InputError("has no list of shapes")
    flags = content.get("flags") or {}
    if not isinstance(flags, dict) or not all(isinstance(v, bool) for v in flags.values()):
        raise InputError("flags is no object of true and false")
    name = content.get("imagePath")
    return content, [name] if isinstance(name, str) else []


def _add_marks(
    flags_of: dict[str, dict[str, bool]],
    source: Source,
    labels: ImageLabels,
    content: dict[str, Any],
) -> None:
    with source.reading_mark(labels.image, labels.file):
        labels.facts = sides_of(content.get("imageWidth"), content.get("imageHeight"))
    sides = (labels.facts.get("width"), labels.facts.get("height"))
    for number, shape in enumerate(content["shapes"], start=1):
        with source.reading_mark(labels.image, f"{labels.file}: shape {number}"):
            label = shape.get("label") if isinstance(shape, dict) else None
            if not isinstance(label, str) or not label.strip():
                raise InputError("has no label")
            kind = str(shape.get("shape_type") or "polygon")  # labelme before 3.4 states no type
            box = _box(shape, kind, sides)
            labels.marks.append(Mark(label).with_box(box, kind != "rectangle"))
    flags_of[labels.image] = content.get("flags") or {}


def _box(shape: dict[str, Any], kind: str, sides: Sequence[int | None]) -> list[float]:
    """Return the box x1, y1, x2, y2 around a shape, px."""
    points = pairs_of(shape.get("points"))
    if np.isnan(points).any():
        raise InputError("its points are no pairs of numbers")
    if kind not in (*_POINTS, "polygon"):
        raise InputError(f"a {kind[:40]} has no extent; draw a rectangle, or remove it")
    if not (len(points) in _POINTS[kind] if kind in _POINTS else len(points) >= 3):
        raise InputError(f"a {kind} of {len(points)} points")
    if kind == "rectangle":
        return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
    if kind == "circle":  # its centre, and a point on it
        radius = np.hypot(*(points[1] - points[0]))
        points = np.array([points[0] - radius, points[0] + radius])
    return box_around(points, sides)


def _meaning_of_flags(
    columns: Sequence[str], drawn: Sequence[str], flags_of: dict[str, dict[str, bool]]
) -> dict[str, str]:
    """Return what each flag means: finding, no_finding, unused, or "" if that is not known.

    The user says it by ``--columns``, else its name does.
    """
    names = {class_finding(label, "shape") for label in drawn}
    names |= set(dictionary()["findings"]["names"])
    meaning = {}
    for flag in dict.fromkeys(flag for flags in flags_of.values() for flag in flags):
        name = class_finding(flag, "flags")
        known = "finding" if name in names else ""
        meaning[flag] = "no_finding" if name in normal_classes() else known
    for text in columns:
        role, _, flag = text.partition("=")
        if role in _FLAG_ROLES and flag not in meaning:
            existing = ", ".join(meaning) or "they have none"
            raise InputError(f"--columns {text}: no flag of the files has this name ({existing})")
        if role in _FLAG_ROLES:
            meaning[flag] = role
    return meaning


def _take_flags(
    labels: ImageLabels, are_set: Sequence[str], meaning: dict[str, str], source: Source
) -> None:
    """Add the labels that flags state. One that is not understood leaves others unknown."""
    drawn = {class_finding(mark.label, "shape") for mark in labels.marks}
    for flag in are_set:
        if meaning[flag] == "no_finding":
            labels.marks.append(Mark("normal"))
        elif meaning[flag] == "finding" and class_finding(flag, "flags") not in drawn:
            labels.marks.append(Mark(flag, shares_box=True))
    unclear = [flag for flag in are_set if not meaning[flag]]
    if unclear:
        labels.absent = ()
        text = "have a flag that says nothing known: findings that are not marked on these images"
        answer = "say --columns finding=FLAG, no_finding=FLAG or unused=FLAG"
        source.counts[f"images {text} are unknown; {answer} ({unclear[0][:40]})"] += 1


LABELME = Format(
    name="labelme",
    title="labelme",
    folder="a `.json` an image, beside it or in a folder of their own",
    detect=has_file(("*.json", "*/*.json"), partial(contains, texts=LABELME_MARKS)),
    read=partial(read_annotations, "labelme", _read, roles=_FLAG_ROLES),
    options=("labels", "sheet", "reference", "patient_pattern", "columns"),
    found_in_folder=True,
)
