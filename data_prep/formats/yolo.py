"""Format `yolo`: one ``.txt`` for each image, as Ultralytics, Darknet, CVAT and Roboflow write.

docs/formats.md explains the files. A label file belongs to the image of the same name. The image is
in the same folder, in the folder with ``images`` in place of another part of the path
(``labels/train`` -> ``images/train``), or anywhere below the source if only one image has that
name.
"""

from __future__ import annotations

import math
import posixpath
from pathlib import Path
from typing import Any, NamedTuple

from cxr_compare.data_prep.contracts.box_values import BoxReading
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.text_files import read_yaml_file
from cxr_compare.data_prep.formats.folder_scan import contains, files_below, has_match, has_text
from cxr_compare.data_prep.formats.image_index import ImageIndex, role_from_path
from cxr_compare.data_prep.formats.image_label_files import (
    gather_label_files,
    image_folders,
    stem,
)
from cxr_compare.data_prep.formats.label_files import LabelFiles, read_lines
from cxr_compare.data_prep.formats.label_names import Label, name_labels
from cxr_compare.data_prep.formats.source import Format, SourceBuilder, SourceTables

_ROLES = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))
_READING = BoxReading(
    form="cxcywh",
    sides="a YOLO line is class, x and y of the centre, width and height",
    in_shares=True,
    if_corners="write centres, widths and heights, or give a CSV with x1, y1, x2, y2",
)
_NAMES = rb"n\0?a\0?m\0?e\0?s"  # in UTF-8 or UTF-16
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")


def _read_yamls(root: Path) -> dict[str, dict[str, Any]]:
    """Read the YAML files of a folder that describe a YOLO data set."""
    paths = [p for p in sorted(root.iterdir()) if p.suffix.lower() in (".yaml", ".yml")]
    gathered = {}
    for path in sorted(paths, key=lambda p: p.stem != "data"):
        if path.stem != "data" and not contains(path, (_NAMES,)):
            continue  # it describes something else
        content = read_yaml_file(path)
        if isinstance(content, dict) and "names" in content:
            if "kpt_shape" in content:
                raise InputError(f"{path}: describes key points (kpt_shape); boxes are read here")
            gathered[path.name] = content
    return gathered


def read_class_names(path: Path) -> dict[int, str]:
    """Read the name of each class number from a file such as ``data.yaml``.

    Args:
        path: Path of the file: YAML with the key ``names``, or a text file with one name in each
            line.

    Returns:
        Class names by class number.

    Raises:
        InputError: The file cannot be read, or names no classes.

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


def _class_names(
    root: Path, listed: tuple[str, ...], yamls: dict[str, dict[str, Any]]
) -> dict[int, str]:
    """Return the name of each class number: `listed` by the user, else from the folder's files."""
    if listed:
        return dict(enumerate(listed))
    gathered = {path: _names_of(content, root / path) for path, content in yamls.items()}
    if not gathered:
        paths = [p for p in files_below(root, "") if posixpath.basename(p) in _NAME_FILES]
        gathered = {path: _listed_names(root / path) for path in paths}
    if not gathered:
        raise InputError(
            f"{root}: no file names the classes (data.yaml, classes.txt or obj.names); give "
            "--class-names, in the order of their numbers"
        )
    first, *others = gathered.items()
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


class PredictionLineError(Exception):
    """Error about a line of a YOLO file that has a confidence.

    Such a file contains predictions of a model, not labels.
    """


_Box = tuple[int, tuple[float, ...], bool]  # class number, edges in shares, True for a polygon


def read_boxes(lines: list[str]) -> list[_Box]:
    """Read the boxes and polygons of a YOLO label file; a polygon becomes the box around it.

    Args:
        lines: Lines of the file, each with a class number and the centre, width and height of a
            box, or the corners of a polygon, as shares of the image's sides.

    Returns:
        For each box or polygon: its class number, the edges x1, y1, x2, y2 of the box or of the box
        around the polygon, as shares of the image's width and height, and True for a polygon. Edges
        beyond the image by rounding are set to its border; others are unchanged.

    Raises:
        PredictionLineError: A line has a confidence, so the file contains predictions.
        InputError: A line has a wrong number of values, or a value that is not allowed.
    """
    gathered = []
    for number, line in enumerate(lines, start=1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) == 6:
            raise PredictionLineError(f"line {number}")
        if len(cells) != 5 and (len(cells) < 7 or len(cells) % 2 == 0):
            raise InputError(f"line {number}: {len(cells)} values; 5 make a box")
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            raise InputError(f"line {number}: not all of it are numbers") from None
        if not all(math.isfinite(value) for value in values):
            raise InputError(f"line {number}: a number is missing or infinite")
        if not values[0].is_integer() or values[0] < 0:
            raise InputError(f"line {number}: {cells[0]} is no class number")
        gathered.append((int(values[0]), *_edges(values[1:], cells[1:])))
    return gathered


