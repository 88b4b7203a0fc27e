"""Files of a reader study without hints: numbered images, a form to fill in, and its key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from cxr_compare import DataSet
from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.page_templates import template_environment
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.evaluation.boxes.read_table import as_numbers
from cxr_compare.evaluation.metrics.prose import inside_sentence

_README = """\
How to read: {finding}

read.html   the page to read on: open it in a browser (no server, no network). Draw a box on each
            {finding}, say how sure you are, and give back the file that "Save answers" writes.
panels/   the images, in random order, numbered; nothing else is said of them.
review.csv   instead of the page, without boxes: write one score an image: 0 means surely no
             {finding}, 1 means surely {finding}, 0.5 means undecided. Leave what you did not read
             empty. A remark may hold anything.
key.csv   says which image is which. Readers must not have it: take it away first.

Then, one reader as a system like any other, from the page's file or review.csv:
cxr import-form marks.csv --key key.csv --data DATA --out OUT --name "Reader A"
Several readers, each with a file of their own:
cxr readers "Reader A=a.csv" "Reader B=b.csv" --key key.csv --data DATA --out OUT
"""

_KEY_COLUMNS = ("number", "image_id")


_FORM_COLUMNS = ("number", "score", "remark")


_SCALE = "scale"  # column of the key: panel px per original px


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
    """Write a folder from which human readers (radiologists) can read images without any hint.

    The images are numbered in random order and show neither id, label nor model output. The folder
    contains ``read.html``, a page on which a reader draws boxes and rates images, the images as
    ``panels/001.png`` and so on, an empty form ``review.csv``, ``README.txt``, and ``key.csv``,
    which gives the image id of each number and is not for readers.

    `finding` is the disease sign that readers look for, as the page shows it. `panel` is the
    largest length of the longer side of a written image in px. The seed is that of the order of the
    images. `progress` is called without arguments after each written image. Returns the image ids
    in the order of their numbers, which start at 1. Raises InputError if the folder already holds a
    study, which a reader may have filled in.
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
        scale = min(1.0, panel / max(pixels.shape))
        if scale < 1:
            height, width = (max(1, round(side * scale)) for side in pixels.shape)
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        with atomic_path(out / "panels" / f"{number}.png") as path:
            Image.fromarray(pixels).save(path, format="PNG")
        scales.append(scale)
        if progress is not None:
            progress()
    study = hashlib.sha256("\n".join([str(out.resolve()), finding, *order]).encode())
    template = template_environment(Path(__file__).parent).get_template("read.html.jinja")
    page = template.render(finding=finding, numbers=numbers, study=study.hexdigest()[:12])
    write_text(out / "read.html", page + "\n")
    write_text(out / "README.txt", _README.format(finding=inside_sentence(finding)))
    rows = zip(numbers, order, scales, strict=True)
    write_csv(pd.DataFrame(rows, columns=[*_KEY_COLUMNS, _SCALE]), out / "key.csv")
    write_csv(pd.DataFrame({"number": numbers}, columns=_FORM_COLUMNS), out / "review.csv")
    return order


def read_review(review: Path, key: Path) -> pd.DataFrame:
    """Read the scores and boxes that a human reader entered into the form of `write_reader_study`.

    Numbers of images may have lost their leading zeros in a spreadsheet. Rows without a score are
    left out.

    `key` is the file ``key.csv`` of the same study, with the image id of each number. The table has
    ``image_id``, ``score`` and ``row`` (number of the line in the form, from 2). If the form has
    boxes, ``x1, y1, x2, y2`` follow in px of the original image; they are NaN in a row that rates
    the whole image. Raises InputError, which names the line, if a number is not in the key or
    repeats in it, no score is filled in, or a cell is not a number.
    """
    key_table = _read_rows(key, _KEY_COLUMNS, [_SCALE]).set_index("number")
    image_by_number = key_table["image_id"]
    form = _read_rows(review, _FORM_COLUMNS[:2], EDGES)
    numbers = image_by_number.index
    if not numbers.is_unique:
        raise InputError(f"{key}: number {numbers[numbers.duplicated()][0]} repeats")
    unknown = form[~form["number"].isin(numbers)]
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
        image_id=filled["number"].map(image_by_number),
        place="line " + filled["row"].astype(str),
    )
    filled["score"] = as_numbers(filled, "score", str(review))
    edges = [edge for edge in EDGES if edge in filled]
    if edges and _SCALE not in key_table:
        raise InputError(
            f"{key}: has no column '{_SCALE}', so boxes have no place; use this study's"
        )
    for edge in edges:
        boxed = filled[filled[edge] != ""]
        scale = key_table[_SCALE].reindex(boxed["number"]).astype(np.float64).to_numpy()
        filled[edge] = (as_numbers(boxed, edge, str(review)) / scale).reindex(filled.index)
    return filled[["image_id", "score", "row", *edges]].reset_index(drop=True)


def _read_rows(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns as text, strip leading zeros from ``number``, and add each row's line."""
    table = read_text_table(path, required)
    table["number"] = table["number"].str.lstrip("0")
    columns = [*required, *(name for name in optional if name in table), "row"]
    return table.assign(row=table.index + 2)[columns]  # line 1 is the header
