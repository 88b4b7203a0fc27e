"""A reader study without hints: numbered images, a key that stays away, a form to fill in."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import atomic_path, make_folder, write_text
from evaluation.metrics.words import inside_sentence
from evaluation.overlays.draw import fit_panel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from data_prep.store.dataset import DataSet

_KEY = ("number", "image_id")
_REVIEW = ("number", "score", "remark")
_FORM = """\
How to read: {finding}

panels/   one image each, in random order, numbered; nothing else is said of them.
review.csv   write one score an image: 0 means surely no {finding}, 1 means surely {finding},
             0.5 means undecided. Leave what you did not read empty. A remark may hold anything.
key.csv   says which image is which. Readers must not have it: take it away first.

Then, one reader as a system like any other:
cxr import review.csv --key key.csv --data DATA --out OUT --name "Reader A"
Several readers, each with a filled-in review.csv:
cxr readers "Reader A=a.csv" "Reader B=b.csv" --key key.csv --data DATA --out OUT
"""


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

    The images carry no id, truth, system or file facts, and lie in random order.

    Args:
        dataset: Where the pixels come from.
        image_ids: The images, unique.
        out: Folder; made if absent. Gets ``panels/001.png`` and so on, ``key.csv``,
            ``review.csv`` and ``README.txt``.
        finding: What is asked for, in words.
        panel: Longer side of an image at most, px; the whole image, never enlarged.
        seed: Of the order.
        progress: Called once per image.

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
    for number, image_id in zip(numbers, order, strict=True):
        pixels = dataset.read_original(image_id)
        small, _ = fit_panel(pixels, min(panel, max(pixels.shape)))
        with atomic_path(out / "panels" / f"{number}.png") as path:
            Image.fromarray(small).save(path, format="PNG")
        if progress is not None:
            progress()
    text = _FORM.format(finding=inside_sentence(finding))
    write_text(out / "README.txt", text)
    _write_rows(out / "key.csv", _KEY, list(zip(numbers, order, strict=True)))
    _write_rows(out / "review.csv", _REVIEW, [(number, "", "") for number in numbers])
    return order


def read_review(review: Path, key: Path) -> pd.DataFrame:
    """Read a filled-in form with its key.

    Numbers may have lost their leading zeros, as spreadsheets do; empty scores are left out.

    Args:
        review: ``number``, ``score``; other columns are not read.
        key: ``number``, ``image_id``.

    Returns:
        ``image_id``, ``score`` (NaN where it is no number), ``row`` (line in the form).

    Raises:
        InputError: A file is not of that form, a number is not in the key or repeats, or nothing
            was filled in.
    """
    names = _read_rows(key, _KEY).set_index("number")["image_id"]
    form = _read_rows(review, _REVIEW[:2])
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
    scores = pd.to_numeric(filled["score"], errors="coerce").astype(np.float64)
    return pd.DataFrame(
        {"image_id": filled["number"].map(names), "score": scores, "row": filled["row"]}
    ).reset_index(drop=True)


def _write_rows(path: Path, header: Sequence[str], rows: list[tuple[str, ...]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _read_rows(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """The wanted columns as text, numbers without leading zeros, and each row's line."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not readable as CSV ({reason})") from None
    for column in wanted:
        if column not in table:
            hint = "; save it with commas" if len(table.columns) == 1 else ""
            raise InputError(
                f"{path}: column '{column}' is missing; it has {', '.join(table.columns)}{hint}"
            )
    table["number"] = table["number"].str.strip().str.lstrip("0")
    table["row"] = np.arange(2, len(table) + 2)  # line 1 is the header
    return table[[*wanted, "row"]]