def _edges(values: list[float], cells: list[str]) -> tuple[tuple[float, ...], bool]:
    if len(values) == 4:
        x, y, width, height = values
        edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        digits = max(len(cell.partition(".")[2]) for cell in cells)  # some writers drop zeros
        # Half a unit of the last digit in the centre, a quarter in half the width.
        slack = 0.75 * 10.0**-digits if digits else 0.0
    else:
        edges = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
        slack = 0.0
    slack += 1e-12
    is_rounding = min(edges) >= -slack and max(edges) <= 1 + slack
    if is_rounding:
        edges = [min(max(edge, 0.0), 1.0) for edge in edges]
    return tuple(edges), len(values) != 4


_NO_LABELS = {"classes", "train", "val", "valid", "test", "trainval", "requirements", "license"}


def _read_yolo(builder: SourceBuilder) -> SourceTables:
    """Read a folder of YOLO labels and images."""
    source = builder.root
    index = ImageIndex(source)
    labels = _label_files(source, index)
    if not labels:
        builder.require_format()
        raise InputError(f"{source}: no label file (.txt) has the name of an image")
    gathered = LabelFiles(builder, reading=_READING)
    yamls = _read_yamls(source)
    names = _class_names(source, builder.options.class_names, yamls)
    named = name_labels(names.values(), str(source), "class")
    for note in named.notes:
        builder.show(note)
    labels_of_numbers = {number: named.labels[name] for number, name in names.items()}
    classes = tuple(sorted({label.finding for label in labels_of_numbers.values()}))

    def read(text: str) -> tuple[_Lines, list[str]]:
        return _Lines(source / text, read_lines(source / text)), []

    def gather(image: str, content: _Lines) -> None:
        _gather(image, content, labels_of_numbers, gathered)
        gathered.classes[image] = classes

    try:
        label_files = gather_label_files(gathered, index, labels, read, gather, count=_count)
    except PredictionLineError as line:
        raise InputError(
            f"{line}: six values: the last is a model's confidence, and labels have none; to "
            "evaluate a model, give its boxes to cxr import"
        ) from None
    gathered.roles = _roles(source, yamls, gathered, label_files)
    return gathered.build_tables()


def _label_files(root: Path, index: ImageIndex) -> list[str]:
    """Return the text files that have the name of an image, and others beside them."""
    texts = files_below(root, ".txt")
    named = {
        text for text in texts if index.by_stem(stem(text), image_folders(posixpath.dirname(text)))
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


class _Lines(NamedTuple):
    """A label file with its lines."""

    path: Path
    lines: list[str]


def _count(content: _Lines) -> int:
    return sum(bool(line.strip()) for line in content.lines)


def _gather(image: str, content: _Lines, labels: dict[int, Label], gathered: LabelFiles) -> None:
    """Gather the boxes of one label file."""
    try:
        boxes = read_boxes(content.lines)
    except PredictionLineError as line:
        raise PredictionLineError(f"{content.path}: {line}") from None
    facts: dict[str, Any] = {}
    unnamed = next((number for number, *_ in boxes if number not in labels), None)
    if unnamed is not None:
        raise InputError(f"class {unnamed} has no name; {len(labels)} classes are named")
    if boxes:
        facts["width"], facts["height"] = gathered.builder.labelled_size(image)
    gathered.images[image] = facts
    sides = (facts.get("width", 0), facts.get("height", 0)) * 2
    for number, shares, is_polygon in boxes:
        edges = [share * side for share, side in zip(shares, sides, strict=True)]
        gathered.add_box(image, labels[number], edges)
        gathered.counts["polygons were found: each is replaced by the box around it"] += is_polygon


def _roles(
    root: Path, yamls: dict[str, dict[str, Any]], gathered: LabelFiles, label_files: dict[str, str]
) -> list[tuple[str, str]]:
    """Return the published role of each image: by ``data.yaml`` or a list, else by folder."""
    existing = set(gathered.images)
    for path in gathered.images:
        existing.update(_path_and_folders(path))
    published: dict[str, set[str]] = {}
    for published_path, role in _published_paths(root, yamls):
        parts = published_path.replace("\\", "/").split("/")
        parts = [part for part in parts if part not in ("", ".", "..")]
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        # The longest end that exists here counts: the beginning is a folder of another machine.
        end = next((end for end in ends if end in existing), None)
        if end is not None:
            published.setdefault(end, set()).add(role)
    roles = []
    for path in gathered.images:
        path_roles: set[str | None] = set()
        for part in _path_and_folders(path):
            path_roles |= published.get(part, set())
        if not path_roles:
            folders = (posixpath.dirname(path), posixpath.dirname(label_files.get(path, "")))
            path_roles = {role_from_path(folder) for folder in folders}
        roles += [(path, role) for role in sorted(filter(None, path_roles))]
    return roles


def _path_and_folders(path: str) -> list[str]:
    """Return the path of an image and of the folders that contain it."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


_BOX_LINE = rb"^\s*\d+(?:\s+[\d.]+){4,}\s*$"
_LABELS = ("data.yaml", "obj.names", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")


YOLO = Format(
    name="yolo",
    title="YOLO",
    folder="a `.txt` an image; `data.yaml` or `--class-names`",
    detect=lambda folder: (
        has_match(*_LABELS)(folder)
        or (has_match("images")(folder) and has_text(("*/*.txt",), (_BOX_LINE,))(folder))
    ),
    read=_read_yolo,
    options=("raw_boxes", "patient_pattern", "class_names"),
    is_deep=True,
)
