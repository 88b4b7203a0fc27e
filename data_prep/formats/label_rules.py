"""What follows from labels and boxes that an owner wrote by hand: contradictions, coverage."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.text_lookup import is_member
from data_prep.formats.source import Exclusions

EDGES = ["x1", "y1", "x2", "y2"]
FINDING_KEY = ["image_id", "finding"]

STATE_WORDS = {
    **dict.fromkeys(("present", "positive", "true", "yes", "1", "1.0"), "present"),
    **dict.fromkeys(("absent", "negative", "false", "no", "0", "0.0"), "absent"),
    **dict.fromkeys(("uncertain", "-1", "-1.0"), "uncertain"),
}
"""How people write a state, in lower case."""


def rule_out_contradictions(out: Exclusions, labels: pd.DataFrame, boxes: pd.DataFrame) -> None:
    """Rule out images whose label cannot be right; a wrong box is a wrong label.

    Args:
        out: Takes the images and the reasons.
        labels: ``image_id, finding, state``.
        boxes: ``image_id, finding, x1, y1, x2, y2``, as written.
    """
    out.add(labels.loc[labels.duplicated(FINDING_KEY), "image_id"], "two states for one finding")
    ids, edges = boxes["image_id"].to_numpy(), boxes[EDGES].to_numpy(dtype="float64")
    out.add(ids[~np.isfinite(edges).all(axis=1)], "box with a missing or infinite number")
    out.add(
        ids[(edges[:, 0] >= edges[:, 2]) | (edges[:, 1] >= edges[:, 3])],
        "box of zero or negative size (x1, y1, x2, y2 is expected, not x, y, width, height)",
    )
    out.add(ids[(edges < 0).any(axis=1)], "box outside the image")
    absent = labels.loc[labels["state"] == "absent", FINDING_KEY].drop_duplicates()
    contradicted = boxes.merge(absent, on=FINDING_KEY)["image_id"]
    out.add(contradicted, "box of a finding that is labelled absent")


def with_boxed_findings(labels: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """Add a present finding for each box whose finding has no label.

    Args:
        labels: The ``findings`` table.
        boxes: The ``boxes`` table.

    Returns:
        The ``findings`` table; what is added is the reference's, of origin ``boxes``.
    """
    boxed = boxes[FINDING_KEY].drop_duplicates()
    merged = boxed.merge(labels[FINDING_KEY], on=FINDING_KEY, how="left", indicator=True)
    implied = merged.loc[merged["_merge"] == "left_only", FINDING_KEY].assign(
        reader=REFERENCE_READER, state="present", origin="boxes"
    )
    return pd.concat([labels, implied], ignore_index=True) if len(implied) else labels


def coverage_of_boxed_findings(labels: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """All lesions are boxed where there is a box, and where a finding boxed elsewhere is absent.

    Args:
        labels: The ``findings`` table of the reference.
        boxes: The ``boxes`` table of the reference.

    Returns:
        The ``box_coverage`` table.
    """
    boxed_findings = is_member(labels["finding"], boxes["finding"])
    absent = labels.loc[boxed_findings & (labels["state"] == "absent"), FINDING_KEY]
    present = labels.loc[labels["state"] == "present", FINDING_KEY]
    boxed = present.merge(boxes[FINDING_KEY].drop_duplicates(), on=FINDING_KEY)
    complete = pd.concat([absent, boxed])
    return complete.assign(reader=REFERENCE_READER, coverage="all").reset_index(drop=True)
