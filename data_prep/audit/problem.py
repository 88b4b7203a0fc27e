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
    """A problem that an audit found."""

    check: str  # short name of the check
    severity: Severity  # `error` makes results wrong, `warning` may, `info` is worth knowing
    message: str  # a sentence for the owner of the data
    count: int  # number of concerned images, patients or other units
    examples: tuple[str, ...] = ()  # ids of up to five of them
    advice: str = ""
    unit: str = "image"  # thing that is counted: image, patient, ...
    # The first cases to look at: one image or a pair each, by `image_id`, or by path for files.
    images: tuple[tuple[str, ...], ...] = ()
    split: str = ""  # name of the split, or "" for the whole data set
    # All cases: `image_id`, or `path` of files, and `group` where images belong together. They are
    # not stored in `audit.json`.
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
        """Build a problem from its cases, which are counted; the first few become examples.

        Args:
            check: Short name of the check.
            severity: Effect of the problem: ``error`` makes results wrong, ``warning`` may, and
                ``info`` is worth knowing.
            message: A sentence for the owner of the data, without a full stop.
            cases: Ids of the images or patients with the problem, or paths of files.
            advice: Sentence on what to do.
            unit: Noun for a case, such as ``image`` or ``patient``.
            contrast: Images of the cases, the column that groups them, and the column in which they
                differ. Two differing images of a group are then shown side by side.
            shown: Images to show; without it the examples are shown.
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
        """Number of images in each group; empty if the cases are not grouped."""
        if "group" not in self.cases:
            return []
        return [int(n) for n in self.cases.groupby("group", sort=False).size()]

    @property
    def counted_message(self) -> str:
        """Message with the number of cases, as part of a sentence."""
        return f"{self.message} ({self.count:,} {self.unit}{'' if self.count == 1 else 's'})"

    @property
    def line(self) -> str:
        """Problem as one line of text."""
        more = ", ..." if self.count > len(self.examples) else ""
        shown = f" ({', '.join(self.examples)}{more})" if self.examples else ""
        return f"{self.severity}: {self.message}{shown}"
