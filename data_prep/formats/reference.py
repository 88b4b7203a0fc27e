"""Several readers of one image: all that each says is kept, and the reference is made of it.

Labels by vote, boxes by overlap and vote, as ``--reference`` asks; one owner for every format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.source import FINDING_KEY, SourceBuilder

ROW = [*FINDING_KEY, "reader"]
_RULES = ("majority", "any", "all")
_SAME_LESION_IOU = 0.4
"""Boxes of two readers that overlap by more than this are the same lesion to them."""


def with_reference(
    builder: SourceBuilder, findings: pd.DataFrame, boxes: pd.DataFrame, local: Iterable[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Add the reference to what the readers say: ``findings``, ``boxes`` and ``box_coverage``.

    Rows of the reader ``reference`` stand as they are. `local` are findings that the readers box
    wherever they see them; those of `boxes` always count.
    """
    rule = builder.options.reference
    is_reader = findings["reader"] != REFERENCE_READER
    readers = findings[is_reader]
    own = findings[~is_reader]
    drawn = boxes["reader"] != REFERENCE_READER
    _require_rule(rule, readers["reader"])
    made = _reference_findings(readers, rule)
    given = made[FINDING_KEY].merge(own[FINDING_KEY].drop_duplicates(), how="left", indicator=True)
    made = made[(given["_merge"] == "left_only").to_numpy()].reset_index(drop=True)
    fused = _reference_boxes(readers, boxes[drawn], pd.concat([own, made]), rule)
    findings = pd.concat([findings, made], ignore_index=True)
    boxes = pd.concat([boxes[[*FINDING_KEY, *EDGES, "reader"]], fused], ignore_index=True)
    named = pd.Series(tuple(local) if len(boxes) else (), dtype=TEXT)
    localised = pd.concat([named, boxes["finding"].drop_duplicates()])
    return findings, boxes, _coverage(findings, boxes, localised)


def _require_rule(rule: str, readers: pd.Series) -> None:
    """Check what the user said of the reference."""
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


def _reference_findings(findings: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Make the reference's findings of those of the readers."""
    if rule not in _RULES:
        own = findings[findings["reader"] == rule.partition(":")[2]]
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
    return made.assign(reader=REFERENCE_READER, state=state, origin="consensus").astype(TEXT)


def _reference_boxes(
    findings: pd.DataFrame, boxes: pd.DataFrame, reference: pd.DataFrame, rule: str
) -> pd.DataFrame:
    """Make the reference's boxes of those of the readers.

    Boxes of one finding that overlap are fused (see `same_lesions`) and a fused box, the mean of
    the edges, is kept if enough of the finding's readers drew it: more than half for
    ``majority``, one for ``any``, every one for ``all``. With ``reader:NAME`` his boxes are taken
    as they are.
    """
    if rule not in _RULES:
        fused = boxes[boxes["reader"] == rule.partition(":")[2]]
    else:
        lesions = boxes.assign(lesion=same_lesions(boxes)).groupby("lesion", sort=False)
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
    return kept.assign(reader=pd.Series(REFERENCE_READER, index=kept.index, dtype=TEXT))


def same_lesions(boxes: pd.DataFrame, iou: float = _SAME_LESION_IOU) -> np.ndarray:
    """Tell which boxes of several readers are of one lesion.

    Greedy: of all pairs of boxes of one image and finding by different readers, the one that
    overlaps most is joined first, then the next, down to `iou`. A lesion has one box a reader at
    most, so a pair that would bring a second one is passed over. The order of the rows does not
    matter.
    """
    ordered = boxes[[*ROW, *EDGES]].reset_index(drop=True)
    ordered = ordered.sort_values([*ROW, *EDGES], kind="stable")
    ordered["box"] = np.arange(len(ordered))
    pairs = ordered[[*FINDING_KEY, "box"]].merge(ordered[[*FINDING_KEY, "box"]], on=FINDING_KEY)
    first = pairs["box_x"].to_numpy()
    second = pairs["box_y"].to_numpy()
    reader = ordered["reader"].to_numpy()
    edges = ordered[EDGES].to_numpy(dtype="float64")
    wanted = (first < second) & (reader[first] != reader[second])
    first = first[wanted]
    second = second[wanted]
    overlap = box_iou(edges[first], edges[second])
    near = overlap > iou
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


def _coverage(findings: pd.DataFrame, boxes: pd.DataFrame, localised: pd.Series) -> pd.DataFrame:
    """Say where a reader's boxes are all there are."""
    rows = findings[is_member(findings["finding"], localised)]
    boxed = rows.merge(boxes[ROW].drop_duplicates(), on=ROW)
    absent = rows[rows["state"] == "absent"]
    present = boxed[boxed["state"] == "present"]
    complete = pd.concat([absent[ROW], present[ROW]])
    return complete.assign(coverage="all").astype(TEXT).reset_index(drop=True)
