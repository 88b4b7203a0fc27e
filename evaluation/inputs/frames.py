"""Predictions in memory: tables by the roles of their columns, and scores of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import ROLES_OF_FORMS
from cxr_compare.data_prep.base.boxes import EDGES, NUMBERS
from cxr_compare.data_prep.base.errors import InputError, as_typed, ask
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.names import (
    class_column,
    column_names,
    find_column,
    finding_name,
    headless_problem,
    is_named,
    missing_columns,
    predicted_names,
)
from cxr_compare.data_prep.base.user_tables import cell_texts, header_of
from cxr_compare.data_prep.sources.guard import are_box_texts
from cxr_compare.data_prep.sources.image_files import columns_of_images
from cxr_compare.data_prep.sources.label_table import (
    BOX_ROLES,
    Sheet,
    TableRules,
    rules_of,
)
from cxr_compare.data_prep.sources.table_columns import (
    give_role,
    index_problem,
    recognise,
    take_index,
    take_sizes_of_images,
)
from cxr_compare.evaluation.inputs.rows import (
    Rows,
    are_blank,
    crowd_flags,
    numbers_in,
    require_filled,
    way,
    with_numbers,
)
from cxr_compare.evaluation.statistics.arrays import as_array, of_one_column

SIDES = ("image_width", "image_height")
"""Columns of a table of boxes with the size of the image that these are of."""
_ROLES = {"image": "file", "score": "score", "image_score": "image_score", "finding": "label"}
"""Role by the name that `cxr compare` gives it, for columns that the user names."""
_OFFERED = 3  # columns, in a message
_PREFIXES = ("prob_", "score_", "pred_")


def read_scores(value: Any, order: pd.Series | None, where: str) -> Rows:
    """Read one score an image: a Series by rows of the truth or by image ids, an array in order."""
    ids = None if order is None else order.tolist()
    if isinstance(value, pd.Series) and not (order is None and is_unnamed(value.index)):
        ids, value = ids_of_series(value, order, where), value.to_numpy()
    array = flat_array(value, where)
    if ids is None:
        raise InputError(
            f"{where}: has no image ids, and neither a file nor a data set has an order of images; "
            "give a Series with image ids as its index, or a frame image_id, score"
        )
    if len(array) != len(ids):
        raise InputError(
            f"{where}: has the shape {array.shape}, and truth {(len(ids),)}; give one value for "
            "each image, in the order of truth, or a Series with image ids"
        )
    table = pd.DataFrame({"image_id": ids, "score": array})
    return Rows(with_numbers(table, ["score"], where), where=where)


def is_unnamed(index: pd.Index) -> bool:
    """Return True for an index that pandas made, which names no image."""
    return isinstance(index, pd.RangeIndex)


def with_named_index(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Return a frame whose index names its images, without a column that does, with such a one."""
    frame = frame.set_axis([*map(str, frame.columns)], axis=1)
    if is_unnamed(frame.index) or image_column(frame, columns) is not None:
        return frame
    return frame.assign(image_id=frame.index)


def image_column(frame: pd.DataFrame, columns: Mapping[str, str]) -> Any:
    """Return the column of images by the answer of the user, or by its name; None without one."""
    header = [*frame.columns]
    published = rules_of(header).roles.get("file")
    return columns.get("image") or published or find_column(header, column_names("file"))


def flat_array(value: Any, where: str) -> np.ndarray:
    """Return one value for each image, shape ``(N,)``; InputError for what is none."""
    if isinstance(value, Mapping) or not hasattr(value, "__len__"):
        kind = type(value).__name__
        raise InputError(f"{where}: is a {kind}; give a Series, an array, a frame or a file")
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise InputError(f"{where}: has masked values; leave these images out, or give NaN")
    try:
        array = of_one_column(as_array(value))
    except (TypeError, ValueError):
        raise InputError(f"{where}: is no array of one value for each image") from None
    if array.ndim != 1:
        column = ", such as the column [:, 1]" if array.ndim == 2 else ""
        raise InputError(
            f"{where}: has the shape {array.shape}; give one value for each image{column}"
        )
    if np.iscomplexobj(array):
        raise InputError(f"{where}: has complex numbers; give real ones")
    return array


