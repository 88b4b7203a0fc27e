"""Finding that the class of each box means.

Every reader of boxes asks here, of predicted and of true boxes, so that a box of another finding is
never taken for one of the only finding of the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cxr_compare.data_prep.base.ids import renamed
from cxr_compare.data_prep.base.names import finding_name, is_named, names_finding


def findings_of_classes(classes: pd.Series, findings: Sequence[str]) -> pd.Series | None:
    """Return the finding of each box by its class; None if all boxes are of the only finding.

    They are if their one class is a number or a word such as ``lesion``, or if the truth does not
    name its finding. A class that is no finding of the truth, such as one of several numbers, stays
    as it is: the reader refuses or leaves out its boxes.

    Examples:
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
    findings_of_rows = findings_of_classes(classes, findings)
    is_other = (
        pd.Series(False, classes.index)
        if findings_of_rows is None
        else ~findings_of_rows.isin(list(findings))
    )
    if not is_other.any():
        return None
    row = int(is_other.to_numpy().argmax())
    return row, str(classes.iloc[row])
