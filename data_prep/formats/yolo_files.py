"""The files of a YOLO data set: class names, lists of pictures, and the lines of a label file."""

from __future__ import annotations

import math
import posixpath
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from data_prep.contracts.errors import InputError
from data_prep.formats.match_pictures import files_below, read_lines

_ROLES = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")


def read_yamls(root: Path) -> dict[str, dict[str, Any]]:
    """Read the YAML files of a folder that describe a YOLO data set.

    Returns:
        Content by path, for each with ``names``; ``data.yaml`` comes first.

    Raises:
        InputError: One is not YAML, or says that the labels are key points.
    """
    paths = [p for p in sorted(root.iterdir()) if p.suffix.lower() in (".yaml", ".yml")]
    found = {}
    for path in sorted(paths, key=lambda p: p.stem != "data"):
        try:
            content = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{path}: not readable as YAML ({reason})") from None
        if isinstance(content, dict) and "names" in content:
            if "kpt_shape" in content:
                raise InputError(f"{path}: describes key points (kpt_shape); boxes are read here")
            found[path.name] = content
    return found


def class_names(
    root: Path, given: tuple[str, ...], yamls: dict[str, dict[str, Any]]
) -> dict[int, str]:
    """The name of each class number.

    Args:
        root: The source folder.
        given: By the user; stand before all else.
        yamls: As from `read_yamls`.

    Returns:
        Number -> name, as written.

    Raises:
        InputError: No names are found, or files disagree.
    """
    if given:
        return dict(enumerate(given))
    found = {path: _names_of(content, root / path) for path, content in yamls.items()}
    if not found:
        places = [p for p in files_below(root, "") if posixpath.basename(p) in _NAME_FILES]
        found = {path: _listed_names(root / path) for path in places}
    if not found:
        raise InputError(
            f"{root}: the names of the classes are not there (data.yaml, classes.txt or obj.names);"
            " give --class-names, in the order of their numbers"
        )
    first, *others = found.items()
    for path, names in others:
        if names != first[1]:
            raise InputError(
                f"{root}: {first[0]} and {path} name the classes differently; give --class-names"
            )
    return first[1]


def _names_of(content: dict[str, Any], path: Path) -> dict[int, str]:
    names, count = content["names"], content.get("nc")
    if not isinstance(names, dict | list):
        raise InputError(f"{path}: names must be a list, or name each class number")
    pairs: list[tuple[Any, Any]] = list(
        names.items() if isinstance(names, dict) else enumerate(names)
    )
    for number, name in pairs:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise InputError(f"{path}: names: {name!r} is no text; put it into quotes")
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
    return dict(enumerate(lines))


def published_places(root: Path, yamls: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Where ``data.yaml`` and the lists of Darknet say that each role's pictures lie.

    Returns:
        ``(place, role)``: a folder or a picture, as written there.
    """
    places: list[tuple[str, str]] = []
    for content in yamls.values():
        for key, role in _ROLES:
            values = content.get(key)
            listed = values if isinstance(values, list) else [values]
            places += [(value, role) for value in listed if isinstance(value, str) and value]
    lists = [(f"{key}.txt", role) for key, role in _ROLES]
    for name, role in dict.fromkeys(lists + places):
        path = root / posixpath.basename(name)
        if name.endswith(".txt") and path.is_file():
            places += [(line.strip(), role) for line in read_lines(path) if line.strip()]
    return [(place, role) for place, role in places if not place.endswith(".txt")]


class Prediction(Exception):  # noqa: N818 - no error: it says what the file is
    """A line has a confidence: these are a model's boxes, not labels."""


def read_boxes(lines: list[str]) -> list[tuple[int, tuple[float, ...], bool]]:
    """Read the lines of a label file.

    Args:
        lines: Each ``class cx cy w h``, or ``class x1 y1 x2 y2 x3 y3 ...`` for a polygon, as
            shares of the picture's size.

    Returns:
        Class number, ``x1, y1, x2, y2`` as shares, and whether it was a polygon. An edge that is
        outside by no more than the rounding of the text lies on the picture's edge.

    Raises:
        InputError: A line is none of these; the message names it.
        Prediction: A line has six values.

    Example:
        >>> read_boxes(["0 0.5 0.5 0.2 0.4", "1 .1 .1 .3 .1 .2 .5"])
        [(0, (0.4, 0.3, 0.6, 0.7), False), (1, (0.1, 0.1, 0.3, 0.5), True)]
    """
    found = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) == 6:
            raise Prediction(f"line {number}")
        if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
            raise InputError(f"line {number}: {len(words)} values; 5 make a box")
        try:
            values = [float(word) for word in words]
        except ValueError:
            raise InputError(f"line {number}: not all of it are numbers") from None
        if not all(math.isfinite(value) for value in values):
            raise InputError(f"line {number}: a number is missing or infinite")
        if not values[0].is_integer() or values[0] < 0:
            raise InputError(f"line {number}: {words[0]} is no class number")
        found.append((int(values[0]), *_edges(values[1:], words[1:], number)))
    return found


def _edges(values: list[float], words: list[str], number: int) -> tuple[tuple[float, ...], bool]:
    if len(values) == 4:
        x, y, width, height = values
        edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        digits = max(len(word.partition(".")[2]) for word in words)  # some writers drop zeros
        # Half a unit of the last digit in the centre, a quarter in half the width.
        slack = 0.75 * 10.0**-digits if digits else 0.0
    else:
        edges = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
        slack = 0.0
    slack += 1e-12
    if edges[0] >= edges[2] or edges[1] >= edges[3]:
        raise InputError(f"line {number}: box of zero or negative size")
    if min(edges) < -slack or max(edges) > 1 + slack:
        raise InputError(f"line {number}: box outside the picture; 0 to 1 is expected")
    return tuple(min(max(edge, 0.0), 1.0) for edge in edges), len(values) != 4
