"""Predictions of other software or of a reader as a system, checked against known images.

The predictions are a table of scores or boxes, COCO results, a folder with one YOLO prediction file
per image, or values in memory. Each line of a YOLO file is ``class cx cy w h confidence`` in shares
of the image's size, as Ultralytics writes it with ``save_txt`` and ``save_conf``.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.evaluation.boxes.box_checks import check_scores, spread_question
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE, MAX_BOXES
from cxr_compare.evaluation.boxes.read_boxes import boxes_in_px
from cxr_compare.evaluation.boxes.read_table import ColumnNames, ReadTable
from cxr_compare.evaluation.boxes.reading_advice import IMPORT, ReadingAdvice
from cxr_compare.evaluation.boxes.unscored_boxes import with_evident_unit
from cxr_compare.evaluation.metrics.notes import WARNING
from cxr_compare.evaluation.output import System, SystemFacts
from cxr_compare.evaluation.sources.files import read_source
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
def read_rows(  # noqa: PLR0913 - options of cxr import
    source: str | Path | pd.DataFrame,
    known: KnownImages,
    *,
    name: str,
    finding: str | None = None,
    columns: ColumnNames | None = None,
    class_names: str | Path | Sequence[str] | None = None,
    images: str | Path | Iterable[str] = "all",
    split: str = "default",
    ignore_unknown: bool = False,
    coco_truth: str | Path | None = None,
    usual_finding: str | None = None,
    scale: float | None = None,
    advice: ReadingAdvice = IMPORT,
) -> System:
    """Read predictions of other software as a system, and check every row by the known images.

    A table with the columns ``x1, y1, x2, y2`` (or other names of edges that are recognised)
    contains boxes in px of the original image; any other table contains image scores. If the source
    has scores, a validation or test image without a score counts as failed. The arguments are the
    options of the command ``cxr import``.

    Args:
        source: The predictions: a CSV file or other table, a folder of YOLO text files, a COCO
            results file, or a DataFrame.
        known: Images and findings that the rows may name.
        name: Name of the detector, classifier or reader as shown in reports.
        finding: Name of the finding (disease sign) that all rows are about, such as
            ``lung_opacity``. None reads it from a column, or takes the only known finding.
        columns: Names of the columns of a table; None for ``image_id``, ``score``, ``finding`` or
            similar names that are recognised.
        class_names: Names of YOLO's class numbers, in their order: a sequence, a text with commas
            such as ``"mass,nodule"``, or a ``data.yaml`` file. None uses the ``data.yaml`` beside
            the text files; without such a file, all boxes must be of class 0. Not used for other
            sources.
        images: Images on which the detector was run. An image among them without a box is one on
            which it found nothing. ``all`` for all validation and test images, ``listed`` for the
            images with a row, a sequence of image ids, or a text file with one id per line. It
            changes nothing for image scores.
        split: Name of the division of the images into validation and test images.
        ignore_unknown: True to leave out rows of unknown images or findings, False to refuse the
            source.
        coco_truth: COCO annotation file in which a COCO results file's image and category numbers
            have names; None if the results need no names.
        usual_finding: Finding of rows that name none, if the source may also name the findings of
            its rows; None if `known` or `finding` decides.
        scale: Factor from the px of the boxes to px of the original image. None asks about boxes
            that are spread over another range than the true boxes.
        advice: What error messages and notes tell the user to do.

    Returns:
        The system, with the rows of all findings. ``facts.notes`` says what was recognised, left
        out, clipped or assumed; a sentence that begins with ``WARNING: `` is a caution of a
        comparison.

    Raises:
        InputError: The source is malformed, or has no test image of the split, or a row has an
            unknown image or finding, a score outside [0, 1] in a column that `columns` does not
            name, an impossible box, or a second score for one image and finding.
    """
    names = columns or ColumnNames()
    where = advice.frame if isinstance(source, pd.DataFrame) else str(Path(source))
    if finding is None and len(known.findings) > 1 and names == ColumnNames():
        table = source if isinstance(source, pd.DataFrame) else Path(source)
        by_finding = scores_by_finding(table, known.findings)
        source = source if by_finding is None else by_finding
    return system_of(
        read_source(source, names, coco_truth, class_names, advice),
        known,
        name=name,
        where=where,
        names=names,
        finding=finding,
        images=images,
        split=split,
        ignore_unknown=ignore_unknown,
        usual_finding=usual_finding,
        scale=scale,
        advice=advice,
        listed_by=coco_truth,
        settings=[str(class_names)],
    )


def system_of(  # noqa: PLR0913 - options of cxr import
    read: ReadTable,
    known: KnownImages,
    *,
    name: str,
    where: str,
    names: ColumnNames,
    finding: str | None = None,
    images: str | Path | Iterable[str] = "all",
    split: str = "default",
    ignore_unknown: bool = False,
    usual_finding: str | None = None,
    scale: float | None = None,
    advice: ReadingAdvice,
    listed_by: str | Path | None = None,
    settings: Sequence[str] = (),
) -> System:
    """Check scores or boxes by the known images, and return them as a system; see `read_rows`.

    Args:
        read: The scores or boxes as they were read.
        known: Images and findings that the rows may name.
        name: Name of the system.
        where: Name of the source in messages.
        names: Names of the columns and the form of the boxes, as the user states them.
        finding: Finding that all rows are about; None if the source or `known` says it.
        images: Images on which a detector was run.
        split: Name of the division of the images into validation and test images.
        ignore_unknown: True to leave out rows of unknown images or findings.
        usual_finding: Finding of rows that name none.
        scale: Factor from the px of the boxes to px of the original image; None asks in doubt.
        advice: What error messages and notes tell the user to do.
        listed_by: COCO annotation file whose images count as run; None without one.
        settings: Further settings of reading shares, which the content id depends on.
    """
    _name_and_check(read, known, where, names, advice, finding, usual_finding, ignore_unknown)
    ran = images_run(images, known.ids_by_name, advice, ignore_unknown=ignore_unknown)
    notes = read.notes
    if read.rows.empty and not read.holds_boxes:  # only boxes may be absent
        raise InputError(f"{where}: has a header but no row of scores")
    files = listed_images(read, known, where, advice, ignore_unknown=ignore_unknown)
    of_split = SplitImages(known, split, frozenset(read.rows["image_id"]) | set(files), advice)
    assumed: list[str] = []
    if read.holds_boxes and ran is None:
        ids = known.ids_by_name
        ran, assumed = of_split.assumed_run(read.ran and ids_of_names(read.ran, ids), ids)
        notes += assumed
    of_split.require_evaluated(where, ran if read.holds_boxes else None)
    if read.holds_boxes:
        if not read.has_scores and scale is None:
            sizes = known.sizes_of(read.rows["image_id"])
            read = with_evident_unit(read, sizes, where, advice.box_answers)
            notes = read.notes
        rows = _clipped(_in_px(read, where, known, scale, advice), where, known, read)
        if scale is None:
            _ask_if_resized(rows, known.boxes, where, advice)
    elif scale is not None:
        raise InputError(f"{where}: --scale is of boxes, and these are scores; leave it out")
    else:
        rows = _scores(read.rows, where)
    status = of_split.status(ran, gives_boxes=read.holds_boxes)
    notes += of_split.notes(
        status,
        None if assumed else ran,
        gives_boxes=read.holds_boxes,
        listed_by=None if read.ran is None else listed_by,
    )
    kind = "boxes" if read.holds_boxes else "scores"
    digested: list[Any] = [kind, names.image, names.score, names.finding, finding, split]
    digested.append("all" if ran is None else sorted(ran))
    if read.in_shares:
        digested += settings
    content_id = _content_id(read, digested, scale)
    system = _system(name, status, rows, notes, content_id, gives_boxes=read.holds_boxes)
    return replace(system, has_scores=read.has_scores)


def _system(
    name: str,
    images: pd.DataFrame,
    rows: pd.DataFrame,
    notes: Sequence[str],
    content_id: str,
    *,
    gives_boxes: bool,
) -> System:
    low_high = None
    if not gives_boxes and len(rows):
        low_high = (float(rows["score"].min()), float(rows["score"].max()))
    kind = "boxes" if gives_boxes else "scores"
    record = {"system": name, "kind": kind, "seed": None, "trained_on": "unknown"}
    facts = SystemFacts(
        training_id=content_id,
        inference_id=content_id,
        score_range=low_high,
        record={**record, "inference_id": content_id},
        notes=tuple(notes),
    )
    findings = tuple(sorted(rows["finding"].unique()))
    if gives_boxes:
        return System(
            name, "boxes", images, boxes=rows, findings=findings, facts=facts, source=name
        )
    return System(name, "scores", images, rows, findings=findings, facts=facts, source=name)


def read_predicted_boxes(
    source: str | Path,
    dataset: DataSet,
    *,
    finding: str | None = None,
    class_names: str | Path | Sequence[str] | None = None,
    coco_truth: str | Path | None = None,
    scale: float | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read all predicted boxes of other software as they are, and the true boxes beside them.

    No box is clipped or left out, however low its score. The arguments are those of
    `read_predictions`.

    Returns:
        The predicted boxes in px of the original image, with the columns ``image_id``, ``finding``,
        ``score``, ``x1``, ``y1``, ``x2`` and ``y2``; and the true boxes of the same findings, with
        the column ``crowd``, which is True for the crowds of `coco_truth`.

    Raises:
        InputError: The source is malformed or holds scores of images, or a row has an unknown image
            or finding, or an impossible box.
    """
    known = KnownImages.of_data_set(dataset)
    advice = ReadingAdvice()
    names = ColumnNames()
    where = str(Path(source))
    read = read_source(source, names, coco_truth, class_names, advice)
    if not read.holds_boxes:
        raise InputError(f"{where}: holds scores of images; give predicted boxes")
    names_findings = _name_and_check(read, known, where, names, advice, finding, None, False)
    if not read.has_scores:
        raise InputError(
            f"{where}: its boxes have no scores; {advice.name_column('score', 'score')}"
        )
    boxes = _in_px(read, where, known, scale, advice)
    if scale is None:
        _ask_if_resized(boxes, known.boxes, where, ReadingAdvice(scale=IMPORT.scale))
    truth = dataset.boxes[dataset.boxes["reader"] == REFERENCE_READER]
    if not names_findings:
        truth = truth[truth["finding"].isin(boxes["finding"].unique())]
    of_crowds = ReadTable(read.crowds)
    name_rows(of_crowds, known, where)
    crowds = of_crowds.rows.assign(crowd=True)
    crowds["finding"] = finding_of_rows(crowds, where, known, None, None, advice)
    return boxes, pd.concat([truth, crowds])


