"""One system from predictions of any kind, checked against the images, sizes and true boxes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import BoxForm, BoxReading, BoxUnit, corners_of
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.names import column_names, find_column, finding_name
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE, MAX_BOXES
from cxr_compare.evaluation.inputs.box_classes import findings_of_classes
from cxr_compare.evaluation.inputs.files import read_rows
from cxr_compare.evaluation.inputs.other_readings import doubt
from cxr_compare.evaluation.inputs.predicted_boxes import check_predictions
from cxr_compare.evaluation.inputs.rows import (
    NUMBERS,
    Rows,
    are_blank,
    box_answers,
    require_probabilities,
    say,
)
from cxr_compare.evaluation.notes import reading_notes
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.truth import Truth

ENDING = re.compile(r"\.(?:png|jpe?g|tiff?|bmp|webp|dcm|dicom)$", re.IGNORECASE)
"""Ending of the name of an image file."""
_NUMBER_OF_FILE = re.compile(r"^(?:.*[/\\])?0*(\d+)$")
_ENOUGH_TO_ASK = 10
"""Scores from which none below 0.5 is no accident."""
_ROUNDING = 0.01
"""Px by which a box reaches beyond its image by rounding alone."""
_PREDICTED = (
    "predictedclass",
    "predclass",
    "predictedlabel",
    "predlabel",
    "predicted",
    "prediction",
    "pred",
    "ypred",
    "decision",
)


def read_output(
    value: Any,
    truth: Truth,
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    where: str | None = None,
    findings: Sequence[str] = (),
) -> Output:
    """Read a system's scores or boxes of the images of a truth.

    InputError for what is not understood, with its row and image.

    Args:
        value: File, folder, frame, Series, array, or list of outputs of a detection library.
        truth: Labels and true boxes of all images.
        name: Name of the system, for messages.
        columns: Names of columns by role (image, score, finding), and how boxes are written
            (box_form, box_unit, box_order). Of COCO results, the image is ``id`` or ``file_name``.
        where: What a message calls the source; None for the name of the system.
        findings: Findings of the truth's group; empty for a truth of one finding.
    """
    columns = dict(columns or {})
    rows = read_rows(value, truth.order, columns, where or name, name)
    if not len(rows.table) and not (rows.ran or rows.listed):
        raise InputError(f"{rows.where}: holds no row; give predictions that have some")
    name_images(rows, truth, columns.get("image", ""), name)
    if not rows.are_boxes:
        if "score" not in columns and "finding" not in rows.table:
            _ask_if_confidence(rows, truth, name)
        _keep_finding(rows, truth, name, findings)
        return _of_scores(rows, name, named="score" in columns)
    _keep_finding(rows, truth, name, findings)
    has_scores = "score" in rows.table
    if not has_scores and columns.get("score") != "":
        _ask_for_scores(rows.unused, rows.where, name)
    if not has_scores:
        rows.notes.append("The boxes have no scores: an image with a box is called.")
    boxes = boxes_in_px(rows, truth, columns, name=name)
    if rows.ran is None:
        ran = _roles_with_boxes(boxes, truth, rows)
    else:
        listed = match_ids(rows.ran, truth.ids, rows.where)
        ran = pd.Index(sorted({*listed, *boxes["image_id"]}))
    doubts = []
    if not {"box_form", "box_unit"} & columns.keys():
        doubts = doubt(boxes, truth, name)
    empty = len(ran) - boxes["image_id"].nunique()
    if empty:
        rows.notes.append(f"{counted(empty, 'image')} without a box: run, with nothing found.")
    notes = (*doubts, *reading_notes(rows.notes, name))
    return Output.of_detector(boxes, ran, ranks=has_scores, notes=notes)


def match_ids(names: Sequence[str], ids: pd.Index, where: str) -> list[str]:
    """Return the image of each name: equal, without the file's ending, or equal in the last part.

    Names match by their last part if each fits exactly one image. InputError for all others.
    """
    known = set(ids)
    if known.issuperset(names):
        return list(names)
    stems = pd.Series([ENDING.sub("", name) for name in ids])
    once = ~stems.duplicated(keep=False).to_numpy()
    plain = dict(zip(stems[once], ids[once], strict=True))
    last = {_last_part(name): image for name, image in plain.items()}
    found: dict[str, str | None] = {}
    for name in dict.fromkeys(names):
        stem = ENDING.sub("", name)
        found[name] = name if name in known else plain.get(stem)
        if found[name] is None and len(last) == len(ids):
            found[name] = last.get(_last_part(stem))
    unknown = [name for name, image in found.items() if image is None]
    if unknown:
        folded = {name.casefold(): name for name in plain}
        near = folded.get(ENDING.sub("", unknown[0]).casefold())
        advice = f"whose images are such as {ids[0]!r}" if near is None else f"is it {near!r}?"
        raise InputError(
            f"{where}: {counted(len(unknown), 'image', 'are')} not in the truth, such as "
            f"{unknown[0]!r}; {advice}; correct or remove them"
        )
    first: dict[str | None, str] = {}
    for name, image in found.items():
        if image in first:
            raise InputError(
                f"{where}: calls image '{image}' {first[image]!r} and {name!r}; keep one name"
            )
        first[image] = name
    return [str(found[name]) for name in names]


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def name_images(rows: Rows, truth: Truth, image: str = "", name: str = "NAME") -> None:
    """Name the images of rows as the truth does, and the classes of COCO results as its file does.

    An image of COCO results is the name of a file, an id of the truth's COCO file, or the number of
    a file. `image` is the user's answer to which of them it is: ``id`` or ``file_name``.
    """
    table = rows.table
    names = table["image_id"].astype(str)
    of_ids: dict[str, str] = {}
    if "coco_id" in truth.images:
        of_ids = dict(zip(truth.images["coco_id"], truth.ids, strict=True))
    by_id = False
    if rows.is_coco and "file_name" in table and image != "id":
        files = table["file_name"]
        known = {_last_part(ENDING.sub("", each)) for each in truth.ids}
        if files.map(lambda file: _last_part(ENDING.sub("", file)) in known).any():
            names = files
    elif rows.is_coco and of_ids:
        by_number = _by_number(truth.ids)
        if image == "file_name":
            names = names.map(lambda number: by_number.get(number, number))
        else:
            if image != "id" and set(names) <= set(by_number):
                _ask_if_file_numbers(names, of_ids, by_number, rows.where, name)
            by_id = set(names) <= set(of_ids)
    elif of_ids and not set(names) <= set(truth.ids):
        by_id = set(names) <= set(of_ids)
    if by_id:
        names = names.map(of_ids)
    rows.table = table.assign(image_id=match_ids(names.tolist(), truth.ids, rows.where))
    if truth.categories and "category" in table and (by_id or len(truth.categories) > 1):
        rows.table["finding"] = _named_categories(rows, truth.categories)


def _by_number(ids: pd.Index) -> dict[str, str]:
    """Return the image by the number that is the name of its file; a number of two is left out."""
    numbers = pd.Series([_NUMBER_OF_FILE.fullmatch(ENDING.sub("", name)) for name in ids], ids)
    numbers = numbers.dropna().map(lambda match: match[1])
    numbers = numbers[~numbers.duplicated(keep=False)]
    return dict(zip(numbers, numbers.index, strict=True))


def _ask_if_file_numbers(
    names: pd.Series,
    of_ids: Mapping[str, str],
    by_number: Mapping[str, str],
    where: str,
    name: str,
) -> None:
    """Ask whether numbers are ids of the COCO file or of files, if that makes a difference."""
    for number in names.unique():
        if by_number[number] != of_ids.get(number):
            raise InputError(
                f"{where}: is image_id {number} the image '{by_number[number]}'? In the truth "
                f"{repr(of_ids[number]) if number in of_ids else 'no image'} has this id; say "
                f"{say(name, 'image', 'id')} or {say(name, 'image', 'file_name')}, or write "
                "file_name into each result"
            )


def _named_categories(rows: Rows, categories: Mapping[str, str]) -> pd.Series:
    """Return the finding of each COCO result by its category, which the truth's file must have."""
    table = rows.table
    named = table["category"].map(dict(categories))
    wrong = named.isna()
    if "category_name" in table:
        wrong |= table["category_name"].map(finding_name) != named
    if wrong.any():
        row = table[wrong].iloc[0]
        raise InputError(
            f"{rows.where}: {row['place']}: category {row['category']} is none of the truth's "
            f"categories, or has another name there ({', '.join(categories.values())}); correct it"
        )
    return named


