"""Names of columns in result files, for all files or for the file of one system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_compare.data_prep.contracts.errors import InputError

if TYPE_CHECKING:
    from cxr_compare.evaluation.boxes.read_table import ColumnNames

_ROLES = ("image", "score", "finding", "box_form", "box_unit", "box_order")  # of one system's file
_ROLES_OF_ALL = {"result_image": "image", "score": "score"}


@dataclass(frozen=True)
class ResultColumns:
    """Names of the columns of result files, as the option ``--columns`` gives them.

    `of_all` has the name of a column by its role (``image``, ``score`` or ``finding``) in every
    file. `of_one` has the same for one system, by its name or by the name of a file without suffix.

    Example:
        >>> columns = ResultColumns({"score": "prob"}, {"B": {"score": "p_mass"}})
        >>> columns.names("A").score, columns.names("B").score
        ('prob', 'p_mass')
    """

    of_all: Mapping[str, str] = field(default_factory=dict)
    of_one: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def names(self, system: str, file: Path | None = None) -> ColumnNames:
        """Return the names of the columns in one file of a system; None is a table in memory."""
        from cxr_compare.evaluation.boxes.read_table import ColumnNames

        by_file = {} if file is None else self.of_one.get(file.stem, {})
        named: dict[str, Any] = {**self.of_all, **by_file, **self.of_one.get(system, {})}
        require_box_answers(named, f"{system}.")
        return ColumnNames(**named, score_is_named="score" in named)

    def require_known(self, systems: Sequence[str], files: Sequence[Path]) -> None:
        """Refuse a name of `of_one` that is neither a system nor a file without suffix."""
        known = {*systems, *(file.stem for file in files)}
        for name, columns in self.of_one.items():
            if name not in known:
                role, column = next(iter(columns.items()))
                raise InputError(
                    f"--columns {name}.{role}={column}: no system is called '{name}'; the systems "
                    f"are {', '.join(systems)}"
                )


def require_box_answers(named: Mapping[str, str], system: str = "") -> None:
    """Refuse a form, unit or order of boxes that does not exist."""
    from cxr_compare.data_prep.contracts.box_readings import FORMS, ORDERS, UNITS

    for role, allowed in (("box_form", FORMS), ("box_unit", UNITS), ("box_order", ORDERS)):
        if named.get(role, allowed[0]) not in allowed:
            raise InputError(f"--columns {system}{role}={named[role]}: use {', '.join(allowed)}")


def split_column_roles(roles: Sequence[str]) -> tuple[ResultColumns, tuple[str, ...]]:
    """Separate the column names of files with predictions from those of the file with true labels.

    A text is ROLE=COLUMN, such as ``score=Probability``. The roles ``result_image`` (image id) and
    ``score`` belong to the predictions of all systems, SYSTEM.image, SYSTEM.score and
    SYSTEM.finding to those of one, and all others to the labels. ``SYSTEM.finding=`` says that no
    column holds the classes of boxes, and ``SYSTEM.score=`` that none holds their scores. Raises
    InputError if a text names a system, but no role of its file, or no column.

    Example:
        >>> results, of_truth = split_column_roles(["B.score=p_mass", "label=Finding"])
        >>> results.of_one, of_truth
        ({'B': {'score': 'p_mass'}}, ('label=Finding',))
    """
    of_all: dict[str, str] = {}
    of_one: dict[str, dict[str, str]] = {}
    of_truth = []
    for text in roles:
        role, _, column = text.partition("=")
        system, dot, own_role = role.rpartition(".")
        if dot and "=" in text:
            may_be_none = own_role in ("finding", "score")
            if own_role not in _ROLES or not system or not (column or may_be_none):
                raise InputError(
                    f"--columns {text}: for the file of one system write SYSTEM.image=COLUMN, "
                    "SYSTEM.score=COLUMN or SYSTEM.finding=COLUMN, or SYSTEM.box_form=FORM"
                )
            of_one.setdefault(system, {})[own_role] = column
        elif role in _ROLES_OF_ALL and column:
            of_all[_ROLES_OF_ALL[role]] = column
        else:
            of_truth.append(text)
    return ResultColumns(of_all, of_one), tuple(of_truth)
