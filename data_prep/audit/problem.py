"""One thing that an audit has to say, in plain words; and what it says of shortcuts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

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
    # the first cases to look at, each one image or a pair, by `image_id`
    pictures: tuple[tuple[str, ...], ...] = ()
    split: str = ""  # name of the split that it is of; empty where it is of the whole set
    # all of them by id, in the order of worth; not in `audit.json`
    cases: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(
        cls,
        check: str,
        severity: Severity,
        message: str,
        cases: Iterable[str],
        *,
        advice: str = "",
        unit: str = "image",
        pairs: pd.DataFrame | None = None,
        shown: int = _SHOWN,
    ) -> Problem:
        """Count cases and keep the first few in order; `shown` of the pairs are to look at."""
        values = cases if isinstance(cases, pd.Series | np.ndarray) else list(cases)
        unique = pd.Series(pd.unique(pd.Series(values, dtype="str").dropna()), dtype="str")
        examples = tuple(str(case) for case in unique.sort_values().head(_SHOWN))
        images: tuple[tuple[str, ...], ...] = ()
        if unit == "image":
            images = tuple((case,) for case in examples)
        if pairs is not None:
            images = tuple(tuple(map(str, row)) for row in pairs.head(shown).to_numpy())
        every = tuple(unique)
        problem = cls(check, severity, message, len(unique), examples, advice, unit, images)
        return replace(problem, cases=every)

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


# A system has to beat these to have learned more than metadata and image borders tell.
SHORTCUT_AUROC = 0.65
_ADVICE = {
    "person": "report systems on its subgroups too; a difference in who was ill is not skill",
    "file": "a system may learn the kind of file instead of the disease: judge within one kind",
    "picture": "look whether the two classes were exposed or processed differently",
    "border": "little lung lies there: a system may learn how images are framed and marked. Judge "
    "it on images from elsewhere, and look at the maps of where it finds the disease",
    "siblings": "never split by image, and keep every figure of a patient in one role",
    "together": "read every result against this figure: it needs no look at the lungs",
}


def check_shortcuts(measured: list[dict[str, Any]]) -> list[Problem]:
    """Report facts that alone predict a target, of each kind of fact the strongest."""
    strong = [
        row
        for row in sorted(measured, key=lambda row: -row["auroc"])
        if row["auroc"] >= SHORTCUT_AUROC and (row["ci_low"] or 1.0) > 0.5
    ]
    kinds = [[row for row in strong if row["kind"] == kind] for kind in _ADVICE]
    return [_problem(rows[0], len(rows) - 1) for rows in kinds if rows]


def _problem(row: dict[str, Any], more: int) -> Problem:
    ends = f" ({row['ci_low']:.3f} to {row['ci_high']:.3f})" if row["ci_low"] else ""
    subject = {
        "together": "metadata and image borders together predict",
        "siblings": "other images of the same patient predict",
    }.get(row["kind"], f"{row['fact']} alone predict{'' if '+' in row['fact'] else 's'}")
    text = f"{subject} '{row['target']}' with AUROC {row['auroc']:.3f}{ends}"
    if more:
        text += f", and {more} more facts or targets have 0.65 or above"
    severity: Severity = "warning" if row["kind"] == "file" else "info"
    check, advice = f"shortcut_{row['kind']}", _ADVICE[row["kind"]]
    return Problem(check, severity, text, row["n_known"], (), advice)
