"""Test images that a system's encoder has seen before: their share, and figures without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.evaluation.evaluated_model import Models, images_of
from cxr_compare.evaluation.figure_intervals import seed_parts
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.notes import Note, NoteKind
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_over_seeds
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.statistics.nested_auroc import part_minus_whole

_ONE_CLASS = "a class is absent"
_ALL_SEEN = "no unseen image is left"
_FEW = 10
"""Effective number of unseen patients of a class below which the interval is too narrow."""
_TOO_FEW = f"fewer than {_FEW} unseen patients of a class, so the interval is too narrow"


@dataclass(frozen=True)
class Exposure:
    """Images that a system, or the pretrained encoder in it, has seen in its training.

    Attributes:
        source: Where the list of seen images comes from, such as a file name.
        labels_seen: True if the labels of the images were seen, too; False if only the pixels were
            seen.
        image_ids: Ids of the images of the evaluated data set that were seen.
        patients: Ids of the patients of whom any image was seen.
        encoder: Name of the pretrained encoder that has seen the images; empty if the system as a
            whole has seen them.
        unknown: Ids of the images of the evaluated data set of which the list cannot say whether
            they were seen.
    """

    system: str
    source: str
    labels_seen: bool
    image_ids: pd.Index
    patients: frozenset[str]
    encoder: str = ""
    unknown: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))

    @property
    def subject(self) -> str:
        """Name of the system or encoder that has seen the images, to begin a sentence with."""
        if self.encoder:
            return f"The encoder {self.encoder} of {self.system}"
        return self.system


@dataclass(frozen=True)
class UnseenFigure:
    """AUROC of a system with and without the test images that one of the systems has seen.

    A list of images says which of them one system of the comparison, or its encoder, has seen in
    training. This class has the AUROC of that system or of another one, so that both are compared
    on the same images.

    Attributes:
        on_all: AUROC on all test images; None if it is undefined.
        on_unseen: AUROC on the test images that are not on the list; None if it is undefined.
        difference: `on_unseen` minus `on_all`; None if it is undefined.
        reason: Reason why an AUROC or its confidence interval is undefined or unsure; empty without
            such a reason.
    """

    system: str
    on_all: ClusteredEstimate | None
    on_unseen: ClusteredEstimate | None
    difference: ClusteredEstimate | None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return ``system``, ``all``, ``unseen``, ``difference`` and ``note`` as JSON values.

        Each of ``all``, ``unseen`` and ``difference`` is None, or a dictionary with ``estimate``,
        ``ci_low`` and ``ci_high``.
        """
        return {
            "system": self.system,
            "all": _values(self.on_all),
            "unseen": _values(self.on_unseen),
            "difference": _values(self.difference),
            "note": self.reason,
        }


