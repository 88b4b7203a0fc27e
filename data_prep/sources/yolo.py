"""Format `yolo`: a ``.txt`` an image, as Ultralytics, Darknet, CVAT and Roboflow write it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cxr_compare.data_prep.base.box_check import (
    BoxReading,
    corners_of,
    finite_or_nan,
    numbers_in_form,
)
from cxr_compare.data_prep.base.boxes import NUMBERS
from cxr_compare.data_prep.base.errors import InputError, Remedy, counted
from cxr_compare.data_prep.base.files import read_text_file
from cxr_compare.data_prep.base.user_tables import PREDICTIONS, read_yaml_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    Mark,
    parsed,
    read_annotations,
    read_image_files,
    without_empty,
)
from cxr_compare.data_prep.sources.image_files import (
    FILES_OPENED,
    contains,
    files_below,
    has_file,
    list_images,
    stem,
)
from cxr_compare.data_prep.sources.shapes import corners_around
from cxr_compare.data_prep.sources.source import TABLE_OPTIONS, Format
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.words import class_finding

_CLASS_NAMES = Remedy("this is cxr prepare", {"class_names": ["NAME", "NAME"]})
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_NO_RESULTS = (*_NAME_FILES, "requirements.txt", "readme.txt")
_FEWEST_LINES = 5
_PROOF = 0.1
"""Share of impossible boxes from which the usual order of a line is not meant."""
_BEYOND = 0.01
"""Share of a side by which a box may leave its image by rounding."""
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

    @model_validator(mode="before")
    @classmethod
    def _refuse_points(cls, content: Any) -> Any:
        if "kpt_shape" in content:
            raise ValueError("describes key points (kpt_shape); boxes are read here")
        return content


def _read(source: Source) -> Iterator[ImageLabels]:
    """Yield the labels of a folder of YOLO labels and images."""
    root = source.root
    files = _label_files(source)
    if not files:
        if other := line_of_other_kind(root):
            raise InputError(f"{root}: {other}")
        source.label_files = [p for p in files_below(root, ".txt") if p not in _NAME_FILES]
        if source.files.images and not source.label_files:
            raise InputError(f"{root}: {_without_texts(source.files.images)}")
        return
    names = dict(enumerate(source.options.class_names)) or _class_names(root)
    if not names:
        raise InputError(
            f"{root}: no data.yaml, classes.txt or obj.names names the classes",
            [
                Remedy(words="write them, in the order of their numbers, into classes.txt"),
                _CLASS_NAMES,
            ],
        )

    source.categories |= {str(number): class_finding(names[number], "names") for number in names}

    def read(file: str) -> tuple[list[str], str]:
        return read_text_file(root / file).splitlines(), ""

    yield from read_image_files(source, files, read, partial(_add_marks, names))


def _without_texts(images: Sequence[str]) -> str:
    """Return that images have no text file, and where each must lie."""
    text = re.sub(r"\bimages/", "labels/", posixpath.splitext(images[0])[0]) + ".txt"
    return (
        f"holds {counted(len(images), 'image')} and no label file; give each a .txt, such as "
        f"{text} for {images[0]}, with a line for each box, and empty where the image shows nothing"
    )


def _label_files(source: Source) -> list[str]:
    """Return the text files that have the name of an image, and files of boxes beside them."""
    files = files_below(source.root, ".txt")
    others = [file for file in files if not source.files.find(stem(file), ())]
    boxed = {file for file in others if contains(source.root / file, (_BOX_LINE,))}
    folders = {posixpath.dirname(file) for file in boxed}
    beside = [file for file in others if posixpath.dirname(file) in folders]
    empty = {file for file in beside if not contains(source.root / file, (rb"\S",))}
    fits, _ = source.files.fitting((stem(file) for file in beside if file in boxed | empty), ())
    label_files = {file for file in files if file not in others or fits.get(stem(file))}
    folders = {posixpath.dirname(file) for file in label_files}
    boxed = {file for file in boxed if posixpath.dirname(file) in folders}
    return [file for file in files if file in label_files | boxed]


def _add_marks(
    names: dict[int, str], source: Source, labels: ImageLabels, lines: list[str]
) -> None:
    labels.absent = list(names.values())
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with source.reading_mark(labels.path, f"{labels.file}: line {number}"):
                mark = _mark(line, names)
                if mark.score is not None:
                    raise InputError(
                        "6 values: the last is a model's confidence; 5 make a box of a label"
                    )
                labels.marks.append(mark)
    try:  # shares say nothing of an image that cannot be measured
        if labels.marks:
            source.image_size(labels.path)
    except InputError as error:
        source.exclude([labels.path], str(error).removeprefix(f"{source.root / labels.path}: "))
        labels.marks, labels.is_read = [], False


def _mark(line: str, names: dict[int, str]) -> Mark:
    """Return the mark of a line: class number, centre, width and height in shares, or a polygon.

    A sixth value is the score of a system's box.
    """
    cells = line.split()
    if reason := not_yolo(line):
        raise InputError(reason)
    if len(cells) not in (5, 6) and (len(cells) < 7 or len(cells) % 2 == 0):
        raise InputError(f"{len(cells)} values; class, centre, width and height make a box")
    number, *numbers = finite_or_nan(cells)
    if np.isnan([number, *numbers]).any():
        raise InputError("not all of it are finite numbers")
    if number not in names:
        raise InputError(
            f"class {cells[0]} has no name; name the classes in a data.yaml of this folder"
        )
    text = names[int(number)]
    if len(numbers) <= 5:
        return Mark(text, numbers[:4], score=numbers[4] if numbers[4:] else None)
    around = np.array([corners_around(np.reshape(numbers, (-1, 2)))])
    return Mark(text, numbers_in_form(around, "cxcywh")[0].tolist(), is_around=True)


@dataclass(frozen=True)
class YoloResults:
    """Boxes that a system wrote as text files.

    Attributes:
        table: Rows of ``image_id, position``, a box as centre and sides in shares, and ``score``
            and ``finding`` if the files have them.
        images: Images with a file, also those without a box.
        notes: How the lines were read.
    """

    table: pd.DataFrame
    images: list[str]
    notes: list[str]


def yolo_results(folder: Path) -> YoloResults:
    """Read a folder of text files: class, centre, size and confidence, as shares."""
    labels = folder / "labels" if (folder / "labels").is_dir() else folder
    files = [p for p in sorted(labels.glob("*.txt")) if p.name.lower() not in _NO_RESULTS]
    if not files:
        raise InputError(
            f"{labels}: holds no .txt file of YOLO, as save_txt=True writes; {PREDICTIONS}"
        )
    names = result_names(folder)
    rows = [row for path in files for row in _rows(path, names or {0: ""})]
    table = pd.DataFrame(rows, columns=["image_id", "position", *NUMBERS, "score", "finding"])
    table = without_empty(table, ("score", "finding"), str(labels))
    notes = []
    if "score" in table and _is_score_first(table):
        table[["score", *NUMBERS]] = table[[*NUMBERS, "score"]].to_numpy()
        notes.append(
            "Each line is read as class, confidence, centre and size: read as class, centre, size "
            "and confidence, boxes would leave their images."
        )
    return YoloResults(table, [path.stem for path in files], notes)


def _rows(path: Path, names: dict[int, str]) -> Iterator[tuple[Any, ...]]:
    """Yield the boxes of a text file as rows of the table of `yolo_results`."""
    for number, line in enumerate(read_text_file(path).splitlines(), start=1):
        position = f"{path.name}, line {number}"
        if not line.strip():
            continue
        try:
            mark = _mark(line, names)
            if mark.is_around:  # a box with its confidence and the number of a track, or an outline
                raise InputError(f"{len(line.split())} values; a box has 5, and its confidence")
        except InputError as error:
            raise InputError(f"{path.parent}: {position}: {error}") from None
        yield path.stem, position, *(mark.numbers or ()), mark.score, mark.text or None


def _is_score_first(table: pd.DataFrame) -> bool:
    """Return True if the confidence stands before the box in all lines, and not behind it.

    A few boxes that leave their images, or a few lines, prove nothing.
    """
    values = table[[*NUMBERS, "score"]].to_numpy(np.float64)
    usual = _are_impossible(values[:, :4], values[:, 4])
    other = _are_impossible(values[:, 1:], values[:, 0])
    return len(table) >= _FEWEST_LINES and usual.mean() > _PROOF and not other.any()


def _are_impossible(numbers: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return True for boxes (centre and size as shares) that leave their image, or wrong scores."""
    corners = corners_of(numbers, "cxcywh", "px", np.empty((0, 2)))
    leaves = ((corners < -_BEYOND) | (corners > 1 + _BEYOND)).any(axis=1)
    return leaves | (numbers[:, 2:] <= 0).any(axis=1) | (scores < 0) | (scores > 1)


