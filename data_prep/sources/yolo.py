"""Format `yolo`: one ``.txt`` for each image, as Ultralytics, Darknet, CVAT and Roboflow write.

docs/formats.md explains the files. A label file belongs to the image of the same name. The image is
in the same folder, in the folder with ``images`` in place of another part of the path
(``labels/train`` -> ``images/train``), or anywhere below the source if only one image has that
name.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.box_readings import BoxReading
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.text_files import read_yaml_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    LabelFiles,
    Mark,
    read_annotations,
)
from cxr_compare.data_prep.sources.image_files import (
    contains,
    files_below,
    has_match,
    has_text,
    stem,
)
from cxr_compare.data_prep.sources.image_label_files import image_folders, read_image_files
from cxr_compare.data_prep.sources.label_values import class_finding
from cxr_compare.data_prep.sources.markup_files import read_lines
from cxr_compare.data_prep.sources.source_tables import Format

_ROLES = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))
_NAMES = rb"n\0?a\0?m\0?e\0?s"  # in UTF-8 or UTF-16
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_NO_LABELS = {"classes", "train", "val", "valid", "test", "trainval", "requirements", "license"}
_BOX_LINE = rb"^\s*\d+(?:\s+[\d.]+){4,}\s*$"
_FILES = ("data.yaml", "obj.names", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")
_READING = BoxReading(form="cxcywh", unit="share")


class PredictionLineError(Exception):
    """Error about a line with a confidence: its file contains predictions, not labels."""


def read_class_names(path: Path) -> dict[int, str]:
    """Read the name of each class number from a file such as ``data.yaml``.

    Args:
        path: YAML with the key ``names``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "data.yaml").write_text("names: [mass, nodule]")
        ...     read_class_names(Path(folder, "data.yaml"))
        {0: 'mass', 1: 'nodule'}
    """
    content = read_yaml_file(path)
    if not isinstance(content, dict) or "names" not in content:
        raise InputError(f"{path}: names no classes; it needs a list 'names', as a data.yaml has")
    return _names_of(content, path)


def _read(files: LabelFiles) -> Iterator[ImageLabels]:
    """Yield the labels of a folder of YOLO labels and images."""
    source = files.source
    root = source.root
    paths = _label_files(files)
    if not paths:
        raise InputError(f"{root}: no label file (.txt) has the name of an image")
    yamls = _read_yamls(root)
    names = _class_names(root, source.options.class_names, yamls)
    files.classes |= dict.fromkeys(names.values())
    for name in names.values():
        class_finding(name, str(root))

    def read(path: str) -> tuple[list[str], Sequence[str]]:
        return read_lines(root / path), ()

    def labels_of(image: str, path: str, lines: list[str]) -> ImageLabels:
        try:
            rows = [_values(line, number) for number, line in enumerate(lines, start=1)]
        except PredictionLineError as line:
            raise PredictionLineError(f"{root / path}: {line}") from None
        marks = []
        for label, box, is_polygon in filter(None, rows):
            if label not in names:
                raise InputError(f"class {label} has no name; {len(names)} classes are named")
            marks.append(Mark(names[label], box))
            files.counts["polygons were found: each is replaced by the box around it"] += is_polygon
        if marks:
            source.labelled_size(image)  # shares say nothing of an image that cannot be measured
        return ImageLabels(image, path, marks, absent=list(names.values()))

    try:
        labelled = list(read_image_files(files, paths, read, labels_of, count=_count_lines))
    except PredictionLineError as line:
        raise InputError(
            f"{line}: six values: the last is a model's confidence, and labels have none; to "
            "evaluate a model, give its boxes to cxr import"
        ) from None
    yield from _with_roles(root, yamls, labelled)


def _count_lines(lines: list[str]) -> int:
    return sum(bool(line.strip()) for line in lines)


def _values(line: str, number: int) -> tuple[int, tuple[float, ...], bool] | None:
    """Return class number, centre, width and height in shares, and True for a polygon.

    A polygon becomes the box around it. An empty line is None.

    Raises:
        PredictionLineError: The line has a confidence.
        InputError: It has a wrong number of values, or a value that is not allowed.
    """
    cells = line.split()
    if not cells:
        return None
    if len(cells) == 6:
        raise PredictionLineError(f"line {number}")
    if len(cells) != 5 and (len(cells) < 7 or len(cells) % 2 == 0):
        raise InputError(f"line {number}: {len(cells)} values; 5 make a box")
    try:
        label, *values = (float(cell) for cell in cells)
    except ValueError:
        raise InputError(f"line {number}: not all of it are numbers") from None
    if not all(math.isfinite(value) for value in (label, *values)):
        raise InputError(f"line {number}: a number is missing or infinite")
    if not label.is_integer() or label < 0:
        raise InputError(f"line {number}: {cells[0]} is no class number")
    if len(values) == 4:
        return int(label), tuple(values), False
    xs, ys = values[::2], values[1::2]
    middle = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
    return int(label), (*middle, max(xs) - min(xs), max(ys) - min(ys)), True


def _label_files(files: LabelFiles) -> list[str]:
    """Return the text files that have the name of an image, and others beside them."""
    texts = files_below(files.source.root, ".txt")
    named = {
        text
        for text in texts
        if files.images.by_stem(stem(text), image_folders(posixpath.dirname(text)))
    }
    folders = {posixpath.dirname(text) for text in named}
    return [
        text
        for text in texts
        if text in named or (posixpath.dirname(text) in folders and not _is_no_label(text))
    ]


def _is_no_label(text: str) -> bool:
    name = stem(text).lower()
    return name in _NO_LABELS or name.startswith("readme")


def _read_yamls(root: Path) -> dict[str, dict[str, Any]]:
    """Read the YAML files of a folder that describe a YOLO data set."""
    paths = [p for p in sorted(root.iterdir()) if p.suffix.lower() in (".yaml", ".yml")]
    contents = {}
    for path in sorted(paths, key=lambda p: p.stem != "data"):
        if path.stem != "data" and not contains(path, (_NAMES,)):
            continue  # it describes something else
        content = read_yaml_file(path)
        if isinstance(content, dict) and "names" in content:
            if "kpt_shape" in content:
                raise InputError(f"{path}: describes key points (kpt_shape); boxes are read here")
            contents[path.name] = content
    return contents


def _class_names(
    root: Path, listed: tuple[str, ...], yamls: dict[str, dict[str, Any]]
) -> dict[int, str]:
    """Return the name of each class number: `listed` by the user, else from the folder's files."""
    if listed:
        return dict(enumerate(listed))
    named = {path: _names_of(content, root / path) for path, content in yamls.items()}
    if not named:
        paths = [p for p in files_below(root) if posixpath.basename(p) in _NAME_FILES]
        named = {path: _listed_names(root / path) for path in paths}
    if not named:
        raise InputError(
            f"{root}: no file names the classes (data.yaml, classes.txt or obj.names); give "
            "--class-names, in the order of their numbers"
        )
    first, *others = named.items()
    for path, names in others:
        if names != first[1]:
            raise InputError(
                f"{root}: {first[0]} and {path} name the classes differently; give --class-names"
            )
    return first[1]


