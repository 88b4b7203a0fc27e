"""A split of a prepared data set, with the labels of one target, for evaluating systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.duplicates.seen_images import SeenImages
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.decisions.ground_truth import GroundTruth
from cxr_compare.evaluation.systems.shortcuts import shortcut_facts


@dataclass(frozen=True)
class LabelledSplit:
    """A data set, one of its targets, and one of its splits.

    Figures are measured on the ``test`` images of the split. Thresholds and all other parts of a
    decision are chosen on its ``val`` images.

    Attributes:
        dataset: Images, labels, boxes and splits.
        target: Target that is evaluated.
        split: Name of the split.
    """

    dataset: DataSet
    target: Target
    split: str = "default"

    @property
    def ids(self) -> dict[str, Any]:
        """Digests of images, labels and split. A stored decision is valid for these only."""
        ids = self.dataset.ids
        return {
            "content_id": ids["content_id"],
            "labels_id": ids["labels_id"],
            "split": self.split,
            "split_id": ids["split_ids"].get(self.split),
        }

    @property
    def images(self) -> pd.DataFrame:
        """Table of all images of the data set, with patient, path and size."""
        return self.dataset.images

    @cached_property
    def labels(self) -> pd.Series:
        """Label of every image of the data set by image id: 1.0, 0.0, or NaN where unknown."""
        return self.dataset.labels(self.target)

    @cached_property
    def boxes_trusted(self) -> pd.Index:
        """Ids of the images on which every lesion has a box, or which have no lesion.

        Localisation is evaluated on these images only.
        """
        return self.dataset.boxes_trusted(self.target)

    @cached_property
    def true_boxes(self) -> pd.DataFrame:
        """True boxes of the target on the images of `boxes_trusted`, px of the original image."""
        return self.dataset.target_boxes(self.target)

    @cached_property
    def truth(self) -> GroundTruth:
        """Labels, roles, patients and boxes of the images as tables in memory.

        The facts from which a shortcut baseline guesses labels are left out.
        """
        states = self.dataset.findings
        is_target = states["finding"].isin(self.target.any_of)
        is_uncertain = is_target & (states["state"] == "uncertain")
        roles = self.dataset.split(self.split).set_index("image_id")["role"]
        return GroundTruth(
            images=self.images,
            labels=self.labels,
            roles=roles,
            finding=self.target.name,
            display_name=self.target.display_name,
            findings=self.target.any_of,
            true_boxes=self.true_boxes,
            boxes_trusted=self.boxes_trusted,
            uncertain=pd.Index(states.loc[is_uncertain, "image_id"].unique()),
            ids=self.ids,
            data_name="" if self.dataset.is_in_memory else self.dataset.name,
            source=str(self.dataset.folder),
        )

    @cached_property
    def truth_with_facts(self) -> GroundTruth:
        """Labels, roles, patients and boxes of the images, with facts from metadata and borders.

        A shortcut baseline, which never sees the lungs, guesses labels from these facts. The ids of
        synthetic images are added, too.
        """
        rows = self.images["image_id"].isin(self.image_ids("test"))
        decode = self.dataset.optional_table("decode")
        synthetic = self.images["image_id"][self.dataset.synthetic.to_numpy(dtype=bool)]
        return replace(
            self.truth,
            facts=shortcut_facts(self.images[rows], decode),
            synthetic=pd.Index(synthetic),
        )

    def image_ids(self, role: str) -> pd.Index:
        """Return the ids of the split's images with a role.

        Args:
            role: ``val`` or ``test``.

        Returns:
            The ids in sorted order.
        """
        return self.dataset.image_ids(role, self.split)

    def labels_of(self, role: str) -> pd.Series:
        """Return the labels of the split's images with a role.

        Args:
            role: ``val`` or ``test``.

        Returns:
            1.0, 0.0, or NaN where unknown, by image id.
        """
        return self.labels.reindex(self.image_ids(role))

    def patients(self, image_ids: pd.Index) -> np.ndarray:
        """Return the patients of images.

        Args:
            image_ids: Ids of images, shape ``(N,)``.

        Returns:
            Name of each image's patient, shape ``(N,)``.
        """
        patient_by_image = self.images.set_index("image_id")["patient_id"]
        return patient_by_image.reindex(image_ids).to_numpy(dtype=str)

    def seen_by(
        self, system: Predictions, image_ids: pd.Index, roles: Sequence[str] = ("train", "val")
    ) -> SeenImages:
        """Find the images that a system was fitted or selected on; none if that is unknown.

        Args:
            system: Predictions of the system.
            image_ids: Ids of the images to look for.
            roles: Roles in the system's training for which an image counts as seen.

        Returns:
            The seen images, found by their ids and patients and as copies.
        """
        images = self.dataset.identities(image_ids)
        seen = system.seen
        used = images[:0] if seen is None else seen[seen["role"].isin(roles)]
        return SeenImages.from_tables(images, used)
