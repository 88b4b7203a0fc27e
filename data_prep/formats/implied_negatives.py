"""Labels that count as negative although no row says so, and the note about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from cxr_compare.data_prep.formats.joined_spellings import rename_findings


@dataclass(frozen=True)
class ImpliedNegatives:
    """Labels that a format sets to absent because the user's files do not name the finding.

    The note about them is made when the labels are final: after spellings of a finding were joined,
    and without the images that were left out.

    Attributes:
        labels: One row for each such label: columns ``image_id``, ``finding`` and ``reader``.
        describe: Function that returns the note for a table like `labels`, which has at least one
            row.
    """

    labels: pd.DataFrame
    describe: Callable[[pd.DataFrame], str]

    def with_joined_spellings(
        self, findings: pd.DataFrame, name_by_spelling: Mapping[str, str]
    ) -> ImpliedNegatives:
        """Return a copy in which the spellings of a finding are one finding.

        Args:
            findings: All labels before the spellings are joined, with columns ``image_id``,
                ``finding`` and ``reader``.
            name_by_spelling: Name of the finding by its other spelling.

        Returns:
            The labels that no row states under any spelling.

        Example:
            >>> key = ["image_id", "finding", "reader"]
            >>> labels = pd.DataFrame([("a", "mass", "r"), ("b", "masss", "r")], columns=key)
            >>> findings = pd.DataFrame([*labels.to_numpy(), ("a", "masss", "r")], columns=key)
            >>> implied = ImpliedNegatives(labels, lambda rows: f"{len(rows)} are absent")
            >>> implied.with_joined_spellings(findings, {"masss": "mass"}).labels.values.tolist()
            [['b', 'mass', 'r']]
        """
        stated = _without(findings[list(self.labels.columns)], self.labels)
        joined = rename_findings(self.labels, name_by_spelling).drop_duplicates()
        return replace(self, labels=_without(joined, rename_findings(stated, name_by_spelling)))

    def note(self, findings: pd.DataFrame) -> str | None:
        """Return the note about the labels that a data set has; None if it has none of them.

        Args:
            findings: Final labels of the data set, with columns ``image_id``, ``finding``,
                ``reader`` and ``state``.

        Example:
            >>> rows = [("a", "mass", "r", "absent"), ("b", "mass", "r", "present")]
            >>> findings = pd.DataFrame(rows, columns=["image_id", "finding", "reader", "state"])
            >>> implied = ImpliedNegatives(findings.iloc[:1, :3], lambda rows: f"{len(rows)} row")
            >>> implied.note(findings)
            '1 row'
        """
        absent = findings.loc[findings["state"] == "absent", list(self.labels.columns)]
        remaining = self.labels.merge(absent)
        return self.describe(remaining) if len(remaining) else None


def _without(labels: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Return the labels that are not among others."""
    merged = labels.merge(others.drop_duplicates(), how="left", indicator="_in")
    return merged.loc[merged["_in"] == "left_only", list(labels.columns)].reset_index(drop=True)
