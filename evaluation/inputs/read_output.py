"""One system from predictions of any kind, checked against the images, sizes and true boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, Remedy, as_typed, counted
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.names import column_names, find_column, finding_name
from cxr_compare.data_prep.sources.image_files import image_name
from cxr_compare.evaluation.inputs.box_classes import findings_of_classes
from cxr_compare.evaluation.inputs.files import read_rows
from cxr_compare.evaluation.inputs.px_boxes import boxes_in_px
from cxr_compare.evaluation.inputs.rows import (
    Rows,
    are_blank,
    refuse_row,
    way,
)
from cxr_compare.evaluation.notes import reading_notes
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.truth import Truth

_ENOUGH_TO_ASK = 10
"""Scores from which none below 0.5 is no accident."""


def read_output(
    value: Any,
    truth: Truth,
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    where: str | None = None,
    findings: Sequence[str] = (),
    several: bool = False,
) -> Output:
    """Read a system's scores or boxes of the images of a truth.

    InputError for what is not understood, with its row and image.

    Args:
        value: File, folder, frame, Series, array, or list of outputs of a detection library.
        truth: Labels and true boxes of all images.
        name: Name of the system, for messages.
        columns: Names of columns by role (image, score, finding), and how boxes are written
            (box_form, box_unit, box_order). Of COCO results, the image is ``id`` or ``file_name``,
            the finding ``id``, ``order`` (0 is the first category of the truth) or ``order1``.
        where: What a message calls the source; None for the name of the system.
        findings: Findings of the truth's group; empty for a truth of one finding.
        several: True if other findings are read of the same value.
    """
    columns = dict(columns or {})
    findings_in_order = (truth.finding, *findings)
    ids = truth.ids.tolist()
    rows = read_rows(value, truth.order, columns, where or name, name, findings_in_order, ids)
    if isinstance(value, list) and not value and truth.boxes.empty:
        raise InputError(f"{rows.where}: is empty; give its scores or boxes")
    if not len(rows.table) and not rows.are_boxes:  # a detector may find nothing in any image
        raise InputError(f"{rows.where}: holds no row; give predictions that have some")
    if columns.get("image_score") and rows.image_scores is None:
        option = as_typed({"columns": {f"{name}.image_score": columns["image_score"]}})
        raise InputError(f"{option}: is for a table of boxes with scores; leave it out")
    name_rows(rows, truth, columns, name)
    if not rows.are_boxes:
        if "score" not in columns and "finding" not in rows.table:
            _ask_if_confidence(rows, truth, name)
        _keep_finding(rows, truth, name, findings, columns)
        return _of_scores(rows, name, answered="score" in columns, several=several)
    _keep_finding(rows, truth, name, findings, columns, several=several)
    # Where nothing is found all images have the same score.
    has_scores = "score" in rows.table or rows.table.empty
    if not has_scores and columns.get("score") != "":
        _ask_for_scores(rows, name, way(name, "score", "", "no column does"))
    if not has_scores:
        rows.notes.append("The boxes have no scores: an image with a box is called.")
    boxes = boxes_in_px(rows, truth, columns, name=name)
    if rows.ran is None:
        ran = _roles_with_boxes(boxes, truth, rows)
    else:
        ran = pd.Index(sorted({*rows.ran, *boxes["image_id"]}))
    empty = len(ran) - boxes["image_id"].nunique()
    if empty:
        rows.notes.append(f"{counted(empty, 'image')} without a box: run, with nothing found.")
    notes = tuple(reading_notes(rows.notes, name))
    unit = columns.get("box_unit", rows.unit)
    output = Output.of_detector(boxes, ran, ranks=has_scores, notes=notes, box_unit=unit)
    given = rows.image_scores
    if given is None:
        return output
    name_rows(given, truth, columns, name)
    _keep_finding(given, truth, name, findings, columns)
    given.table = given.table.drop_duplicates(["image_id", "score"])  # one for each box
    answered = "image_score" in columns
    scores = _of_scores(given, name, answered=answered, several=False, role="image_score").scores
    evaluated = truth.of("val").ids.union(truth.of("test").ids)
    lacking = evaluated.intersection(ran).difference(scores.index)
    if len(lacking):
        raise InputError(
            f"{rows.where}: has no image_score of {counted(len(lacking), 'image')}, first "
            f"'{lacking[0]}'; write a row without a box, with its image_score, for each",
            [way(name, "image_score", "", "its boxes shall make the scores of images")],
        )
    return output.with_given_scores(scores)


def name_rows(rows: Rows, truth: Truth, columns: Mapping[str, str], name: str = "NAME") -> None:
    """Name the images of rows as the truth does, and the classes of COCO results as its file does.

    An image of COCO results is the name of a file, or an id of the truth's COCO file. The user says
    by `columns` which it is (image: ``id`` or ``file_name``), and what the numbers of categories
    are (finding: ``id`` of the truth's file, ``order`` from 0 or ``order1`` from 1 on, or nothing).
    """
    table = rows.table
    answer = columns.get("image", "") if rows.is_coco else ""
    names = table["image_id"].astype(str)
    by_id = False
    if rows.is_coco and "file_name" in table and answer != "id" and _has_files_of(truth, table):
        names = table["file_name"]
    elif "coco_id" in truth.images and answer != "file_name":
        of_ids = dict(zip(truth.images["coco_id"], truth.ids, strict=True))
        by_id = set(names) <= set(of_ids) and (rows.is_coco or not set(names) <= set(truth.ids))
        if by_id and answer != "id":
            _ask_if_file_names(names, of_ids, truth, rows, name)
        names = names.map(of_ids) if by_id else names
    listed = [*names, *(rows.ran or ()), *rows.listed]
    match = partial(Names(truth.ids).match, listed, rows.where, remedy=truth.unlisted)
    # A score of an image elsewhere hides no name that is misspelt where each image has its own, and
    # no false alarm where the truth has negative images.
    may_have_more = not rows.are_boxes and bool((truth.images["label"] == 0).any())
    id_of, note = match(partly=may_have_more)
    is_listed = names.isin([*id_of])
    if not is_listed.all() and len(truth.ids.difference([*id_of.values()])):
        id_of, note = match()  # which names one of them
    rows.notes += [note] if note else []
    if not is_listed.all():
        others = counted(names[~is_listed].nunique(), "image")
        rows.notes.append(f"{rows.where}: the scores of {others} outside the truth are left out.")
        names, table = names[is_listed], table[is_listed]
        rows.unused = rows.unused[is_listed] if len(rows.unused) else rows.unused
    if rows.ran is not None:
        rows.ran = [id_of[image] for image in rows.ran]
    rows.listed = [id_of[image] for image in rows.listed]
    rows.table = table.assign(image_id=names.map(id_of))
    if rows.is_coco and columns.get("finding") == "" and len(table):
        kinds = rows.table["category"].unique()
        if len(kinds) > 1:
            raise InputError(
                f"{rows.where}: has boxes of the categories {', '.join(kinds[:5])}, which are not "
                f"all of one finding{_or_name_each(rows)}",
                _ways_of_all(rows, name),
            )
        rows.table = rows.table.drop(columns="finding")
    elif truth.categories and "category" in table:
        _name_categories(rows, truth, columns.get("finding"), name, by_id=by_id)


def _has_files_of(truth: Truth, table: pd.DataFrame) -> bool:
    """Return True if a ``file_name`` of COCO results is that of an image of the truth."""
    names = set(map(image_name, truth.ids))
    return bool(table["file_name"].map(image_name).isin(names).any())


def _ask_if_file_names(
    names: pd.Series, of_ids: Mapping[str, str], truth: Truth, rows: Rows, name: str
) -> None:
    """Ask whether numbers are ids of the COCO file or names of files, if that is not the same."""
    fits, _ = Names(truth.ids).fitting(names)
    of_files = {number: images[0] for number, images in fits.items() if len(images) == 1}
    if len(of_files) < len(fits):
        return
    answers = {"id": "it is", "file_name": "it is the name of its file"} if rows.is_coco else {}
    for number, image in of_files.items():
        if image != of_ids[number]:
            raise InputError(
                f"{rows.where}: is image_id {number} the image '{image}'? In the truth "
                f"{of_ids[number]!r} has this id; write the name of its file into each row",
                [way(name, "image", answer, when) for answer, when in answers.items()],
            )


def _name_categories(
    rows: Rows, truth: Truth, answer: str | None, name: str, *, by_id: bool
) -> None:
    """Name the finding of each COCO result by its category; ask if its number may mean another.

    A category 0 alone is the only one of the truth, as YOLOv5 writes it. `answer` is the user's;
    `by_id` is True if the results name images by the ids of the truth's file.
    """
    table, categories = rows.table, truth.categories
    numbers = table["category"]
    is_named = "category_name" in table
    if len(categories) == 1 and not is_named and set(numbers) == {"0"}:
        rows.table = table.drop(columns="finding")
        return
    if len(categories) == 1 and not by_id:
        return
    has_ids = "coco_id" in truth.images  # the numbers of YOLO are an order
    from_0 = dict(zip(map(str, range(len(categories))), categories.values(), strict=True))
    in_order: Mapping[str, str] = from_0 if has_ids else categories
    from_1 = {str(int(number) + 1): finding for number, finding in in_order.items()}
    ways = {"id": categories, "order": in_order, "order1": from_1}
    finding_of_row = numbers.map(ways.get(answer or "id", categories))
    wrong = finding_of_row.isna()
    readings = {
        ", ".join(f"{number} is {finding[number]}" for number in numbers.unique()): answer_for_it
        for answer_for_it, finding in ways.items()
        if set(numbers) <= {*finding}
        and not (has_ids and answer_for_it == "order1" and set(numbers) <= {*in_order})
    }
    is_clear = len(readings) < 2 and not (readings and wrong.any())
    if not is_named and answer not in ways and not is_clear:
        raise InputError(
            f"{rows.where}: {table['position'].iloc[0]}: what are the numbers of categories? If "
            "none of these, name each category in category_name",
            [way(name, "finding", possible, text) for text, possible in readings.items()],
        )
    if is_named:  # a name and a number that the truth both lacks are of another finding
        name_of_row = table["category_name"].map(finding_name)
        finding_of_row = finding_of_row.where(
            finding_of_row.notna() | name_of_row.isin(categories.values()), name_of_row
        )
        wrong = name_of_row != finding_of_row
    if wrong.any():
        row = table[wrong].iloc[0]
        raise InputError(
            f"{rows.where}: {row['position']}: category {row['category']} is none of the truth's "
            f"categories, or has another name there ({', '.join(categories.values())}); correct "
            f"it{_or_name_each(rows)}",
            _ways_of_all(rows, name),
        )
    rows.table = table.assign(finding=finding_of_row)


def _keep_finding(
    rows: Rows,
    truth: Truth,
    name: str,
    group: Sequence[str],
    columns: Mapping[str, str],
    *,
    several: bool = False,
) -> None:
    """Keep the rows of the truth's finding, or of its group; refuse classes that name none of it.

    Of several findings of a group, the highest score of an image counts. All rows are kept if the
    user says by `columns` that nothing names the finding; `several` is that of `read_output`.
    """
    if columns.get("finding") == "":
        rows.table = rows.table.drop(columns="finding", errors="ignore")
    if "finding" not in rows.table:
        if not group and columns.get("finding") != "":
            _ask_of_which(rows, truth, name, several=several)
        return
    allowed = [truth.finding, *group]
    findings = findings_of_classes(rows.table["finding"].astype(str), allowed)
    if findings is not None and not findings.isin(allowed).all():
        kinds = ", ".join(map(repr, findings.unique()[:5]))
        if not findings.isin(allowed).any():
            column = f" in column '{rows.class_column}'" if rows.class_column else ""
            others = ", ".join(map(str, rows.unused.columns[:20]))
            also = f"; it also has {others}" if others else ""
            other_column = way(name, "finding", when="another column names the finding")
            raise InputError(
                f"{rows.where}: has rows of {kinds}{column}, and the truth is of "
                f"'{truth.finding}'{also}{_or_name_each(rows)}",
                [*_ways_of_all(rows, name), *([other_column] if others else [])],
            )
        rows.notes.append(f"Rows of other classes than '{truth.finding}' are left out ({kinds}).")
        rows.table = rows.table[findings.isin(allowed).to_numpy()].reset_index(drop=True)
    if group and not rows.are_boxes and not rows.table.duplicated(["image_id", "finding"]).any():
        best = rows.table.sort_values("score", ascending=False, kind="stable")
        rows.table = best.drop_duplicates("image_id").sort_index().reset_index(drop=True)
    rows.table = rows.table.drop(columns="finding")


def _ask_of_which(rows: Rows, truth: Truth, name: str, *, several: bool) -> None:
    """Refuse boxes without a class where they may be of another finding of the truth."""
    findings = [*dict.fromkeys(truth.categories.values())]
    if not rows.are_boxes or rows.table.empty or not (several or len(findings) > 1):
        return
    listed = f" ({', '.join(findings)})" if findings else ""
    all_are = [] if several else [way(name, "finding", "", f"all are of {truth.finding}")]
    raise InputError(
        f"{rows.where}: its boxes have no class, and the truth has several findings{listed}: of "
        "which are they?",
        [*all_are, Remedy(words="name the class of each box, or of each number in a data.yaml")],
    )


def _ways_of_all(rows: Rows, name: str) -> list[Remedy]:
    """Return the way on if all boxes are of the finding; COCO's may be of several."""
    are_several = bool(_or_name_each(rows))
    return [] if are_several else [way(name, "finding", "", "all are of this finding")]


def _or_name_each(rows: Rows) -> str:
    are_several = rows.is_coco and rows.table["category"].nunique() > 1
    return "; name each category in category_name" if are_several else ""


def _ask_for_scores(rows: Rows, name: str, none: Remedy) -> None:
    """Ask if columns of another name, which are shares, hold the scores."""
    shares = []
    for column, cells in rows.unused.items():
        numbers = pd.to_numeric(cells, errors="coerce")
        if len(numbers) and numbers.between(0, 1).all() and (numbers % 1 != 0).any():
            shares.append(str(column))
    if shares:
        listed = " or ".join(f"'{column}'" for column in shares)
        ways = [way(name, "score", column, f"'{column}' does") for column in shares]
        raise InputError(f"{rows.where}: does {listed} hold the scores?", [*ways, none])


def _two_classes(unused: pd.DataFrame) -> pd.DataFrame:
    """Return columns of two predicted classes or labels, whose confidence scores may be."""
    names = (*column_names("decision"), *column_names("label"))
    columns = [column for column in unused if find_column([str(column)], names)]
    return unused[[c for c in columns if unused[c].replace("", None).nunique() == 2]]


def _ask_if_confidence(rows: Rows, truth: Truth, name: str) -> None:
    """Ask if scores are the confidence of the predicted class, or calls beside probabilities."""
    scores = rows.table["score"].to_numpy()
    if np.isin(scores, [0, 1]).all():
        called = f"the calls in '{rows.score_column}' alone are compared"
        _ask_for_scores(rows, name, way(name, "score", rows.score_column, called))
    labels = truth.images["label"].reindex(rows.table["image_id"]).to_numpy()
    high = len(scores) >= _ENOUGH_TO_ASK and bool(((scores >= 0.5) & (scores <= 1)).all())
    high = high and len(np.unique(scores)) > 1  # equal scores are no confidence
    question = ""
    for column, cells in _two_classes(rows.unused).items():
        is_known = ~are_blank(cells).to_numpy()
        second = (cells != cells[is_known].mode()[0]).to_numpy()
        first, other = scores[is_known & ~second], scores[is_known & second]
        if first.max() <= other.min() or other.max() <= first.min():
            continue  # the class is a score at or above a threshold
        labelled = is_known & ~np.isnan(labels)
        pairs = set(zip(second[labelled].tolist(), labels[labelled].tolist(), strict=True))
        if high or not 0 < len(pairs) <= 2:  # else the column is that of the labels
            question = f"is score the confidence of the class in '{column}'"
    if high and not question:
        question = "no score is below 0.5: is it the confidence of the predicted class"
    if question:
        raise InputError(
            f"{rows.where}: {question}? Give the probability of the finding",
            [way(name, "score", rows.score_column, "this is it")],
        )


def _of_scores(
    rows: Rows, name: str, *, answered: bool, several: bool, role: str = "score"
) -> Output:
    """Return one score for each image; probabilities, unless the user named the column."""
    table, scores = rows.table, rows.table["score"].to_numpy()
    outside = (not answered) & ~((scores >= 0) & (scores <= 1))
    refuse_row(table, table.duplicated("image_id"), rows.where, "has a second score; keep one")
    refuse_row(table, ~np.isfinite(scores), rows.where, "score={score:g} is infinite; correct it")
    problem = "score={score:g} is outside [0, 1]; are these logits or per cent? Convert them"
    problem += ", those of classes by a softmax of each row" if several else ""
    ranks = way(name, role, rows.score_column, "only their ranks count")
    refuse_row(table, outside, rows.where, problem, [] if several else [ranks])
    values = pd.Series(scores, table["image_id"].to_numpy()).rename_axis("image_id")
    return Output(values, notes=tuple(reading_notes(rows.notes, name)))


def _roles_with_boxes(boxes: pd.DataFrame, truth: Truth, rows: Rows) -> pd.Index:
    """Return the evaluated images, and others with a box; a role without any counts as not run."""
    with_box = truth.ids.isin({*boxes["image_id"], *rows.listed})
    roles = truth.images["role"]
    evaluated = [role for role in ("val", "test") if (roles == role).any()]
    absent = [role for role in evaluated if not with_box[roles == role].any()]
    if len(absent) == 1 and with_box.any():
        rows.notes.append(f"No image of role {absent[0]} has a box: they count as not run.")
        evaluated.remove(absent[0])
    return truth.ids[with_box | roles.isin(evaluated).to_numpy()]