def _keep_finding(rows: Rows, truth: Truth, name: str, group: Sequence[str]) -> None:
    """Keep the rows of the truth's finding, or of its group; refuse classes that name none of it.

    Of several findings of a group, the highest score of an image counts.
    """
    if "finding" not in rows.table:
        return
    known = [truth.finding, *group]
    findings = findings_of_classes(rows.table["finding"].astype(str), known)
    if findings is not None and not findings.isin(known).all():
        kinds = ", ".join(map(repr, findings.unique()[:5]))
        if not findings.isin(known).any():
            column = f" in column '{rows.class_column}'" if rows.class_column else ""
            raise InputError(
                f"{rows.where}: has rows of {kinds}{column}, and the truth is of "
                f"'{truth.finding}'; say {say(name, 'finding')}, or {say(name, 'finding', '')} if "
                "none names the finding"
            )
        rows.notes.append(f"Rows of other classes than '{truth.finding}' are left out ({kinds}).")
        rows.table = rows.table[findings.isin(known).to_numpy()].reset_index(drop=True)
    if group and not rows.are_boxes and not rows.table.duplicated(["image_id", "finding"]).any():
        best = rows.table.sort_values("score", ascending=False, kind="stable")
        rows.table = best.drop_duplicates("image_id").sort_index().reset_index(drop=True)
    rows.table = rows.table.drop(columns="finding")


