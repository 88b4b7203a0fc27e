"""Description of an export folder, and the digests by which folders are told apart.

``export.json`` holds the description. It is written last, so it marks the folder as complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Strict

from cxr_compare.data_prep.contracts.checksums import require_unchanged
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.provenance import MadeRecord
from cxr_compare.data_prep.contracts.records import Digests, Items, Record, Whole
from cxr_compare.serving.measured_auroc import MeasuredAuroc
from cxr_compare.training.run_info import RunInfo

if TYPE_CHECKING:  # both import numpy, which cxr --help does not need
    from cxr_compare.data_prep.store.preprocess import Preprocess
    from cxr_compare.evaluation.choices import Choices

Format = Literal["onnx", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]
MODEL_FILES: dict[Format, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
}
"""Files of the exported network by its format; the first one is the one to open."""
EXPORT_FILE = "export.json"
CARD_FILE = "card.json"
ANCHORS_FILE = "anchors.npy"
BOXES_FILE = "model_with_boxes.onnx"
"""Detector whose graph ends in the image score and the boxes, for ONNX Runtime alone."""
PREPROCESS_FILE = "preprocess.json"
EVALUATION_FILE = "evaluated.parquet"
"""Table with label, score and patient of a run's validation images, in its `validation_folder`."""
JOINT_MEMBERS = "members"
"""Folder of the runs or exports within the predictions folder of a joint system made of them."""
INPUT = "images"
"""Name of the graph's input: uint8 ``(B, 1, S, S)``, the resized pixels, which it normalises."""
OUTPUTS = {"boxes": ("logits", "offsets"), "scores": ("logits", "maps")}
"""The graph's outputs by kind, float32: ``(B, A, K)`` and ``(B, A, 4)``, or ``(B, K)`` and
``(B, K, h, w)``. Boxes are decoded outside of it."""
ORIGINAL_SIZE = "original_size"
"""Second input of `BOXES_FILE`: int64 ``(2,)``, width and height of the original image, px."""
BOXES_OUTPUTS = ("score", "boxes", "box_scores", "labels")
"""Outputs of `BOXES_FILE` for one image: image score ``(1,)`` and N boxes, ``(N, 4)`` xyxy in px of
the original, with scores ``(N,)`` and positions of their findings in the list ``(N,)``."""
FACTS_SECTION = "cxr_compare"
"""Section of an OpenVINO model's runtime information that holds the facts."""
PACKAGES: dict[Format, str] = {"openvino": "openvino", "onnx": "onnxruntime"}  # fastest first
MODEL_FILES_OF_RUN = ("model.safetensors", "model.json")
"""Files of a run that hold its weights and its architecture."""
_RUN_FILES = (*MODEL_FILES_OF_RUN, PREPROCESS_FILE)
_HASH_BLOCK = 1 << 20


def is_export(folder: Path) -> bool:
    """Return True if a folder holds a complete exported network. Nothing is loaded."""
    return (folder / EXPORT_FILE).is_file()


def is_joint(folder: Path) -> bool:
    """Return True for predictions of a joint system that hold its members, so that it predicts."""
    return (folder / "predictions.json").is_file() and (folder / JOINT_MEMBERS).is_dir()


def validation_folder(folder: Path) -> Path:
    """Return the folder with the decision rule (threshold, calibration) of a run or an export.

    It is the folder ``validation`` of a run, which need not exist, or the folder of the export or
    of the joint system itself.
    """
    return folder if is_export(folder) or is_joint(folder) else folder / "validation"


def digest_files(folder: Path, names: Iterable[str] = _RUN_FILES) -> hashlib._Hash:
    """Return a SHA-256 object that has read some files of a folder; the caller may add more.

    By default they are the files of a run on which its predictions depend.
    """
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            while block := file.read(_HASH_BLOCK):
                digest.update(block)
    return digest


