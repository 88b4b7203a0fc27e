"""The audit of a data set: everything that would make its results wrong, in plain words."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from data_prep.audit.boxes import check_boxes
from data_prep.audit.copies import (
    check_burned_in_text,
    check_duplicates,
    check_excluded,
    check_near_duplicates,
    open_images,
)
from data_prep.audit.counts import count_prevalence, describe_images, expected_image_leak
from data_prep.audit.patients import (
    check_images,
    check_leaks,
    check_people,
    check_roles,
    find_duplicates,
    find_leaks,
)
from data_prep.audit.problem import SEVERITIES, Problem
from data_prep.audit.shortcuts import check_shortcuts
from data_prep.contracts.tables import empty_table, read_json, read_table, write_json
from data_prep.duplicates.near_duplicates import NearDuplicates, find_near_duplicates
from data_prep.store.dataset import DataSet

__all__ = ["Audit", "Problem", "audit", "check_boxes", "find_duplicates", "find_leaks"]

AUDIT = "audit.json"
"""Name of what programs read of an audit, in the folder of its data set."""
_NOT_ASKED = Problem(
    "pictures_skipped", "info", "the images were not looked at (--no-pixels)", 1, unit="run"
)
MeasureShortcuts = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], list[dict[str, Any]]]
_WORTH_SAYING = 0.01  # share of test images that a split by image would leak


@dataclass(frozen=True)
class Audit:
    """What an audit found, the worst first.

    Attributes:
        problems: One a kind of fault.
        checked: How many images, patients, boxes and splits were looked at.
        facts: Figures to read results against, JSON-ready: ``prevalence``, ``shortcuts``,
            ``split_by_image``, ``images``, ``copies``; and ``split_ids``, the splits looked at.
    """

    problems: tuple[Problem, ...]
    checked: dict[str, int]
    facts: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        found = ", ".join(f"{severity} {n}" for severity, n in self.counts.items())
        return f"<Audit of {self.checked.get('images', 0):,} images: {found}>"

    def _repr_html_(self) -> str:
        """What was found as a table, in a notebook."""
        with pd.option_context("display.max_colwidth", None):
            table = self.table.to_html(index=False) if self.problems else ""
        return f"<p>{html.escape(repr(self))}</p>{table}"

    @property
    def table(self) -> pd.DataFrame:
        """One row a problem, the worst first: what it is, where, how many, what to do."""
        names = ["severity", "message", "split", "count", "unit", "examples", "advice"]
        rows = [{name: getattr(problem, name) for name in names} for problem in self.problems]
        table = pd.DataFrame(rows, columns=names)
        return table.assign(examples=[", ".join(problem.examples) for problem in self.problems])

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
            "facts": self.facts,
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
        problems = tuple(_problem(row) for row in content["problems"])
        return cls(problems, content["checked"], content.get("facts", {}))


def _problem(row: dict[str, Any]) -> Problem:
    images = tuple(tuple(case) for case in row.get("pictures", ()))
    return Problem(**{**row, "examples": tuple(row["examples"]), "pictures": images})


def audit(
    dataset: DataSet,
    *,
    split: str | None = None,
    pixels: bool = True,
    near: NearDuplicates | None = None,
    measure_shortcuts: MeasureShortcuts | None = None,
) -> Audit:
    """Look for what would make results on a data set wrong.

    Args:
        dataset: A data set; its tables and splits are read, and of its images those that look
            like copies of others.
        split: The split to check; all by default.
        pixels: Whether to look at images at all; without, copies are told by fingerprint.
        near: Copies found before, so that they are not looked for again.
        measure_shortcuts: Of images, decode table and labels (a column a target) how well
            metadata and image borders predict each target: `evaluation.systems.shortcuts`. Left
            out: shortcuts are not audited.

    Returns:
        Errors (patients in two roles, equal images that disagree, impossible boxes), warnings,
        and facts worth knowing.

    Raises:
        InputError: There is no such split.
    """
    images = _with_columns(dataset.images, ("view", "sex"), ("age_years",))
    decode = _read_or_empty(dataset, "decode")
    splits = _read_splits(dataset, split)
    labels = pd.DataFrame({n: dataset.labels(t) for n, t in dataset.targets.items()})
    unseen = None
    if near is None:
        read, unseen = open_images(dataset) if pixels else (None, _NOT_ASKED)
        near = find_near_duplicates(decode, read)
    shortcuts = measure_shortcuts(images, decode, labels) if measure_shortcuts else []
    leak = expected_image_leak(images)
    problems = [p for name, table in splits.items() for p in check_leaks(images, table, name)]
    problems += check_duplicates(images, decode, labels, splits)
    problems += check_near_duplicates(near, images, labels, splits)
    problems += check_boxes(dataset.boxes, images, dataset.findings, dataset.box_coverage)
    problems += check_burned_in_text(decode)
    problems += check_people(images, splits)
    problems += check_images(images)
    problems += [p for name, table in splits.items() for p in check_roles(table, labels, name)]
    problems += check_shortcuts(shortcuts)
    problems += _say_image_leak(leak)
    problems += check_excluded(_read_or_empty(dataset, "excluded"))
    problems += [unseen] if unseen else []
    problems += _say_no_fingerprints(decode)
    checked = {
        "images": len(images),
        "patients": leak["n_patients"],
        "pictures": len(decode),
        "boxes": len(dataset.boxes),
        "splits": len(splits),
    }
    facts = {
        "split_ids": {name: dataset.ids.get("split_ids", {}).get(name) for name in splits},
        "shortcuts": shortcuts,
        "split_by_image": leak,
        "prevalence": count_prevalence(images, labels, splits),
        "pictures": describe_images(images, decode),
        "copies": _describe_copies(images, decode, near),
    }
    found = sorted((p for p in problems if p.count), key=lambda p: SEVERITIES.index(p.severity))
    return Audit(tuple(found), checked, facts)


def _with_columns(
    images: pd.DataFrame, texts: tuple[str, ...], numbers: tuple[str, ...]
) -> pd.DataFrame:
    """Add the optional columns that the checks read, all missing."""
    new: dict[str, pd.Series] = {}
    for names, dtype, nothing in ((texts, "str", None), (numbers, "float64", np.nan)):
        for name in names:
            if name not in images.columns:
                new[name] = pd.Series(nothing, index=images.index, dtype=dtype)
    return images.assign(**new) if new else images


def _read_splits(dataset: DataSet, only: str | None) -> dict[str, pd.DataFrame]:
    names = sorted(path.stem for path in (dataset.folder / "splits").glob("*.parquet"))
    if only is not None:
        return {only: dataset.split(only)}
    return {name: dataset.split(name) for name in names}


def _read_or_empty(dataset: DataSet, name: str) -> pd.DataFrame:
    path = dataset.folder / f"{name}.parquet"
    return read_table(path, name) if path.exists() else empty_table(name)


def _say_image_leak(leak: dict[str, Any]) -> list[Problem]:
    share = leak["expected_share"]
    if share < _WORTH_SAYING:
        return []
    text = (
        f"a split by image instead of by patient would leak {share:.1%} of the test images: their "
        "patients would train too"
    )
    advice = "split by patient, as cxr does; distrust published figures that did not"
    images = round(leak["expected_images"])
    return [Problem("split_by_image", "info", text, images, (), advice, "test image")]


def _say_no_fingerprints(decode: pd.DataFrame) -> list[Problem]:
    if "perceptual_hash" in decode.columns and decode["perceptual_hash"].notna().any():
        return []
    text = "the images have no fingerprints, so only copies that are equal were looked for"
    advice = "prepare the set again with this version"
    return [Problem("near_unsought", "info", text, len(decode), (), advice)]


def _describe_copies(
    images: pd.DataFrame, decode: pd.DataFrame, near: NearDuplicates
) -> dict[str, Any]:
    equal = find_duplicates(decode)
    same_file = find_duplicates(images, "file_sha256")
    return {
        "pictures": len(decode),
        "equal_pixels": {"groups": int(equal["group"].nunique()), "images": len(equal)},
        "equal_bytes": {"groups": int(same_file["group"].nunique()), "images": len(same_file)},
        "near": {"groups": int(near.groups["group"].nunique()), "images": len(near.groups)},
        "candidates": near.candidates,
        "undecided": near.undecided,
        "by_fingerprint_alone": int(near.pairs["correlation"].isna().sum()),
        "turns": {str(k): int(v) for k, v in near.pairs["turn"].value_counts().items()},
        "lowest_correlation": _number(near.pairs["correlation"].min()),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
