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
    """Images of one role whose patient is in training.

    Attributes:
        role: ``test`` or ``val``.
        unit: What the split lists: ``image`` or ``patient``.
        listed: Number of images of the role. If the split lists patients, they are counted.
        known: Number of these whose patient is known.
        shared: Number of these whose patient is in training.
        patients: Number of patients of the role that are known.
        patients_shared: Number of these who are in training.
        identical: Number of images of the role that training lists, too.
        doubtful: Number of shared images that rest on a doubtful patient.
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
        """Share of the images with a known patient whose patient is in training; None if none."""
        return self.shared / self.known if self.known else None

    @property
    def line(self) -> str:
        """Result in one sentence."""
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
    """Result of `cxr check` on the split of others: how many images share a patient with training.

    Attributes:
        source: Name of the list or table of the split.
        mapping: Name of the mapping that gave the patients; empty if the split names patients.
        roles: Result for the test images and, if there are any, the validation images.

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
        """True if no patient is in training and in another role."""
        return not any(role.shared or role.identical for role in self.roles)

    @property
    def exit_status(self) -> int:
        """Exit status of `cxr check`: 1 if a patient is in training and in another role, else 0."""
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
    """Count the images of a role whose patient is in training.

    Args:
        role: ``test`` or ``val``.
        listed: Ids of the images of the role; repeated ids count once.
        training: Ids of the images of training.
        patients: Patient by image id; the index is unique. Images that it lacks are unknown.
        doubtful: Ids of images whose patient is doubtful.

    Returns:
        The counts.

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
    """Count the patients of a role who are in training, of a split that lists patients.

    Args:
        role: ``test`` or ``val``.
        listed: Ids of the patients of the role; repeated ids count once.
        training: Ids of the patients of training.

    Returns:
        The counts, of patients.

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
    """Refuse a split without training images, or without any test or validation image.

    Args:
        source: Name of the split, for the message.
        rows: Ids by role.

    Raises:
        InputError: A role is missing.

    Example:
        >>> require_roles("split.csv", {"train": pd.Series(["a"]), "test": pd.Series(["b"])})
    """
    if "train" not in rows:
        raise InputError(f"{source}: has no training images; give a split with the role train")
    if not {"test", "val"} & set(rows):
        raise InputError(f"{source}: has no test image; give a split with the role test")