class ExportSpec(Record, kind="export"):
    """Inputs, outputs and origin of a network that was exported to ONNX or OpenVINO.

    Attributes:
        findings: Names of the K findings in the order of the outputs.
        target: Finding, or group of findings, that decides whether an image is positive.
        size: Side S of the square input images, px.
        level_sizes: Number of anchors on each level of a detector's feature pyramid; the sum is the
            number A of anchors. Empty for a classifier.
        map_frame: Outer edges of a classifier's activation map, xyxy in px of the input; None for a
            detector.
        map_levels: Pairs of a probability and the raw map value at which overlays draw its contour;
            empty for a detector.
        run: Content of ``run.json`` of the training that was exported, with its ``folder`` and
            ``inference_id`` (digest of all that its predictions depend on).
        files: SHA-256 digest of each file of the network, by file name.
        validation_auroc: AUROC of the run on its validation images; None if it is unknown.
    """

    format: Format
    precision: Precision
    kind: Literal["boxes", "scores"]
    findings: Items[str]
    target: Target
    size: Whole
    level_sizes: Items[Whole] = ()
    map_frame: Annotated[tuple[float, float, float, float], Strict(False)] | None = None
    map_levels: Items[tuple[float, float]] = ()
    run: RunInfo
    files: Digests = Field(default_factory=dict)
    validation_auroc: MeasuredAuroc | None = None

    @property
    def backend(self) -> str:
        """Format and precision in one text, for messages.

        It is ``onnx fp32``, for example.
        """
        return f"{self.format} {self.precision}"

    def facts(
        self, preprocess: Preprocess, decision: Choices | None, *, with_boxes: bool = False
    ) -> dict[str, str]:
        """Return the facts that stand in the file of the network, each as a JSON text.

        ONNX holds them as ``metadata_props``, OpenVINO as ``rt_info`` in `FACTS_SECTION`.
        `with_boxes` asks for the facts of `BOXES_FILE`.
        """
        policy = decision.policy(None, "export") if decision and decision.thresholds else None
        facts = {
            "input": [INPUT, ORIGINAL_SIZE] if with_boxes else [INPUT],
            "outputs": BOXES_OUTPUTS if with_boxes else OUTPUTS[self.kind],
            "size": self.size,
            "mean": preprocess.mean,
            "std": preprocess.std,
            "findings": self.findings,
            "target": self.target.name,
            "policy": policy,
            "threshold": decision.thresholds[policy].threshold if decision and policy else None,
        }
        return {name: json.dumps(value) for name, value in facts.items()}

    def complete(self, folder: Path) -> None:
        """Write ``export.json`` with the digests of the network's files.

        The presence of this file marks the folder as complete.
        """
        possible = (*MODEL_FILES[self.format], ANCHORS_FILE, BOXES_FILE)
        names = [name for name in possible if (folder / name).is_file()]
        files = {name: digest_files(folder, [name]).hexdigest() for name in names}
        self.with_values(files=files).write(folder / EXPORT_FILE)

    def file(self, folder: Path, name: str) -> Path:
        """Return the path of a file of the exported network, after a check of its content.

        `name` is a key of `files`. Raises InputError if the file is missing or has changed since
        the export.
        """
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: is missing; export the run again")
        if self.files:  # an export that is being made has none yet
            require_unchanged(path, self.files.get(name))
        return path

    @classmethod
    def open(cls, folder: Path | str) -> ExportSpec:
        """Read the description of an exported network from ``export.json`` in its folder."""
        return cls.read(Path(folder) / EXPORT_FILE)


class Proof(Record):
    """Differences between the answers of an export and those of the run that it was made from.

    Attributes:
        images: Phrase that names the images on which both were compared.
        score_difference: Largest difference of two image scores.
        decisions_changed: Share of the images whose decision changes, in [0, 1].
        auroc: AUROC of the run and of the export; None for a float32 export.
        ap50: AP50 of the run and of the export; None for a classifier or a float32 export.
    """

    images: str
    score_difference: float
    decisions_changed: float
    auroc: Annotated[tuple[float, float], Strict(False)] | None = None
    ap50: Annotated[tuple[float, float], Strict(False)] | None = None

    def summary(self) -> str:
        """Return one line that says how far the export agrees with its run.

        Example:
            >>> Proof(images="4 images", score_difference=2e-6, decisions_changed=0.0).summary()
            'Answers as its run on 4 images: scores differ by at most 2e-06, decisions by 0.0 %'
        """
        line = (
            f"Answers as its run on {self.images}: scores differ by at most "
            f"{self.score_difference:.2g}, decisions by {100 * self.decisions_changed:.1f} %"
        )
        for name, pair in (("AUROC", self.auroc), ("AP50", self.ap50)):
            if pair is not None:
                line += f"; {name} {pair[0]:.3g} to {pair[1]:.3g}"
        return line


class Card(MadeRecord, kind="card"):
    """Facts of `cxr export` about an exported model, as they stand in ``card.json``.

    Attributes:
        kind: Sentence that says what the exported model is; the key in the file is ``is``.
        run: Folder of the training run that was exported.
        learned_from: Phrase on the images of the training.
        calibrated_on: Phrase on the images from which int8 value ranges were estimated; None for
            other precisions.
        runtime: Package that runs the exported model.
    """

    kind: str = Field(validation_alias="is", serialization_alias="is")
    run: str
    learned_from: str
    calibrated_on: str | None
    runtime: str
    proof: Proof


def require_names(names: Mapping[str, str], learnt: Sequence[str], folder: Path) -> None:
    """Check the names under which a model's findings are to appear in its predictions.

    `names` gives the name in the data set by the name that the model learned. Raises InputError if
    a key is none of the `learnt` findings, or two findings get the same name.
    """
    for learnt_name, name in names.items():
        if learnt_name not in learnt:
            raise InputError(f"--finding {learnt_name}: {folder} learnt {', '.join(learnt)}")
        if list(names.values()).count(name) > 1:
            raise InputError(f"--finding: two findings would be called {name!r}; give each its own")
