"""Shortcut baseline of a prepared data set: the label guessed from metadata and image borders.

`evaluation.groups.shortcuts` makes the guess from a table of facts; this module makes that table
from the facts that ``cxr prepare`` recorded about each file.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.ids import positions
from cxr_compare.data_prep.contracts.schemas import OLDEST_YEARS
from cxr_compare.evaluation.groups import shortcuts

_RECORDED_FACTS = (
    "transfer_syntax",
    "photometric",
    "bits",
    "spacing_col_mm",
    "mean_grey",
    "file_bytes",
    "border_greys",
    "pixels",
    "aspect",
    "source",
)


def shortcut_facts(images: pd.DataFrame, decode: pd.DataFrame) -> pd.DataFrame:
    """Return facts about images that may predict the labels although they do not show the lungs.

    Examples are age, file size, bit depth and the grey values along the border. Impossible ages
    become unknown. The grey values along the border have one column for each piece of the border.
    `decode` has ``image_id`` and what was measured when the image file was decoded, such as
    ``bits`` or ``file_bytes``; it may be empty. The rows are those of `images`, indexed by
    ``image_id``; values are missing where a fact of an image is unknown.
    """
    rows = positions(images["image_id"], decode["image_id"])
    columns = {
        name: decode[name].array.take(rows, allow_fill=True)
        for name in _RECORDED_FACTS
        if name in decode.columns
    }
    facts = pd.DataFrame(columns, index=pd.Index(images["image_id"], name="image_id"))
    if "age_years" in images:
        ages = images["age_years"].set_axis(facts.index)
        facts["age_years"] = ages.where(ages.between(0, OLDEST_YEARS))
    if "border_greys" not in facts:
        return facts
    from cxr_compare.data_prep.images.border_greys import read_border_greys

    greys = pd.DataFrame(
        read_border_greys(facts["border_greys"].reset_index(drop=True)), index=facts.index
    )
    names = {piece: f"{shortcuts.BORDER_GREY}{piece:03d}" for piece in greys}
    return facts.drop(columns="border_greys").join(greys.rename(columns=names))


def measure_shortcuts(
    images: pd.DataFrame, decode: pd.DataFrame, labels: pd.DataFrame
) -> list[dict[str, Any]]:
    """Measure how well metadata and border pixels alone predict each label of a data set.

    A high AUROC means that a model may predict the label without looking at the lungs. The values
    and their computation are those of `evaluation.groups.shortcuts.measure_shortcuts`, from
    `shortcut_facts`. `labels` has one column for each label, such as ``mass``: 1.0 (present), 0.0
    (absent), or NaN where unknown, indexed by ``image_id``. There is one dictionary for each pair
    of a fact (``fact``, such as ``view``) and a label.

    Example:
        >>> images = pd.DataFrame({"image_id": [str(n) for n in range(400)],
        ...     "patient_id": [str(n) for n in range(400)], "view": ["AP", "PA"] * 200})
        >>> labels = pd.DataFrame({"mass": [1.0, 0.0] * 200}, index=images["image_id"])
        >>> [(row["fact"], row["auroc"]) for row in measure_shortcuts(
        ...     images, pd.DataFrame({"image_id": []}), labels)]
        [('view', 1.0)]
    """
    facts = shortcut_facts(images, decode)
    return shortcuts.measure_shortcuts(images, facts, labels)
