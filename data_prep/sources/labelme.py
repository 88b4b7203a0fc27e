"""Format `labelme`: a JSON for each image, as labelme and X-AnyLabeling write them.

Rectangles (from any corner), masks, polygons and circles become the box around them. Any other
shape, such as a line or a point, shows no extent, so its image is left out. An image whose JSON has
no shape is negative for every class of the folder.

Source:
    https://github.com/wkentaro/labelme/blob/main/labelme/_label_file.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    LabelFiles,
    Mark,
    parse_side,
    read_annotations,
)
from cxr_compare.data_prep.sources.image_files import contains, files_below, has_text
from cxr_compare.data_prep.sources.image_label_files import read_image_files
from cxr_compare.data_prep.sources.label_values import class_finding, dictionary, normal_classes
from cxr_compare.data_prep.sources.source_tables import Format

LABELME_MARKS = (rb'"shapes"\s*:', rb'"imagePath"\s*:')
"""Keys by which a JSON of labelme is recognised."""
_FLAG_ROLES = ("finding", "no_finding", "unused")
# Numbers of points that a shape of each type may have.
_POINTS = {"rectangle": (2, 4), "mask": (2,), "rotation": (4,), "circle": (2,)}


def _read(files: LabelFiles) -> Iterator[ImageLabels]:
    """Yield the labels of a folder of labelme's files and images."""
    root = files.source.root
    paths = [path for path in files_below(root, ".json") if contains(root / path, LABELME_MARKS)]
    if not paths:
        raise InputError(f"{root}: holds no JSON of labelme")
    flags_of: dict[str, dict[str, bool]] = {}

    def labels_of(image: str, path: str, content: dict[str, Any]) -> ImageLabels:
        flags = content.get("flags") or {}
        if not isinstance(flags, dict) or not all(isinstance(v, bool) for v in flags.values()):
            raise InputError("flags is no object of true and false")
        labels = _labels(image, path, content, files.counts)
        flags_of[image] = flags
        return labels

    labelled = list(
        read_image_files(
            files,
            paths,
            partial(_read_file, root),
            labels_of,
            count=lambda content: len(content["shapes"]),
        )
    )
    role_of = _meaning_of_flags(files.source.options.columns, labelled, flags_of)
    unclear: dict[str, str] = {}
    drawn = [mark.label for labels in labelled for mark in labels.marks]
    for labels in labelled:
        _take_flags(labels, drawn, flags_of.get(labels.image, {}), role_of, unclear)
        yield labels
    if unclear:
        names = ", ".join(sorted(set(unclear.values()))[:5])
        files.counts[
            f"images have a flag that says nothing known ({names}): findings that are not marked "
            "on them are unknown; say --columns finding=FLAG, no_finding=FLAG or unused=FLAG"
        ] += len(unclear)


def _read_file(source: Path, path: str) -> tuple[dict[str, Any], list[str]]:
    content = read_json_file(source / path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise InputError("has no list of shapes")
    name = content.get("imagePath")
    return content, [name] if isinstance(name, str) else []


def _labels(image: str, path: str, content: dict[str, Any], counts: Counter[str]) -> ImageLabels:
    """Return the shapes of one file: all of them, or none if one is wrong."""
    sides = [parse_side(content.get(key)) for key in ("imageWidth", "imageHeight")]
    marks = []
    for number, shape in enumerate(content["shapes"], start=1):
        where = f"shape {number}"
        label = shape.get("label") if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"{where}: has no label")
        class_finding(label, where)
        kind = str(shape.get("shape_type") or "polygon")  # files before labelme 3.4 state no type
        edges = _edges(shape, kind, sides, where)
        if not (edges[0] < edges[2] and edges[1] < edges[3]):
            raise InputError(f"{where}: box of zero size")
        marks.append(Mark(label, edges))
        if kind != "rectangle":
            counts["shapes are no rectangles: the box around each of these is taken"] += 1
    facts = {"width": sides[0], "height": sides[1]}
    return ImageLabels(image, path, marks, absent=None, facts=facts)


