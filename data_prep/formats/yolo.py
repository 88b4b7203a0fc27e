"""Format of YOLO labels: a ``.txt`` for each image, as of Ultralytics, Darknet, CVAT, Roboflow.

docs/formats.md says what the files mean. A label file belongs to the image of its name: in the same
folder, in the folder that has ``images`` where the label's has another word (``labels/train`` ->
``images/train``), or anywhere below the source if only one image has that name.
"""

from __future__ import annotations

import math
import posixpath
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.formats.class_names import class_finding
from cxr_compare.data_prep.formats.cxr_extension import KEY, read_set_facts
from cxr_compare.data_prep.formats.folder_scan import files_below, has_match
from cxr_compare.data_prep.formats.image_index import ImageIndex, role_of
from cxr_compare.data_prep.formats.image_size import image_size
from cxr_compare.data_prep.formats.label_files import LabelFiles, read_lines
from cxr_compare.data_prep.formats.source import Format, SourceBuilder, SourceTables

_ROLES = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")


def _read_yamls(root: Path) -> dict[str, dict[str, Any]]:
    """Read the YAML files of a folder that describe a YOLO data set."""
    paths = [p for p in sorted(root.iterdir()) if p.suffix.lower() in (".yaml", ".yml")]
    gathered = {}
    for path in sorted(paths, key=lambda p: p.stem != "data"):
        content = _read_yaml(path)
        if isinstance(content, dict) and "names" in content:
            if "kpt_shape" in content:
                raise InputError(f"{path}: describes key points (kpt_shape); boxes are read here")
            gathered[path.name] = content
    return gathered


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not readable as YAML ({reason})") from None


def read_class_names(path: Path) -> dict[int, str]:
    """The name of each class number, as a ``data.yaml`` gives them."""
    content = _read_yaml(path)
    if not isinstance(content, dict) or "names" not in content:
        raise InputError(f"{path}: names no classes; it needs a list 'names', as a data.yaml has")
    return _names_of(content, path)


