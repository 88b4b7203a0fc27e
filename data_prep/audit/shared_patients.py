"""Patients who are in training and in test of a split that others made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.notebook import ShownAsText, html_records

_NOUNS = {"test": "test", "val": "validation"}


@dataclass(frozen=True)
class SharedPatients:
    """Numbers of test or validation images whose patient is also in training.

    They concern a published list of images that somebody else drew. If the list names patients
    instead of images, `listed`, `known` and `shared` count patients.

    Attributes:
        role: ``test`` or ``val``: the images that are compared with training.
        unit: What the list names: ``image`` or ``patient``.
        listed: Number of images of this role; `known` and `shared` are among them.
        known: Number of images whose patient is known.
        shared: Number of images whose patient is also in training.
        patients: Number of known patients of this role.
        patients_shared: Number of patients of this role who are also in training.
        identical: Number of images that are both in this role and in training.
        doubtful: Number of images in `shared` whose patient is uncertain.
        training: Number of images of training.
        training_known: Number of images of training whose patient is known.
    """

    role: str
    unit: str
    listed: int
    known: int
    shared: int
    patients: int
    patients_shared: int
    identical: int
    doubtful: int
    training: int
    training_known: int

    @property
    def share(self) -> float | None:
        """`shared` divided by `known`; None if no patient is known."""
        return self.shared / self.known if self.known else None

    @property
    def line(self) -> str:
        """Result in one sentence, for display."""
        noun = f"{_NOUNS.get(self.role, self.role)} {self.unit}"
        if self.unit == "patient":
            share = "" if self.share is None else f" ({100 * self.share:.1f} %)"
            return f"{self.shared:,} of {counted(self.listed, noun)}{share} are in training too"
        if self.share is None:
            return f"the patient of none of {counted(self.listed, noun)} is known"
        text = (
            f"{self.shared:,} of {counted(self.known, noun)} ({100 * self.share:.1f} %) "
            f"{'has' if self.shared == 1 else 'have'} a patient who is in training "
            f"({self.patients_shared:,} of {counted(self.patients, 'patient')})"
        )
        if self.identical:
            text += f"; training lists {self.identical:,} of them itself"
        if self.doubtful:
            text += f"; {self.doubtful:,} of them by a doubtful match"
        if self.known < self.listed:
            text += f"; the patient of {self.listed - self.known:,} more is not known"
        return text


@dataclass(frozen=True, repr=False)
class SplitCheck(ShownAsText):
    """Result of ``cxr check`` on a published split that somebody else drew.

    The result is how many test and validation images show a patient of the training images.

    Attributes:
        source: Name of the file with the split, that is, of the assignment to train and test.
        mapping: Name of the file from which the patient of each image was read; empty if the split
            itself names patients.
        roles: Result for the test images and, if there are any, for the validation images.

    Example:
        >>> patients = pd.Series({"a": "p", "b": "p", "c": "q"})
        >>> result = shared_patients("test", pd.Series(["b", "c"]), pd.Series(["a"]), patients)
        >>> SplitCheck("split.csv", "patients.csv", (result,)).exit_status
        1
    """

    source: str
    mapping: str
    roles: tuple[SharedPatients, ...]

    def __str__(self) -> str:
        by = f", patients by {self.mapping}" if self.mapping else ""
        training = self.roles[0].training
        unit = self.roles[0].unit
        lines = [f"{self.source}: {counted(training, unit)} in training{by}"]
        unknown = training - self.roles[0].training_known
        if unknown:
            lines.append(
                f"the patient of {unknown:,} of them is not known, so the shares are lower limits"
            )
        return "\n".join([*lines, *(role.line for role in self.roles)])

    def _repr_html_(self) -> str:
        return html_records([asdict(role) | {"share": role.share} for role in self.roles])

    @property
    def passed(self) -> bool:
        """True if no patient of training is also in test or validation."""
        return not any(role.shared or role.identical for role in self.roles)

    @property
    def exit_status(self) -> int:
        """Exit status of ``cxr check``: 0 if `passed`, else 1."""
        return int(not self.passed)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values for JSON."""
        roles = [asdict(role) | {"share": role.share} for role in self.roles]
        return {
            "source": self.source,
            "mapping": self.mapping,
            "passed": self.passed,
            "roles": roles,
        }


def shared_patients(
    role: str,
    listed: pd.Series,
    training: pd.Series,
    patients: pd.Series,
    doubtful: Sequence[str] | frozenset[str] = (),
) -> SharedPatients:
    """Count the test or validation images whose patient is also in training.

    `listed` and `training` are image ids, of which repeated ones count once. `patients` has the
    patient id by image id (a unique index); other images have no known patient, and those in
    `doubtful` an uncertain one.

    Example:
        >>> patients = pd.Series({"a": "p", "b": "p", "c": "q"})
        >>> shared_patients("test", pd.Series(["b", "c", "x"]), pd.Series(["a"]), patients).shared
        1
    """
    listed = listed.drop_duplicates().reset_index(drop=True)
    training = training.drop_duplicates().reset_index(drop=True)
    of_listed = patients.reindex(pd.Index(listed)).to_numpy()
    of_training = patients.reindex(pd.Index(training)).dropna()
    owners = pd.Series(of_listed, index=listed.index).dropna()
    is_shared = is_member(owners.astype(str), of_training.astype(str).unique())
    known = listed[owners.index]
    unsure = is_member(known, list(doubtful)) & is_shared
    return SharedPatients(
        role=role,
        unit="image",
        listed=len(listed),
        known=len(owners),
        shared=int(is_shared.sum()),
        patients=owners.nunique(),
        patients_shared=owners[is_shared].nunique(),
        identical=int(is_member(listed, training).sum()),
        doubtful=int(unsure.sum()),
        training=len(training),
        training_known=len(of_training),
    )


def shared_names(role: str, listed: pd.Series, training: pd.Series) -> SharedPatients:
    """Count the test or validation patients who are also in training; repeated ids count once.

    Use it for a published list that names patients instead of images.

    Example:
        >>> shared_names("test", pd.Series(["p", "q"]), pd.Series(["p"])).share
        0.5
    """
    listed = listed.drop_duplicates()
    training = training.drop_duplicates()
    shared = int(is_member(listed, training).sum())
    n = len(listed)
    return SharedPatients(
        role, "patient", n, n, shared, n, shared, 0, 0, len(training), len(training)
    )


def require_roles(source: str, rows: dict[str, pd.Series]) -> None:
    """Refuse a split without training images, or with neither test nor validation images.

    `rows` has the ids of images or patients by ``train``, ``val`` and ``test``.
    """
    if "train" not in rows:
        raise InputError(f"{source}: has no training images; give a split with the role train")
    if not {"test", "val"} & set(rows):
        raise InputError(f"{source}: has no test image; give a split with the role test")
