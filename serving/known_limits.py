"""Known limits of a run's answers: its AUROC against chance, and the images that it has seen.

`cxr predict` and `cxr serve` show these facts beside the answers. This module computes
them and words them, so that all of them say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.duplicates.seen_images import SeenImage, SeenLookup, SeenRole
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.predictions import SEEN_FILE
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.serving.export_spec import (
    EVALUATION_FILE,
    ExportSpec,
    is_export,
    is_joint,
    validation_folder,
)
from cxr_compare.serving.measured_auroc import MeasuredAuroc
from cxr_compare.training.run_info import RunInfo

SeenState = Literal["train", "val", "no", "unknown"]
"""Use that a training made of an image: ``train`` it learned from it, ``val`` it selected weights
and threshold with it, ``no`` it has not seen it, ``unknown`` its training images are not known."""
_SEEN_SENTENCES: dict[SeenRole, str] = {
    "train": "{image} trained {system}: the answer says nothing about new images",
    "val": "{image} served to choose the weights and the threshold of {system}",
}


def validation_auroc(folder: Path) -> MeasuredAuroc | None:
    """Return the AUROC of a training on its validation images, with an interval over patients.

    The training has selected its weights on these images, so the AUROC is rather too high. A system
    that does not exceed chance here will not do so elsewhere.

    An export has stored the AUROC of its run. The result is None if the labels and scores of the
    images are not stored, or all images have the same label.

    Source:
        Obuchowski 1997, clustered by patient.
    """
    if is_export(folder):
        return ExportSpec.open(folder).validation_auroc
    path = validation_folder(folder) / EVALUATION_FILE
    if not path.is_file():
        return None
    record = PredictionsInfo.read(path.parent / "predictions.json")
    rows = read_table(path, "decisions", files=record.files).dropna(subset="label")
    if "patient_id" not in rows:
        return None
    clusters, n_patients = cluster_index(rows["patient_id"].to_numpy(dtype=str))
    parts = auroc_parts(rows["label"] == 1, rows["score"], clusters, n_patients)
    if parts is None:
        return None
    estimate = parts.estimate()
    low, high = (estimate.ci_low, estimate.ci_high) if estimate.has_interval else (None, None)
    return MeasuredAuroc(estimate.estimate, low, high, "validation", len(rows))


def run_of_export(folder: Path, info: RunInfo) -> Path | None:
    """Return the folder of the training (run) that an exported network comes from.

    An export holds no patient ids. The images from which it learned are read from its run, which is
    searched two levels above the export and where it was when the export was made.

    The result is None if it is at neither place, or is another training.
    """
    candidates = [folder.absolute().parent.parent]
    if info.folder:
        candidates.append(Path(info.folder))
    stored = info.to_json()
    for run in candidates:
        if (run / "run.json").is_file() and (run / SEEN_FILE).is_file():
            facts = RunInfo.read(run / "run.json").to_json()
            if all(stored[key] == value for key, value in facts.items() if key in stored):
                return run
    return None


@dataclass(frozen=True)
class TrainingImages:
    """Images that the training of a system used, as far as they are known.

    `lookup` finds an image or a near copy of it among them; None if the training's list of images
    cannot be found. `is_complete` is False if the training began with weights whose own training
    images are unknown.
    """

    lookup: SeenLookup | None
    is_complete: bool

    @classmethod
    def of_run(cls, folder: Path, info: RunInfo) -> TrainingImages:
        """Read which images a run, or the run of an export, has used; unknown if it has no list."""
        run = run_of_export(folder, info) if is_export(folder) else folder
        lookup = None
        if run is not None and (run / SEEN_FILE).is_file():
            lookup = SeenLookup.from_table(read_table(run / SEEN_FILE, "seen", files=_files(run)))
        return cls(lookup, is_complete=not info.unknown_weights)

    def find(self, image: DecodedImage) -> SeenImage | None:
        """Return how the training used an image or a near copy of it; None if no use is known."""
        if self.lookup is None:
            return None
        return self.lookup.find(image.pixel_sha256, image.perceptual_hash)

    def state(self, found: SeenImage | None) -> SeenState:
        """Return how the training used an image in one word, from the result of `find`.

        It is ``train`` if the training learned from the image, ``val`` if it selected weights or
        threshold with it, ``no`` for neither, and ``unknown`` if not all training images are known.
        """
        if found is not None:
            return found.role
        return "no" if self.lookup is not None and self.is_complete else "unknown"


def _files(run: Path) -> Mapping[str, str]:
    """Return the digests of the tables of a run, or of the predictions of a joint system."""
    if is_joint(run):
        return PredictionsInfo.read(run / "predictions.json").files
    return RunInfo.read(run / "run.json").files


def seen_caution(found: SeenImage | None, system: str) -> str | None:
    """Return a sentence that says that the training used an image; None for any other image.

    Example:
        >>> seen_caution(SeenImage("train", is_near=False), "CheXNet")
        'this image trained CheXNet: the answer says nothing about new images'
    """
    if found is None:
        return None
    image = "a near copy of this image" if found.is_near else "this image"
    return _SEEN_SENTENCES[found.role].format(image=image, system=system)


def seen_summary(
    system: str, n_images: int, n_equal: int, n_near: int, n_selected: int
) -> str | None:
    """Return a sentence on how many of several images the training used; None if it used none.

    The system learned from `n_equal` of the images (equal pixels) and from a near copy of `n_near`;
    `n_selected`, themselves or as near copies, served to select the weights and the threshold.

    Example:
        >>> seen_summary("CheXNet", 140, 85, 6, 20)
        '91 of 140 images trained CheXNet (6 of them as near copies), and 20 served to choose its \
weights and its threshold: these answers say nothing about new images'
    """
    n_train = n_equal + n_near
    parts = []
    if n_train:
        near = ""
        if n_near:
            near = f" ({n_near:,} of them as near copies)" if n_equal else " (all as near copies)"
        parts.append(f"{n_train:,} of {counted(n_images, 'image')} trained {system}{near}")
    if n_selected:
        images = f"{n_selected:,}" if n_train else f"{n_selected:,} of {counted(n_images, 'image')}"
        owner = "its" if n_train else f"{system}'s"
        parts.append(f"{images} served to choose {owner} weights and its threshold")
    if not parts:
        return None
    return ", and ".join(parts) + ": these answers say nothing about new images"
