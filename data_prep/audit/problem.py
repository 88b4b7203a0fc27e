"""A problem that the audit of a data set found, with its cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.text import TEXT

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
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
        contrast: tuple[pd.DataFrame, str, str] | None = None,
        shown: Sequence[str] | None = None,
    ) -> Problem:
        """Build a problem from the ids of the images or patients that have it.

        The ids are counted, and the first ones become the examples.

        Args:
            check: Short name of the check.
            severity: Effect of the problem: ``error`` makes results wrong, ``warning`` may, and
                ``info`` is worth knowing.
            message: A sentence for the owner of the data, without a full stop.
            cases: Ids of the images or patients with the problem, or paths of files.
            advice: Sentence part on what to do; empty for no advice.
            unit: Noun for a case, such as ``image`` or ``patient``.
            contrast: Table of the images, name of the column that groups them, and name of the
                column in which they differ, such as ``label``. Two differing images of a group are
                then shown side by side. None shows single images.
            shown: Ids of the images that the HTML page shows for the problem; None shows the first
                of `cases` if they are images, else no image.
        """
        unique = pd.Series(cases, dtype=TEXT).dropna().drop_duplicates()
        examples = tuple(unique.sort_values().head(_SHOWN))
        table = unique.to_frame("path" if unit == "file" else "image_id")
        if shown is None:
            shown = examples if unit == "image" else ()
        images: tuple[tuple[str, ...], ...] = tuple((case,) for case in shown)
        if contrast is not None:
            rows, group, column = contrast
            rows = rows.sort_values([group, column, "image_id"])
            table = pd.DataFrame({"image_id": rows["image_id"], "group": rows[group]})
            ends = table.groupby("group", sort=False)["image_id"].agg(["first", "last"])
            images = tuple(ends.head(_SHOWN).itertuples(index=False, name=None))
        return cls(
            check, severity, message, len(unique), examples, advice, unit, images, cases=table
        )

    @property
    def sizes(self) -> list[int]:
        """Number of images in each group of images that belong together, such as copies.

        Empty if the cases are not grouped.
        """
        if "group" not in self.cases:
            return []
        return [int(n) for n in self.cases.groupby("group", sort=False).size()]

    @property
    def counted_message(self) -> str:
        """Message that begins with the number of images or patients, as part of a sentence."""
        return f"{self.message} ({self.count:,} {self.unit}{'' if self.count == 1 else 's'})"

    @property
    def line(self) -> str:
        """Severity, message and first examples as one line of text."""
        more = ", ..." if self.count > len(self.examples) else ""
        shown = f" ({', '.join(self.examples)}{more})" if self.examples else ""
        return f"{self.severity}: {self.message}{shown}"
