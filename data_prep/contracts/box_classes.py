"""Class of each box: the column that holds it, and the finding that the class means.

Every reader of boxes asks here, of predicted and of true boxes, so that a box of another finding is
never taken for one of the only finding of the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import column_names, plain_name
from cxr_compare.data_prep.contracts.finding_names import finding_name, is_named
from cxr_compare.data_prep.contracts.ids import renamed


def class_column(table: pd.DataFrame) -> str | None:
    """Return the column that holds the class of each box, among columns with no other use, or None.

    A column that names classes counts before one that numbers them, and of those, one with several
    numbers counts before a constant one. A column without content does not count.

    Example:
        >>> class_column(pd.DataFrame({"class": [0, 0], "name": ["mass", "mass"], "area": [9, 9]}))
        'name'
    """
    by_name = {plain_name(str(column)): str(column) for column in reversed(table.columns)}
    usual = dict.fromkeys(("finding", *column_names("label"), *column_names("class")))
    classes = {}
    for name in usual:
        if name in by_name:
            number = [*map(str, table.columns)].index(by_name[name])
            cells = table.iloc[:, number].dropna().astype(str).str.strip()
            classes[by_name[name]] = set(cells) - {""}
    naming = [column for column, values in classes.items() if any(map(names_finding, values))]
    several = [column for column, values in classes.items() if len(values) > 1]
    filled = [column for column, values in classes.items() if values]
    return next(iter([*naming, *several, *filled]), None)


def findings_of_classes(classes: pd.Series, findings: Sequence[str]) -> pd.Series | None:
    """Return the finding of each box by its class; None if all boxes are of the only finding.

    They are if their one class is a number or a word such as ``lesion``, or if the truth does not
    name its finding. A class that is no finding of the truth, such as one of several numbers, stays
    as it is: the reader refuses or leaves out its boxes.

    Example:
        >>> findings_of_classes(pd.Series(["Lung Opacity", "2"]), ["lung_opacity"]).tolist()
        ['lung_opacity', '2']
        >>> findings_of_classes(pd.Series(["1", "1"]), ["lung_opacity"])
    """
    names = {}
    for text in classes.unique():
        name = finding_name(text)
        names[text] = name if name in findings else text
    are_findings = set(names.values()) <= set(findings)
    names_nothing = not any(map(names_finding, names)) or not any(map(is_named, findings))
    if not are_findings and len(names) == 1 and names_nothing:
        return None
    return renamed(classes, names)


def other_class(classes: pd.Series, findings: Sequence[str]) -> tuple[int, str] | None:
    """Return row and class of the first true box that is of no finding of the truth; else None."""
    named = findings_of_classes(classes, findings)
    is_other = pd.Series(False, classes.index) if named is None else ~named.isin(list(findings))
    if not is_other.any():
        return None
    row = int(is_other.to_numpy().argmax())
    return row, str(classes.iloc[row])


def names_finding(text: str) -> bool:
    """Return True if a class may name a finding: it is no number and no word such as ``lesion``."""
    try:
        float(text)
    except ValueError:
        return plain_name(text) not in column_names("no_class")
    return False
