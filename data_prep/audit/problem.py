"""A problem that the audit found, with its cases, and the selections of rows that checks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
EVALUATED_ROLES = ("train", "val", "test")
_SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """A problem that ``cxr check`` found in a data set, with the images or patients that have it.

    Attributes:
        check: Short name of the check that found the problem, such as ``burned_in_text``.
        severity: ``error`` if the problem makes results wrong, ``warning`` if it may, ``info`` if
            it is only worth knowing.
        message: One sentence for the owner of the data.
        count: Number of images with the problem, or of other things that `unit` names.
        examples: Ids of at most five of the counted things.
        advice: What to do, as a clause for the message; empty if there is none.
        unit: Noun for the things that are counted: ``image``, ``patient``, ``file`` and others.
        images: First cases to look at. Each case has the id of one image or of a pair, or the path
            of a file.
        split: Name of the split (assignment of images to train, validation and test) that has the
            problem; "" for the whole data set.
        cases: Table of all cases: ``image_id``, or ``path`` of files, and ``group`` (number) if
            images belong together. It is not stored in ``audit.json``.
    """

    check: str
    severity: Severity
    message: str
    count: int
    examples: tuple[str, ...] = ()
    advice: str = ""
    unit: str = "image"
    images: tuple[tuple[str, ...], ...] = ()
    split: str = ""
    cases: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)

    @classmethod
    def from_cases(
        cls,
        check: str,
        severity: Severity,
        message: str,
        cases: pd.Series | np.ndarray,
        *,
        advice: str = "",
        unit: str = "image",
        split: str = "",
        shown: Sequence[str] | None = None,
    ) -> Problem:
        """Build a problem from the ids of the images or patients, or the paths, that have it.

        Repeated ids count once. `shown` are the images or files for the page; None shows the
        examples if they are images.
        """
        unique = pd.Series(cases, dtype=TEXT).dropna().drop_duplicates()
        examples = tuple(unique.sort_values().head(_SHOWN))
        if shown is None:
            shown = examples if unit == "image" else ()
        return cls(
            check,
            severity,
            message,
            len(unique),
            examples,
            advice,
            unit,
            tuple((name,) for name in shown),
            split,
            unique.to_frame("path" if unit == "file" else "image_id"),
        )

    @classmethod
    def from_groups(
        cls,
        check: str,
        severity: Severity,
        message: str,
        rows: pd.DataFrame,
        *,
        differ: str,
        group: str = "group",
        advice: str = "",
        unit: str = "image",
        split: str = "",
    ) -> Problem:
        """Build a problem of images that belong together, such as copies or those of a patient.

        `rows` has ``image_id`` and the column `group`. The page shows two images of a group side by
        side: those with the first and the last value of the column `differ`.
        """
        rows = rows.sort_values([group, differ, "image_id"])
        counted_ids = rows["image_id" if unit == "image" else group].drop_duplicates()
        table = pd.DataFrame({"image_id": rows["image_id"], "group": rows[group]})
        ends = table.groupby("group", sort=False)["image_id"].agg(["first", "last"])
        return cls(
            check,
            severity,
            message,
            len(counted_ids),
            tuple(counted_ids.astype(TEXT).sort_values().head(_SHOWN)),
            advice,
            unit,
            tuple(ends.head(_SHOWN).itertuples(index=False, name=None)),
            split,
            table,
        )

    @property
    def sizes(self) -> list[int]:
        """Number of images in each group of images that belong together; empty without groups."""
        if "group" not in self.cases:
            return []
        return [int(n) for n in self.cases.groupby("group", sort=False).size()]

    @property
    def counted_message(self) -> str:
        """Message that ends with the number of images or patients, as part of a sentence."""
        return f"{self.message} ({self.count:,} {self.unit}{'' if self.count == 1 else 's'})"

    @property
    def line(self) -> str:
        """Severity, message and first examples as one line of text."""
        more = ", ..." if self.count > len(self.examples) else ""
        shown = f" ({', '.join(self.examples)}{more})" if self.examples else ""
        return f"{self.severity}: {self.message}{shown}"


def evaluated_images(split: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a split for train, validation and test: ``image_id`` and ``role``."""
    return split.loc[is_member(split["role"], EVALUATED_ROLES), ["image_id", "role"]]


def rows_that_differ(rows: pd.DataFrame, group: str, column: str) -> pd.DataFrame:
    """Return the rows of groups in which a column has several values, such as patients' sexes.

    Rows in which the column is missing are left out.
    """
    present = rows[rows[column].notna()]
    value = pd.factorize(present[column])[0]
    values = pd.Series(value).groupby(pd.factorize(present[group])[0])
    lowest = values.transform("min").to_numpy()
    highest = values.transform("max").to_numpy()
    return present[lowest != highest]