def result_names(folder: Path) -> dict[int, str]:
    """Return the name of each class number of a folder of results; empty if no file names it."""
    above = folder.parent / "data.yaml"
    return _class_names(folder) or (_names_of_yaml(above) if above.is_file() else {})


def _class_names(root: Path) -> dict[int, str]:
    """Return the name of each class number that files of a folder state; empty if none does."""
    yaml = [path for path in sorted(root.iterdir()) if path.suffix.lower() in (".yaml", ".yml")]
    names_by_file = {path.name: names for path in yaml if (names := _names_of_yaml(path))}
    for name in () if names_by_file else files_below(root):
        if posixpath.basename(name) in _NAME_FILES:
            lines = [line.strip() for line in read_text_file(root / name).rstrip().splitlines()]
            if not lines or "" in lines:
                raise InputError(f"{root / name}: must hold one class name a line")
            names_by_file[name] = dict(enumerate(lines))
    for other, names in names_by_file.items():
        first = next(iter(names_by_file))
        if names != names_by_file[first]:
            raise InputError(
                f"{root}: {first} and {other} name the classes differently",
                [Remedy(words="leave one out"), _CLASS_NAMES],
            )
    return next(iter(names_by_file.values()), {})


def _names_of_yaml(path: Path) -> dict[int, str]:
    """Return the name of each class number that a YAML file states; empty if it states none."""
    content = read_yaml_file(path)
    if not isinstance(content, dict) or content.keys().isdisjoint(("names", "kpt_shape")):
        return {}
    return parsed(_Names, content, str(path)).names


def line_of_other_kind(folder: Path) -> str:
    """Return which text file below a folder has boxes that are not YOLO's; else nothing."""
    for name in files_below(folder, ".txt")[:FILES_OPENED]:
        lines = read_text_file(folder / name).splitlines()
        number, line = next(((n, text) for n, text in enumerate(lines, 1) if text.strip()), (0, ""))
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
        f"{line.strip()[:80]!r} is a class name and px, and a line of YOLO a class number and four "
        "shares; write a table image_id,finding,x1,y1,x2,y2 (of results with score), with empty "
        "edges for an image without a box"
    )


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
    folder="a `.txt` an image; `data.yaml`, or the names of its classes",
    detect=_looks_like_yolo,
    reader=partial(
        read_annotations,
        _read,
        reading=BoxReading(form="cxcywh", unit="share", stated=True),
    ),
    options=(*TABLE_OPTIONS, "class_names"),
    found_in_folder=True,
    shows_nothing="give each an empty .txt of its name",
)