def _ask_for_scores(unused: pd.DataFrame, where: str, name: str) -> None:
    """Ask if a column of another name holds the scores of boxes."""
    for column, cells in unused.items():
        numbers = pd.to_numeric(cells, errors="coerce")
        if len(numbers) and numbers.between(0, 1).all() and (numbers % 1 != 0).any():
            raise InputError(
                f"{where}: does '{column}' hold the scores of the boxes? Say "
                f"{say(name, 'score', str(column))}, or {say(name, 'score', '')} if none does"
            )


def _two_classes(unused: pd.DataFrame) -> pd.DataFrame:
    """Return columns of two predicted classes or labels, whose confidence scores may be."""
    names = (*_PREDICTED, *column_names("label"))
    known = [column for column in unused if find_column([str(column)], names)]
    return unused[[c for c in known if unused[c].replace("", None).nunique() == 2]]


def _ask_if_confidence(rows: Rows, truth: Truth, name: str) -> None:
    """Ask if scores are the confidence of the predicted class, whichever that is."""
    scores = rows.table["score"].to_numpy()
    labels = truth.images["label"].reindex(rows.table["image_id"]).to_numpy()
    high = len(scores) >= _ENOUGH_TO_ASK and bool(((scores >= 0.5) & (scores <= 1)).all())
    question = ""
    for column, cells in _two_classes(rows.unused).items():
        known = ~are_blank(cells).to_numpy()
        second = (cells != cells[known].mode()[0]).to_numpy()
        first, other = scores[known & ~second], scores[known & second]
        if first.max() <= other.min() or other.max() <= first.min():
            continue  # the class is a score at or above a threshold
        labelled = known & ~np.isnan(labels)
        pairs = set(zip(second[labelled].tolist(), labels[labelled].tolist(), strict=True))
        if high or not 0 < len(pairs) <= 2:  # else the column is that of the labels
            question = f"is score the confidence of the class in '{column}'"
    if high and not question:
        question = "no score is below 0.5: is it the confidence of the predicted class"
    if question:
        raise InputError(
            f"{rows.where}: {question}? Give the probability of the finding, or name the column "
            f"with {say(name, 'score')}"
        )


def _of_scores(rows: Rows, name: str, *, named: bool) -> Output:
    """Return one score for each image; probabilities, unless the user named the column."""
    table, scores = rows.table, rows.table["score"].to_numpy()
    twice = table.duplicated("image_id")
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{rows.where}: {row['place']} gives image '{row['image_id']}' a second score; keep one"
        )
    wrong = ~np.isfinite(scores) if named else ~((scores >= 0) & (scores <= 1))
    if wrong.any():
        row = table[wrong].iloc[0]
        raise InputError(
            f"{rows.where}: {row['place']}, image '{row['image_id']}': score={row['score']:g} is "
            "outside [0, 1]; are these logits or per cent? Convert them, or, if only their ranks "
            f"count, say {say(name, 'score')}"
        )
    values = pd.Series(scores, table["image_id"].to_numpy()).rename_axis("image_id")
    return Output(values, notes=tuple(reading_notes(rows.notes, name)))


