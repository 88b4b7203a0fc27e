"""Files of a reader study without hints: numbered images, a form to fill in, and its key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.page_templates import template_environment
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.overlays.draw import fit_panel
from cxr_compare.evaluation.systems.prediction_files import as_numbers

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
    """Write a reader study: plain numbered images, ``key.csv`` and an empty ``review.csv``.

    The images are in random order and show no id, truth, system or facts of their files. The folder
    also contains ``read.html``, on which readers mark and rate, the images as ``panels/001.png``
    and so on, and ``README.txt``.

    Args:
        dataset: The data set of the images.
        image_ids: Ids of the images to read.
        out: Folder to make.
        finding: Phrase for the finding that readers look for.
        panel: Largest longer side of an image, px.
        seed: Random seed of the order.
        progress: Function that is called after each image.

    Returns:
        The image ids in the order of their numbers, which start at 1.

    Raises:
        InputError: The folder already holds a study, which a reader may have filled in.
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
        panel_pixels, scale = fit_panel(pixels, min(panel, max(pixels.shape)))
        with atomic_path(out / "panels" / f"{number}.png") as path:
            Image.fromarray(panel_pixels).save(path, format="PNG")
        scales.append(scale)
        if progress is not None:
            progress()
    study = hashlib.sha256("\n".join([str(out.resolve()), finding, *order]).encode())
    for name, phrase in (("read.html", finding), ("README.txt", inside_sentence(finding))):
        template = template_environment(Path(__file__).parent).get_template(f"{name}.jinja")
        text = template.render(finding=phrase, numbers=numbers, study=study.hexdigest()[:12])
        write_text(out / name, text + "\n")
    rows = zip(numbers, order, scales, strict=True)
    write_csv(pd.DataFrame(rows, columns=[*_KEY_COLUMNS, _SCALE]), out / "key.csv")
    write_csv(pd.DataFrame({"number": numbers}, columns=_FORM_COLUMNS), out / "review.csv")
    return order


def read_review(review: Path, key: Path) -> pd.DataFrame:
    """Read a filled-in form with its key.

    Numbers may have lost their leading zeros in a spreadsheet. Rows without a score are left out.

    Args:
        review: Path of the form, ``review.csv``.
        key: Path of the key of the same study, ``key.csv``.

    Returns:
        A table with ``image_id``, ``score`` and ``row`` (the line in the form). If the form has
        boxes, their edges follow in px of the original image; they are NaN in a row that is about
        the whole image.

    Raises:
        InputError: The files do not belong together, or a cell is wrong. The message names the
            line.
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
