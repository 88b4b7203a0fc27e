"""Label files of annotation tools: COCO, CVAT, Label Studio, and one file an image (YOLO, VOC, labelme).

An annotation that cannot be read never makes its image negative: the image is left out, and if a tenth of the
annotations cannot be read, the whole source is refused (`boxes.read_boxes`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from defusedxml import ElementTree

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.sources.boxes import Form, Unit, turned
from cxr_compare.data_prep.sources.statements import (
    Options,
    Source,
    Statements,
    add_patients,
    build,
    finding_name,
    is_normal,
    list_images,
)

_ROLE_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "test": "test",
    "train2017": "train",
    "val2017": "val",
}
_NAN = (float("nan"),) * 4


class Mark(NamedTuple):
    """One annotation: a label, four numbers (None if they cannot be read), and how it is turned."""

    label: str
    box: tuple[float, ...] | None
    degrees: float = 0.0
    pivot: str = "centre"
    reason: str = ""
    crowd: bool = False  # several lesions in one box: the finding is present, the box is left out


class Marked(NamedTuple):
    """The annotations of one image in one label file."""

    image: str  # path or name of the image, or of the label file without suffix
    marks: list[Mark]
    width: float = np.nan
    height: float = np.nan
    read: bool = True  # False: nobody looked at the image, so nothing is absent on it


def read_annotations(root: Path, name: str, options: Options) -> Source:
    """Read a folder of images with label files of one format."""
    files = list_images(root)
    if files.empty:
        raise InputError(f"{root}: holds no image")
    files["image_id"] = files["path"].str.replace(r"\.\w+$", "", regex=True)
    if files["image_id"].duplicated().any():
        twice = files.loc[files["image_id"].duplicated(), "path"].iloc[0]
        raise InputError(f"{root}: two files have the name of {twice}")
    reader = READERS[name]
    find = _finder(files)
    statements = Statements(reader.form, reader.unit)
    source = Source(name, root, files[["image_id", "path"]])
    sizes: dict[str, tuple[float, float]] = {}
    seen: dict[str, set[str]] = {}
    classes: set[str] = set(map(finding_name, options.class_names))
    n_turned = n_sorted = 0
    for where, marked in reader.read(root, files, options, classes):
        image_id = find(marked.image)
        if image_id is None:
            source.exclude([f"{where}: {marked.image}"], "no such image, or several of this name")
            continue
        sizes[image_id] = (marked.width, marked.height)
        if marked.read:
            seen.setdefault(image_id, set())
        for mark in marked.marks:
            label = finding_name(mark.label)
            if is_normal(label):
                continue
            classes.add(label)
            seen.setdefault(image_id, set()).add(label)
            if mark.box is None:
                statements.cannot_read(image_id, f"{where}: {mark.reason}")
                continue
            if mark.crowd:
                statements.add(image_id, label)
                continue
            box = mark.box
            if mark.degrees:
                n_turned += 1
                corners = (
                    np.array(box, float)
                    if reader.form == "xyxy"
                    else np.array([*box[:2], box[0] + box[2], box[1] + box[3]])
                )
                x1, y1, x2, y2 = turned(
                    corners, mark.degrees, (marked.width, marked.height), mark.pivot
                )
                box = (x1, y1, x2, y2) if reader.form == "xyxy" else (x1, y1, x2 - x1, y2 - y1)
            if reader.form == "xyxy" and (box[0] > box[2] or box[1] > box[3]):
                n_sorted += 1
            statements.add(image_id, label, box)
    if not seen and not statements.unread:
        raise InputError(f"{root}: {reader.nothing}")
    classes = {label for label in classes if not is_normal(label)}
    for image_id, present in seen.items():
        for label in sorted(classes - present):
            statements.add(image_id, label, state="absent")
    unseen = files.loc[~files["image_id"].isin([*seen, *statements.unread]), "image_id"]
    if len(unseen):
        source.notes.append(
            f"{counted(len(unseen), 'image')} without a label file: their findings are unknown, not absent"
        )
    if n_turned:
        source.notes.append(
            f"{counted(n_turned, 'box')} turned by its tool: the upright box around it is taken"
        )
    if n_sorted:
        source.notes.append(
            f"{counted(n_sorted, 'box')} drawn from another corner: corners are sorted"
        )
    stated = pd.DataFrame.from_dict(
        sizes, orient="index", columns=["width", "height"], dtype="float64"
    )
    source.images = source.images.merge(
        stated, left_on="image_id", right_index=True, how="left"
    ).assign(source=name)
    if stated.isna().all(axis=None):
        source.images = source.images.drop(columns=["width", "height"])
    roles = source.images["path"].map(
        lambda p: next(
            (_ROLE_FOLDERS[x] for x in p.lower().split("/")[:-1] if x in _ROLE_FOLDERS), None
        )
    )
    if roles.notna().all() and roles.nunique() > 1:
        source.roles = pd.DataFrame({"image_id": source.images["image_id"], "role": roles}).astype(
            "str"
        )
    add_patients(source, options, root.resolve().name)
    return build(
        source,
        statements.frame(),
        options,
        form=reader.form,
        unit=reader.unit,
        coverage="all",
        unread=statements.unread,
        n_unread=statements.n_unread,
    )


def _finder(files: pd.DataFrame) -> Callable[[str], str | None]:
    """Return a function that finds the image of a path, name or stem; None if there is not exactly one."""
    ends: dict[str, set[str]] = {}
    for path, image_id in zip(files["path"], files["image_id"], strict=True):
        parts = path.split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            ends.setdefault(end, set()).add(image_id)
            ends.setdefault(end.rsplit(".", 1)[0], set()).add(image_id)

    def find(text: str) -> str | None:
        text = text.replace("\\", "/").strip("/")
        while text not in ends and "/" in text:
            text = text.partition("/")[2]
        found = ends.get(text, set())
        return next(iter(found)) if len(found) == 1 else None

    return find


def load_json(path: Path) -> Any:
    """Read any JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None