def ids_of_series(value: pd.Series, order: pd.Series | None, where: str) -> list[str]:
    """Return the images of a Series, whose index has rows of the truth or image ids.

    `order` has the image ids of the truth by its rows; its index equals its values if the truth has
    no rows. InputError if both readings are possible and differ.
    """
    if value.index.nlevels > 1:
        raise InputError(
            f"{where}: its index has {value.index.nlevels} levels; give one of image ids"
        )
    missing = value.index.isna()
    if missing.any():
        raise InputError(f"{where}: row {missing.argmax()}: the image id in its index is missing")
    names = value.index.astype(str).tolist()
    if order is None:
        return names
    ids = order.astype(str)
    has_rows = not order.index.equals(pd.Index(order))
    of_rows: list[str] | None = None
    if value.index.equals(pd.RangeIndex(len(order))) and not (has_rows and _is_numbered(order)):
        of_rows = ids.tolist()
    elif has_rows and value.index.is_unique and value.index.isin(order.index).all():
        of_rows = ids.loc[value.index].tolist()
    # A number may have lost the zeros in front of it, or have become a decimal one.
    plain = ids.str.replace(r"\.0$", "", regex=True).str.replace(r"^0+(\d)", r"\1", regex=True)
    by_name = {**dict(zip(plain, ids, strict=True)), **dict(zip(ids, ids, strict=True))}
    by_id = [by_name.get(name, name) for name in names]
    if of_rows is not None and set(by_id) <= set(ids):
        if of_rows != by_id and value.astype(str).nunique() > 1:
            raise InputError(
                f"{where}: is {names[0]} in its index a row of the truth or an image? Give a frame "
                "with image_id"
            )
        return by_id
    if of_rows is not None and len(of_rows) == len(ids):
        return of_rows
    if not has_rows and pd.api.types.is_integer_dtype(value.index) and not set(by_id) & set(ids):
        raise InputError(
            f"{where}: its index is not 0, 1, ..., and truth has none; give both as Series of the "
            "same images, or both as arrays in one order"
        )
    return names


def _is_numbered(order: pd.Series) -> bool:
    return pd.api.types.is_integer_dtype(order.index)


def predicted_table(
    frame: pd.DataFrame, columns: Mapping[str, str], where: str, name: str = "NAME"
) -> Sheet:
    """Return a table of predictions with the role of each column, by its name or by `columns`."""
    text = frame.set_axis(header_of(frame, where), axis=1)
    rules = rules_of([*text])
    rules = rules if {*BOX_ROLES} & {*rules.roles} else TableRules()
    table = Sheet(Path(where), text, rules)
    table = recognise(table, predicted_names())
    for user_role, role in _ROLES.items():
        if user_role in columns:
            argument = as_typed({"columns": {f"{name}.{user_role}": columns[user_role]}})
            (table,) = give_role([table], role, columns[user_role], argument)
    table = take_sizes_of_images(take_index(table))
    if "label" not in table.answered:
        table = table.without("label")
        free = table.text[table.unused]
        kind = class_column(free) if table.box_form else find_column([*free], ("finding",))
        table = table.having("label", kind or "")
    return table


