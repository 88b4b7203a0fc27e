"""Predictions of other software or of a reader as a system, checked against known images.

The predictions are a table of scores or boxes, COCO results, a folder with one YOLO prediction file
per image, or values in memory. Each line of a YOLO file is ``class cx cy w h confidence`` in shares
of the image's size, as Ultralytics writes it with ``save_txt`` and ``save_conf``.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.evaluation.boxes.box_checks import check_scores, spread_question
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE, MAX_BOXES
from cxr_compare.evaluation.boxes.read_boxes import boxes_in_px
from cxr_compare.evaluation.boxes.read_table import ColumnNames, ReadTable
from cxr_compare.evaluation.boxes.reading_advice import ReadingAdvice
from cxr_compare.evaluation.boxes.unscored_boxes import with_evident_unit
from cxr_compare.evaluation.metrics.notes import WARNING
from cxr_compare.evaluation.output import System, SystemFacts
from cxr_compare.evaluation.sources.files import read_source
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.evaluation.sources.known_images import (
    KnownImages,
    finding_of_rows,
    keep_known,
    name_rows,
)
from cxr_compare.evaluation.sources.run_images import (
    SplitImages,
    ids_of_names,
    images_run,
    listed_images,
)
from cxr_compare.evaluation.sources.wide_tables import scores_by_finding

if TYPE_CHECKING:
    from cxr_compare.data_prep.dataset import DataSet

_ROUNDING = 0.01  # px by which rounded shares may reach beyond their image


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    """Switch off Python's search for reference cycles in a ``with`` block or decorated function.

    The garbage collector makes this search. Rows read from files contain no reference cycles, and
    the search for them takes a fifth of the time of reading. Afterwards the collector is on again
    if it was on before.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@without_garbage_collector()
def read_rows(
    source: str | Path | pd.DataFrame, known: KnownImages, options: ImportOptions
) -> System:
    """Read predictions of other software as a system, and check every row by the known images.

    A table with the columns ``x1, y1, x2, y2`` (or other names of edges that are recognised)
    contains boxes in px of the original image; any other table contains image scores. If the source
    has scores, a validation or test image without a score counts as failed. The system has the rows
    of all findings. ``facts.notes`` says what was recognised, left out, clipped or assumed; a
    sentence that begins with ``WARNING: `` is a caution of a comparison.

    An InputError is raised if the source is malformed, or has no test image of the split, or a row
    has an unknown image or finding, a score outside [0, 1] in a column that the options do not
    name, an impossible box, or a second score for one image and finding.
    """
    if options.finding is None and len(known.findings) > 1 and options.columns == ColumnNames():
        table = source if isinstance(source, pd.DataFrame) else Path(source)
        by_finding = scores_by_finding(table, known.findings, options.advice.frame)
        source = source if by_finding is None else by_finding
    return system_of(read_source(source, options), known, options)


def system_of(read: ReadTable, known: KnownImages, options: ImportOptions) -> System:
    """Check scores or boxes by the known images, and return them as a system; see `read_rows`."""
    _name_and_check(read, known, options)
    ran = images_run(known.ids_by_name, options)
    if read.rows.empty and not read.holds_boxes:  # only boxes may be absent
        raise InputError(f"{read.where}: has a header but no row of scores")
    listed = {*read.rows["image_id"], *listed_images(read, known, options)}
    of_split = SplitImages(known, options, frozenset(listed))
    assumed: list[str] = []
    if read.holds_boxes and ran is None:
        ids = known.ids_by_name
        ran, assumed = of_split.assumed_run(read.ran and ids_of_names(read.ran, ids), ids)
        read.notes += assumed
    of_split.require_evaluated(read.where, ran if read.holds_boxes else None)
    if not read.holds_boxes:
        if options.scale is not None:
            raise InputError(f"{read.where}: scale is of boxes, and these are scores; leave it out")
        rows = _scores(read)
    else:
        if not read.has_scores and options.scale is None:
            sizes = known.sizes_of(read.rows["image_id"])
            read = with_evident_unit(read, sizes, options.advice.box_answers)
        rows = _clipped(_in_px(read, known, options), known, read)
        if options.scale is None and options.columns.box_unit is None:
            _ask_if_resized(rows, known, read.where, options.advice)
    status = of_split.status(ran, gives_boxes=read.holds_boxes)
    read.notes += of_split.notes(
        status,
        None if assumed else ran,
        gives_boxes=read.holds_boxes,
        is_listed=read.ran is not None,
    )
    return _system(read, status, rows, _content_id(read, ran, options), options.name)


