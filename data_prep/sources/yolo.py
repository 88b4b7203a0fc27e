"""Format `yolo`: a ``.txt`` an image, as Ultralytics, Darknet, CVAT and Roboflow write it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cxr_compare.data_prep.base.box_check import BoxReading, finite_or_nan, values_of
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.files import read_text_file
from cxr_compare.data_prep.base.user_tables import read_yaml_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    Mark,
    parsed,
    read_annotations,
    read_image_files,
)
from cxr_compare.data_prep.sources.image_files import (
    FILES_OPENED,
    contains,
    files_below,
    has_file,
    images_of_label_file,
    list_images,
    stem,
)
from cxr_compare.data_prep.sources.shapes import edges_around
from cxr_compare.data_prep.sources.source import Format
from cxr_compare.data_prep.sources.statements import Source

_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_BOX_LINE = rb"^\s*\d+(?:\s+[\d.]+){4,}\s*$"
_FILES = ("data.yaml", "obj.names", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")


class _Names(BaseModel):
    """The names of classes in a ``data.yaml``, by number."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    names: Annotated[dict[int, str], Field(min_length=1)]

    @field_validator("names", mode="before")
    @classmethod
    def _number(cls, names: Any) -> Any:
        return dict(enumerate(names)) if isinstance(names, list) else names


def _read(source: Source) -> Iterator[ImageLabels]:
    """Yield the labels of a folder of YOLO labels and images."""
    root = source.root
    paths = _label_files(source)
    if not paths:
        if other := line_of_other_kind(root):
            raise InputError(f"{root}: {other}")
        source.label_files = [p for p in files_below(root, ".txt") if p not in _NAME_FILES]
        if source.files.images and not source.label_files:
            raise InputError(f"{root}: {_without_texts(source.files.images)}")
        return
    names = _class_names(root, source.options.class_names)

    def read(path: str) -> tuple[list[str], str]:
        return read_text_file(root / path).splitlines(), ""

    yield from read_image_files(source, paths, read, partial(_add_marks, names))


def _without_texts(images: Sequence[str]) -> str:
    """Return that images have no text file, and where each must lie."""
    text = re.sub(r"\bimages/", "labels/", posixpath.splitext(images[0])[0]) + ".txt"
    return (
        f"holds {counted(len(images), 'image')} and no label file; put a .txt of its name beside "
        f"each image or into a folder labels, such as {text} for {images[0]}, with a line for each "
        "box; an empty one says that the image shows nothing"
    )


def _label_files(source: Source) -> list[str]:
    """Return the text files that have the name of an image, and files of boxes beside them."""

    def has_image(text: str) -> bool:
        return bool(images_of_label_file(source.files, text))

    texts = files_below(source.root, ".txt")
    others = [text for text in texts if not has_image(text)]
    boxed = {text for text in others if contains(source.root / text, (_BOX_LINE,))}
    folders = {posixpath.dirname(text) for text in boxed}
    beside = [text for text in others if posixpath.dirname(text) in folders]
    empty = {text for text in beside if not contains(source.root / text, (rb"\S",))}
    source.add_names(stem(text) for text in beside if text in boxed | empty)
    named = {text for text in texts if has_image(text)}
    folders = {posixpath.dirname(text) for text in named}
    boxed = {text for text in boxed if posixpath.dirname(text) in folders}
    return [text for text in texts if text in named | boxed]


def _add_marks(
    names: dict[int, str], source: Source, labels: ImageLabels, lines: list[str]
) -> None:
    labels.absent = list(names.values())
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with source.reading_mark(labels.image, f"{labels.file}: line {number}"):
                labels.marks.append(_mark(line.split(), names))
    try:  # shares say nothing of an image that cannot be measured
        if labels.marks:
            source.labelled_size(labels.image)
    except InputError as error:
        source.exclude([labels.image], str(error).removeprefix(f"{source.root / labels.image}: "))
        labels.marks, labels.readers = [], ()


