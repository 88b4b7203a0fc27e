"""Numbers in the place of the ids of images, patients and studies, for a report that is sent on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.sources.pixels import Pixels
from cxr_compare.evaluation.system_result import SystemResult

NAMES_HIDDEN = "names_hidden"
"""Key in the provenance of a comparison whose ids are numbers."""
_KINDS = {"image_id": "image", "patient_id": "patient", "study_id": "study"}
_COPIES = re.compile(r" \([^()]* = [^()]*\)")  # ids of copies, which may be of other data sets
# Ids stand in parentheses, or behind the row; ids with parentheses are allowed for.
_EXAMPLES = re.compile(r" \((?:[^()]|\([^()]*\))*\)|, image '[^']*'")


def hide_names(
    comparison: Comparison, truth: LabelledImages, pixels: Pixels | None, seed: int
) -> tuple[Comparison, LabelledImages, Pixels | None]:
    """Replace the ids of images, patients and studies by numbers, such as ``image-1``.

    Numbers follow the shuffled order of the sorted ids, so they tell nothing of names or dates, and
    are the same for every finding of a data set. Which number belongs to which id is not kept.
    """
    names = {
        column: _numbers(truth.images[column], kind, seed)
        for column, kind in _KINDS.items()
        if column in truth.images
    }
    of_images = names["image_id"]
    hidden = replace(
        truth,
        images=_renamed(truth.images, names),
        labels=truth.labels.rename(index=of_images),
        roles=truth.roles.rename(index=of_images),
        true_boxes=_renamed(truth.true_boxes, names),
        boxes_trusted=_renamed_index(truth.boxes_trusted, of_images),
        uncertain=_renamed_index(truth.uncertain, of_images),
        synthetic=_renamed_index(truth.synthetic, of_images),
        facts=truth.facts.rename(index=of_images),
    )
    shown = replace(
        comparison,
        decisions=_renamed(comparison.decisions, names),
        systems={name: _hidden_result(one, names) for name, one in comparison.systems.items()},
        notes=[_without_examples(note) for note in comparison.notes],
        provenance={**comparison.provenance, NAMES_HIDDEN: True},
    )
    if pixels is None:
        return shown, hidden, None
    id_of_number = {number: name for name, number in of_images.items()}
    read = pixels.read

    def read_by_number(number: str) -> npt.NDArray[np.uint8]:
        return read(id_of_number[number])

    return (
        shown,
        hidden,
        Pixels(
            read_by_number,
            lambda: pixels.decoded.rename(index=of_images),
            lambda: _renamed(pixels.readings, names),
        ),
    )


def _numbers(ids: pd.Series, kind: str, seed: int) -> dict[str, str]:
    """Return the number of each id, in the shuffled order of the sorted ids."""
    unique = sorted(ids.dropna().astype(str).unique())
    order = np.random.default_rng(seed).permutation(len(unique))
    return {unique[position]: f"{kind}-{number}" for number, position in enumerate(order, start=1)}


def _renamed(table: pd.DataFrame, names: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Return a table with numbers in its columns of ids; a table without rows stays as it is."""
    columns = {
        column: table[column].astype(object).map(numbers)
        for column, numbers in names.items()
        if column in table and len(table)
    }
    return table.assign(**{name: c.astype(table[name].dtype) for name, c in columns.items()})


def _renamed_index(ids: pd.Index, numbers: Mapping[str, str]) -> pd.Index:
    return pd.Index([numbers[name] for name in ids], dtype=ids.dtype, name=ids.name)


def _hidden_result(result: SystemResult, names: Mapping[str, Mapping[str, str]]) -> SystemResult:
    tables = {"boxes": result.boxes, "maps": result.maps}
    hidden = {key: _renamed(table, names) for key, table in tables.items() if table is not None}
    return replace(result, boxes=hidden.get("boxes"), maps=hidden.get("maps"))


def _without_examples(note: Note) -> Note:
    """Return a note on copies, or on how the input was read, without the ids of examples."""
    if note.kind == "copies":
        return note._replace(text=_COPIES.sub("", note.text), names_images=False)
    if note.kind in ("reading", "assumption"):
        return note._replace(text=_EXAMPLES.sub("", note.text), names_images=False)
    return note