def _edges(
    shape: dict[str, Any], kind: str, sides: Sequence[int | None], where: str
) -> list[float]:
    """Return the box x1, y1, x2, y2 around a shape, px."""
    pairs = shape.get("points")
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        raise InputError(f"{where}: its points are no pairs x, y")
    if kind not in (*_POINTS, "polygon"):
        raise InputError(f"{where}: a {kind[:40]} has no extent; draw a rectangle, or remove it")
    if not (len(pairs) in _POINTS[kind] if kind in _POINTS else len(pairs) >= 3):
        raise InputError(f"{where}: a {kind} of {len(pairs)} points")
    points = np.array([finite_or_nan(pair) for pair in pairs])  # (N, 2) x, y, original px
    if np.isnan(points).any():
        raise InputError(f"{where}: its points are not all numbers")
    low = points.min(axis=0)
    high = points.max(axis=0)
    if kind == "circle":  # its centre, and a point on it
        radius = np.hypot(*(points[1] - points[0]))
        low = points[0] - radius
        high = points[0] + radius
    if kind != "rectangle":  # the figure around a lesion at the border may leave the image
        low = np.maximum(low, 0)
        high = np.minimum(high, [side or np.inf for side in sides])
    return [*low.tolist(), *high.tolist()]


def _meaning_of_flags(
    columns: Sequence[str],
    labelled: Sequence[ImageLabels],
    flags_of: dict[str, dict[str, bool]],
) -> dict[str, str]:
    """Return what each flag means (finding, no_finding or unused), which has a name of anybody's.

    The user says it by ``--columns``, else its name does. A flag that is not understood is missing.
    """
    existing = sorted({flag for flags in flags_of.values() for flag in flags})
    roles = {}
    for text in columns:
        role, _, flag = text.partition("=")
        if role in ("box_form", "box_unit"):
            continue
        if role not in _FLAG_ROLES or flag not in existing:
            raise InputError(
                f"--columns {text}: say {', '.join(f'{r}=FLAG' for r in _FLAG_ROLES)}, with a flag "
                f"of the files ({', '.join(existing) or 'they have none'})"
            )
        roles[flag] = role
    drawn = {class_finding(mark.label, "shape") for item in labelled for mark in item.marks}
    findings = {*drawn, *dictionary()["findings"]["names"]}
    for flag in existing:
        name = class_finding(flag, "flags")
        if flag not in roles and name in normal_classes():
            roles[flag] = "no_finding"
        elif flag not in roles and name in findings:
            roles[flag] = "finding"
    return roles


def _take_flags(
    labels: ImageLabels,
    every: Sequence[str],
    flags: dict[str, bool],
    role_of: dict[str, str],
    unclear: dict[str, str],
) -> None:
    """Add the labels that flags state, and say what is absent where no mark names it.

    These are the labels of all shapes (`every`) and of the flags of the own file.
    """
    drawn = {class_finding(mark.label, "shape") for mark in labels.marks}
    for flag, is_set in flags.items():
        role = role_of.get(flag)
        if is_set and role is None:
            unclear.setdefault(labels.image, flag)
        elif is_set and role == "no_finding":
            labels.marks.append(Mark("normal"))
        elif is_set and role == "finding" and class_finding(flag, "flags") not in drawn:
            labels.marks.append(Mark(flag, shares_box=True))
    labels.absent = [*every, *(flag for flag in flags if role_of.get(flag) == "finding")]
    if labels.image in unclear:  # its findings are unknown but for those that are marked
        labels.absent = ()


LABELME = Format(
    name="labelme",
    title="labelme",
    folder="a `.json` an image, beside it or in a folder of their own",
    detect=has_text(("*.json", "*/*.json"), LABELME_MARKS),
    read=partial(read_annotations, "labelme", _read, roles=_FLAG_ROLES),
    options=("patient_pattern", "columns"),
)
