"""Format `labelme`: a JSON for each image, as labelme and X-AnyLabeling write them.

Rectangles (from any corner), masks, polygons and circles become the box around them. Any other
shape, such as a line or a point, shows no extent, so its image is left out. An image whose JSON has
no shape is negative for every class of the folder.

Source:
    https://github.com/wkentaro/labelme/blob/main/labelme/_label_file.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.formats.class_names import class_finding
from cxr_compare.data_prep.formats.columns import column_dictionary
from cxr_compare.data_prep.formats.folder_scan import contains, files_below, has_text
from cxr_compare.data_prep.formats.image_index import ImageIndex
from cxr_compare.data_prep.formats.image_label_files import gather_label_files, roles_by_folder
from cxr_compare.data_prep.formats.label_file_kinds import LABELME_MARKS
from cxr_compare.data_prep.formats.label_files import LabelFiles
from cxr_compare.data_prep.formats.label_names import Label, normal_classes
from cxr_compare.data_prep.formats.label_values import finite_or_nan, parse_side
from cxr_compare.data_prep.formats.source import Format, SourceBuilder, SourceTables

_FLAG_ROLES = ("finding", "no_finding", "unused")
# Numbers of points that a shape of each type may have.
_POINTS = {"rectangle": (2, 4), "mask": (2,), "rotation": (4,), "circle": (2,)}


@dataclass(frozen=True)
class _Flags:
    """Meaning of the flags of whole images, which have names of the user's choice."""

    findings: set[str]
    normal: set[str]
    unused: set[str]

    def role(self, flag: str) -> str | None:
        """Return finding, no_finding or unused; None if nobody said what the flag means."""
        if flag in self.unused:
            return "unused"
        name = class_finding(flag, "flags")
        if flag in self.normal or name in normal_classes():
            return "no_finding"
        return "finding" if flag in self.findings or name in self.findings else None


def _read_labelme(builder: SourceBuilder) -> SourceTables:
    """Read a folder of labelme's files and images."""
    source = builder.root
    paths = [
        path for path in files_below(source, ".json") if contains(source / path, LABELME_MARKS)
    ]
    if not paths:
        builder.require_format()
        raise InputError(f"{source}: holds no JSON of labelme")
    gathered = LabelFiles(builder)
    flags_of: dict[str, dict[str, bool]] = {}

    def gather(image: str, content: dict[str, Any]) -> None:
        flags = content.get("flags") or {}
        if not isinstance(flags, dict) or not all(isinstance(v, bool) for v in flags.values()):
            raise InputError("flags is no object of true and false")
        _gather(image, content, gathered)
        flags_of[image] = flags

    file_by_image = gather_label_files(
        gathered,
        ImageIndex(source),
        paths,
        partial(_read_file, source),
        gather,
        count=lambda content: len(content["shapes"]),
    )
    meaning = _meaning_of_flags(builder, gathered, flags_of)
    flags = [f for flags in flags_of.values() for f in flags if meaning.role(f) == "finding"]
    labels = gathered.name_boxes(str(source), flags)
    _gather_flags(gathered, flags_of, meaning, labels)
    gathered.roles = roles_by_folder(file_by_image, gathered.images)
    return gathered.build_tables()


def _read_file(source: Path, path: str) -> tuple[dict[str, Any], list[str]]:
    content = read_json_file(source / path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise InputError("has no list of shapes")
    name = content.get("imagePath")
    return content, [name] if isinstance(name, str) else []


def _gather(image: str, content: dict[str, Any], gathered: LabelFiles) -> None:
    """Gather the shapes of one file: all of them, or none if one is wrong."""
    sides = [parse_side(content.get(key)) for key in ("imageWidth", "imageHeight")]
    boxes = []
    for number, shape in enumerate(content["shapes"], start=1):
        where = f"shape {number}"
        label = shape.get("label") if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"{where}: has no label")
        kind = str(shape.get("shape_type") or "polygon")  # files before labelme 3.4 state no type
        class_finding(label, where)  # without a letter it leaves out its image alone
        boxes.append((label, _edges(shape, kind, sides, where)))
        if kind != "rectangle":
            gathered.counts["shapes are no rectangles: the box around each of these is taken"] += 1
    gathered.images[image] = {"width": sides[0], "height": sides[1]}
    for label, edges in boxes:
        gathered.add_box(image, Label(label), edges)


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
    if not (low < high).all():
        raise InputError(f"{where}: a {kind} without area")
    return [*low.tolist(), *high.tolist()]


