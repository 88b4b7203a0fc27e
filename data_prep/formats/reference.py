"""Joining of the labels and boxes of several readers to those of the reference (``--reference``).

The reference is the set of labels that training and evaluation use. Labels are joined by vote, and
boxes by overlap and vote. The labels of each reader are stored as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.source import FINDING_KEY, SourceBuilder

LABEL_KEY = [*FINDING_KEY, "reader"]
_RULES = ("majority", "any", "all")
_SAME_LESION_IOU = 0.4
"""IoU above which boxes of two readers outline the same lesion."""


class ReferenceTables(NamedTuple):
    """Label tables with the rows of each reader and of the reader ``reference``.

    A reader is a person who labelled images. The labels of ``reference`` join those of several
    readers and are used for training and evaluation.

    Attributes:
        findings: Table with the state (present, absent, uncertain) of each finding, by image and
            reader.
        boxes: Table of the boxes of lesions, in px of the original image.
        box_coverage: Table that says whether all or only some lesions of an image have a box, by
            finding and reader.
    """

    findings: pd.DataFrame
    boxes: pd.DataFrame
    box_coverage: pd.DataFrame


def add_reference(
    builder: SourceBuilder,
    findings: pd.DataFrame,
    boxes: pd.DataFrame,
    boxed_findings: Iterable[str] = (),
) -> ReferenceTables:
    """Join labels and boxes of several people to those of one reader, called ``reference``.

    A reader is a person who labelled images. Training and evaluation use the reader ``reference``.

    Args:
        builder: Object with the user's options. The option ``reference`` names the rule: a finding
            is present if ``majority``, ``any`` or ``all`` of the readers say so, or ``reader:NAME``
            takes the labels of one reader.
        findings: Table with columns ``image_id, finding, reader``, ``state`` (present, absent or
            uncertain) and ``origin`` (kind of label, such as ``report_nlp``). Rows of the reader
            ``reference`` stay unchanged.
        boxes: Table with columns ``image_id, finding, reader, x1, y1, x2, y2``, px of the original
            image.
        boxed_findings: Names of findings that the readers outline by a box wherever they see them.
            Findings that occur in `boxes` always count as such.

    Returns:
        Tables of the findings, of the boxes, and of the images and findings on which every lesion
        has a box, of all readers and of ``reference``.

    Raises:
        InputError: The rule does not exist, or names a reader who labelled nothing.
    """
    rule = builder.options.reference
    is_reader = findings["reader"] != REFERENCE_READER
    readers = findings[is_reader]
    stated = findings[~is_reader]  # labels of the reference that the source itself states
    by_readers = boxes["reader"] != REFERENCE_READER
    _require_rule(rule, readers["reader"])
    made = vote_findings(readers, rule)
    merged = made[FINDING_KEY].merge(
        stated[FINDING_KEY].drop_duplicates(), how="left", indicator=True
    )
    made = made[(merged["_merge"] == "left_only").to_numpy()].reset_index(drop=True)
    fused = fuse_boxes(readers, boxes[by_readers], pd.concat([stated, made]), rule)
    findings = pd.concat([findings, made], ignore_index=True)
    boxes = pd.concat([boxes[[*FINDING_KEY, *EDGES, "reader"]], fused], ignore_index=True)
    named = pd.Series(tuple(boxed_findings) if len(boxes) else (), dtype=TEXT)
    localised = pd.concat([named, boxes["finding"].drop_duplicates()])
    return ReferenceTables(findings, boxes, box_coverage_of_readers(findings, boxes, localised))


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


def vote_findings(findings: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Join the labels of several readers (people) by a vote on each image and finding.

    Args:
        findings: Table of the readers' labels with columns ``image_id, finding, reader``, ``state``
            (present, absent or uncertain) and ``origin`` (kind of label, such as ``report_nlp``).
        rule: Vote by which a finding is present: ``majority``, ``any`` or ``all`` of the readers of
            the image, or ``reader:NAME`` to take the labels of one person. A finding without the
            necessary votes is uncertain.

    Returns:
        Table of the same columns, with ``reference`` as the reader.
    """
    if rule not in _RULES:
        chosen = findings[findings["reader"] == rule.partition(":")[2]]
        return chosen.assign(reader=REFERENCE_READER).reset_index(drop=True)
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


def fuse_boxes(
    findings: pd.DataFrame, boxes: pd.DataFrame, reference: pd.DataFrame, rule: str
) -> pd.DataFrame:
    """Join the boxes of several readers (people) by overlap and vote.

    Overlapping boxes of one finding are fused to the mean of their edges (see `same_lesions`). A
    fused box is kept if enough of the readers of the finding drew it: more than half for
    ``majority``, one for ``any``, all for ``all``. ``reader:NAME`` takes the boxes of that reader.

    Args:
        findings: Table of the readers' labels with columns ``image_id, finding, reader``, ``state``
            (present, absent or uncertain) and ``origin`` (kind of label).
        boxes: Table of the readers' boxes with columns ``image_id, finding, reader, x1, y1, x2,
            y2``.
        reference: Labels from `vote_findings`, which join those of the readers.
        rule: ``majority``, ``any``, ``all`` or ``reader:NAME``.

    Returns:
        Table of the fused boxes, with ``reference`` as the reader.
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
    """Group the boxes of several readers by lesion.

    The method is greedy: pairs of boxes of one image and finding by different readers are joined in
    the order of their overlap, down to `iou`. A lesion has at most one box of each reader, so a
    pair that would add a second one is skipped. The order of the rows does not matter.

    Args:
        boxes: Table with columns ``image_id, finding, reader, x1, y1, x2, y2``.
        iou: Two boxes of different readers with an IoU above this value, in [0, 1], are taken to
            outline the same lesion.

    Returns:
        Number of the lesion of each box, int64, shape ``(N,)``.

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


def box_coverage_of_readers(
    findings: pd.DataFrame, boxes: pd.DataFrame, localised: pd.Series
) -> pd.DataFrame:
    """List the images and findings on which a reader has drawn a box around every lesion.

    A reader is a person who labelled images. An image on which the reader says that the finding is
    absent is listed, too, because there is no lesion to box.

    Args:
        findings: Table of the readers' labels with columns ``image_id, finding, reader``, ``state``
            (present, absent or uncertain) and ``origin`` (kind of label).
        boxes: Table of the readers' boxes with columns ``image_id, finding, reader, x1, y1, x2,
            y2``.
        localised: Names of the findings that readers outline by boxes.

    Returns:
        Table with columns ``image_id, finding, reader`` and ``coverage``, which is always ``all``.
    """
    rows = findings[is_member(findings["finding"], localised)]
    boxed = rows.merge(boxes[LABEL_KEY].drop_duplicates(), on=LABEL_KEY)
    absent = rows[rows["state"] == "absent"]
    present = boxed[boxed["state"] == "present"]
    complete = pd.concat([absent[LABEL_KEY], present[LABEL_KEY]])
    return complete.assign(coverage="all").astype(TEXT).reset_index(drop=True)
