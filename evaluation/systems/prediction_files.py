"""Predictions in files as they stand: CSV, COCO results, YOLO's text files, a reader's form.

A DataFrame is read like a CSV. The form is that of a reader study without hints, which is written
here, too: numbered images, and a key that stays away. Nothing is checked against a data set.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import column_names, find_column
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.page_templates import template_environment
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.coco import read_json_file
from cxr_compare.data_prep.formats.label_files import read_lines
from cxr_compare.data_prep.formats.yolo import read_class_names
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.overlays.draw import fit_panel

FRAME = "the DataFrame"
"""What errors call a table that came from no file."""
_COCO_SIDES = "COCO's bbox is x, y, width, height"
_SHOWN = 5


@dataclass(frozen=True)
class ColumnNames:
    """Which columns of a table mean what; without such a column, a like name is recognised."""

    image: str = "image_id"  # image ids
    score: str = "score"  # scores in [0, 1]
    # findings; where the table has no such column, every row is of one finding
    finding: str = "finding"


@dataclass
class RawPredictions:
    """What a source says, before it is checked against a data set."""

    # `image_id, score[, finding][, x1, y1, x2, y2]` and `place`, the row in the source
    rows: pd.DataFrame
    content: bytes  # what the source held
    in_shares: bool = False  # whether edges are shares of the image's size, not pixels
    listed: tuple[str, ...] = ()  # names of images that the source has, with rows or without
    advice: str = ""  # how else the names of images could be meant
    notes: list[str] = field(default_factory=list)  # what was assumed
    # what says that the source holds x, y, width and height; empty where it holds corners
    sides: str = ""
    # names of the images that a COCO annotation file says were run; None without such a file
    ran: tuple[str, ...] | None = None
    # true boxes that COCO's truth marks as crowds, in the columns of rows
    crowds: pd.DataFrame = field(default_factory=lambda: _coco_table(Path(), []))


def read_source(
    source: str | Path | pd.DataFrame,
    names: ColumnNames,
    coco_truth: str | Path | None = None,
    class_names: str | Path | Sequence[str] | None = None,
) -> RawPredictions:
    """Read every row of a source, known by what it is: a table, a folder, JSON, or else a CSV."""
    if isinstance(source, pd.DataFrame):
        return _read_frame(source, names)
    source = Path(source)
    if source.is_dir():
        return _read_yolo(source, class_names)
    if not source.is_file():
        raise InputError(f"{source}: no such file or folder")
    if _looks_like_json(source):
        return _read_coco(source, None if coco_truth is None else Path(coco_truth))
    return _read_csv(source, names)


def _looks_like_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")


@dataclass(frozen=True)
class _Columns:
    """Which columns of a table are read, by what they mean."""

    image: str
    score: str
    finding: str | None
    box: dict[str, str]  # columns by role, such as xmin or width; empty where rows are scores
    guessed: tuple[str, ...]  # what was taken for what, in words

    @property
    def read(self) -> list[str]:
        """The columns, each once."""
        finding = [] if self.finding is None else [self.finding]
        return list(dict.fromkeys([self.image, self.score, *self.box.values(), *finding]))

    @property
    def notes(self) -> list[str]:
        """One line that says what was guessed, if anything."""
        if not self.guessed:
            return []
        return [
            f"Columns recognised: {', '.join(self.guessed)} (name others with --columns "
            "ROLE=COLUMN, such as score=prob)."
        ]

    @property
    def sides(self) -> str:
        """What says that a row holds a width and a height; empty where it holds corners."""
        if "width" not in self.box:
            return ""
        return f"the columns {', '.join(self.box.values())} are read as {_FORMS[tuple(self.box)]}"


def _find_columns(table: pd.DataFrame, names: ColumnNames, where: str) -> _Columns:
    """Find the columns by their names: those given, else those that `cxr prepare` knows."""
    header = [str(column) for column in table.columns]
    image = _one_column(header, "image", names.image, column_names("file"), where)
    score = _one_column(header, "score", names.score, column_names("score"), where)
    finding = names.finding if names.finding in header else None
    if finding is None and names.finding != ColumnNames.finding:
        raise InputError(
            f"{where}: column '{names.finding}' is missing; it has {', '.join(header[:20])}; name "
            "the column of findings by --columns finding=COLUMN"
        )
    box = _box_columns([column for column in header if column not in (image, score)], where)
    if finding is None and box:
        finding = _class_column(table, {image, score, *box.values()})
    guessed = [
        f"{column} as {meaning}"
        for meaning, given, column in (
            ("image_id", names.image, image),
            ("score", names.score, score),
            ("finding", names.finding, finding),
        )
        if column is not None and column != given
    ]
    if box and list(box.values()) != EDGES:
        guessed.append(f"{', '.join(box.values())} as {_FORMS[tuple(box)]}")
    columns = _Columns(image, score, finding, box, tuple(guessed))
    for column in columns.read:
        if header.count(column) > 1:
            raise InputError(f"{where}: column '{column}' appears twice; keep one")
    return columns


def _one_column(header: list[str], kind: str, given: str, known: Sequence[str], where: str) -> str:
    """Find the column of image ids or of scores."""
    if header.count(given) == 1:
        return given
    if given in header:
        raise InputError(f"{where}: column '{given}' appears twice; keep one")
    is_default = given == getattr(ColumnNames, kind)
    found = find_column(header, (given, *known)) if is_default else None
    if found is None:
        raise InputError(
            f"{where}: column '{given}' is missing; it has {', '.join(header[:20])}; name the "
            f"column of {'image ids' if kind == 'image' else 'scores'} by --columns {kind}=COLUMN "
            f"(cxr import), or call it {given}"
        )
    return found


_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = ("xmin", "ymin", "width", "height")
_CENTRE = ("xcenter", "ycenter", "width", "height")
_FORMS: dict[tuple[str, ...], str] = {
    _CORNERS: "x1, y1, x2, y2",
    _SIDES: "x, y, width, height",
    _CENTRE: "x and y of the centre, width, height",
}
"""Roles of the columns that make a box, in words."""


def _box_columns(header: list[str], where: str) -> dict[str, str]:
    """Find the columns of boxes, by role; none where rows are scores of images."""
    if set(EDGES) <= set(header):
        return dict(zip(_CORNERS, EDGES, strict=True))
    roles = dict.fromkeys(role for form in _FORMS for role in form)
    found = {role: find_column(header, column_names(role)) for role in roles}
    held = {role: column for role, column in found.items() if column is not None}
    for form in _FORMS:
        if set(form) <= set(held):
            return {role: held[role] for role in form}
    edges = [column for role, column in held.items() if role not in ("width", "height")]
    across, down = ({"xmin", "xmax", "xcenter"}, {"ymin", "ymax", "ycenter"})
    if set(EDGES) & set(header) or (across & set(held) and down & set(held)):
        raise InputError(
            f"{where}: has {', '.join(edges)}; boxes need x1, y1, x2 and y2, or x, y, width and "
            "height: name the columns so, or leave these out for scores of whole images"
        )
    return {}


def _class_column(table: pd.DataFrame, taken: set[str]) -> str | None:
    """Find the column that names the class of each box; numbers of classes are no names."""
    free = [str(column) for column in table.columns if str(column) not in taken]
    found = find_column(free, column_names("label"))
    if found is None:
        return None
    cells = table[found].astype(TEXT)
    named = cells.notna().all() and pd.to_numeric(cells, errors="coerce").isna().all()
    return found if named else None


def _plain_table(table: pd.DataFrame, columns: _Columns, where: str) -> pd.DataFrame:
    """Return the rows under our names for the columns, with numbers, and boxes as corners."""
    rows = pd.DataFrame({"image_id": table[columns.image], "place": table["place"]})
    rows["score"] = _as_numbers(rows.assign(score=table[columns.score]), "score", where)
    if columns.finding is not None:
        rows["finding"] = table[columns.finding]
    values = {}
    for role, column in columns.box.items():
        named = rows[["image_id", "place"]].assign(**{column: table[column]})
        values[role] = _as_numbers(named, column, where)
    if "xmax" in values:
        edges = [values[role] for role in _CORNERS]
    elif "xmin" in values:
        x, y, width, height = (values[role] for role in _SIDES)
        edges = [x, y, x + width, y + height]
    elif values:
        x, y, width, height = (values[role] for role in _CENTRE)
        edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    else:
        edges = []
    return rows.assign(**dict(zip(EDGES, edges, strict=False)))


def _as_numbers(table: pd.DataFrame, column: str, where: str) -> pd.Series:
    """Finite or infinite numbers of a column; the first cell that is none is refused as it is."""
    cells = table[column]
    cells = cells.astype(str) if cells.dtype == object else cells  # a cell may hold anything
    numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    if (none := numbers.isna().to_numpy()).any():
        first, cell = table[none].iloc[0], str(cells[none].iloc[0])
        raise InputError(
            f"{where}: {first['place']}, image '{first['image_id']}': {column}={cell!r} is no "
            f"number; correct it ({counted(int(none.sum()), 'row', 'are')} so)"
        )
    return numbers


def _read_csv(path: Path, names: ColumnNames) -> RawPredictions:
    table = read_text_table(path, ())
    if len(table.columns) == 1:
        table = read_text_table(path, (names.image, names.score))
    columns = _find_columns(table, names, str(path))
    places = [f"row {line}" for line in table.index + 2]  # line 1 is the header
    table = table[columns.read].reset_index(drop=True).assign(place=places)
    rows = _plain_table(table, columns, str(path))
    return RawPredictions(rows, path.read_bytes(), notes=columns.notes, sides=columns.sides)


def _read_frame(frame: pd.DataFrame, names: ColumnNames) -> RawPredictions:
    columns = _find_columns(frame, names, FRAME)
    table = frame[columns.read].reset_index(drop=True)
    content = table.to_csv(index=False).encode()
    for column in (columns.image, columns.finding):
        if column is None:
            continue
        missing = table[column].isna()
        if missing.any():
            label = frame.index[int(missing.to_numpy().argmax())]
            raise InputError(f"{FRAME}: row {label}: {column} is missing; fill it in")
        table[column] = table[column].astype(str)
    table["place"] = [f"row {label}" for label in frame.index]
    rows = _plain_table(table, columns, FRAME)
    return RawPredictions(rows, content, notes=columns.notes, sides=columns.sides)


def _read_coco(path: Path, truth: Path | None) -> RawPredictions:
    """COCO results: a list of ``image_id, category_id, bbox [x, y, width, height], score``."""
    results = read_json_file(path)
    if not isinstance(results, list):
        raise InputError(f"{path}: COCO results are a list of boxes; this holds an object")
    table = _coco_table(path, results)
    if truth is not None:
        described = read_json_file(truth)
        named = _named(table, path, described, truth)
        drawn = described.get("annotations", [])
        crowds = [{**entry, "score": 1} for entry in drawn if entry.get("iscrowd")]
        crowded = _named(_coco_table(truth, crowds), truth, described, truth)
        content = path.read_bytes() + truth.read_bytes()
        ran = tuple(file_stem(image["file_name"]) for image in described["images"])
        return RawPredictions(named, content, crowds=crowded, sides=_COCO_SIDES, ran=ran)
    categories = sorted(map(str, table["category"].unique()))
    if len(categories) > 1:
        raise InputError(
            f"{path}: holds categories {', '.join(categories[:_SHOWN])}; name them by the "
            "annotation file they come from (cxr import --coco-truth)"
        )
    advice = ", or name the annotation file that the image ids are of (cxr import --coco-truth)"
    rows = table.drop(columns="category")
    return RawPredictions(rows, path.read_bytes(), advice=advice, sides=_COCO_SIDES)


def _coco_table(path: Path, entries: list[Any]) -> pd.DataFrame:
    number, images, categories, numbers = 0, list[str](), list[str](), list[float]()
    try:
        for number, entry in enumerate(entries):  # noqa: B007 - the error below names it
            if isinstance(entry["bbox"], str):  # whose signs are no numbers of a box
                raise TypeError("bbox is a text")
            x, y, width, height = map(float, entry["bbox"])
            numbers += x, y, x + width, y + height, float(entry["score"])
            images.append(str(entry["image_id"]))
            categories.append(str(entry.get("category_id", 1)))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: entry {number} needs image_id, bbox of four numbers, and score ({error!r})"
        ) from None
    table = pd.DataFrame(np.reshape(numbers, (-1, 5)), columns=[*EDGES, "score"])
    places = [f"entry {number}" for number in range(len(table))]
    texts = {"image_id": images, "category": categories, "place": places}
    return table.assign(**{name: pd.Series(cells, dtype=TEXT) for name, cells in texts.items()})


def _named(table: pd.DataFrame, path: Path, described: Any, truth: Path) -> pd.DataFrame:
    """Replace COCO's numbers by the annotation file's image names and category names."""
    try:
        images = {str(e["id"]): file_stem(e["file_name"]) for e in described["images"]}
        categories = {str(e["id"]): str(e["name"]) for e in described["categories"]}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{truth}: a COCO annotation file has images (id, file_name) and categories (id, "
            f"name); this lacks {error}"
        ) from None
    for column, known in (("image_id", images), ("category", categories)):
        unknown = ~is_member(table[column], list(known))
        if unknown.any():
            first = table[unknown].iloc[0]
            raise InputError(
                f"{path}: {first['place']}: {column.removesuffix('_id')} {first[column]} is not in "
                f"{truth}; use the file that the results were made on"
            )
    table["image_id"] = renamed(table["image_id"], images)
    table["finding"] = renamed(table["category"], categories)
    return table.drop(columns="category")


def file_stem(name: Any) -> str:
    r"""The name of a file without folders and suffix, whatever the system that wrote the path.

    Example:
        >>> file_stem(r"images\a.b.png")
        'a.b'
    """
    file = str(name).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return file[:dot] if 0 < (dot := file.rfind(".")) < len(file) - 1 else file


_NO_PREDICTIONS = ("classes.txt", "requirements.txt", "readme.txt")


def _read_yolo(folder: Path, class_names: str | Path | Sequence[str] | None) -> RawPredictions:
    """One ``.txt`` an image, named like it, in the folder or in its ``labels/``."""
    place = folder / "labels" if (folder / "labels").is_dir() else folder
    files = [p for p in sorted(place.glob("*.txt")) if p.name.lower() not in _NO_PREDICTIONS]
    if not files:
        raise InputError(
            f"{place}: holds no prediction file (.txt, one an image); give the folder that "
            "Ultralytics' save_txt wrote, or one CSV or JSON file"
        )
    names = _yolo_names(folder, class_names)
    rows = [row for path in files for row in _yolo_rows(path)]
    table = pd.DataFrame(rows, columns=["image_id", "class", *EDGES, "score", "place"])
    table = table.astype({"class": np.int64, **dict.fromkeys([*EDGES, "score"], np.float64)})
    content = b"".join(f"{p.name}\n".encode() + p.read_bytes() for p in files)
    raw = RawPredictions(table, content, in_shares=True, listed=tuple(path.stem for path in files))
    if names is not None:
        unnamed = ~table["class"].isin(list(names))
        if unnamed.any():
            first = table[unnamed].iloc[0]
            raise InputError(
                f"{place}: {first['place']}: class {first['class']} has no name; {len(names)} "
                "classes are named"
            )
        table["finding"] = table["class"].map(names)
    elif (table["class"] != 0).any():
        first = table[table["class"] != 0].iloc[0]
        raise InputError(
            f"{place}: {first['place']}: class {first['class']}: name the classes, in the order of "
            "their numbers, or the data.yaml that names them (cxr import --class-names)"
        )
    raw.rows = table.drop(columns="class")
    return raw


def _yolo_names(folder: Path, given: str | Path | Sequence[str] | None) -> dict[int, str] | None:
    """Class names by number; None where nothing names them."""
    if isinstance(given, str | Path) and Path(given).suffix.lower() in (".yaml", ".yml"):
        return read_class_names(Path(given))
    if isinstance(given, str | Path):
        given = [name.strip() for name in str(given).split(",")]
    if given:
        return dict(enumerate(given))
    beside = (place / "data.yaml" for place in (folder, folder.parent))
    return next((read_class_names(path) for path in beside if path.is_file()), None)


def _yolo_rows(path: Path) -> Iterator[tuple[Any, ...]]:
    """``image, class, x1, y1, x2, y2, score, place`` of each line of a file."""
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        try:
            kind, x, y, width, height, *scores = (float(word) for word in words)
        except ValueError:
            kind, scores = math.nan, []
        if len(scores) != 1 or not kind.is_integer() or kind < 0:
            hint = "; write the confidence too (save_conf=True)" if len(words) == 5 else ""
            raise InputError(
                f"{path}: line {number}: needs class, cx, cy, width, height and confidence{hint}"
            )
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        yield path.stem, int(kind), *edges, scores[0], f"{path.name}, line {number}"


_KEY = ("number", "image_id")
_REVIEW = ("number", "score", "remark")
_SCALE = "scale"
"""In the key: px of the panel per px of the original."""


def write_reader_study(
    dataset: DataSet,
    image_ids: Sequence[str],
    out: Path,
    *,
    finding: str,
    panel: int = 1024,
    seed: int = 0,
    progress: Callable[..., None] | None = None,
) -> list[str]:
    """Write plain numbered images, ``key.csv`` and an empty ``review.csv``.

    The images carry no id, truth, system or file facts, and lie in random order. The folder also
    gets ``read.html`` to mark and rate on, ``panels/001.png`` and so on, and ``README.txt``.
    `finding` is what is asked for, in words; `panel` the longer side of an image at most, px.

    Returns:
        The image ids in the order of their numbers, which start at 1.

    Raises:
        InputError: The folder holds a study already, which a reader may have filled in.
    """
    if (out / "review.csv").exists():
        raise InputError(f"{out}: holds a study already; choose another --out")
    order = [str(name) for name in np.random.default_rng(seed).permutation(list(image_ids))]
    digits = max(3, len(str(len(order))))
    numbers = [f"{position:0{digits}d}" for position in range(1, len(order) + 1)]
    make_folder(out / "panels")
    scales = []
    for number, image_id in zip(numbers, order, strict=True):
        pixels = dataset.read_original(image_id)
        small, scale = fit_panel(pixels, min(panel, max(pixels.shape)))
        with atomic_path(out / "panels" / f"{number}.png") as path:
            Image.fromarray(small).save(path, format="PNG")
        scales.append(scale)
        if progress is not None:
            progress()
    study = hashlib.sha256("\n".join([str(out.resolve()), finding, *order]).encode())
    for name, words in (("read.html", finding), ("README.txt", inside_sentence(finding))):
        template = template_environment(Path(__file__).parent).get_template(f"{name}.jinja")
        text = template.render(finding=words, numbers=numbers, study=study.hexdigest()[:12])
        write_text(out / name, text + "\n")
    places = zip(numbers, order, scales, strict=True)
    write_csv(pd.DataFrame(places, columns=[*_KEY, _SCALE]), out / "key.csv")
    write_csv(pd.DataFrame({"number": numbers}, columns=_REVIEW), out / "review.csv")
    return order


def read_review(review: Path, key: Path) -> pd.DataFrame:
    """Read a filled-in form with its key.

    Numbers may have lost their leading zeros, as spreadsheets do; empty scores are left out.
    Returns ``image_id``, ``score``, ``row`` (line in the form) and, where the form has them, the
    edges of boxes in original px, NaN in the row of an image as a whole.
    """
    known = _read_rows(key, _KEY, [_SCALE]).set_index("number")
    names = known["image_id"]
    form = _read_rows(review, _REVIEW[:2], EDGES)
    if not names.index.is_unique:
        raise InputError(f"{key}: number {names.index[names.index.duplicated()][0]} repeats")
    unknown = form[~form["number"].isin(names.index)]
    if len(unknown):
        first = unknown.iloc[0]
        raise InputError(
            f"{review}: line {first['row']}: number {first['number']} is not in {key}; use the "
            "key of the same study"
        )
    filled = form[form["score"].str.strip() != ""]
    if filled.empty:
        raise InputError(f"{review}: no score is filled in; write 0 to 1 in the column score")
    filled = filled.assign(
        image_id=filled["number"].map(names), place="line " + filled["row"].astype(str)
    )
    filled["score"] = _as_numbers(filled, "score", str(review))
    edges = [edge for edge in EDGES if edge in filled]
    if edges and _SCALE not in known:
        raise InputError(
            f"{key}: has no column '{_SCALE}', so boxes have no place; use this study's"
        )
    for edge in edges:
        boxed = filled[filled[edge] != ""]
        scale = known[_SCALE].reindex(boxed["number"]).astype(np.float64).to_numpy()
        filled[edge] = (_as_numbers(boxed, edge, str(review)) / scale).reindex(filled.index)
    return filled[["image_id", "score", "row", *edges]].reset_index(drop=True)


def _read_rows(path: Path, wanted: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """The wanted columns as text, numbers without leading zeros, and each row's line."""
    table = read_text_table(path, wanted)
    table["number"] = table["number"].str.lstrip("0")
    held = [*wanted, *(name for name in optional if name in table), "row"]
    return table.assign(row=table.index + 2)[held]  # line 1 is the header
