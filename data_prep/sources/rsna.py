"""What only the RSNA challenge has: patients by its images at NIH, and a phantom in its layout."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from pydantic import Field

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.records import Digests, Record
from cxr_compare.data_prep.base.tables import SYNTHETIC
from cxr_compare.data_prep.base.user_tables import read_text_table, refuse_line
from cxr_compare.data_prep.sources.label_table import LabelTable, Tables, published_tables
from cxr_compare.data_prep.sources.patients import MAPPING, MAPPING_WORDS, mapped_patients
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.table_facts import field_sizes

PHANTOM = "synth.json"
"""File of a folder that `cxr synth` made in RSNA's layout."""


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
    files: Digests = Field(default_factory=dict)


def state_nih_patients(source: Source, tables: Tables) -> tuple[list[LabelTable], pd.DataFrame]:
    """Return the patients by the mapping to NIH, and the true sizes that NIH's table states.

    The tables of a synthetic set are returned as such.
    """
    root = source.root
    space = "nih"
    if (root / PHANTOM).exists():
        space = f"phantom-{PhantomInfo.read(root / PHANTOM).arguments.seed}"
        source.images["source"] = SYNTHETIC
        drawn = {"origin": SYNTHETIC}
        tables = [replace(t, rules=t.rules.model_copy(update=drawn)) for t in tables]
    path = root / MAPPING
    if not path.exists():
        source.notes.append(f"Put {MAPPING_WORDS} into the folder, so that the patients are known")
        return [*tables], pd.DataFrame(columns=["image_id"], dtype=TEXT)
    text = read_text_table(path, ("patientId", "nih_image"))
    ids, nih_images = text["patientId"], text["nih_image"]
    refuse_line(ids.duplicated(), path, " is mapped twice; keep one line", ids)
    stated = pd.DataFrame({"image_id": ids, "nih_image": nih_images})
    stated = stated.join(mapped_patients(text, path, "nih_image", space))
    stated = stated[is_member(ids, source.images["image_id"])]
    entries = next(rules for rules in published_tables() if rules.field)
    for path in entries.find(root):
        text = read_text_table(path, ("Image Index",))
        sizes = field_sizes(text, path, entries.field).assign(nih_image=text["Image Index"])
        stated = stated.merge(sizes.drop_duplicates("nih_image"), on="nih_image", how="left")
    n_doubtful = int((stated["patient_id_source"] == "mapped_unverified").sum())
    if n_doubtful:
        doubtful = counted(n_doubtful, "image", "have")
        source.notes.append(f"{doubtful} a doubtful patient and are used for training only")
    return [*tables], stated.drop(columns="nih_image")