def _meaning_of_flags(
    builder: SourceBuilder, gathered: LabelFiles, flags_of: dict[str, dict[str, bool]]
) -> _Flags:
    """Return what the flags mean: as the user says by ``--columns``, else by their names."""
    existing = sorted({flag for flags in flags_of.values() for flag in flags})
    stated: dict[str, set[str]] = {role: set() for role in _FLAG_ROLES}
    for text in builder.options.columns:
        role, _, flag = text.partition("=")
        if role not in _FLAG_ROLES or flag not in existing:
            raise InputError(
                f"--columns {text}: say {', '.join(f'{r}=FLAG' for r in _FLAG_ROLES)}, with a flag "
                f"of the files ({', '.join(existing) or 'they have none'})"
            )
        stated[role].add(flag)
    boxed = {class_finding(row[1], "shapes") for row in gathered.boxes}
    names = {*stated["finding"], *boxed, *column_dictionary()["findings"]["names"]}
    return _Flags(names, stated["no_finding"], stated["unused"])


def _gather_flags(
    gathered: LabelFiles,
    flags_of: dict[str, dict[str, bool]],
    meaning: _Flags,
    labels: dict[str, Label],
) -> None:
    """Gather the findings that flags state, and which findings each image was labelled for."""
    boxed: dict[str, set[str]] = {}
    for image, finding, *_ in gathered.boxes:
        boxed.setdefault(image, set()).add(finding)
    denied: dict[str, set[str]] = {}
    for image, finding, _ in gathered.denied:
        denied.setdefault(image, set()).add(finding)
    every = set[str]().union(*boxed.values(), *denied.values())
    unclear: dict[str, str] = {}
    for image, flags in flags_of.items():
        own = boxed.get(image, set())
        set_flags = [flag for flag, is_set in flags.items() if is_set]
        roles = {flag: meaning.role(flag) for flag in set_flags}
        stated = [labels[flag] for flag, role in roles.items() if role == "finding"]
        present = {label.finding for label in stated if label.state == "present"}
        absent = {label.finding for label in stated if label.state == "absent"}
        if "no_finding" in roles.values() and (own or present):
            gathered.exclusions.add([image], "a flag says 'no finding' beside a finding")
            continue
        gathered.partial |= {(image, finding) for finding in present - own}
        gathered.denied |= {(image, finding, REFERENCE_READER) for finding in absent}
        not_understood = [flag for flag, role in roles.items() if role is None]
        if not_understood:  # its findings are unknown but for those that are marked
            unclear[image] = not_understood[0]
            labelled = own | present | absent | denied.get(image, set())
        else:
            named = {labels[f].finding for f in flags if meaning.role(f) == "finding"}
            labelled = every | present | named
        if labelled:
            gathered.classes[image] = tuple(sorted(labelled))
    if unclear:
        names = ", ".join(sorted(set(unclear.values()))[:5])
        gathered.counts[
            f"images have a flag that says nothing known ({names}): findings that are not marked "
            "on them are unknown; say --columns finding=FLAG, no_finding=FLAG or unused=FLAG"
        ] += len(unclear)


LABELME = Format(
    name="labelme",
    title="labelme",
    folder="a `.json` an image, beside it or in a folder of their own",
    detect=has_text(("*.json", "*/*.json"), LABELME_MARKS),
    read=_read_labelme,
    options=("patient_pattern", "columns"),
    is_deep=True,
)