def _name_and_check(
    read: ReadTable,
    known: KnownImages,
    where: str,
    names: ColumnNames,
    advice: ReadingAdvice,
    finding: str | None,
    usual_finding: str | None,
    ignore_unknown: bool,
) -> bool:
    """Name images and findings of rows, check their scores, and say if rows name their findings."""
    if "score" not in read.rows:
        if not read.holds_boxes:
            raise InputError(f"{where}: has no scores; {advice.name_column('score', 'score')}")
        read.has_scores = False
        read.rows["score"] = 1.0
    name_rows(read, known, where)
    names_findings = "finding" in read.rows
    _ask_if_confidence(read, known.labels, where, advice)
    read.rows["finding"] = finding_of_rows(
        read.rows,
        where,
        known,
        finding,
        usual_finding or known.usual_finding,
        advice,
        read.class_advice,
    )
    keep_known(read, known, where, advice, ignore_unknown=ignore_unknown)
    answer = "" if read.holds_boxes else advice.any_range(read.score_column or names.score)
    any_range = bool(answer) and names.score_is_named
    check_scores(read.rows, where, any_range=any_range, answer=answer)
    return names_findings


def _content_id(read: ReadTable, settings: list[Any], scale: float | None) -> str:
    """Return an id of the content that was read and of the settings with which it was read."""
    if scale is not None:
        settings = [*settings, scale]
    digest = hashlib.sha256(read.content_bytes + json.dumps(settings).encode()).hexdigest()
    return f"import-{digest[:16]}"