def _numbers(values: Any) -> tuple[float, ...] | None:
    """Return four numbers, also of texts; None if they are not four numbers."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == 4 else None


def _around(points: Any) -> tuple[float, ...] | None:
    """Return the corners around points ``[[x, y], ...]``."""
    try:
        array = np.asarray(points, dtype=float).reshape(-1, 2)
    except (TypeError, ValueError):
        return None
    return (*array.min(axis=0), *array.max(axis=0)) if len(array) >= 2 else None


# ---- COCO ----


def _read_coco(
    root: Path, files: pd.DataFrame, options: Options, classes: set[str]
) -> Iterator[tuple[str, Marked]]:
    del files, options
    for path in sorted(root.rglob("*.json")):
        content = load_json(path)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            yield from _coco_file(path, content, classes)


def _coco_file(
    path: Path, content: dict[str, Any], classes: set[str]
) -> Iterator[tuple[str, Marked]]:
    categories = {str(c.get("id")): str(c.get("name")) for c in content.get("categories") or []}
    groups = {str(c.get("supercategory")) for c in content.get("categories") or []}
    classes |= {
        finding_name(name) for name in categories.values() if name not in groups
    }  # Roboflow's first only groups
    by_image: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, item in enumerate(content.get("annotations") or []):
        by_image.setdefault(str(item.get("image_id")), []).append((number, item))
    for image in content["images"]:
        if not image.get("file_name"):
            raise InputError(f"{path}: image {image.get('id')!r} has no file_name")
        size = [float(image.get(side) or np.nan) for side in ("width", "height")]
        marks = []
        for number, item in by_image.pop(str(image.get("id")), []):
            label = categories.get(str(item.get("category_id")))
            if label is None:
                raise InputError(
                    f"{path}: annotations[{number}]: category {item.get('category_id')!r} is not listed"
                )
            marks.append(_coco_mark(item, label, number))
        yield (
            path.name,
            Marked(str(image["file_name"]), marks, *size, read=bool(content.get("annotations"))),
        )
    if by_image:
        first = next(iter(by_image.values()))[0][0]
        raise InputError(f"{path}: annotations[{first}] is of an image that the file does not list")


def _coco_mark(item: dict[str, Any], label: str, number: int) -> Mark:
    box, outline = item.get("bbox"), item.get("segmentation")
    if isinstance(box, dict):
        box = [box.get(key) for key in ("x", "y", "width", "height")]
    numbers = _numbers(box)
    if numbers is None and isinstance(outline, list) and outline:
        around = _around([value for polygon in outline for value in polygon])
        numbers = (
            None if around is None else (*around[:2], around[2] - around[0], around[3] - around[1])
        )
    if numbers is None and isinstance(outline, dict):
        from pycocotools import mask  # only files with masks need it

        try:
            rle = (
                mask.frPyObjects(outline, *outline["size"])
                if isinstance(outline["counts"], list)
                else outline
            )
            numbers = _numbers(mask.toBbox(rle))
        except Exception:  # pycocotools raises several kinds on a broken mask
            numbers = None
    if numbers is None:
        return Mark(
            label,
            None,
            reason=f"annotations[{number}]: bbox is {json.dumps(item.get('bbox'))[:60]}, not [x, y, width, height] in px",
        )
    attributes = item.get("attributes")
    degrees = attributes.get("rotation", 0.0) if isinstance(attributes, dict) else 0.0
    degrees = float(degrees) % 360 if isinstance(degrees, int | float) else 0.0
    return Mark(label, numbers, degrees, crowd=item.get("iscrowd") in (1, "1"))


# ---- one label file an image ----


def _read_yolo(
    root: Path, files: pd.DataFrame, options: Options, classes: set[str]
) -> Iterator[tuple[str, Marked]]:
    names = _class_names(root, options)
    classes |= {finding_name(name) for name in names.values()}
    known = set(files["stem"])
    for path in sorted(root.rglob("*.txt")):
        if path.stem not in known:
            continue
        marks = []
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            cells = line.split()
            if not cells:
                continue
            if len(cells) == 6:
                raise InputError(
                    f"{path}: line {number}: six values: the last is a model's confidence; labels have none"
                )
            try:
                values = [float(cell) for cell in cells]
                label = names[int(values[0])]
            except ValueError:
                marks.append(
                    Mark("unread", None, reason=f"line {number}: not all of it are numbers")
                )
                continue
            except KeyError:
                raise InputError(
                    f"{path}: line {number}: class {cells[0]} has no name; {len(names)} classes are named"
                ) from None
            box = _numbers(values[1:])
            if box is None and len(values) >= 7 and len(values) % 2:
                x1, y1, x2, y2 = _around(values[1:]) or _NAN
                box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
            marks.append(
                Mark(label, box, reason=f"line {number}: {len(cells)} values; 5 make a box")
            )
        inside = path.relative_to(root).as_posix().rsplit(".", 1)[0]
        beside = inside.replace("labels/", "images/")
        yield (
            path.name,
            Marked(
                beside if (files["path"].str.rsplit(".", n=1).str[0] == beside).any() else inside,
                marks,
            ),
        )


def _class_names(root: Path, options: Options) -> dict[int, str]:
    if options.class_names:
        return dict(enumerate(options.class_names))
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = content.get("names") if isinstance(content, dict) else None
        if names:
            return {
                int(k): str(v)
                for k, v in (names.items() if isinstance(names, dict) else enumerate(names))
            }
    for name in ("classes.txt", "obj.names", "_darknet.labels"):
        for path in root.rglob(name):
            return dict(
                enumerate(
                    line.strip()
                    for line in path.read_text(encoding="utf-8").splitlines()
                    if line.strip()
                )
            )
    raise InputError(
        f"{root}: no file names the classes (data.yaml, classes.txt, obj.names); give --class-names in their order"
    )


def _xml(path: Path) -> Any:
    try:
        return ElementTree.parse(path).getroot()
    except Exception as error:  # defusedxml raises several kinds
        raise InputError(f"{path}: not readable as XML ({error})") from None


def _text(node: Any, tag: str) -> str:
    return (node.findtext(tag) or "").strip()


def _read_voc(
    root: Path, files: pd.DataFrame, options: Options, classes: set[str]
) -> Iterator[tuple[str, Marked]]:
    del files, options, classes
    for path in sorted(root.rglob("*.xml")):
        content = _xml(path)
        if content.tag != "annotation":
            continue
        marks = []
        for number, thing in enumerate(content.findall("object"), start=1):
            label = _text(thing, "name")
            edge = thing.find("bndbox")
            box = (
                None
                if edge is None
                else _numbers([_text(edge, tag) for tag in ("xmin", "ymin", "xmax", "ymax")])
            )
            if not label:
                raise InputError(f"{path}: object {number} has no name")
            turns = [
                _text(a, "value") for a in thing.iter("attribute") if _text(a, "name") == "rotation"
            ]
            marks.append(
                Mark(
                    label,
                    box,
                    float(turns[0] or 0) if turns else 0.0,
                    reason=f"object {number} has no bndbox of four numbers",
                )
            )
        size = [_text(content, f"size/{side}") for side in ("width", "height")]
        numbers = [
            float(s) if s.replace(".", "").isdigit() and float(s) > 0 else np.nan for s in size
        ]
        inside = path.relative_to(root).as_posix().rsplit(".", 1)[0]
        name = _text(content, "filename")
        yield path.name, Marked(name or inside, marks, *numbers)


def _read_labelme(
    root: Path, files: pd.DataFrame, options: Options, classes: set[str]
) -> Iterator[tuple[str, Marked]]:
    del files, options, classes
    for path in sorted(root.rglob("*.json")):
        content = load_json(path)
        if not isinstance(content, dict) or "shapes" not in content:
            continue
        marks = []
        for number, shape in enumerate(content["shapes"]):
            kind = shape.get("shape_type", "polygon")
            points = np.asarray(shape.get("points") or np.zeros((0, 2)), dtype=float)
            if kind == "circle" and points.shape == (2, 2):
                radius = float(np.hypot(*(points[1] - points[0])))
                points = np.array([points[0] - radius, points[0] + radius])
            box = (
                _around(points) if kind in ("rectangle", "polygon", "circle", "rotation") else None
            )
            marks.append(
                Mark(str(shape.get("label")), box, reason=f"shapes[{number}]: a {kind} is no box")
            )
        inside = path.relative_to(root).as_posix().rsplit(".", 1)[0]
        size = [float(content.get(f"image{side}") or np.nan) for side in ("Width", "Height")]
        yield path.name, Marked(str(content.get("imagePath") or inside), marks, *size)


# ---- CVAT and Label Studio: one file for all images ----


def _read_cvat(
    root: Path, files: pd.DataFrame, options: Options, classes: set[str]
) -> Iterator[tuple[str, Marked]]:
    del files, options, classes
    for path in sorted(root.rglob("*.xml")):
        content = _xml(path)
        for image in content.iter("image"):
            marks = []
            for shape in image:
                label = shape.get("label", "")
                degrees = float(shape.get("rotation") or 0)
                if shape.tag == "box":
                    box = _numbers([shape.get(edge) for edge in ("xtl", "ytl", "xbr", "ybr")])
                elif shape.tag == "ellipse":
                    cx, cy, rx, ry = (
                        _numbers([shape.get(k) for k in ("cx", "cy", "rx", "ry")]) or _NAN
                    )
                    box = (cx - rx, cy - ry, cx + rx, cy + ry)
                elif shape.tag == "polygon":
                    box = _around([p.split(",") for p in shape.get("points", "").split(";")])
                elif shape.tag == "tag":
                    continue
                else:
                    box = None
                marks.append(
                    Mark(
                        label,
                        box,
                        degrees,
                        reason=f"image {image.get('name')}: a {shape.tag} is no box",
                    )
                )
            size = [float(image.get(side) or np.nan) for side in ("width", "height")]
            yield path.name, Marked(str(image.get("name")), marks, *size)


def _read_label_studio(
    root: Path, files: pd.DataFrame, options: Options, classes: set[str]
) -> Iterator[tuple[str, Marked]]:
    del files, options, classes
    for path in sorted(root.rglob("*.json")):
        tasks = load_json(path)
        for task in tasks if isinstance(tasks, list) else []:
            results = [
                r
                for a in task.get("annotations", [])
                if not a.get("was_cancelled")
                for r in a.get("result", [])
            ]
            marks = []
            size = (np.nan, np.nan)
            for result in results:
                value = result.get("value", {})
                labels = value.get("rectanglelabels") or value.get("labels")
                if not labels:
                    continue
                size = (
                    float(result.get("original_width") or np.nan),
                    float(result.get("original_height") or np.nan),
                )
                percent = _numbers([value.get(k) for k in ("x", "y", "width", "height")])
                box = None
                if percent is not None:
                    x, y, w, h = (p / 100 * side for p, side in zip(percent, size * 2, strict=True))
                    box = (x, y, x + w, y + h)
                marks.append(
                    Mark(
                        labels[0],
                        box,
                        float(value.get("rotation") or 0),
                        "corner",
                        "a region is no rectangle",
                    )
                )
            name = str(
                next(
                    (v for v in task.get("data", {}).values() if isinstance(v, str)),
                    task.get("file_upload", ""),
                )
            )
            name = name.split("?d=")[-1].rsplit("/", 1)[-1]
            yield path.name, Marked(name, marks, *size, read=bool(task.get("annotations")))


class Reader(NamedTuple):
    """A format of label files."""

    title: str
    form: Form
    unit: Unit
    read: Callable[[Path, pd.DataFrame, Options, set[str]], Iterator[tuple[str, Marked]]]
    detect: Callable[[Path], bool]
    nothing: str


def _json_with(*keys: str) -> Callable[[Path], bool]:
    def detect(root: Path) -> bool:
        path = next(root.rglob("*.json"), None)
        text = path.read_text(encoding="utf-8", errors="ignore") if path else ""
        return bool(text) and all(f'"{key}"' in text for key in keys)

    return detect


def _xml_root(tag: str) -> Callable[[Path], bool]:
    return lambda root: any(_xml(path).tag == tag for path in list(root.rglob("*.xml"))[:1])


READERS: dict[str, Reader] = {
    "coco": Reader(
        "COCO",
        "xywh",
        "px",
        _read_coco,
        _json_with("images", "annotations", "categories"),
        "no .json lists images",
    ),
    "yolo": Reader(
        "YOLO",
        "cxcywh",
        "share",
        _read_yolo,
        lambda root: any(
            {p.stem for p in root.rglob("*.txt")} & {p.stem for p in root.rglob(f"*{s}")}
            for s in (".png", ".jpg", ".jpeg")
        ),
        "no .txt has the name of an image",
    ),
    "voc": Reader(
        "Pascal VOC", "xyxy", "px", _read_voc, _xml_root("annotation"), "no .xml is an annotation"
    ),
    "labelme": Reader(
        "labelme",
        "xyxy",
        "px",
        _read_labelme,
        _json_with("shapes", "imagePath"),
        "no .json holds shapes",
    ),
    "cvat": Reader(
        "CVAT for images 1.1", "xyxy", "px", _read_cvat, _xml_root("annotations"), "no .xml of CVAT"
    ),
    "label-studio": Reader(
        "Label Studio",
        "xyxy",
        "px",
        _read_label_studio,
        _json_with("annotations", "result", "data"),
        "no .json of tasks",
    ),
}
