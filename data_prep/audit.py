"""The audit of a data set: everything that would make its results wrong, in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from data_prep.audit_boxes import check_boxes
from data_prep.audit_images import (
    check_duplicates,
    check_leaks,
    check_people,
    check_roles,
    find_duplicates,
    find_leaks,
)
from data_prep.audit_problem import SEVERITIES, Problem
from data_prep.audit_shortcuts import check_shortcuts
from data_prep.dataset import DataSet
from data_prep.tables import empty_table, read_json, read_table, write_json

__all__ = ["Audit", "Problem", "audit", "check_boxes", "find_duplicates", "find_leaks"]


@dataclass(frozen=True)
class Audit:
    """What an audit found, the worst first.

    Attributes:
        problems: One a kind of fault.
        checked: How many images, patients, boxes and splits were looked at.
    """

    problems: tuple[Problem, ...]
    checked: dict[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems by severity."""
        return {s: sum(p.severity == s for p in self.problems) for s in SEVERITIES}

    @property
    def passed(self) -> bool:
        """Whether nothing was found that makes results wrong."""
        return not self.counts["error"]

    @property
    def payload(self) -> dict[str, Any]:
        """As JSON."""
        found = [asdict(problem) for problem in self.problems]
        return {
            "passed": self.passed,
            "counts": self.counts,
            "checked": self.checked,
            "problems": found,
        }

    def write(self, path: Path) -> None:
        """Write ``audit.json``."""
        write_json(path, "audit", self.payload)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``audit.json``.

        Raises:
            InputError: It is missing or of another kind.
        """
        content = read_json(path, "audit")
        problems = [Problem(**{**p, "examples": tuple(p["examples"])}) for p in content["problems"]]
        return cls(tuple(problems), content["checked"])


def audit(dataset: DataSet) -> Audit:
    """Look for what would make results on a data set wrong.

    Args:
        dataset: A data set; its tables and splits are read, its pixels are not.

    Returns:
        Errors (patients in two roles, equal pictures that disagree, impossible boxes), warnings
        and facts worth knowing.
    """
    images = dataset.images
    for column in ("age_years", "sex"):
        if column not in images.columns:
            images = images.assign(**{column: None})
    decode = _read_or_empty(dataset, "decode")
    names = sorted(path.stem for path in (dataset.folder / "splits").glob("*.parquet"))
    splits = {name: dataset.split(name) for name in names}
    labels = pd.DataFrame({n: dataset.labels(t) for n, t in dataset.targets.items()})
    problems = [p for name, split in splits.items() for p in check_leaks(images, split, name)]
    problems += check_duplicates(images, decode, labels, splits)
    problems += check_boxes(dataset.boxes, images, dataset.findings, dataset.box_coverage)
    problems += check_people(images, splits)
    for name, split in splits.items():
        for target in labels.columns:
            problems += check_roles(split, labels[target], target, name)
    problems += check_shortcuts(images.merge(decode, on="image_id", how="left"), labels)
    problems += _check_excluded(_read_or_empty(dataset, "excluded"))
    checked = {
        "images": len(images),
        "patients": int(images["patient_id"].nunique()),
        "pictures": len(decode),
        "boxes": len(dataset.boxes),
        "splits": len(splits),
    }
    found = sorted((p for p in problems if p.count), key=lambda p: SEVERITIES.index(p.severity))
    return Audit(tuple(found), checked)


def _read_or_empty(dataset: DataSet, name: str) -> pd.DataFrame:
    path = dataset.folder / f"{name}.parquet"
    return read_table(path, name) if path.exists() else empty_table(name)


def _check_excluded(excluded: pd.DataFrame) -> list[Problem]:
    """Say what was left out when the set was prepared; missing files are no fault of the set."""
    measured = excluded["stage"].isin(["boxes", "size"])
    kinds = excluded["reason"].str.split(":").str[0]  # what follows is the single case
    reasons = excluded["reason"].mask(measured, kinds)
    return [
        Problem.of(
            f"excluded_{stage}",
            "info" if "no image file" in str(reason) else "warning",
            f"left out when prepared: {reason}",
            rows["path"],
        )
        for (stage, reason), rows in excluded.assign(reason=reasons).groupby(["stage", "reason"])
    ]