def _mark(cells: list[str], names: dict[int, str]) -> Mark:
    """Return the mark of a line: class number, centre, width and height in shares, or a polygon."""
    if reason := not_yolo(" ".join(cells)):
        raise InputError(reason)
    if len(cells) == 6:
        raise InputError("6 values: the last is a model's confidence; 5 make a box of a label")
    if len(cells) != 5 and (len(cells) < 7 or len(cells) % 2 == 0):
        raise InputError(f"{len(cells)} values; 5 make a box")
    label, *values = finite_or_nan(cells)
    if np.isnan([label, *values]).any():
        raise InputError("not all of it are finite numbers")
    if label not in names:
        raise InputError(f"class {cells[0]} has no name; {len(names)} classes are named")
    name = names[int(label)]
    if len(values) == 4:
        return Mark(name, values)
    around = np.array([edges_around(np.reshape(values, (-1, 2)))])
    return Mark(name, values_of(around, "cxcywh")[0].tolist(), is_around=True)


def _class_names(root: Path, listed: Sequence[str]) -> dict[int, str]:
    """Return the name of each class number: `listed` by the user, else from the folder's files."""
    if listed:
        return dict(enumerate(listed))
    named: dict[str, dict[int, str]] = {}
    for path in sorted(root.iterdir()):
        content = read_yaml_file(path) if path.suffix.lower() in (".yaml", ".yml") else None
        if isinstance(content, dict) and "kpt_shape" in content:
            raise InputError(f"{path}: describes key points (kpt_shape); boxes are read here")
        if isinstance(content, dict) and "names" in content:
            named[path.name] = parsed(_Names, content, str(path)).names
    for name in () if named else files_below(root):
        if posixpath.basename(name) in _NAME_FILES:
            lines = [line.strip() for line in read_text_file(root / name).rstrip().splitlines()]
            if not lines or "" in lines:
                raise InputError(f"{root / name}: must hold one class name a line")
            named[name] = dict(enumerate(lines))
    if not named:
        raise InputError(
            f"{root}: no file names the classes (data.yaml, classes.txt or obj.names); give "
            "class_names, in the order of their numbers"
        )
    first, *others = named
    for other in others:
        if named[other] != named[first]:
            raise InputError(
                f"{root}: {first} and {other} name the classes differently; give class_names"
            )
    return named[first]


def line_of_other_kind(folder: Path) -> str:
    """Return which text file below a folder has boxes that are not YOLO's; else nothing."""
    for name in files_below(folder, ".txt")[:FILES_OPENED]:
        lines = read_text_file(folder / name).splitlines()
        number, line = next(((n, each) for n, each in enumerate(lines, 1) if each.strip()), (0, ""))
        if reason := not_yolo(line):
            return f"{name}: line {number}: {reason}"
    return ""


def not_yolo(line: str) -> str:
    """Return what a line of a class name and numbers in px is, and what to write; else nothing."""
    cells = line.split()
    if len(cells) < 5 or not np.isnan(finite_or_nan(cells[:1])).all():
        return ""
    if np.isnan(finite_or_nan(cells[1:5])).any():
        return ""
    return (
        f"{line.strip()[:80]!r} is the name of a class and a box in px, as for Cartucho's mAP; a "
        "line of YOLO is a class number and four shares. Write a table image_id,finding,x1,y1,x2,y2"
        ", of results with score, and a row with empty edges for an image without a box"
    )


def read_class_names(path: Path) -> dict[int, str]:
    """Read the name of each class number from the key ``names`` of a YAML file."""
    return parsed(_Names, read_yaml_file(path), str(path)).names


def _looks_like_yolo(folder: Path) -> bool:
    """Return True for a folder with files of YOLO, or with lines of boxes for one of its images."""
    if not folder.is_dir():
        return False
    if any(next(folder.glob(pattern), None) is not None for pattern in _FILES):
        return True
    images = set(list_images(folder)["name"])

    def is_of_image(path: Path) -> bool:
        return (not images or path.stem in images) and contains(path, (_BOX_LINE,))

    return has_file(".txt", is_of_image)(folder)


YOLO = Format(
    name="yolo",
    title="YOLO",
    folder="a `.txt` an image; `data.yaml` or `class_names`",
    detect=_looks_like_yolo,
    reader=partial(
        read_annotations,
        _read,
        reading=BoxReading(form="cxcywh", unit="share", stated=True),
    ),
    options=(
        "labels",
        "sheet",
        "reference",
        "columns",
        "raw_boxes",
        "patient_pattern",
        "class_names",
    ),
    found_in_folder=True,
    shows_nothing="give each an empty .txt of its name",
)