def _class_names(
    root: Path, given: tuple[str, ...], yamls: dict[str, dict[str, Any]]
) -> dict[int, str]:
    """The name of each class number."""
    if given:
        return dict(enumerate(given))
    gathered = {path: _names_of(content, root / path) for path, content in yamls.items()}
    if not gathered:
        places = [p for p in files_below(root, "") if posixpath.basename(p) in _NAME_FILES]
        gathered = {path: _listed_names(root / path) for path in places}
    if not gathered:
        raise InputError(
            f"{root}: the names of the classes are not there (data.yaml, classes.txt or obj.names);"
            " give --class-names, in the order of their numbers"
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


def _published_places(root: Path, yamls: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Where ``data.yaml`` and the lists of Darknet say that each role's images lie."""
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


class _Prediction(Exception):  # noqa: N818 - no error: it says what the file is
    """A line has a confidence: these are a model's boxes, not labels."""


def _read_boxes(lines: list[str]) -> list[tuple[int, tuple[float, ...], bool]]:
    """Read the lines of a label file."""
    gathered = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) == 6:
            raise _Prediction(f"line {number}")
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
        gathered.append((int(values[0]), *_edges(values[1:], words[1:], number)))
    return gathered


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
        raise InputError(f"line {number}: box outside the image; 0 to 1 is expected")
    return tuple(min(max(edge, 0.0), 1.0) for edge in edges), len(values) != 4


_NO_LABELS = {"classes", "train", "val", "valid", "test", "trainval", "requirements", "license"}


def _read_yolo(builder: SourceBuilder) -> SourceTables:
    """Read a folder of YOLO labels and images."""
    source = builder.root
    index = ImageIndex(source)
    labels = _match(source, index)
    if not labels:
        builder.require_format()
        raise InputError(f"{source}: no label file (.txt) has the name of an image")
    gathered = LabelFiles(builder)
    yamls = _read_yamls(source)
    names = _class_names(source, builder.options.class_names, yamls)
    own = [
        read_set_facts(content[KEY], f"{source / path}: {KEY}")["targets"]
        for path, content in yamls.items()
        if KEY in content  # as `cxr export` writes it, and nobody else
    ]
    gathered.targets = own[0] if own else {}
    findings = {n: name if own else class_finding(name, str(source)) for n, name in names.items()}
    classes = tuple(sorted(set(findings.values())))
    for text, images in labels.items():
        image = images[0] if len(images) == 1 else text
        reason = None
        if len(images) > 1:
            reason = f"label file whose name fits {counted(len(images), 'image')}"
        elif not images:
            reason = "label file without an image"
        elif image in gathered.classes:
            reason = "two label files have its name"
        if reason:
            gathered.out.add([image], reason)
            continue
        gathered.classes[image] = classes
        _read_label(source, text, image, findings, gathered)
    for image in _beside(index, gathered):
        gathered.images.setdefault(image, {})
    gathered.roles = _roles(source, yamls, gathered, {p[0]: t for t, p in labels.items() if p})
    return gathered.tables()


def _match(root: Path, index: ImageIndex) -> dict[str, list[str]]:
    """Label file -> its image; none or several where that is not clear."""
    near: dict[str, list[str]] = {}
    matched: dict[str, list[str]] = {}
    for text in files_below(root, ".txt"):
        folder, name = posixpath.split(text)
        stem = name[: -len(".txt")]
        if folder not in near:
            near[folder] = _image_folders(folder)
        matched[text] = index.by_stem(stem, near[folder])
    folders = {posixpath.dirname(text) for text, images in matched.items() if images}
    return {
        text: images
        for text, images in matched.items()
        if images or (posixpath.dirname(text) in folders and not _is_no_label(text))
    }


def _is_no_label(text: str) -> bool:
    stem = posixpath.basename(text)[: -len(".txt")].lower()
    return stem in _NO_LABELS or stem.startswith("readme")


def _image_folders(folder: str) -> list[str]:
    """Where the images of a label folder may lie, the likeliest first."""
    parts = folder.split("/") if folder else []
    swapped = [
        "/".join([*parts[:place], word, *parts[place + 1 :]])
        for place in reversed(range(len(parts)))
        for word in ("images", "JPEGImages")
    ]
    dropped = ["/".join(parts[:n] + parts[n + 1 :]) for n in reversed(range(len(parts)))]
    return [*swapped, folder, *dropped]


def _read_label(
    root: Path, text: str, image: str, findings: dict[int, str], gathered: LabelFiles
) -> None:
    """Gather what one label file says of its image; one that cannot be read excludes it."""
    facts: dict[str, Any] = {}
    gathered.images[image] = facts
    try:
        boxes = _read_boxes(read_lines(root / text))
        unnamed = next((number for number, *_ in boxes if number not in findings), None)
        if unnamed is not None:
            raise InputError(f"class {unnamed} has no name; {len(findings)} classes are named")
        if boxes:
            facts["width"], facts["height"] = image_size(root / image)
    except _Prediction as place:
        raise InputError(
            f"{root / text}: {place}: six values: the last is a model's confidence, and labels have"
            " none; to evaluate a model, give its boxes to cxr import"
        ) from None
    except InputError as error:
        reason = str(error).removeprefix(f"{root / text}: ").removeprefix(f"{root / image}: ")
        gathered.out.add([image], f"{text}: {reason}")
        return
    sides = (facts.get("width", 0), facts.get("height", 0)) * 2
    for number, shares, is_polygon in boxes:
        edges = [share * side for share, side in zip(shares, sides, strict=True)]
        gathered.add_box(image, findings[number], edges)
        gathered.seen["polygons: the box around each is taken"] += is_polygon


def _beside(index: ImageIndex, gathered: LabelFiles) -> list[str]:
    """Images where labelled ones lie, or in the same place under another role."""
    places = {_without_role(posixpath.dirname(path)) for path in gathered.classes}
    return [path for path in index.paths if _without_role(posixpath.dirname(path)) in places]


@cache
def _without_role(folder: str) -> str:
    return "/".join(part for part in folder.split("/") if role_of(part) is None)


def _roles(
    root: Path, yamls: dict[str, dict[str, Any]], gathered: LabelFiles, texts: dict[str, str]
) -> list[tuple[str, str]]:
    """The published role of each image: by place in ``data.yaml`` or a list, else by folder."""
    known = set(gathered.images)
    for path in gathered.images:
        known.update(_places(path))
    given: dict[str, set[str]] = {}
    for place, role in _published_places(root, yamls):
        parts = [p for p in place.replace("\\", "/").split("/") if p not in ("", ".", "..")]
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        end = next((end for end in ends if end in known), None)
        if end is not None:  # the longest end that is here: the rest is another machine's
            given.setdefault(end, set()).add(role)
    roles = []
    for path in gathered.images:
        said = {role for place in _places(path) for role in given.get(place, ())}
        if not said:
            folders = (posixpath.dirname(path), posixpath.dirname(texts.get(path, "")))
            said = {named for folder in folders if (named := role_of(folder))}
        roles += [(path, role) for role in sorted(said)]
    return roles


def _places(path: str) -> list[str]:
    """An image and the folders it lies in."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


_LABELS = ("data.yaml", "obj.names", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")


YOLO = Format(
    name="yolo",
    title="YOLO",
    folder="a `.txt` an image; `data.yaml` or `--class-names`",
    detect=lambda folder: (
        has_match(*_LABELS)(folder)
        or (has_match("images")(folder) and has_match("*/*.txt")(folder))
    ),
    read=_read_yolo,
    options=("patient_pattern", "class_names"),
    is_deep=True,
)
