"""What came into a data set, what was left out and why: for a person and for a program."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.audit.audit import AUDIT, Audit
from data_prep.contracts.tables import is_member, read_table
from data_prep.contracts.words import counted
from data_prep.splits.add_split import count_roles, role_lines
from data_prep.store.dataset import DataSet

_SPLITS = ("default", "official")
_SHOWN = 10


@dataclass(frozen=True)
class Summary:
    """What a data set folder holds."""

    folder: Path
    name: str
    n_images: int
    n_patients: int
    n_boxes: int
    # per target the number of positive, negative and unknown images
    targets: dict[str, dict[str, int]]
    # per split (`default` and, where there is one, `official`) and role the images, patients, and
    # positives by target
    roles: dict[str, dict[str, dict[str, int]]]
    excluded: pd.DataFrame  # `path, stage, reason` of what was left out
    notes: tuple[str, ...]  # what the reader had to say of the source
    audit: Audit
    already_complete: bool  # whether the folder was complete before the call
    changes: tuple[str, ...] = ()  # what was added to a set that had been complete

    def __repr__(self) -> str:
        left_out = f"{len(self.excluded):,} left out"
        return f"<Summary of '{self.name}': {self._counts}, {left_out}, {self.folder}>"

    @property
    def _counts(self) -> str:
        images, patients = counted(self.n_images, "image"), counted(self.n_patients, "patient")
        return f"{images} of {patients}, {counted(self.n_boxes, 'box')}"

    def _repr_html_(self) -> str:
        """What `cxr prepare` says, in a notebook."""
        return f"<pre>{html.escape(chr(10).join(self.lines))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "folder": str(self.folder),
            "name": self.name,
            "n_images": self.n_images,
            "n_patients": self.n_patients,
            "n_boxes": self.n_boxes,
            "targets": self.targets,
            "roles": self.roles,
            "excluded": self.excluded.to_dict("records"),
            "notes": list(self.notes),
            "audit": self.audit.to_dict(),
            "already_complete": self.already_complete,
            "changes": list(self.changes),
        }

    @property
    def lines(self) -> list[str]:
        """As lines of text, the most important last."""
        lines = [self._counts]
        for name, count in self.targets.items():
            lines.append(
                f"target {name}: " + ", ".join(f"{n:,} {word}" for word, n in count.items())
            )
        for split, roles in self.roles.items():
            lines.append(f"split '{split}'")
            lines += role_lines(roles)
        lines += self._excluded_lines()
        lines += list(self.notes)
        for problem in self.audit.problems:
            lines.append(f"check: {problem.line}")
            if problem.severity == "error" and problem.advice:
                lines.append(f"    what to do: {problem.advice}")
        lines += self.changes
        state = "already complete" if self.already_complete else "complete"
        return [*lines, f"{self.folder}: {state}"]

    def _excluded_lines(self) -> list[str]:
        if self.excluded.empty:
            return ["left out: nothing"]
        lines = [f"left out: {len(self.excluded):,} (all in {self.folder / 'excluded.parquet'})"]
        shown = self.excluded.iloc[:_SHOWN]
        lines += [f"  {row.path}: {row.reason}" for row in shown.itertuples()]
        more = len(self.excluded) - len(shown)
        return [*lines, f"  and {more:,} more"] if more else lines


def summarise(
    dataset: DataSet, *, already_complete: bool, changes: tuple[str, ...] = ()
) -> Summary:
    """Count what a data set holds."""
    labels = pd.DataFrame({n: dataset.labels(t) for n, t in dataset.targets.items()})
    shown = [name for name in _SPLITS if name in dataset.ids["split_ids"]]
    return Summary(
        folder=dataset.folder,
        name=dataset.name,
        n_images=len(dataset.images),
        n_patients=int(dataset.images["patient_id"].nunique()),
        n_boxes=len(dataset.boxes),
        targets={
            str(name): {
                "positive": int((column == 1).sum()),
                "negative": int((column == 0).sum()),
                "unknown": int(column.isna().sum()),
            }
            for name, column in labels.items()
        },
        roles={name: count_roles(dataset, dataset.split(name)) for name in shown},
        excluded=read_table(dataset.folder / "excluded.parquet", "excluded"),
        notes=tuple(dataset.info.get("notes", ())),
        audit=Audit.read(dataset.folder / AUDIT),
        already_complete=already_complete,
        changes=changes,
    )


def known_ids(folder: Path) -> pd.Series:
    """Ids of the images that a data set folder has so far, which may be none."""
    path = folder / "images.parquet"
    if not path.is_file():
        return pd.Series([], dtype="str")
    return read_table(path, "images", ["image_id"])["image_id"]


def describe_changes(before: pd.Series, now: pd.Series, n_replaced: int) -> tuple[str, ...]:
    """What was added to a set that had images before, as lines of text."""
    if before.empty:
        return ()
    n_new = int((~is_member(now, before)).sum())
    n_gone = int((~is_member(before, now)).sum())
    return (f"added: {counted(n_new, 'image')} new, {n_replaced:,} replaced, {n_gone:,} gone",)
