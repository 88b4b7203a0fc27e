"""Format `yolo`: one ``.txt`` for each image, as Ultralytics, Darknet, CVAT and Roboflow write.

docs/formats.md explains the files. A label file belongs to the image of the same name. The image is
in the same folder, in the folder with ``images`` in place of another part of the path
(``labels/train`` -> ``images/train``), or anywhere below the source if only one image has that
name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.box_readings import BoxReading, values_of
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.text_files import read_yaml_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    Mark,
    read_annotations,
)
from cxr_compare.data_prep.sources.image_files import (
    contains,
    files_below,
    has_file,
    has_match,
    stem,
)
from cxr_compare.data_prep.sources.image_label_files import image_folders, read_image_files
from cxr_compare.data_prep.sources.markup_files import read_lines
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.statements import Source

_ROLES = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))
_NAMES = rb"n\0?a\0?m\0?e\0?s"  # in UTF-8 or UTF-16
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_BOX_LINE = rb"^\s*\d+(?:\s+[\d.]+){4,}\s*$"
_FILES = ("data.yaml", "obj.names", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")
_READING = BoxReading(form="cxcywh", unit="share")
_REMEDY = "an empty .txt with the name of an image says that the image shows nothing"


def read_class_names(path: Path) -> dict[int, str]:
    """Read the name of each class number from the key ``names`` of a YAML file.

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


def _read(source: Source) -> Iterator[ImageLabels]:
    """Yield the labels of a folder of YOLO labels and images."""
    root = source.root
    paths = _label_files(source)
    if not paths:
        raise InputError(f"{root}: no label file (.txt) has the name of an image")
    yamls = _read_yamls(root)
    names = _class_names(root, source.options.class_names, yamls)
    source.classes |= dict.fromkeys(names.values())

    def read(path: str) -> tuple[list[str], Sequence[str]]:
        return read_lines(root / path), ()

    labelled = list(read_image_files(source, paths, read, partial(_add_marks, names)))
    _take_roles(root, yamls, labelled)
    yield from labelled


def _add_marks(
    names: dict[int, str], source: Source, labels: ImageLabels, lines: list[str]
) -> None:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with source.reading_mark(labels.image, f"{labels.file}: line {number}"):
                labels.marks.append(_mark(line.split(), names))
    if not labels.marks:
        return
    try:  # shares say nothing of an image that cannot be measured
        source.labelled_size(labels.image)
    except InputError as error:
        problem = str(error).removeprefix(f"{source.root / labels.image}: ")
        source.exclude([labels.image], problem)
        labels.marks = []
        labels.readers = ()


def _mark(cells: list[str], names: dict[int, str]) -> Mark:
    """Return the mark of a line: class number, centre, width and height in shares, or a polygon."""
    if len(cells) == 6:
        raise InputError("6 values: the last is a model's confidence; 5 make a box of a label")
    if len(cells) != 5 and (len(cells) < 7 or len(cells) % 2 == 0):
        raise InputError(f"{len(cells)} values; 5 make a box")
    label, *values = finite_or_nan(cells)
    if np.isnan([label, *values]).any():
        raise InputError("not all of it are finite numbers")
    if label not in names:
        raise InputError(f"class {cells[0]} has no name; {len(names)} classes are named")
    if len(values) == 4:
        return Mark(names[int(label)], values)
    points = np.reshape(values, (-1, 2))
    around = np.array([[*points.min(axis=0), *points.max(axis=0)]])
    box = values_of(around, "cxcywh")[0]
    return Mark(names[int(label)], box.tolist(), is_around=True)


def _label_files(source: Source) -> list[str]:
    """Return the text files that have the name of an image, and others beside them."""
    root = source.root
    texts = files_below(root, ".txt")
    others = [text for text in texts if not _images_of(text, source)]
    boxed = {text for text in others if contains(root / text, (_BOX_LINE,))}
    folders = {posixpath.dirname(text) for text in boxed}
    labels = [
        text
        for text in others
        if text in boxed
        or (posixpath.dirname(text) in folders and not contains(root / text, (rb"\S",)))
    ]
    source.add_names(map(stem, labels))
    named = {text for text in texts if _images_of(text, source)}
    folders = {posixpath.dirname(text) for text in named}
    return [
        text
        for text in texts
        if text in named or (text in boxed and posixpath.dirname(text) in folders)
    ]


def _images_of(text: str, source: Source) -> list[str]:
    """Return the images that have the name of a text file."""
    return source.files.by_stem(stem(text), image_folders(posixpath.dirname(text)))


def _read_yamls(root: Path) -> dict[str, dict[str, Any]]:
    """Read the YAML files of a folder that describe a YOLO data set."""
    contents = {}
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in (".yaml", ".yml") and contains(path, (_NAMES,)):
            content = read_yaml_file(path)
            if isinstance(content, dict) and "names" in content:
                contents[path.name] = content
            if isinstance(content, dict) and "kpt_shape" in content:
                raise InputError(f"{path}: describes key points (kpt_shape); boxes are read here")
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
    if not pairs:
        raise InputError(f"{path}: names is empty; name the classes")
    return {number: str(name) for number, name in pairs}


def _listed_names(path: Path) -> dict[int, str]:
    lines = [line.strip() for line in read_lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or "" in lines:
        raise InputError(f"{path}: must hold one class name a line")
    require_few_names(lines, path)
    return dict(enumerate(lines))


def _take_roles(
    root: Path, yamls: dict[str, dict[str, Any]], labelled: Sequence[ImageLabels]
) -> None:
    """Give images the roles that ``data.yaml`` or a list of Darknet states."""
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
        roles = {role for part in parts for role in published.get(part, ())}
        labels.roles = sorted(roles) or labels.roles


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
    return has_match("images")(folder) and has_file(
        ("*/*.txt",), partial(contains, texts=(_BOX_LINE,))
    )(folder)


YOLO = Format(
    name="yolo",
    title="YOLO",
    folder="a `.txt` an image; `data.yaml` or `--class-names`",
    detect=_looks_like_yolo,
    read=partial(read_annotations, "yolo", _read, reading=_READING, remedy=_REMEDY),
    options=(
        "labels",
        "sheet",
        "reference",
        "columns",
        "raw_boxes",
        "patient_pattern",
        "class_names",
    ),
    labels_alone=True,
    found_in_folder=True,
)