def boxes_in_px(
    rows: Rows,
    truth: Truth,
    columns: Mapping[str, str],
    *,
    name: str = "NAME",
    as_given: bool = False,
) -> pd.DataFrame:
    """Return checked boxes in px of the original image, clipped to it, at most 100 of an image.

    With `as_given` none is clipped or left out, and further columns stay.
    """
    table = rows.table
    if "score" not in table:
        table = table.assign(score=1.0)
    require_probabilities(table, rows.where)
    reading = BoxReading(
        cast("BoxForm", columns.get("box_form", rows.form)),
        cast("BoxUnit", columns.get("box_unit", rows.unit)),
        rows.where,
        rows.stated,
        "box_form" in columns or "box_unit" in columns,
        box_answers(name),
    )
    sizes = truth.sizes.reindex(table["image_id"]).to_numpy()
    unsized = np.isnan(sizes).any(axis=1)
    if reading.unit != "px" and unsized.any():
        row = table[unsized].iloc[0]
        raise InputError(
            f"{rows.where}: {row['place']}: the boxes are shares, and the size of image "
            f"'{row['image_id']}' is unknown; give px, or a truth with width and height"
        )
    numbers = table[NUMBERS].to_numpy(np.float64)
    if columns.get("box_order") == "yxyx":  # first: a share of the height is none of the width
        numbers = numbers[:, [1, 0, 3, 2]]
    corners = corners_of(numbers, reading.form, reading.unit, sizes)
    table = table.drop(columns=NUMBERS).assign(**dict(zip(EDGES, corners.T, strict=True)))
    table, notes = check_predictions(table, reading, sizes)
    rows.notes += [f"{note[:1].upper()}{note[1:]}." for note in notes]
    if as_given:
        return table
    return _at_most(clipped(table, truth, rows), rows)


def clipped(table: pd.DataFrame, truth: Truth, rows: Rows) -> pd.DataFrame:
    """Return boxes cut at the borders of their images; refuse one that lies outside."""
    limit = truth.sizes.reindex(table["image_id"]).fillna(np.inf).to_numpy()
    corners = table[EDGES].to_numpy(np.float64)
    cut = np.clip(corners, 0, np.tile(limit, 2))
    outside = ~(cut[:, :2] < cut[:, 2:]).all(axis=1)
    if outside.any():
        row = table[outside].iloc[0]
        edges = ", ".join(f"{edge}={row[edge]:g}" for edge in EDGES)
        raise InputError(
            f"{rows.where}: {row['place']}, image '{row['image_id']}': {edges}: the box lies "
            "outside its image"
        )
    n_cut = int((np.abs(cut - corners) > _ROUNDING).any(axis=1).sum())
    if n_cut:
        rows.notes.append(f"{counted(n_cut, 'box')} reached beyond their image and were clipped.")
    return table.assign(**dict(zip(EDGES, cut.T, strict=True)))


def _at_most(table: pd.DataFrame, rows: Rows) -> pd.DataFrame:
    """Return the 100 boxes of each image with the highest scores, from a score of 0.001."""
    rank = table["score"].rank(method="first", ascending=False).groupby(table["image_id"]).rank()
    kept = table[(rank <= MAX_BOXES) & (table["score"] >= LEAST_SCORE)]
    if len(kept) < len(table):
        left_out = counted(len(table) - len(kept), "box")
        rows.notes.append(
            f"{left_out} left out: below score {LEAST_SCORE}, or beyond the {MAX_BOXES} best of "
            "an image."
        )
    twice = int(table.duplicated(["image_id", *EDGES, "score"]).sum())
    if twice:
        rows.notes.append(f"{counted(twice, 'box', 'are')} given twice, and count as false.")
    return kept[["image_id", *EDGES, "score"]].reset_index(drop=True)


def _roles_with_boxes(boxes: pd.DataFrame, truth: Truth, rows: Rows) -> pd.Index:
    """Return the images of the roles that have a box; one role without any counts as not run."""
    listed = match_ids(rows.listed, truth.ids, rows.where)
    with_box = truth.ids.isin({*boxes["image_id"], *listed})
    roles = truth.images["role"]
    absent = [
        role
        for role in ("val", "test")
        if (roles == role).any() and not with_box[roles == role].any()
    ]
    if len(absent) == 1 and with_box.any():
        rows.notes.append(f"No image of role {absent[0]} has a box: they count as not run.")
        return truth.ids[(roles != absent[0]).to_numpy()]
    return truth.ids
