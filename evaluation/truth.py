"""Labels, patients, roles and true boxes of the images on which systems are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.statistics.arrays import Flags, Integers

UNNAMED = "finding"
"""Finding of labels that do not name theirs."""
Size = tuple[int, int]
"""Width and height in px."""


def no_sizes() -> pd.DataFrame:
    """Return a table of sizes without a row."""
    return pd.DataFrame({"width": np.zeros(0), "height": np.zeros(0)}, pd.Index([], dtype=object))


def _no_ids() -> pd.Index:
    return pd.Index([], dtype=object)


def no_boxes() -> pd.DataFrame:
    """Return a table of true boxes without a row."""
    return pd.DataFrame({"image_id": [], **{edge: np.zeros(0) for edge in EDGES}})


@dataclass(frozen=True, eq=False)
class Truth:
    """Images with their labels, patients, roles and true boxes, for one finding.

    Attributes:
        images: Table by ``image_id``, sorted: ``label`` (1, 0 or NaN), ``patient_id``, ``role``
            (``val``, ``test``, ``train`` or ``unused``), and what else is known, such as ``sex``.
        boxes: True boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` in px of the image.
        boxed: Images whose lesions all have boxes; images without a lesion are among them.
        finding: Name of the finding; `title` is its name for readers, if it has another one.
        shortcut: What predicts the label without the lungs, by the audit of a data set: its
            ``fact``, ``auroc``, ``ci_low`` and ``ci_high``, and ``n_known`` images; None if nothing
            does better than chance, or nothing was measured.
        classes: Classes of which each image has exactly one, `finding` among them; empty for a
            finding beside which an image may have others.
        drawn: Sorted names of the patients that are resampled; None takes those of the images.
        record: Data set and its ids, for the report.
        order: Image ids in the order, and with the index, that the user gave. This and what follows
            is for `inputs`, which read predictions.
        categories: Finding of each number of a category in a COCO file; empty for other truths.
        unlisted: What to do about predictions for an image that the truth does not list.
        measure: Function from an image id to the size in the header of its file, for images whose
            size `images` does not state; None without files.
        presumed: True if nothing shows that these files, and not copies of another size, are the
            images that boxes are of. Then they say only what shares are of.
        labelled: Width and height in px that the labels state, by image id, of images whose file
            is a copy of another size, to which the boxes were scaled.
    """

    images: pd.DataFrame
    boxes: pd.DataFrame = field(default_factory=no_boxes)
    boxed: pd.Index = field(default_factory=_no_ids)
    finding: str = UNNAMED
    title: str = ""
    notes: tuple[Note, ...] = ()
    shortcut: Mapping[str, Any] | None = None
    classes: tuple[str, ...] = ()
    drawn: npt.NDArray[np.str_] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    order: pd.Series | None = None
    categories: Mapping[str, str] = field(default_factory=dict)
    unlisted: str = "give each its name there, add it to the truth, or leave it out"
    measure: Callable[[str], Size | None] | None = None
    presumed: bool = False
    labelled: pd.DataFrame = field(default_factory=no_sizes)

    def of(self, role: str) -> Truth:
        """Return the images of a role whose label is known."""
        rows = self.images[(self.images["role"] == role) & self.images["label"].notna()]
        return self.select(rows.index)

    def select(self, ids: pd.Index) -> Truth:
        """Return some of the images, in the order of their ids, with their boxes."""
        boxes = self.boxes[self.boxes["image_id"].isin(ids)].reset_index(drop=True)
        return replace(self, images=self.images.loc[ids.sort_values()], boxes=boxes)

    @property
    def finding_title(self) -> str:
        """Name of the finding for readers."""
        return self.title or self.finding

    @property
    def ids(self) -> pd.Index:
        """Ids of the images, sorted."""
        return self.images.index

    @cached_property
    def positive(self) -> Flags:
        """True for positive images, shape ``(N,)``."""
        return self.images["label"].to_numpy() == 1

    @cached_property
    def owners(self) -> npt.NDArray[np.str_]:
        """Name of the patient of each image, shape ``(N,)``."""
        return self.images["patient_id"].to_numpy(dtype=str)

    @cached_property
    def names(self) -> npt.NDArray[np.str_]:
        """Sorted names of the patients that are resampled."""
        return np.unique(self.owners) if self.drawn is None else self.drawn

    @cached_property
    def patients(self) -> Integers:
        """Patient of each image as a position in `names`, shape ``(N,)``."""
        return np.searchsorted(self.names, self.owners)

    @property
    def n_patients(self) -> int:
        """Number of patients that are resampled."""
        return len(self.names)

    @property
    def n_synthetic(self) -> int:
        """Number of images that a program drew."""
        return int(self.images["synthetic"].sum()) if "synthetic" in self.images else 0

    @property
    def patients_known(self) -> bool:
        """True unless each image is taken as a patient of its own."""
        return not any(note.caution == "by_image" for note in self.notes)

    @cached_property
    def is_boxed(self) -> Flags:
        """True for images whose lesions all have boxes, shape ``(N,)``."""
        return self.ids.isin(self.boxed)

    @cached_property
    def sizes(self) -> pd.DataFrame:
        """Width and height of each image in px by image id; NaN where they are unknown.

        They are those that are stated, else those in the headers of the image files.
        """
        sizes = numbers_of(self.images, ["width", "height"])
        if self.measure is None or self.presumed:
            return sizes
        unknown = sizes.index[sizes.isna().any(axis=1)]
        measured_sizes = [
            self.measure(image_id) or (np.nan, np.nan) for image_id in map(str, unknown)
        ]
        sizes.loc[unknown] = np.reshape(measured_sizes, (-1, 2))
        return sizes

    def unit_names(self, unit: str) -> pd.Series:
        """Return the patient, or the study with its patient, of each test and validation image.

        The units of validation images have names of their own, as a patient may be in both roles.
        InputError if the study of an image is unknown.
        """
        images = self.images[self.images["role"].isin(("test", "val"))]
        names = images["patient_id"].astype(str)
        if unit == "study":
            studies = images.get("study_id", pd.Series(pd.NA, images.index))
            if studies.isna().any():
                image = studies.index[studies.isna()][0]
                raise InputError(
                    f"unit: image '{image}' has no study_id; name its study, or take patient or "
                    "image"
                )
            names += " / " + studies.astype(str)
        return names.where(images["role"] == "test", names + " (validation)")

    def by_unit(self, names: pd.Series, evaluated: pd.Index) -> Truth:
        """Return studies or patients in place of images; `evaluated` are the images that count.

        A unit is positive if one of these images is. Without a positive image it is unknown if it
        has an image of unknown label. What all images of each unit share, such as the sex, is kept.
        """
        images = self.images.loc[names.index].assign(unit=names)
        unclear = images.loc[images["label"].isna().to_numpy(), "unit"]
        grouped = images.loc[evaluated.intersection(names.index)].groupby("unit")
        shared = grouped.nunique(dropna=False).le(1).all()
        columns = ["label", "patient_id", "role", *shared.index[shared]]
        table = grouped[list(dict.fromkeys(columns))].first()
        table["label"] = grouped["label"].max()
        if "synthetic" in images:
            table["synthetic"] = grouped["synthetic"].any()
        table.loc[(table["label"] == 0) & table.index.isin(unclear), "label"] = np.nan
        table = table.rename_axis("image_id").sort_index()
        return replace(
            self,
            images=table,
            boxes=no_boxes(),
            boxed=_no_ids(),
            measure=None,
        )


def numbers_of(images: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return columns of numbers, as a file may hold them as texts; NaN where there is none."""
    return images.reindex(columns=columns).apply(pd.to_numeric, errors="coerce").astype(np.float64)
