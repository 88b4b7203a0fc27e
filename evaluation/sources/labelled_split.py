"""A split of a prepared data set, with the labels of one target, for evaluating systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.duplicates.seen_images import SeenImages
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.missing_sentences import uncertain_as
from cxr_compare.evaluation.sources.shortcuts import shortcut_facts


@dataclass(frozen=True)
class LabelledSplit:
    """A data set, the disease finding to evaluate in it, and a division into val and test images.

    Metrics are computed on the ``test`` images. Thresholds, and everything else that turns outputs
    into decisions, are chosen on the ``val`` (validation) images. `split` is the name of the
    division; a data set may have several. `uncertain` is the label that test images of uncertain
    label get, for a sensitivity analysis; None leaves them out.
    """

    dataset: DataSet
    target: Target
    split: str = "default"
    uncertain: Literal["positive", "negative"] | None = None

    @property
    def ids(self) -> dict[str, Any]:
        """Digests that identify the images, the labels and the division into val and test.

        Keys: ``content_id`` (images), ``labels_id`` (labels), ``split`` (name of the division) and
        ``split_id`` (which image is val or test). A threshold that was chosen and stored is valid
        only while these stay equal.
        """
        ids = self.dataset.ids
        return {
            "content_id": ids.content_id,
            "labels_id": ids.labels_id,
            "split": self.split,
            "split_id": ids.split_ids.get(self.split),
        }

    @cached_property
    def _roles(self) -> pd.Series:
        """Role of every image by image id."""
        return self.dataset.split(self.split).set_index("image_id")["role"]

    @property
    def _tested(self) -> pd.Index:
        return self._roles.index[self._roles == "test"]

    @cached_property
    def _labelled(self) -> DataSet:
        """The data set, with uncertain findings of test images as `uncertain` says."""
        if self.uncertain is None:
            return self.dataset
        findings = self.dataset.findings
        is_tested = is_member(findings["image_id"], self._tested)
        is_doubtful = is_tested & (findings["state"] == "uncertain").to_numpy()
        keys = ["image_id", "finding"]
        state = "present" if self.uncertain == "positive" else "absent"
        tables = {"findings": findings.assign(state=findings["state"].mask(is_doubtful, state))}
        if self.uncertain == "negative":
            doubtful = pd.MultiIndex.from_frame(findings.loc[is_doubtful, keys])
            boxes = self.dataset.boxes
            tables["boxes"] = boxes[~pd.MultiIndex.from_frame(boxes[keys]).isin(doubtful)]
        return self.dataset.with_tables(tables)

    @cached_property
    def truth(self) -> LabelledImages:
        """Labels, roles (train, val, test), patients and true boxes of the images, in memory.

        The metadata from which labels might be guessed are left out, see `truth_with_facts`.
        """
        labels = self._labelled.labels(self.target)
        states = self.dataset.findings
        is_target = states["finding"].isin(self.target.any_of)
        is_uncertain = is_target & (states["state"] == "uncertain")
        # Notes of a prepared data set were shown by the command that made it.
        notes = self.dataset.info.notes if self.dataset.is_in_memory else ()
        if self.uncertain is not None:
            before = self.dataset.labels(self.target)
            n_counted = int((before.isna() & labels.notna()).sum())
            notes = (*notes, uncertain_as(self.uncertain, n_counted))
        return LabelledImages(
            images=self.dataset.images,
            labels=labels.to_frame(self.target.name),
            roles=self._roles,
            display_name=self.target.display_name,
            findings=self.target.any_of,
            true_boxes=self._labelled.target_boxes(self.target),
            boxes_trusted=self._labelled.boxes_trusted(self.target),
            uncertain=pd.Index(states.loc[is_uncertain, "image_id"].unique()),
            ids=self.ids,
            data_name="" if self.dataset.is_in_memory else self.dataset.name,
            title=self.dataset.name,
            split_rule=self.dataset.split_rule(self.split),
            source=str(self.dataset.folder),
            notes=tuple(notes),
        )

    @cached_property
    def truth_with_facts(self) -> LabelledImages:
        """The tables of `truth`, and metadata and border pixels of the test images.

        A baseline guesses labels from these facts, without the lungs. If it guesses well, models
        may have learned to predict labels from such facts, too. The ids of synthetic images are
        added, too.
        """
        images = self.dataset.images
        rows = is_member(images["image_id"], self._tested)
        synthetic = images["image_id"][self.dataset.synthetic.to_numpy(dtype=bool)]
        return replace(
            self.truth,
            facts=shortcut_facts(images[rows], self.dataset.decode),
            synthetic=pd.Index(synthetic),
        )

    def seen_by(
        self, system: Predictions, image_ids: pd.Index, roles: Sequence[str] = ("train", "val")
    ) -> SeenImages:
        """Find images that a detector or classifier has seen: it was trained or selected on them.

        They are those with the same id or patient as a training image, and those with equal or
        similar pixels. `roles` are the uses in training that count: ``train`` (weights were fitted
        on the image), ``val`` (the checkpoint was chosen on it), or both. The result is empty if
        the training images are not listed.
        """
        images = self.dataset.identities(image_ids)
        seen = system.seen
        used = images[:0] if seen is None else seen[seen["role"].isin(roles)]
        return SeenImages.from_tables(images, used)