def _names_of(content: dict[str, Any], path: Path) -> dict[int, str]:
    names = content["names"]
    count = content.get("nc")
    if not isinstance(names, dict | list):
        raise InputError(f"{path}: names must be a list, or name each class number")
    require_few_names(names, path)
    pairs: list[tuple[Any, Any]] = list(
        names.items() if isinstance(names, dict) else enumerate(names)
    )
    for number, name in pairs:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            shown = f"a {type(name).__name__}" if isinstance(name, dict | list) else repr(name)
            raise InputError(f"{path}: names: {shown} is no text; put it into quotes")
        if isinstance(number, bool) or not isinstance(number, int):
            raise InputError(f"{path}: names: {number!r} is no class number")
    if not pairs or (isinstance(count, int) and count != len(pairs)):
        raise InputError(f"{path}: has {len(pairs)} names, but nc is {count}; correct one of them")
    return {number: str(name) for number, name in pairs}


def _listed_names(path: Path) -> dict[int, str]:
    lines = [line.strip() for line in read_lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or "" in lines:
        raise InputError(f"{path}: must hold one class name a line")
    require_few_names(lines, path)
    return dict(enumerate(lines))


def _with_roles(
    root: Path, yamls: dict[str, dict[str, Any]], labelled: Sequence[ImageLabels]
) -> Iterator[ImageLabels]:
    """Yield the labels with the role of ``data.yaml`` or a list, else with that of the folder.

    An image with two roles is yielded once for each.
    """
    existing = {part for labels in labelled for part in _path_and_folders(labels.image)}
    published: dict[str, set[str]] = {}
    for name, role in _published_paths(root, yamls):
        parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        # The longest end that exists here counts: the beginning is a folder of another machine.
        end = next((end for end in ends if end in existing), None)
        if end is not None:
            published.setdefault(end, set()).add(role)
    for labels in labelled:
        parts = _path_and_folders(labels.image)
        roles = sorted({role for part in parts for role in published.get(part, ())})
        if not roles:
            yield labels
            continue
        labels.role = roles[0]
        yield labels
        for role in roles[1:]:
            yield ImageLabels(labels.image, labels.file, readers=(), role=role)


def _published_paths(root: Path, yamls: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the paths of images and their roles from ``data.yaml`` and the lists of Darknet."""
    paths: list[tuple[str, str]] = []
    for content in yamls.values():
        for key, role in _ROLES:
            values = content.get(key)
            listed = values if isinstance(values, list) else [values]
            paths += [(value, role) for value in listed if isinstance(value, str) and value]
    lists = [(f"{key}.txt", role) for key, role in _ROLES]
    for name, role in dict.fromkeys(lists + paths):
        path = root / posixpath.basename(name)
        if name.endswith(".txt") and path.is_file():
            paths += [(line.strip(), role) for line in read_lines(path) if line.strip()]
    return [(path, role) for path, role in paths if not path.endswith(".txt")]


def _path_and_folders(path: str) -> list[str]:
    """Return the path of an image and of the folders that contain it."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


def _looks_like_yolo(folder: Path) -> bool:
    if has_match(*_FILES)(folder):
        return True
    return has_match("images")(folder) and has_text(("*/*.txt",), (_BOX_LINE,))(folder)


YOLO = Format(
    name="yolo",
    title="YOLO",
    folder="a `.txt` an image; `data.yaml` or `--class-names`",
    detect=_looks_like_yolo,
    read=partial(read_annotations, "yolo", _read, reading=_READING),
    options=("columns", "raw_boxes", "patient_pattern", "class_names"),
    labels_alone=True,
)
