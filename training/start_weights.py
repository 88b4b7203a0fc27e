"""The weights that a training starts from, and the images that these weights learned from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.duplicates.seen_images import SeenImages
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.networks.checkpoints import Checkpoint
from cxr_compare.networks.model_files import WEIGHTS_FILE, read_architecture, read_weights
from cxr_compare.networks.public_checkpoints import recognise_public_checkpoint
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedFrom

PUBLISHED_WEIGHTS = ("imagenet", "coco")
"""Values of a configuration's ``weights`` that name published weights rather than a file."""


@dataclass(frozen=True)
class StartWeights(Checkpoint):
    """Initial weights of a training, from a file or from an earlier training.

    Attributes:
        source: File or folder that the weights come from, as the user gave it.
        state: Tensors by their names in the file.
        findings: Names of the network's outputs in their order; None for a file of another program.
        network: Name of the network, such as ``resnet18``; None for a file of another program.
        arguments: Arguments that the network was built with, by name; empty if unknown.
        run: Folder of the training (run) that made the weights; None for a file of another program.
    """

    run: RunFolder | None = None

    @classmethod
    def open(cls, weights: str) -> StartWeights | None:
        """Read the initial weights that a configuration names.

        A weights file inside the folder of a training (run) counts as that training, so that the
        images which it used are known. The training need not have ended, because one that diverged
        never does.

        Args:
            weights: A weights file, a run folder, or ``none``, ``imagenet`` or ``coco``.

        Returns:
            The weights; None for random and for published weights.

        Raises:
            InputError: The file or the run cannot be read.
        """
        if weights in ("none", *PUBLISHED_WEIGHTS):
            return None
        path = Path(weights)
        run: RunFolder | None = None
        if path.is_dir():
            run = RunFolder.open(path)
            path = path / WEIGHTS_FILE
            run.require_weights()
        state = read_weights(path)
        if run is None:
            home = path.resolve().parent
            run = RunFolder.started_in(home.parent if home.name == "checkpoints" else home)
        if run is None:
            return cls(weights, state)
        arguments = read_architecture(run.folder).arguments
        findings = run.started.findings
        return cls(weights, state, findings, arguments.get("backbone"), arguments, run)

    public = cached_property(recognise_public_checkpoint)  # None if it is no public classifier

    @property
    def pixels(self) -> Preprocess | None:
        """Size and normalisation of the images from which the initial weights learned.

        None for a file of another program.
        """
        return Preprocess.read(self.run.folder / "preprocess.json") if self.run else None

    @property
    def normalisation(self) -> dict[str, float]:
        """Mean and standard deviation of the pixels from which the initial weights learned.

        The keys are ``mean`` and ``std``, for grey values that are scaled to [0, 1]. The dictionary
        is empty if they are unknown.
        """
        known = self.pixels or self.public
        return {} if known is None else {"mean": known.mean, "std": known.std}

    def pixel_notes(self, size: int) -> list[str]:
        """Return a note on the pixels from which the initial weights learned.

        It says their normalisation, and their size if it differs from that of the new training.

        Args:
            size: Side of the images of the new training, px.

        Returns:
            One line; empty if the pixels are unknown.
        """
        pixels = self.normalisation
        if not pixels:
            return []
        phrases = [
            f"{self.source}: pixels are normalised as it learned them, mean {pixels['mean']:g}, "
            f"std {pixels['std']:g}"
        ]
        if self.public:
            phrases.append(
                f"it is of {self.public.maker}, which learned at {self.public.size} px from "
                f"{self.public.trained_on}: test images among those would look better than they are"
            )
        if self.pixels and self.pixels.size != size:
            phrases.append(f"it learned at {self.pixels.size} px, this training is at {size} px")
        return ["; ".join(phrases)]

    def record(self) -> StartedFrom:
        """Return facts about the initial weights for ``run.json``.

        For weights of an earlier training these are the path, facts about that training, and the
        numbers of its images and patients; for another file its path, and that its images are
        unknown.
        """
        if self.run is None:
            return StartedFrom(weights=self.source, trained_on="unknown")
        started = self.run.started
        seen = self.run.seen
        keys = ("name", "model_kind", "target", "findings", "seed", "data_set", "started_from")
        known = started.model_fields_set
        return StartedFrom(
            weights=self.source,
            **{key: getattr(started, key) for key in keys if key in known},
            n_images=len(seen),
            n_patients=int(seen["patient_id"].nunique()),
        )

    def merge_seen(self, images: pd.DataFrame) -> pd.DataFrame:
        """Add the images that were used for the initial weights to the table of a new training.

        An image has the role ``train`` if the initial weights or the new training learned from it.
        Other images keep their role, such as ``val``. If another patient's image has the same id in
        both tables, the id of the earlier one gets the name of its training's folder and a colon in
        front.

        Args:
            images: Images of the new training: ``image_id, patient_id, role``.

        Returns:
            A table with the same columns and more rows.
        """
        if self.run is None:
            return images
        seen = self.run.seen
        if seen.empty:
            return images
        patients = images.set_index("image_id")["patient_id"]
        has_same_id = seen["image_id"].isin(patients.index)
        is_same = has_same_id & (seen["patient_id"] == seen["image_id"].map(patients))
        trained = set(seen.loc[is_same & (seen["role"] == "train"), "image_id"])
        roles = images["role"].mask(images["image_id"].isin(trained), "train")
        images = images.assign(role=roles)
        rest = seen[~is_same].copy()
        clash = has_same_id[~is_same]
        rest.loc[clash, "image_id"] = f"{self.run.folder.name}:" + rest.loc[clash, "image_id"]
        return pd.concat([images, rest.reindex(columns=images.columns)], ignore_index=True)

    def leak_warnings(self, images: pd.DataFrame, test_images: pd.DataFrame) -> list[str]:
        """Return warnings about images used for the initial weights that make metrics too good.

        Args:
            images: Images of the new training, with their roles (``train`` or ``val``).
            test_images: Test images of the split (the division into train, val and test images).

        Returns:
            One line for each problem.
        """
        if self.run is None:
            return []
        seen = self.run.seen
        used = seen[seen["role"].isin(["train", "val"])]  # to fit, and to select
        warnings = []
        validation = images[images["role"] == "val"]
        n_trained = len(SeenImages.from_tables(validation, used[used["role"] == "train"]).all_ids)
        if n_trained:
            warnings.append(
                f"{self.source}: learned from patients of {n_trained} of the {len(validation)} "
                "validation images; the validation figures will look better than they are"
            )
        leaked = SeenImages.from_tables(test_images, used)
        n_seen = len(leaked.by_id)
        if n_seen:
            warnings.append(
                f"{self.source}: has seen patients of {n_seen} of the {len(test_images)} test "
                "images; cxr compare will refuse this run on this split: train both on the same "
                "split"
            )
        advice = "cxr compare refuses equal images and warns of near copies"
        return warnings + [f"{line}; {advice}" for line in leaked.describe_copies(self.source)]
