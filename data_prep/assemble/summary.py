"""Numbers of images, patients and labels of a data set, also as lines of text."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.audit.audit import AUDIT, Audit
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.splits.stored_splits import count_roles, role_lines

_SPLITS = ("default", "official")
_SHOWN = 10


@dataclass(frozen=True)
class Summary:
    """Result of ``cxr prepare``: numbers of images, patients and labels, and faults.

    Attributes:
        n_boxes: Number of lesion boxes that are used for training and evaluation.
        targets: By name of a target, its numbers of positive, negative and unknown images.
        roles: By split (``default`` and ``official``) and role (train, val, test, unused): numbers
            of images, patients and, for each target, positive images.
        excluded: Files that were left out, with columns ``path``, ``stage`` and ``reason``.
        notes: Notes on the user's files, one sentence each.
        already_complete: True if the data set was complete before the call.
        changes: Sentences on the images that were added to a complete data set.
        shown_before: Those of `notes` that this call has shown before it decoded the images;
            `lines` does not repeat them.
    """

    folder: Path
    name: str
    n_images: int
    n_patients: int
    n_boxes: int
    targets: dict[str, dict[str, int]]
    roles: dict[str, dict[str, dict[str, int]]]
    excluded: pd.DataFrame
    notes: tuple[str, ...]
    audit: Audit
    already_complete: bool
    changes: tuple[str, ...] = ()
    shown_before: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, notes and faults by name, as values for JSON."""
        return {
            **{
                field.name: getattr(self, field.name)
                for field in fields(self)
                if field.name != "shown_before"
            },
            "folder": str(self.folder),
            "excluded": self.excluded.to_dict("records"),
            "notes": list(self.notes),
            "audit": self.audit.to_dict(),
            "changes": list(self.changes),
        }

    @property
    def lines(self) -> list[str]:
        """Return the numbers, notes and faults as lines of text; the most important comes last."""
        images = counted(self.n_images, "image")
        patients = counted(self.n_patients, "patient")
        lines = [f"{images} of {patients}, {counted(self.n_boxes, 'box')}"]
        for name, count in self.targets.items():
            lines.append(
                f"target {name}: " + ", ".join(f"{n:,} {label}" for label, n in count.items())
            )
        for split, roles in self.roles.items():
            lines.append(f"split '{split}'")
            lines += role_lines(roles)
        lines += self._excluded_lines()
        lines += [note for note in self.notes if note not in self.shown_before]
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
    dataset: DataSet,
    *,
    already_complete: bool,
    before: pd.Series | None = None,
    n_replaced: int = 0,
) -> Summary:
    """Count the images, patients, boxes and labels of a data set for ``cxr prepare``.

    `before` holds the image ids before new images were added, or None; `n_replaced` is the number
    of images whose file the user has replaced since the last call.
    """
    labels = pd.DataFrame({n: dataset.labels(t) for n, t in dataset.targets.items()})
    shown = [name for name in _SPLITS if name in dataset.ids.split_ids]
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
        excluded=dataset.optional_table("excluded"),
        notes=dataset.info.notes,
        audit=Audit.read(dataset.folder / AUDIT),
        already_complete=already_complete,
        changes=_describe_changes(before, dataset.images["image_id"], n_replaced),
    )


def _describe_changes(before: pd.Series | None, now: pd.Series, n_replaced: int) -> tuple[str, ...]:
    """Describe which images were added to a data set, as lines of text."""
    if before is None or before.empty:
        return ()
    n_new = int((~is_member(now, before)).sum())
    n_gone = int((~is_member(before, now)).sum())
    return (f"added: {counted(n_new, 'image')} new, {n_replaced:,} replaced, {n_gone:,} gone",)