def _ask_if_resized(
    rows: pd.DataFrame, true_boxes: pd.DataFrame, where: str, advice: ReadingAdvice
) -> None:
    question = spread_question(rows, true_boxes, where)
    if question:
        raise InputError(f"{question} {advice.scale}")


_ENOUGH_TO_TELL = 10  # rows from which scores of 0.5 and above alone are asked about


def _ask_if_confidence(
    read: ReadTable, labels: pd.Series, where: str, advice: ReadingAdvice
) -> None:
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
        f"{where}: is '{read.score_column}' the {reason}{also}? Then give the probability of the "
        f"finding: 1 - {read.score_column} where the class is not the finding. "
        f"{advice.confirm_score(read.score_column)}"
    )


def _scores(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return one score for each image and finding; refuse a second score."""
    is_repeated = rows.duplicated(["image_id", "finding"])
    if is_repeated.any():
        first = rows[is_repeated].iloc[0]
        raise InputError(
            f"{where}: {first['place']} gives image '{first['image_id']}' a second score for "
            f"{first['finding']}; keep one"
        )
    return rows[["image_id", "finding", "score"]]


def _in_px(
    read: ReadTable, where: str, known: KnownImages, scale: float | None, advice: ReadingAdvice
) -> pd.DataFrame:
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
    checked, notes = boxes_in_px(read, where, sizes, scale, advice.box_answers)
    read.notes += [f"{WARNING}{note[:1].upper()}{note[1:]}." for note in notes]
    return checked.reset_index(drop=True)


def _clipped(raw: pd.DataFrame, where: str, known: KnownImages, source: ReadTable) -> pd.DataFrame:
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
            f"{where}: {raw['place'].iloc[row]}, image '{raw['image_id'].iloc[row]}': "
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