def read_frame(
    frame: pd.DataFrame,
    columns: Mapping[str, str],
    where: str,
    name: str = "NAME",
    order: pd.Series | None = None,
    findings: Sequence[str] = (),
    ids: Sequence[str] = (),
) -> Rows:
    """Read a table of scores or of boxes by the usual names of columns, or by `columns`.

    `findings` are one and those of its group, whose scores may be in columns of their names; by
    these alone a table without a column of images is read, in the `order` of the truth. Columns
    of `ids` are named in the question which one names the image.
    """
    table = predicted_table(frame, columns, where, name)
    if (scores := _scores_of(table, findings)) is not None:
        if not scores.has("file"):
            return read_scores(scores.text.iloc[:, 0], order, where)
        table = scores
    form = table.box_form
    if not form:
        _refuse_box_texts(table.text[table.unused], where)
    _require_columns(table, name, ids)
    names = _names_in_rows(table)
    rows = table.text[[*names]].rename(columns=names)
    unused = table.text.drop(columns=[*names])
    column_of = {name: column for column, name in names.items()}
    image_scores = None
    if "image_score" in rows:
        image_scores = _image_scores(rows, where, column_of["image_score"], *findings[:1])
        rows = rows.drop(columns="image_score")
    ran = None
    if form:  # an image without a box is a row without numbers
        blank = rows[numbers_in(rows)].apply(are_blank).all(axis=1)
        if blank.any():
            ran = rows["image_id"].dropna().astype(str).unique().tolist()
        rows = rows[~blank]
    require_filled(rows["image_id"], where, column_of["image_id"])
    rows = rows.assign(image_id=rows["image_id"].astype(str))
    rows["position"] = [f"row {label}" for label in rows.index]
    if "crowd" in rows:
        rows = rows.assign(crowd=crowd_flags(rows["crowd"], where))
    kind = column_of.get("finding", "")
    if kind:
        require_filled(rows["finding"], where, f"the class in {kind}")
        rows = rows.assign(finding=cell_texts(rows["finding"]))
    numbers = [*numbers_in(rows), *(side for side in SIDES if side in rows)]
    return Rows(
        with_numbers(rows, numbers, where, column_of),
        form or "xyxy",
        stated=form not in (None, "xyxy"),
        ran=ran,
        where=where,
        notes=[_note(names, [*unused])],
        image_scores=image_scores,
        unused=unused.reset_index(drop=True),
        class_column=kind if form else "",
        score_column=column_of.get("score", "score"),
    )


def _image_scores(rows: pd.DataFrame, where: str, column: str, finding: str) -> Rows:
    """Return the scores of images in a table of boxes, also those of images without a box."""
    named = rows[["image_id", "image_score", *rows.columns.intersection(["finding"])]]
    named = named[rows["image_id"].notna()].rename(columns={"image_score": "score"})
    named = named.assign(image_id=named["image_id"].astype(str))
    if "finding" in named:  # a row without a box may name none
        classes = cell_texts(named["finding"]).mask(are_blank(named["finding"]), finding)
        named = named.assign(finding=classes)
    numbers = with_numbers(named.drop_duplicates(), ["score"], where, {"score": column})
    return Rows(numbers, where=where, score_column=column)


def _names_in_rows(table: Sheet) -> dict[str, str]:
    """Return the column of `Rows` by each column that is read."""
    names = {"file": "image_id", "score": "score", "label": "finding"}
    if table.box_form:
        if table.has("score"):  # else it is asked if it is that of the boxes
            names["image_score"] = "image_score"
        names |= dict(zip(ROLES_OF_FORMS[table.box_form], NUMBERS, strict=True))
        names["crowd"] = "crowd"
        if all(map(table.has, SIDES)):
            names |= dict(zip(SIDES, SIDES, strict=True))
    return {table.columns[role][0]: names[role] for role in names if table.has(role)}


def _note(names: Mapping[str, str], unused: Sequence[str]) -> str:
    """Return a sentence on how the columns of a table are read."""
    columns_read = [
        f"{column} as {to}" for column, to in names.items() if column != to and to not in NUMBERS
    ]
    note = f"Columns read: {', '.join(columns_read) or 'as named'}"
    return note + (f"; not used: {', '.join(unused[:10])}." if unused else ".")


def scores_of_findings(columns: Sequence[Any], findings: Sequence[str]) -> dict[str, Any]:
    """Return the column of scores of each finding: ``prob_`` and its name, or its name alone.

    InputError if two such columns have a prefix, as ``prob_mass`` and ``pred_mass``.

    Examples:
        >>> scores_of_findings(["mass", "prob_Mass", "Nodule"], ["mass", "nodule"])
        {'mass': 'prob_Mass', 'nodule': 'Nodule'}
    """
    prefixed: dict[str, list[Any]] = {}
    plain: dict[str, Any] = {}
    for column in columns:
        name = finding_name(str(column))
        if name in findings:
            plain.setdefault(name, column)
        for begin in _PREFIXES:
            if name.startswith(begin) and name.removeprefix(begin) in findings:
                prefixed.setdefault(name.removeprefix(begin), []).append(column)
    for name, columns_of_finding in prefixed.items():
        if len(columns_of_finding) > 1:
            raise InputError(
                f"{columns_of_finding[0]} and {columns_of_finding[1]}: which are the scores of "
                f"{name}?"
            )
    return plain | {name: columns_of_finding[0] for name, columns_of_finding in prefixed.items()}


