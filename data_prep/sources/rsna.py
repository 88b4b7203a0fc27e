"""Format `rsna`: names of the files of the RSNA Pneumonia Detection Challenge, and its patients.

Kaggle's column ``patientId`` names an image, not a patient. The patients come from the public
mapping to NIH ChestX-ray14, ``rsna_to_nih.csv``, which others made by comparing pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field, Strict

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.records import Record, Whole
from cxr_compare.data_prep.contracts.schemas import SYNTHETIC
from cxr_compare.data_prep.contracts.table_files import read_text_table, refuse_line, to_numbers
from cxr_compare.data_prep.sources.descriptions import find_files, public_sets
from cxr_compare.data_prep.sources.image_facts import field_sizes
from cxr_compare.data_prep.sources.label_table import LabelTable
from cxr_compare.data_prep.sources.statements import Source

TRAIN_IMAGES = "stage_2_train_images"
TEST_IMAGES = "stage_2_test_images"
LABELS = "stage_2_train_labels.csv"
CLASS_INFO = "stage_2_detailed_class_info.csv"
CLASSES = {
    "Normal": "normal",
    "No Lung Opacity / Not Normal": "not_normal",
    "Lung Opacity": "lung_opacity",
}
"""Our names of the classes, by the names in RSNA's files."""
FINDING = "lung_opacity"
MAPPING = "rsna_to_nih.csv"
PHANTOM = "synth.json"
"""File of a folder that `cxr synth` made in RSNA's layout."""
# Mean squared grey-level difference above which the public match of an RSNA image to an NIH image
# is doubtful. 98 of 26,684 matches exceed it; all others are far below.
_DOUBTFUL_MSE = 20.0


def read_mapping(path: Path, space: str = "nih") -> pd.DataFrame:
    """Read which image of NIH ChestX-ray14 each image of the RSNA challenge was made from.

    The CSV file has ``patientId`` (image id in the challenge) and ``nih_image`` (file name at NIH,
    which begins with the patient). An optional column ``mse`` has the mean squared difference of
    the two images' grey values; the patient is uncertain if it is above 20 or missing. Without the
    column, the patients of an NIH image that is named twice are uncertain. An image of the
    challenge with two rows is refused. `space` is the prefix of the patient ids, as in
    ``nih:00019124``. The result has ``image_id``, ``nih_image``, ``patient_id`` and
    ``patient_id_source``, one row for each image.
    """
    text = read_text_table(path, ("patientId", "nih_image"))
    ids = text["patientId"]
    nih_images = text["nih_image"]
    refuse_line(ids.duplicated(), path, " is mapped twice; keep one line", ids)
    doubtful = nih_images.duplicated(keep=False)
    if "mse" in text.columns:
        # The difference tells which match of an NIH image that is named twice is right: one is
        # near 1 and the other near 90, or both are one image that was published twice.
        doubtful = ~(to_numbers(text["mse"], path, "mse") <= _DOUBTFUL_MSE)
    return pd.DataFrame(
        {
            "image_id": ids,
            "nih_image": nih_images,
            "patient_id": f"{space}:" + nih_images.str.split("_", n=1).str[0],
            "patient_id_source": np.where(doubtful, "mapped_unverified", "mapped"),
        }
    ).reset_index(drop=True)


class DrawnWith(Record):
    """Arguments with which ``cxr synth`` drew synthetic images; see `PhantomArguments`."""

    n_images: Whole
    seed: Whole
    size: Whole
    prevalence: float


class PhantomInfo(Record, kind="synth"):
    """Content of ``synth.json``, which marks a folder of synthetic images as complete.

    Attributes:
        counts: Numbers of images, patients, lesions and others, by name; empty while images are
            being drawn.
        box_rule: Extent of a box, in words.
        contrast_to_noise: Range of the contrast-to-noise ratio of lesions.
    """

    arguments: DrawnWith
    counts: dict[str, Whole] = Field(default_factory=dict)
    box_rule: str | None = None
    contrast_to_noise: Annotated[tuple[float, float], Strict(False)] | None = None


def add_nih_patients(source: Source, tables: Sequence[LabelTable]) -> None:
    """Add the patients of the mapping to NIH, and the true sizes that NIH's table states.

    In a folder that ``cxr synth`` made, the images are synthetic, and their patients have another
    prefix.
    """
    root = source.root
    images = source.images
    space = "nih"
    if (root / PHANTOM).exists():
        space = f"phantom-{PhantomInfo.read(root / PHANTOM).arguments.seed}"
        images = images.assign(source=SYNTHETIC)
        for table in tables:
            table.rules = table.rules.model_copy(update={"origin": SYNTHETIC})
    source.images = images
    if not (root / MAPPING).exists():
        source.notes.append(
            f"Put the public {MAPPING} (columns patientId, nih_image) into the folder, so that the "
            "patients are known"
        )
        return
    mapping = read_mapping(root / MAPPING, space)
    images = images.merge(mapping, on="image_id", how="left")
    rules = public_sets()["nih"].table[0]
    for entries in find_files(root, rules):
        text = read_text_table(entries, ("Image Index",))
        sizes = field_sizes(text, entries, rules.field)
        sizes = sizes.assign(nih_image=text["Image Index"]).drop_duplicates("nih_image")
        images = images.merge(sizes, on="nih_image", how="left")
    source.images = images.drop(columns="nih_image")
    n_doubtful = int((images["patient_id_source"] == "mapped_unverified").sum())
    if n_doubtful:
        source.notes.append(
            f"{counted(n_doubtful, 'image', 'have')} a doubtful patient and are used for training "
            "only"
        )
