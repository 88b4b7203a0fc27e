"""A finding of the audit, with its cases."""

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
    """A finding of the audit."""

    check: str  # short name of the check, for programs
    severity: Severity  # `error` makes results wrong, `warning` may, `info` is worth knowing
    message: str  # a sentence for the person who owns the data
    count: int  # how many images or patients are concerned
    examples: tuple[str, ...] = ()  # up to five of them by id
    advice: str = ""
    unit: str = "image"  # what is counted: image, patient, ...
    # the first cases to look at, each one image or a pair, by `image_id`; by path what was left out
    pictures: tuple[tuple[str, ...], ...] = ()
    split: str = ""  # name of the split that it is of; empty where it is of the whole set
    # all of them in the order of worth, not in `audit.json`: `image_id`, or `path` of files; and
    # `group`, where images belong together
    cases: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)

    @classmethod
    def of(
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
        """Count cases and keep the first few in order; `shown` are to look at, else the examples.

        `contrast` are the images of the cases, with a column of what belongs together and one in
        which it differs: two images that differ are then to look at side by side.
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
        """How many images belong together, group by group; empty where each stands alone."""
        if "group" not in self.cases:
            return []
        return [int(n) for n in self.cases.groupby("group", sort=False).size()]

    @property
    def said(self) -> str:
        """The finding with its count, as part of a sentence."""
        return f"{self.message} ({self.count:,} {self.unit}{'' if self.count == 1 else 's'})"

    @property
    def line(self) -> str:
        """The finding as one line."""
        more = ", ..." if self.count > len(self.examples) else ""
        shown = f" ({', '.join(self.examples)}{more})" if self.examples else ""
        return f"{self.severity}: {self.message}{shown}"