@dataclass(frozen=True)
class ExposureResult:
    """Number of test images that a system has seen in training, and AUROCs without these images.

    The AUROCs of the systems that have not seen these images are given for comparison: if they
    change in the same way, the unseen images are easier or harder.

    Attributes:
        exposure: The images that were seen, and the system that has seen them.
        n_images: Number of test images, of which `n_seen` were seen and `n_unknown` may have been.
        n_patients: Number of patients of the test images.
        n_patients_seen: Number of these patients of whom any image was seen.
        figures: AUROC of each system with and without the seen images; empty if it was not
            computed.
    """

    exposure: Exposure
    n_images: int
    n_seen: int
    n_unknown: int
    n_patients: int
    n_patients_seen: int
    figures: tuple[UnseenFigure, ...] = ()

    @property
    def note(self) -> Note:
        """Note for the report on the seen images, with the system's AUROC without them."""
        own = next((each for each in self.figures if each.system == self.exposure.system), None)
        kind: NoteKind = "exposure" if self.n_seen or self.n_patients_seen else "training"
        return Note(kind, self._text(own))

    def _text(self, own: UnseenFigure | None) -> str:
        """Say how many images were seen, and the system's AUROC without them."""
        text = (
            f"{self.exposure.subject} saw {100 * self.n_seen / self.n_images:.1f} % of these test "
            f"images ({self.n_seen:,} of {self.n_images:,}), unlabelled, and images of "
            f"{self.n_patients_seen:,} of {self.n_patients:,} patients (source: "
            f"{self.exposure.source})."
        )
        if self.n_unknown:
            text += f" Of {counted(self.n_unknown, 'more image')} it is not known."
        if not self.n_seen:
            return text
        auroc = f"AUROC of {self.exposure.system}"
        if own is None or own.difference is None:
            return f"{text} The {auroc} without them is undefined: {own.reason if own else ''}."
        unseen = None if own.on_unseen is None else own.on_unseen.estimate
        on_all = None if own.on_all is None else own.on_all.estimate
        difference = f"difference {number(own.difference.estimate)}"
        ends = _ends(own.difference)
        if ends:
            difference += f", 95 % interval {range_text(*ends)}"
        if own.reason:
            difference += f"; {own.reason}"
        return (
            f"{text} Without them the {auroc} is {number(unseen)} instead of {number(on_all)} "
            f"({difference})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary of JSON values for the file ``answer.json``.

        It has the system, its encoder and the source of the list, the five counts, ``labels``
        (``seen`` or ``unseen``), ``metric`` (``auroc``), ``figures`` (one dictionary for each
        system) and ``text`` (the result in sentences).
        """
        return {
            "system": self.exposure.system,
            "encoder": self.exposure.encoder,
            "source": self.exposure.source,
            "labels": "seen" if self.exposure.labels_seen else "unseen",
            "n_images": self.n_images,
            "n_seen": self.n_seen,
            "n_unknown": self.n_unknown,
            "n_patients": self.n_patients,
            "n_patients_seen": self.n_patients_seen,
            "metric": "auroc",
            "figures": [each.to_dict() for each in self.figures],
            "text": self.note.text,
        }


def _values(estimate: ClusteredEstimate | None) -> dict[str, float | None] | None:
    if estimate is None:
        return None
    low, high = _ends(estimate) or (None, None)
    return {"estimate": estimate.estimate, "ci_low": low, "ci_high": high}


def _ends(estimate: ClusteredEstimate | None) -> tuple[float, float] | None:
    if estimate is None or not estimate.has_interval:
        return None
    return estimate.ci_low, estimate.ci_high


def check_exposures(
    exposures: Sequence[Exposure],
    systems: Sequence[str],
    images: LabelledImages,
) -> list[ExposureResult]:
    """Count the test images that systems have seen in training, without figures.

    InputError if an item of `exposures` names a system that is not in `systems`, or a system has
    seen the label of a test image or of another image of a test patient.

    Example:
        >>> images = LabelledImages.from_arrays(
        ...     pd.Index(["a", "b", "c"]), [1, 0, 0], ["p", "p", "q"])
        >>> seen = Exposure("A", "list.csv", False, pd.Index(["a"]), frozenset({"p"}))
        >>> result = check_exposures([seen], ["A"], images)[0]
        >>> result.n_seen, result.n_patients_seen
        (1, 1)
    """
    return [_count(exposure, systems, images.test) for exposure in exposures]


def _count(exposure: Exposure, systems: Sequence[str], evaluated: LabelledImages) -> ExposureResult:
    if exposure.system not in systems:
        raise InputError(
            f"--exposure {exposure.system}: is none of the systems {', '.join(systems)}"
        )
    seen = _is_seen(exposure, evaluated)
    owners = evaluated.patients_of(evaluated.image_ids)
    of_seen_patient = np.isin(owners, list(exposure.patients)) | seen
    if exposure.labels_seen and of_seen_patient.any():
        patients = counted(len(set(owners[of_seen_patient])), "patient")
        raise InputError(
            f"--exposure {exposure.system}: {exposure.subject} has seen labelled images of "
            f"{patients} in the test set, and {counted(int(seen.sum()), 'image')} of it among them "
            f"(source: {exposure.source}); compare on patients that it has not seen"
        )
    unknown = evaluated.image_ids.isin(exposure.unknown) & ~seen
    return ExposureResult(
        exposure,
        n_images=len(seen),
        n_seen=int(seen.sum()),
        n_unknown=int(unknown.sum()),
        n_patients=len(np.unique(evaluated.patients)),
        n_patients_seen=len(set(owners[of_seen_patient])),
    )


def _is_seen(exposure: Exposure, evaluated: LabelledImages) -> npt.NDArray[np.bool_]:
    return np.asarray(evaluated.image_ids.isin(exposure.image_ids), dtype=bool)


def unseen_figures(exposure: Exposure, models: Models) -> tuple[UnseenFigure, ...]:
    """Compute the AUROC of every system without the test images that one system has seen."""
    evaluated = images_of(models)
    unseen = ~_is_seen(exposure, evaluated)
    everything = np.ones(len(unseen), dtype=bool)
    figures = []
    for name, members in models.items():
        whole = seed_parts(members, everything)
        on_all = None if whole is None else auroc_over_seeds(whole)
        part = seed_parts(members, unseen) if unseen.any() else None
        if whole is None or part is None:
            reason = _ONE_CLASS if unseen.any() else _ALL_SEEN
            figures.append(UnseenFigure(name, on_all, None, None, reason))
            continue
        gap = part_minus_whole(part, whole)
        few = gap.effective_patients is not None and gap.effective_patients < _FEW
        reason = _TOO_FEW if few and gap.has_interval else gap.note
        figures.append(UnseenFigure(name, on_all, auroc_over_seeds(part), gap, reason))
    return tuple(figures)
