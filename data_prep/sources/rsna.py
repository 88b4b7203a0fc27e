"""What only the RSNA challenge has: patients by its images at NIH, and a phantom in its layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.base.records import Digests, Record
from cxr_compare.data_prep.base.tables import SYNTHETIC
from cxr_compare.data_prep.base.user_tables import read_text_table, refuse_line, to_numbers
from cxr_compare.data_prep.sources.label_table import LabelTable, published_tables
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.table_facts import field_sizes

MAPPING = "rsna_to_nih.csv"
PHANTOM = "synth.json"
"""File of a folder that `cxr synth` made in RSNA's layout."""
_DOUBTFUL_MSE = 20.0  # grey levels squared above which the match of an image to NIH's is doubtful


class PhantomArguments(Record):
    """Arguments from which ``cxr synth`` draws synthetic images.

    Attributes:
        n_images: Number of labelled images, at least 1.
        seed: Random seed, at least 0.
        size: Side of the square images, 64 to 4,096 px.
        prevalence: Expected share of positive images, in (0, 1).
    """

    n_images: int
    seed: int
    size: int
    prevalence: float


class PhantomInfo(Record, kind="synth"):
    """Content of ``synth.json``, which marks a folder of synthetic images as complete."""

    arguments: PhantomArguments
    counts: dict[str, int] = Field(default_factory=dict)
    box_rule: str | None = None
    files: Digests = Field(default_factory=dict)


def read_mapping(path: Path, space: str = "nih") -> pd.DataFrame:
    """Read which image of NIH ChestX-ray14 each image of the RSNA challenge was made from."""
    text = read_text_table(path, ("patientId", "nih_image"))
    ids, nih_images = text["patientId"], text["nih_image"]
    refuse_line(ids.duplicated(), path, " is mapped twice; keep one line", ids)
    doubtful = nih_images.duplicated(keep=False)
    if "mse" in text.columns:  # tells which match of an NIH image that is named twice is right
        doubtful = ~(to_numbers(text["mse"], path, "mse") <= _DOUBTFUL_MSE)
    table = {
        "image_id": ids,
        "nih_image": nih_images,
        "patient_id": f"{space}:" + nih_images.str.split("_", n=1).str[0],
        "patient_id_source": np.where(doubtful, "mapped_unverified", "mapped"),
    }
    return pd.DataFrame(table).reset_index(drop=True)


def add_nih_patients(source: Source, tables: Sequence[LabelTable]) -> None:
    """Add the patients of the mapping to NIH, and the true sizes that NIH's table states."""
    root = source.root
    space = "nih"
    if (root / PHANTOM).exists():
        space = f"phantom-{PhantomInfo.read(root / PHANTOM).arguments.seed}"
        source.images["source"] = SYNTHETIC
        for table in tables:
            table.rules = table.rules.model_copy(update={"origin": SYNTHETIC})
    if not (root / MAPPING).exists():
        source.notes.append(
            f"Put the public {MAPPING} (columns patientId, nih_image) into the folder, so that the "
            "patients are known"
        )
        return
    images = source.images.merge(read_mapping(root / MAPPING, space), on="image_id", how="left")
    entries = next(rules for rules in published_tables() if rules.field)
    for path in entries.find(root):
        text = read_text_table(path, ("Image Index",))
        sizes = field_sizes(text, path, entries.field).assign(nih_image=text["Image Index"])
        images = images.merge(sizes.drop_duplicates("nih_image"), on="nih_image", how="left")
    source.images = images.drop(columns="nih_image")
    n_doubtful = int((images["patient_id_source"] == "mapped_unverified").sum())
    if n_doubtful:
        doubtful = counted(n_doubtful, "image", "have")
        source.notes.append(f"{doubtful} a doubtful patient and are used for training only")
