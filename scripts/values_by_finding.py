"""Truth and systems in memory with a column for each finding, taken apart by finding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import class_column
from cxr_compare.data_prep.contracts.column_names import (
    column_names,
    find_column,
    image_names,
)
from cxr_compare.data_prep.contracts.errors import InputError, nearest_name
from cxr_compare.evaluation.sources.from_frames import is_column_of_images
from cxr_compare.evaluation.sources.wide_tables import LABEL_NAMES, finding_name, score_columns
from cxr_compare.evaluation.statistics.arrays import as_array
from cxr_compare.scripts.given_systems import GivenSystem, GivenValues, is_values

if TYPE_CHECKING:
    from cxr_compare.data_prep.store.predictions import Predictions

_LABELS = {0.0, 1.0, -1.0}


@dataclass(frozen=True)
class SeveralFindings:
    """Findings that a truth in memory has columns for.

    `truth` is a frame of labels, or an array ``(N, K)``; `columns` has the column of each finding.
    """

    truth: Any
    columns: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """Names of the findings, in the order of the columns."""
        return list(self.columns)

    def truth_of(self, finding: str) -> Any:
        """Return the labels of one finding: a frame with one column of labels, or a Series."""
        column = self.columns[finding]
        if not isinstance(self.truth, pd.DataFrame):
            return pd.Series(as_array(self.truth)[:, column], name=finding)
        others = [other for other in self.columns.values() if other != column]
        return self.truth.drop(columns=others)

    def label_of(self, finding: str) -> str | None:
        """Return the column of the labels of one finding; None for an array."""
        return str(self.columns[finding]) if isinstance(self.truth, pd.DataFrame) else None

    def boxes_of(self, boxes: Any, finding: str) -> Any:
        """Return the true boxes of one finding, whose class is in a column of the boxes."""
        if not isinstance(boxes, pd.DataFrame):
            return boxes
        column = class_column(boxes)
        if column is None:
            raise InputError(
                f"boxes: no column says of which of the findings {', '.join(self.names)} a box is; "
                "add a column 'finding'"
            )
        classes = boxes[column].map(lambda name: finding_name(str(name)))
        self._require_known(classes, "boxes")
        return boxes[classes == finding].drop(columns=column)

    def systems_of(self, systems: Sequence[GivenSystem], finding: str) -> list[GivenSystem] | str:
        """Return the systems with their scores or boxes of one finding.

        The result is the name of the first system that has nothing on this finding, if there is
        one.
        """
        found = []
        for system in systems:
            members: list[Any] = []
            for member in system.members:
                value = self._value_of(member, finding, system.name or "a system")
                if value is None:
                    return system.name or str(member)
                members.append(value)
            found.append(GivenSystem(system.name, members))
        return found

    def _value_of(self, member: Any, finding: str, name: str) -> GivenValues | Predictions | None:
        """Return the scores or boxes of a finding; None if there are none."""
        if not isinstance(member, GivenValues):
            raise InputError(f"{name}: with several findings in memory, give scores or boxes, too")
        value = member.value
        if isinstance(value, Mapping):
            by_name = {finding_name(str(column)): each for column, each in value.items()}
            return GivenValues(by_name[finding]) if finding in by_name else None
        if not isinstance(value, pd.DataFrame):
            return GivenValues(self._column_of_array(value, finding, name))
        columns = score_columns(list(value.columns), self.names, name)
        if columns:
            if finding not in columns:
                return None
            return GivenValues(_scores(value, columns[finding]))
        column = class_column(value)
        if column is None:
            raise InputError(
                f"{name}: has no column of {', '.join(self.names)}, and no column 'finding' with "
                "the finding of each row"
            )
        classes = value[column].map(lambda text: finding_name(str(text)))
        rows = value[classes == finding].drop(columns=column)
        return GivenValues(rows.reset_index(drop=True)) if len(rows) else None

    def _column_of_array(self, value: Any, finding: str, name: str) -> np.ndarray:
        wanted = f"give an array with a column for each of {', '.join(self.names)}, or a frame"
        try:
            array = as_array(value)
        except (TypeError, ValueError):
            raise InputError(f"{name}: is no array; {wanted}") from None
        if array.ndim != 2 or array.shape[1] != len(self.names):
            raise InputError(f"{name}: has the shape {array.shape}; {wanted}")
        return array[:, self.names.index(finding)]

    def _require_known(self, classes: pd.Series, where: str) -> None:
        unknown = sorted(set(classes) - set(self.names))
        if unknown:
            raise InputError(
                f"{where}: '{unknown[0]}' is none of the findings that are compared "
                f"({', '.join(self.names)}); leave its rows out"
            )


def several_findings(truth: Any, target: Sequence[str] | None) -> SeveralFindings | None:
    """Return the findings of a truth in memory that has a column for each of several.

    `target` names the findings that the user asks for, or ``all``. The result is None for labels of
    one finding. Raises InputError if a finding that is asked for has no column, or several columns
    may be findings and nothing says which are.

    Example:
        >>> truth = pd.DataFrame({"image_id": ["a", "b"], "mass": [0, 1], "edema": [1, 0]})
        >>> several_findings(truth, ["all"]).names
        ['mass', 'edema']
    """
    if isinstance(truth, pd.DataFrame):
        columns = {finding_name(str(column)): column for column in truth.columns}
        has_label = find_column([str(column) for column in truth.columns], LABEL_NAMES) is not None
        if has_label and not target:
            return None
        wanted = [finding_name(name) for name in target or () if name != "all"]
        if not wanted:
            wanted = _label_columns(truth, columns)
        unknown = [name for name in wanted if name not in columns]
        if has_label and (unknown or not wanted[1:]):
            return None
        if unknown:
            near = nearest_name(unknown[0], list(columns), f"it has {', '.join(columns)}")
            raise InputError(f"--target {unknown[0]}: truth has no such column; {near}")
        if not wanted or (len(wanted) == 1 and not target):
            return None
        if not target:
            raise InputError(
                f"truth: no column 'label', and {', '.join(wanted)} may be findings; say "
                'target="all" if each is one, or target=[NAME, ...]'
            )
        return SeveralFindings(truth, {name: columns[name] for name in wanted})
    array = None if is_frame_like(truth) else _array_of(truth)
    if array is None or array.ndim != 2 or array.shape[1] < 2:
        return None
    if array.shape[1] == 2 and (array.sum(axis=1) == 1).all():
        raise InputError(
            "truth: both columns of each row sum to 1, as one-hot labels do; give its column 1, or "
            "a frame if these are two findings"
        )
    return SeveralFindings(
        array, {f"finding_{number + 1}": number for number in range(array.shape[1])}
    )


def is_frame_like(truth: Any) -> bool:
    """Return True for values that have one label an image: a Series, a path, or no values."""
    return truth is None or isinstance(truth, pd.Series) or not is_values(truth)


def _array_of(value: Any) -> np.ndarray | None:
    try:
        return as_array(value)
    except (TypeError, ValueError, InputError):
        return None


def _label_columns(truth: pd.DataFrame, columns: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns that hold labels only and describe no image or patient."""
    return [
        name
        for name, column in columns.items()
        if not is_column_of_images(str(column)) and _holds_labels(truth[column])
    ]


def _holds_labels(values: pd.Series) -> bool:
    numbers = pd.to_numeric(values, errors="coerce")
    known: Iterable[float] = set(numbers.dropna().astype(float))
    return bool(known) and set(known) <= _LABELS and bool((numbers.notna() | values.isna()).all())


def _scores(value: pd.DataFrame, column: Any) -> Any:
    """Return one column of scores as ``image_id, score``, or as an array in the order of truth."""
    names = [str(name) for name in value.columns]
    image = find_column(names, ("image_id", *column_names("file"), *image_names(names)))
    if image is not None:
        ids = value[value.columns[names.index(image)]]
        return pd.DataFrame({"image_id": ids.to_numpy(), "score": value[column].to_numpy()})
    if isinstance(value.index, pd.RangeIndex):
        return value[column].to_numpy()
    return value[column]
