"""Request of a training: all that can be refused before torch and Lightning are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import pandas as pd

from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.audit import require_no_errors
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.training.run_folder import RunFolder

_LABEL_OF_STATE = {"present": 1.0, "absent": 0.0}


class UsableImages(NamedTuple):
    """Images that a model can learn from.

    Attributes:
        annotations: Boxes, or labels by image with a column for each finding (1, 0, NaN).
        ids: Images of the roles ``train`` and ``val``.
        positive: Images with the target.
    """

    annotations: pd.DataFrame
    ids: dict[str, pd.Index]
    positive: pd.Index

    @classmethod
    def of_data_set(cls, config: Config, dataset: DataSet, target: Target) -> Self:
        """Take images with all lesions boxed or with none for a detector; else known labels."""
        if config.kind == "detector":
            annotations = dataset.target_boxes(target)
            if not len(annotations):
                raise InputError(
                    f"{dataset.folder}: has no boxes of '{target.name}', and a detector learns "
                    "from boxes; train a classifier, such as chexnet_small"
                )
        else:
            rows = dataset.findings[dataset.findings["finding"].isin(target.any_of)]
            rows = rows.assign(label=rows["state"].map(_LABEL_OF_STATE)).dropna(subset="label")
            labels = rows.pivot(index="image_id", columns="finding", values="label")
            annotations = labels.reindex(columns=list(target.any_of))
            if config.training.loss == "softmax":  # an image of one class is of no other
                annotations = annotations.fillna(0.0)
        shows = dataset.learned_labels(target, boxed=config.kind == "detector")
        positive = shows.index[shows]
        ids = {}
        for role in ("train", "val"):
            ids[role] = dataset.image_ids(role, config.data.split).intersection(shows.index)
            n_positive = int(ids[role].isin(positive).sum())
            if n_positive in (0, len(ids[role])):
                raise InputError(
                    f"split '{config.data.split}': of {counted(len(ids[role]), f'{role} image')}, "
                    f"{n_positive} show '{target.name}', and a training needs both kinds; make "
                    "another split"
                )
        return cls(annotations, ids, positive)

    def counts(self) -> dict[str, int]:
        """Return the numbers of images, and of boxes to learn, for the record."""
        train = self.ids["train"]
        counts = {"n_train": len(train), "n_val": len(self.ids["val"])}
        if "image_id" in self.annotations:
            counts["n_boxes"] = int(self.annotations["image_id"].isin(train).sum())
        return counts

    def __str__(self) -> str:
        """Return the numbers of images in words."""
        train, val = self.ids["train"], self.ids["val"]
        n_positive = int(train.isin(self.positive).sum())
        images = counted(len(train), "training image")
        return f"{images} ({n_positive} positive), {counted(len(val), 'validation image')}"


def require_step(n_images: int, step: int) -> None:
    """Refuse steps that learn from more images than there are."""
    if n_images < step:
        raise InputError(
            f"training.batch_size: a step learns from {step} images, and there are {n_images}"
        )


@dataclass(frozen=True)
class Request:
    """A training that can begin, or go on.

    Attributes:
        target: Finding, or group of findings, that is learned.
        usable: Images to learn from.
        classes: Names of classes that exclude each other, the reference first; empty for findings
            that may occur together.
        own_parts: Names of the user's own parts, given from Python.
        audited: True if an audit has looked at the split.
        errors: Errors of the audit, despite which the user trains.
    """

    config: Config
    dataset: DataSet
    run: RunFolder
    target: Target
    usable: UsableImages
    classes: tuple[str, ...] = ()
    own_parts: tuple[str, ...] = ()
    audited: bool = True
    errors: tuple[str, ...] = ()

    @classmethod
    def check(
        cls,
        config: Config,
        data: Path,
        out: Path,
        own_parts: Sequence[str] = (),
        *,
        despite_audit: bool = False,
    ) -> Self:
        """Open the data set; refuse images that teach nothing, or a folder of another training."""
        dataset, run = DataSet.open(data), RunFolder(out)
        wanted = config.data.target
        options: Any = {"options": lambda name: {"set_": {"data.target": name}}}
        classes: tuple[str, ...] = ()
        if config.kind == "classifier" and config.training.loss == "softmax":
            target, classes = dataset.classes(wanted, **options)
        else:
            target = dataset.target(wanted, **options)
        usable = UsableImages.of_data_set(config, dataset, target)
        training = config.training
        require_step(len(usable.ids["train"]), training.batch_size * training.accumulate)
        audited = True
        errors: tuple[str, ...] = ()
        if RunFolder.started_in(out) is not None:
            run.require_same(config, dataset, own_parts)
        else:
            split = config.data.split
            audited, errors = require_no_errors(dataset, split, despite_errors=despite_audit)
        own = tuple(own_parts)
        return cls(config, dataset, run, target, usable, classes, own, audited, errors)