def _system(
    read: ReadTable, images: pd.DataFrame, rows: pd.DataFrame, content_id: str, name: str
) -> System:
    kind: Literal["boxes", "scores"] = "boxes" if read.holds_boxes else "scores"
    low_high = None
    if kind == "scores" and len(rows):
        low_high = (float(rows["score"].min()), float(rows["score"].max()))
    record = {"system": name, "kind": kind, "seed": None, "trained_on": "unknown"}
    facts = SystemFacts(
        training_id=content_id,
        inference_id=content_id,
        score_range=low_high,
        record={**record, "inference_id": content_id},
        notes=tuple(read.notes),
    )
    findings = tuple(sorted(rows["finding"].unique()))
    system = System(name, kind, images, findings=findings, facts=facts, source=name)
    if kind == "boxes":
        return replace(system, boxes=rows, has_scores=read.has_scores)
    return replace(system, scores=rows)


def read_predicted_boxes(
    source: str | Path, dataset: DataSet, options: ImportOptions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read all predicted boxes of other software as they are, and the true boxes beside them.

    No box is clipped or left out, however low its score. Both tables have ``image_id``, ``finding``
    and the edges in px of the original image; the predicted one ``score``, and that of the true
    boxes of the same findings ``crowd``, which is True for the crowds of
    `ImportOptions.coco_truth`. An InputError is raised for a malformed source, scores of images, an
    unknown image or finding, and an impossible box.
    """
    known = KnownImages.of_data_set(dataset)
    read = read_source(source, options)
    if not read.holds_boxes:
        raise InputError(f"{read.where}: holds scores of images; give predicted boxes")
    names_findings = _name_and_check(read, known, options)
    if not read.has_scores:
        raise InputError(
            f"{read.where}: its boxes have no scores; "
            f"{options.advice.name_column('score', 'score')}"
        )
    boxes = _in_px(read, known, options)
    if options.scale is None and options.columns.box_unit is None:
        _ask_if_resized(boxes, known, read.where, options.advice)
    truth = dataset.boxes[dataset.boxes["reader"] == REFERENCE_READER]
    if not names_findings:
        truth = truth[truth["finding"].isin(boxes["finding"].unique())]
    of_crowds = ReadTable(read.crowds, where=read.where)
    name_rows(of_crowds, known)
    crowds = of_crowds.rows.assign(crowd=True)
    crowds["finding"] = finding_of_rows(of_crowds, known, replace(options, finding=None))
    return boxes, pd.concat([truth, crowds])


def _name_and_check(read: ReadTable, known: KnownImages, options: ImportOptions) -> bool:
    """Name images and findings of rows, check their scores, and say if rows name their findings."""
    advice = options.advice
    if "score" not in read.rows:
        if not read.holds_boxes:
            raise InputError(f"{read.where}: has no scores; {advice.name_column('score', 'score')}")
        read.has_scores = False
        read.rows["score"] = 1.0
    name_rows(read, known)
    names_findings = "finding" in read.rows
    _ask_if_confidence(read, known.labels, advice)
    read.rows["finding"] = finding_of_rows(read, known, options)
    keep_known(read, known, options)
    column = read.score_column or options.columns.score
    answer = "" if read.holds_boxes else advice.any_range(column)
    any_range = bool(answer) and options.columns.score_is_named
    check_scores(read.rows, read.where, any_range=any_range, answer=answer)
    return names_findings


def _content_id(read: ReadTable, ran: set[str] | None, options: ImportOptions) -> str:
    """Return an id of the content that was read and of the settings with which it was read."""
    names = options.columns
    settings: list[Any] = ["boxes" if read.holds_boxes else "scores"]
    settings += [names.image, names.score, names.finding, options.finding, options.split]
    settings.append("all" if ran is None else sorted(ran))
    if read.in_shares:
        settings.append(str(options.class_names))
    if options.scale is not None:
        settings.append(options.scale)
    digest = hashlib.sha256(read.content_bytes + json.dumps(settings).encode()).hexdigest()
    return f"import-{digest[:16]}"


def _ask_if_resized(
    rows: pd.DataFrame, known: KnownImages, where: str, advice: ReadingAdvice
) -> None:
    question = spread_question(rows, known.boxes, where)
    if question:
        raise InputError(f"{question} {advice.resized}")


_ENOUGH_TO_TELL = 10  # rows from which scores of 0.5 and above alone are asked about


def _ask_if_confidence(read: ReadTable, labels: pd.Series, advice: ReadingAdvice) -> None:
    """Ask whether scores are the confidence of the predicted class, whichever that is."""
    if not read.score_column:
        return
    rows = read.rows
    scores = rows["score"]
    is_high = len(scores) >= _ENOUGH_TO_TELL and bool(scores.between(0.5, 1).all())
    of_rows = labels.reindex(rows["image_id"]).to_numpy()
    column = ""
    for name, cells in read.classes.items():
        is_second = (cells != cells.mode()[0]).to_numpy()[cells.notna()]
        of_class = scores[cells.notna()].to_numpy()
        first, second = of_class[~is_second], of_class[is_second]
        is_cut = first.max() <= second.min() or second.max() <= first.min()  # class = score >= cut
        known = ~np.isnan(of_rows[cells.notna()])
        is_truth = len({*zip(is_second[known], of_rows[cells.notna()][known], strict=True)}) <= 2
        if not is_cut and (is_high or not (is_truth and known.any())):
            column = str(name)
    if not column and not is_high:
        return
    reason = (
        f"confidence of the class in '{column}'" if column else "confidence of the predicted class"
    )
    also = "" if column else ", as none is below 0.5"
    raise InputError(
        f"{read.where}: is '{read.score_column}' the {reason}{also}? Then give the probability of "
        f"the finding: 1 - {read.score_column} where the class is not the finding. "
        f"{advice.confirm_score(read.score_column)}"
    )


def _scores(read: ReadTable) -> pd.DataFrame:
    """Return one score for each image and finding; refuse a second score."""
    rows = read.rows
    is_repeated = rows.duplicated(["image_id", "finding"])
    if is_repeated.any():
        first = rows[is_repeated].iloc[0]
        raise InputError(
            f"{read.where}: {first['place']} gives image '{first['image_id']}' a second score for "
            f"{first['finding']}; keep one"
        )
    return rows[["image_id", "finding", "score"]]


def _in_px(read: ReadTable, known: KnownImages, options: ImportOptions) -> pd.DataFrame:
    """Return boxes with edges in px of the original image, checked but not clipped.

    The notes of `read` say what was left out.
    """
    is_repeated = read.rows.duplicated(["image_id", "finding", *EDGES, "score"])
    if is_repeated.any():
        first = read.rows[is_repeated].iloc[0]
        read.notes.append(
            f"{WARNING}{counted(int(is_repeated.sum()), 'box', 'are')} given twice (first: "
            f"{first['place']}, image '{first['image_id']}'); repeated boxes count as false."
        )
    sizes = known.sizes_of(read.rows["image_id"])
    checked, notes = boxes_in_px(read, sizes, options.scale, options.advice.box_answers)
    read.notes += [f"{WARNING}{note[:1].upper()}{note[1:]}." for note in notes]
    return checked.reset_index(drop=True)


def _clipped(raw: pd.DataFrame, known: KnownImages, source: ReadTable) -> pd.DataFrame:
    """Return boxes clipped to their images, the 100 most confident per image and finding.

    The notes of `source` say what was clipped or left out.
    """
    notes = source.notes
    limit = known.sizes_of(raw["image_id"])[:, [0, 1, 0, 1]]
    corners = raw[EDGES].to_numpy(np.float64)
    clipped = np.clip(corners, 0, np.where(np.isnan(limit), np.inf, limit))
    has_area = (clipped[:, 0] < clipped[:, 2]) & (clipped[:, 1] < clipped[:, 3])
    if not has_area.all():
        row = int(np.flatnonzero(~has_area)[0])
        edges = ", ".join(f"{n}={v:g}" for n, v in zip(EDGES, corners[row], strict=True))
        raise InputError(
            f"{source.where}: {raw['place'].iloc[row]}, image '{raw['image_id'].iloc[row]}': "
            f"{edges}; a box needs x1 < x2 and y1 < y2 inside the image, in pixels of the original"
        )
    tolerance = _ROUNDING if source.in_shares else 0.0
    n_clipped = int((np.abs(clipped - corners) > tolerance).any(axis=1).sum())
    if n_clipped:
        notes.append(f"{counted(n_clipped, 'box')} reached beyond their image and were clipped.")
    rows = raw[["image_id", "finding", "score"]].copy()
    rows[EDGES] = clipped
    rows = rows.sort_values("score", ascending=False, kind="stable")
    rank = rows.groupby(["image_id", "finding"]).cumcount()
    kept = rows[(rank < MAX_BOXES) & (rows["score"] >= LEAST_SCORE)]
    if len(kept) < len(rows):
        left_out = counted(len(rows) - len(kept), "box")
        notes.append(
            f"{left_out} left out: below score {LEAST_SCORE}, or beyond the {MAX_BOXES} most "
            "confident of an image."
        )
    return kept.sort_index()[["image_id", "finding", *EDGES, "score"]].reset_index(drop=True)