def findings_of_table(frame: pd.DataFrame, findings: Sequence[str], where: str) -> set[str]:
    """Return the findings that a table names, by columns of their scores or by its classes."""
    table = predicted_table(frame, {}, where)
    scored = scores_of_findings([*table.text], findings)
    kind = class_column(table.text[[*table.unused, *table.columns_of("label")]])
    if kind is None and not scored:
        raise InputError(
            f"{where}: has no column of {', '.join(findings)}, and no column 'finding' that names "
            "the finding of each row"
        )
    classes = () if kind is None else table.text[kind].unique()
    return {*scored, *(finding_name(str(text)) for text in classes)}


def _scores_of(table: Sheet, findings: Sequence[str]) -> Sheet | None:
    """Return the scores of the first finding, or the highest of the others, beside the images.

    It is None if the user or the name ``score`` says which are read.
    """
    header = [*table.text]
    if "score" in header or not findings or {"score", "label"} & table.answered:
        return None
    finding, *group = findings
    scores = scores_of_findings(header, [finding]) if is_named(finding) else {}
    scores = scores or scores_of_findings(header, group)
    if not scores:
        return None
    lacking = [member for member in group if finding not in scores and member not in scores]
    if lacking:
        raise InputError(f"{table.path}: has no column of scores of {', '.join(lacking)}")
    text = table.text
    column, *others = scores.values()
    if others:
        numbers = text[[column, *others]].apply(pd.to_numeric, errors="coerce")
        column = "score"
        text = text.assign(score=numbers.max(axis=1, skipna=False))
    images = table.columns_of("file")
    return replace(table, text=text[[column, *images]], columns={"score": [column], "file": images})


def _refuse_box_texts(table: pd.DataFrame, where: str) -> None:
    """Refuse a column that is not read and holds a box in one cell, such as [10, 20, 30, 40]."""
    for name, cells in table.select_dtypes(exclude=["number", "bool"]).items():
        are_boxes = are_box_texts(cells.astype(str).rename(str(name))).to_numpy()
        if are_boxes.any():
            raise InputError(
                f"{where}: row {table.index[int(are_boxes.argmax())]}: column '{name}' holds a box "
                "in one cell, which may be corners or sizes; write each box in a row of its own "
                "with the columns x1,y1,x2,y2 or x,y,width,height, or remove the column"
            )


def _require_columns(table: Sheet, name: str, ids: Sequence[str]) -> None:
    """Ask at once for columns of images, and of scores or boxes, that a table does not have."""
    header = [*table.text]
    problems: dict[str, str] = {}
    if not table.has("file"):
        problems["image"] = f"has no column of image ids; {index_problem(table)}".removesuffix("; ")
    if table.box_form is None and len(table.box_roles) > 2:
        missing = missing_columns([edge for edge in EDGES if edge not in header])
        problems[""] = f"{missing}, or x, y, width and height"
    elif table.box_form is None and not table.has("score"):
        problems["score"] = "has no column of scores, nor four of boxes (x1,y1,x2,y2)"
    if problems and (headless := headless_problem(header)):
        raise InputError(f"{table.path}: {headless}")
    named = columns_of_images(table.text, Names(ids).find) if "image" in problems else []
    numbers = table.text.apply(pd.to_numeric, errors="coerce")
    are_shares = ((numbers >= 0) & (numbers <= 1)).all() & (numbers.nunique() > 2)
    shares = [*numbers.columns[are_shares]][:_OFFERED]
    columns = {"image": named or ["COLUMN"], "score": shares or ["COLUMN"], "": []}
    listed = ", ".join(header[:20])
    ask(
        [
            InputError(
                f"{table.path}: {problem}; it has {listed}",
                [way(name, role, column, f"{column} holds it") for column in columns[role]],
            )
            for role, problem in problems.items()
        ]
    )
