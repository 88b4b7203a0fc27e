"""Joining of the labels and boxes of several readers to those of the reference (``--reference``).

The reference is the set of labels that training and evaluation use. Labels are joined by vote, and
boxes by overlap and vote. The labels of each reader are stored as well.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import are_rows_of
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.source_tables import FINDING_KEY, LABEL_KEY

_RULES = ("majority", "any", "all")
_DENIED_BY = {"majority": "majority", "any": "all", "all": "any"}
_SAME_LESION_IOU = 0.4  # IoU above which boxes of two readers outline the same lesion


def with_reference(
    findings: pd.DataFrame, boxes: pd.DataFrame, rule: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add the labels and boxes of the reader ``reference``, which join those of several people.

    The rule is ``majority``, ``any`` or ``all`` of the readers, or ``reader:NAME`` for one of them.
    The findings have ``image_id, finding, reader, state, origin`` and ``implied``, and the boxes
    ``image_id, finding, reader, x1, y1, x2, y2``, px. Labels of the reader ``reference`` stay as
    they are. An unknown rule, or a reader who labelled nothing, is refused.
    """
    is_reader = findings["reader"] != REFERENCE_READER
    readers = findings[is_reader]
    _require_rule(rule, readers["reader"])
    if readers.empty:
        return findings, boxes
    stated = findings[~is_reader]
    made = _vote(readers, rule).assign(implied=False)
    made = made[~are_rows_of(made[FINDING_KEY], stated[FINDING_KEY])]
    own_boxes = boxes[boxes["reader"] != REFERENCE_READER]
    fused = _fuse(readers, own_boxes, pd.concat([stated, made]), rule)
    return (
        pd.concat([findings, made], ignore_index=True),
        pd.concat([boxes, fused[boxes.columns]], ignore_index=True),
    )


def _require_rule(rule: str, readers: pd.Series) -> None:
    """Refuse a rule that does not exist or that the readers cannot fulfil."""
    kind, _, name = rule.partition(":")
    if rule == _RULES[0] or (rule in _RULES and len(readers)):
        return
    if rule in _RULES or (kind == "reader" and name and readers.empty):
        raise InputError(f"--reference {rule}: the labels name no reader (column 'reader')")
    if kind != "reader" or not name:
        raise InputError(f"--reference {rule!r}: use {', '.join(_RULES)} or reader:NAME")
    if not (readers == name).any():
        names = sorted(
            readers.unique(), key=lambda text: ([int(n) for n in re.findall(r"\d+", text)], text)
        )
        raise InputError(f"--reference {rule}: no such reader; there are {', '.join(names)}")


def _vote(findings: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Join the labels of several readers; a finding without the necessary votes is uncertain."""
    if rule not in _RULES:
        chosen = findings[findings["reader"] == rule.partition(":")[2]]
        return chosen.assign(reader=REFERENCE_READER).reset_index(drop=True)
    votes = findings[FINDING_KEY].assign(
        present=findings["state"] == "present", absent=findings["state"] == "absent", readers=1
    )
    count = votes.groupby(FINDING_KEY, sort=False)[["present", "absent", "readers"]].sum()
    is_present = _are_enough(count["present"], count["readers"], rule)
    is_absent = _are_enough(count["absent"], count["readers"], _DENIED_BY[rule])
    state = np.select([is_present, is_absent], ["present", "absent"], "uncertain")
    made = count.index.to_frame(index=False)
    return made.assign(reader=REFERENCE_READER, state=state, origin="consensus").astype(TEXT)


def _are_enough(votes: pd.Series, readers: pd.Series, rule: str) -> pd.Series:
    """Return True where a rule is satisfied by the votes of so many of the readers."""
    return {"majority": 2 * votes > readers, "any": votes > 0, "all": votes >= readers}[rule]


def _fuse(
    findings: pd.DataFrame, boxes: pd.DataFrame, reference: pd.DataFrame, rule: str
) -> pd.DataFrame:
    """Join overlapping boxes of several readers to the mean of their edges.

    A joined box is kept if enough of the readers of the finding drew it: more than half for
    ``majority``, one for ``any``, all for ``all``. ``reader:NAME`` takes the boxes of that reader.
    """
    if rule not in _RULES:
        fused = boxes[boxes["reader"] == rule.partition(":")[2]]
    else:
        lesions = boxes.assign(lesion=same_lesions(boxes)).groupby("lesion", sort=False)
        fused = lesions[FINDING_KEY].first().join(lesions[EDGES].mean())
        drawn_by = lesions["reader"].nunique()
        readers = findings.groupby(FINDING_KEY).size().rename("readers")
        read_by = fused.join(readers, on=FINDING_KEY)["readers"].fillna(0)
        fused = fused[_are_enough(drawn_by, read_by, rule)]
    present = reference.loc[reference["state"] == "present", FINDING_KEY]
    kept = fused[[*FINDING_KEY, *EDGES]].merge(present, on=FINDING_KEY)
    kept = kept.sort_values([*FINDING_KEY, *EDGES], ignore_index=True)
    return kept.assign(reader=pd.Series(REFERENCE_READER, index=kept.index, dtype=TEXT))


def same_lesions(boxes: pd.DataFrame) -> np.ndarray:
    """Group the boxes of several readers by lesion, and return the lesion's number of each box.

    The method is greedy: pairs of boxes of one image and finding by different readers are joined in
    the order of their overlap. A lesion has at most one box of each reader. The order of the rows
    does not matter.

    Example:
        >>> rows = [("a", "mass", "R1", 0, 0, 10, 10), ("a", "mass", "R2", 0, 0, 10, 9)]
        >>> columns = ["image_id", "finding", "reader", "x1", "y1", "x2", "y2"]
        >>> same_lesions(pd.DataFrame(rows, columns=columns)).tolist()
        [0, 0]
    """
    ordered = boxes[[*LABEL_KEY, *EDGES]].reset_index(drop=True)
    ordered = ordered.sort_values([*LABEL_KEY, *EDGES], kind="stable")
    ordered["box"] = np.arange(len(ordered))
    pairs = ordered[[*FINDING_KEY, "box"]].merge(ordered[[*FINDING_KEY, "box"]], on=FINDING_KEY)
    first = pairs["box_x"].to_numpy()
    second = pairs["box_y"].to_numpy()
    reader = ordered["reader"].to_numpy()
    edges = ordered[EDGES].to_numpy(dtype="float64")
    is_pair = (first < second) & (reader[first] != reader[second])
    first = first[is_pair]
    second = second[is_pair]
    overlap = box_iou(edges[first], edges[second])
    near = overlap > _SAME_LESION_IOU
    first = first[near]
    second = second[near]
    overlap = overlap[near]
    lesion = {box: {box} for box in range(len(ordered))}
    for pair in np.argsort(-overlap, kind="stable"):  # only pairs that overlap: few
        one = lesion[first[pair]]
        other = lesion[second[pair]]
        if one is not other and {reader[b] for b in one}.isdisjoint(reader[b] for b in other):
            one |= other
            lesion.update(dict.fromkeys(other, one))
    number = np.empty(len(ordered), dtype="int64")
    number[ordered.index.to_numpy()] = [min(lesion[box]) for box in range(len(ordered))]
    return number
