"""Small sources of three tables, and the data sets that `prepare` makes of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
from cxr_compare.data_prep.contracts.table_files import read_header
from cxr_compare.data_prep.sources.source_tables import ReadOptions
from PIL import Image

from cxr_compare.data_prep.prepare import prepare


def write_source(
    folder: Path,
    ids: Sequence[str],
    patients: Sequence[str],
    *,
    finding: str = "mass",
    ill: int = 3,
    seed: int = 0,
    **columns: Sequence[Any],
) -> Path:
    """Write, or write on, random images of 50 x 40 px; each `ill`-th is ill, with one box."""
    folder.mkdir(parents=True, exist_ok=True)
    images = pd.DataFrame({"image_id": ids, "patient_id": patients, **columns})
    images["path"] = images["image_id"] + ".png"
    for number, name in enumerate(images["path"]):
        if not (folder / name).exists():
            noise = np.random.default_rng([seed, number]).integers(0, 255, (40, 50), np.uint8)
            Image.fromarray(noise).save(folder / name)
    states = pd.DataFrame({"image_id": ids, "finding": finding})
    states["state"] = (np.arange(len(ids)) % ill == 0).astype(int)
    boxes = states.loc[states["state"] == 1, ["image_id", "finding"]]
    images.to_csv(folder / "images.csv", index=False)
    states.to_csv(folder / "labels.csv", index=False)
    boxes.assign(x1=1, y1=2, x2=30, y2=40).to_csv(folder / "boxes.csv", index=False)
    return folder


def write_pairs(folder: Path, n_images: int = 12, **columns: Sequence[Any]) -> Path:
    """A source of images i000, i001, ...: two of each patient."""
    numbers = range(n_images)
    ids = [f"i{n:03d}" for n in numbers]
    patients = [f"p{n // 2}" for n in numbers]
    return write_source(folder, ids, patients, **columns)


def read_options(source: Path) -> ReadOptions:
    """The three tables of a source, whose columns x_... are kept."""
    tables = tuple(source / f"{name}.csv" for name in ("images", "labels", "boxes"))
    free = [name for name in read_header(tables[0]) if name.startswith("x_")]
    return ReadOptions(labels=tables, columns=tuple(f"{name}={name}" for name in free))


def make(source: Path, out: Path, **options: Any) -> Any:
    """Return the messages of `prepare` about a source of three tables, read in this process."""
    given = {"format": "table", "workers": 1, **options}
    if given["format"] == "table" and "read" not in given:
        given["read"] = read_options(source)
    return prepare(source, out, PrepareOptions(**given))


def told(track: Callable[..., Any], say: Callable[[str], None] = lambda line: None) -> Any:
    """Progress that is shown by two functions."""
    return SimpleNamespace(track=track, say=say)
