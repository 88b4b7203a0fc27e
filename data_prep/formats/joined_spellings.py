"""Joining of findings that are one finding under several spellings."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member

_LEAST_TO_MOST = ("absent", "uncertain", "present")
_IMAGE_AND_READER = ["image_id", "finding", "reader"]


def spellings_of_targets(defined: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return the findings that the user's targets join as other spellings of a finding.

    A target that is named after one of its findings, such as ``opacity`` of ``opacity`` and
    ``opacitiy``, says that its findings are one, unless the user defined a target for another of
    them, too.

    Args:
        defined: Findings of each target that the user defined, by its name.

    Returns:
        By the other spelling, the name of the finding.

    Example:
        >>> spellings_of_targets({"opacity": ["opacity", "opacitiy"], "any": ["mass", "edema"]})
        {'opacitiy': 'opacity'}
    """
    return {
        finding: name
        for name, findings in defined.items()
        if name in findings
        for finding in findings
        if finding not in defined
    }


def join_labels(findings: pd.DataFrame, name_by_spelling: Mapping[str, str]) -> pd.DataFrame:
    """Join the labels of findings under several spellings: present if any of them is present.

    Args:
        findings: Table with columns ``image_id``, ``finding``, ``reader`` and ``state`` (absent,
            uncertain or present).
        name_by_spelling: Name of the finding by its other spelling.

    Returns:
        The table with one row for each image, finding and reader: the row with the strongest state,
        where present is stronger than uncertain, and uncertain stronger than absent.

    Example:
        >>> rows = [("a", "opacity", "r", "absent"), ("a", "opacitiy", "r", "present")]
        >>> table = pd.DataFrame(rows, columns=["image_id", "finding", "reader", "state"])
        >>> join_labels(table, {"opacitiy": "opacity"})[["finding", "state"]].values.tolist()
        [['opacity', 'present']]
    """
    joined = rename_findings(findings, name_by_spelling)
    strength = joined["state"].map({state: rank for rank, state in enumerate(_LEAST_TO_MOST)})
    strongest = joined.loc[strength.sort_values(ascending=False, kind="stable").index]
    return strongest.drop_duplicates(_IMAGE_AND_READER).sort_index()


def join_coverage(coverage: pd.DataFrame, name_by_spelling: Mapping[str, str]) -> pd.DataFrame:
    """Join the rows on which lesions have a box, of findings under several spellings.

    Args:
        coverage: Table with columns ``image_id``, ``finding``, ``reader`` and ``coverage``: ``all``
            if every lesion has a box, else ``some``.
        name_by_spelling: Name of the finding by its other spelling.

    Returns:
        The table with one row for each image, finding and reader: ``some`` if any row has it.

    Example:
        >>> rows = [("a", "opacity", "r", "all"), ("a", "opacitiy", "r", "some")]
        >>> table = pd.DataFrame(rows, columns=["image_id", "finding", "reader", "coverage"])
        >>> join_coverage(table, {"opacitiy": "opacity"})["coverage"].tolist()
        ['some']
    """
    joined = rename_findings(coverage, name_by_spelling)
    weakest_first = (joined["coverage"] == "all").sort_values(kind="stable").index
    return joined.loc[weakest_first].drop_duplicates(_IMAGE_AND_READER).sort_index()


def rename_findings(table: pd.DataFrame, name_by_spelling: Mapping[str, str]) -> pd.DataFrame:
    """Give the findings of a table that have other spellings their one name.

    Args:
        table: Table with a column ``finding``, such as that of boxes.
        name_by_spelling: Name of the finding by its other spelling.

    Returns:
        A copy of the table with a new index.
    """
    renamed = table.reset_index(drop=True)
    if not is_member(renamed["finding"], list(name_by_spelling)).any():
        return renamed
    names = renamed["finding"].replace(dict(name_by_spelling)).astype(table["finding"].dtype)
    return renamed.assign(finding=names)
