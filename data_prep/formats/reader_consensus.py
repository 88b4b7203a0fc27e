"""The reference made of several readers of one image: labels by vote, boxes by overlap and vote."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from data_prep.contracts.boxes import box_iou
from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGES, REFERENCE_READER
from data_prep.contracts.tables import is_member
from data_prep.formats.label_files import FINDING_KEY

_RULES = ("majority", "any", "all")
_SAME_LESION_IOU = 0.4
"""Boxes of two readers that overlap by more than this are the same lesion to them."""


def require_rule(rule: str, readers: pd.Series) -> str | None:
    """Check what the user said of the reference."""
    if rule in _RULES:
        return None
    kind, _, name = rule.partition(":")
    if kind != "reader" or not name:
        raise InputError(f"--reference {rule!r}: use {', '.join(_RULES)} or reader:NAME")
    readers_there = sorted(
        readers.unique(), key=lambda text: ([int(n) for n in re.findall(r"\d+", text)], text)
    )
    if name not in readers_there:
        raise InputError(
            f"--reference {rule}: no such reader; there are {', '.join(readers_there)}"
        )
    return name


def reference_findings(findings: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Make the reference's findings of those of the readers."""
    chosen = require_rule(rule, findings["reader"])
    if chosen is not None:
        own = findings[findings["reader"] == chosen]
        return own.assign(reader=REFERENCE_READER).reset_index(drop=True)
    votes = findings[FINDING_KEY].assign(
        present=findings["state"] == "present", absent=findings["state"] == "absent", readers=1
    )
    count = votes.groupby(FINDING_KEY, sort=False)[["present", "absent", "readers"]].sum()
    present, absent, readers = (count[c].to_numpy() for c in ("present", "absent", "readers"))
    says_present, says_absent = {
        "majority": (2 * present > readers, 2 * absent > readers),
        "any": (present > 0, absent == readers),
        "all": (present == readers, absent > 0),
    }[rule]
    state = np.select([says_present, says_absent], ["present", "absent"], "uncertain")
    made = count.index.to_frame(index=False)
    return made.assign(reader=REFERENCE_READER, state=state, origin="consensus").astype("str")


def reference_boxes(
    findings: pd.DataFrame, boxes: pd.DataFrame, reference: pd.DataFrame, rule: str
) -> pd.DataFrame:
    """Make the reference's boxes of those of the readers.

    Boxes of one finding that overlap are fused (see `_same_lesions`) and a fused box, the mean of
    the edges, is kept if enough of the finding's readers drew it: more than half for
    ``majority``, one for ``any``, every one for ``all``. With ``reader:NAME`` his boxes are taken
    as they are.
    """
    chosen = require_rule(rule, findings["reader"])
    if chosen is not None:
        fused = boxes[boxes["reader"] == chosen]
    else:
        lesions = boxes.assign(lesion=_same_lesions(boxes)).groupby("lesion", sort=False)
        fused = lesions[FINDING_KEY].first().join(lesions[EDGES].mean())
        drawn_by = lesions["reader"].nunique()
        readers = findings.groupby(FINDING_KEY).size().rename("readers")
        read_by = fused.join(readers, on=FINDING_KEY)["readers"].fillna(0)
        enough = {
            "majority": 2 * drawn_by > read_by,
            "any": drawn_by > 0,
            "all": drawn_by >= read_by,
        }
        fused = fused[enough[rule]]
    present = reference.loc[reference["state"] == "present", FINDING_KEY]
    kept = fused[[*FINDING_KEY, *EDGES]].merge(present, on=FINDING_KEY)
    kept = kept.sort_values([*FINDING_KEY, *EDGES], ignore_index=True)
    return kept.assign(reader=pd.Series(REFERENCE_READER, index=kept.index, dtype="str"))


def _same_lesions(boxes: pd.DataFrame, iou: float = _SAME_LESION_IOU) -> np.ndarray:
    """Tell which boxes of several readers are of one lesion.

    Greedy: of all pairs of boxes of one image and finding by different readers, the one that
    overlaps most is joined first, then the next, down to `iou`. A lesion has one box a reader at
    most, so a pair that would bring a second one is passed over. The order of the rows does not
    matter.
    """
    ordered = boxes[[*FINDING_KEY, "reader", *EDGES]].reset_index(drop=True)
    ordered = ordered.sort_values([*FINDING_KEY, "reader", *EDGES], kind="stable")
    ordered["box"] = np.arange(len(ordered))
    pairs = ordered[[*FINDING_KEY, "box"]].merge(ordered[[*FINDING_KEY, "box"]], on=FINDING_KEY)
    first, second = pairs["box_x"].to_numpy(), pairs["box_y"].to_numpy()
    reader, edges = ordered["reader"].to_numpy(), ordered[EDGES].to_numpy(dtype="float64")
    wanted = (first < second) & (reader[first] != reader[second])
    first, second = first[wanted], second[wanted]
    overlap = box_iou(edges[first], edges[second])
    near = overlap > iou
    first, second, overlap = first[near], second[near], overlap[near]
    lesion = {box: {box} for box in range(len(ordered))}
    for pair in np.argsort(-overlap, kind="stable"):  # only pairs that overlap: few
        one, other = lesion[first[pair]], lesion[second[pair]]
        if one is not other and {reader[b] for b in one}.isdisjoint(reader[b] for b in other):
            one |= other
            lesion.update(dict.fromkeys(other, one))
    number = np.empty(len(ordered), dtype="int64")
    number[ordered.index.to_numpy()] = [min(lesion[box]) for box in range(len(ordered))]
    return number


def reference_coverage(
    reference: pd.DataFrame, boxes: pd.DataFrame, localised: pd.Series
) -> pd.DataFrame:
    """Say where a reader's boxes are all there are."""
    key = [*FINDING_KEY, "reader"]
    rows = reference[is_member(reference["finding"], localised)]
    boxed = rows.merge(boxes[key].drop_duplicates(), on=key)
    absent: pd.DataFrame = rows.loc[rows["state"] == "absent", key]
    present: pd.DataFrame = boxed.loc[boxed["state"] == "present", key]
    complete = pd.concat([absent, present])
    return complete.assign(coverage="all").astype("str").reset_index(drop=True)
