"""Description of an export folder, and the digests by which folders are told apart.

``export.json`` holds the description. It is written last, so it marks the folder as complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cxr_compare.data_prep.contracts.checksums import require_unchanged
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json, write_json

Format = Literal["onnx", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]
MODEL_FILES: dict[Format, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
}
"""The network by format; the first file is the one to open."""
EXPORT_FILE = "export.json"
ANCHORS_FILE = "anchors.npy"
PREPROCESS_FILE = "preprocess.json"
EVALUATION_FILE = "evaluated.parquet"
"""In a run's `validation_folder`: label, score and patient of its validation images."""
INPUT = "images"
"""The graph's input: uint8 ``(B, 1, S, S)``, store pixels; the graph normalises them."""
OUTPUTS = {"boxes": ("logits", "offsets"), "scores": ("logits", "maps")}
"""The graph's outputs by kind, float32: ``(B, A, K)`` and ``(B, A, 4)``, or ``(B, K)`` and
``(B, K, h, w)``. Boxes are decoded outside of it."""
PACKAGES: dict[Format, str] = {"openvino": "openvino", "onnx": "onnxruntime"}  # fastest first
_RUN_FILES = ("model.safetensors", "model.json", "preprocess.json")
_HASH_BLOCK = 1 << 20


def is_export(folder: Path) -> bool:
    """Return True for the folder of a complete export; nothing is loaded.

    Args:
        folder: Any path.
    """
    return (folder / EXPORT_FILE).is_file()


def validation_folder(folder: Path) -> Path:
    """Return the folder that holds the decision of a run or an export.

    Args:
        folder: Folder of a run or an export.

    Returns:
        The folder ``validation`` of a run, which need not exist, or the folder of the export
        itself.
    """
    return folder if is_export(folder) else folder / "validation"


def digest_files(folder: Path, names: Iterable[str] = _RUN_FILES) -> hashlib._Hash:
    """Return the SHA-256 digest of files of a folder.

    Args:
        folder: Folder of the files.
        names: Names of the files. By default they are the files of a run that decide its
            predictions.
    """
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            while block := file.read(_HASH_BLOCK):
                digest.update(block)
    return digest


@dataclass(frozen=True)
class ExportSpec:
    """Inputs, outputs and origin of an exported network.

    Attributes:
        format: Format of the network's file, ``onnx`` or ``openvino``.
        precision: Number format of the computation, ``fp32``, ``bf16`` or ``int8``.
        kind: ``boxes`` for a detector, ``scores`` for a classifier.
        findings: Findings in the order of the outputs.
        target: Target that was learned: ``name``, ``any_of`` (its findings) and ``display_name``.
        size: Side S of the square input images, px.
        level_sizes: Number of anchors on each level of a detector; their sum is A.
        map_frame: Outer frame of a classifier's activation map, xyxy in px of the input.
        map_levels: Probability and raw map value of each contour that overlays draw.
        run: Content of ``run.json`` of the run that was exported.
        files: SHA-256 digest of each file of the network, by file name.
        validation_auroc: Attributes of the run's `MeasuredAuroc`; empty if it is unknown.
    """

    format: Format  # whose file the network is in
    precision: Precision  # what it computes in
    kind: Literal["boxes", "scores"]  # of a detector, or a classifier
    findings: tuple[str, ...]  # in the order of the outputs, K of them
    target: Mapping[str, Any]  # `name`, `any_of` and `display_name` of what it is asked for
    size: int  # side S of the square images, px
    level_sizes: tuple[int, ...] = ()  # anchors on each level of a detector; they add up to A
    # outer frame of a classifier's map, `x1, y1, x2, y2` in store px
    map_frame: tuple[float, float, float, float] | None = None
    # probability and raw map value of each contour of a classifier's maps
    map_levels: tuple[tuple[float, float], ...] = ()
    # what the run's `run.json` says, and its `folder` and `inference_id`
    run: Mapping[str, Any] = field(default_factory=dict)
    # SHA-256 of the network's files, by name; none in an export of an older version
    files: Mapping[str, str] = field(default_factory=dict)
    # AUROC of the run on its validation images, with its interval
    validation_auroc: Mapping[str, Any] = field(default_factory=dict)

    @property
    def backend(self) -> str:
        """Format and precision in one text, for messages.

        Example:
            >>> ExportSpec("onnx", "fp32", "scores", ("mass",), {}, 64).backend
            'onnx fp32'
        """
        return f"{self.format} {self.precision}"

    def write(self, folder: Path) -> None:
        """Write ``export.json`` with the digests of the files; it marks the folder as complete."""
        names = [n for n in (*MODEL_FILES[self.format], ANCHORS_FILE) if (folder / n).is_file()]
        files = {name: digest_files(folder, [name]).hexdigest() for name in names}
        content = {**asdict(self), "files": files}
        if not self.validation_auroc:
            del content["validation_auroc"]
        write_json(folder / EXPORT_FILE, "export", content)

    def file(self, folder: Path, name: str) -> Path:
        """Return the path of a file of the network, after a check of its content.

        Args:
            folder: Folder of the export.
            name: Name of the file.

        Returns:
            The path.

        Raises:
            InputError: The file is missing, or has changed since the export.
        """
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: is missing; export the run again")
        require_unchanged(path, "graph", self.files.get(name))
        return path

    @classmethod
    def read(cls, folder: Path | str) -> ExportSpec:
        """Read the ``export.json`` of a folder."""
        path = Path(folder) / EXPORT_FILE
        content = read_json(path, "export")
        frame = content["map_frame"]
        levels = content["map_levels"]
        alike = ("format", "precision", "kind", "target", "size", "run")
        return cls(
            **{key: content[key] for key in alike},
            findings=tuple(content["findings"]),
            level_sizes=tuple(content["level_sizes"]),
            map_frame=frame and tuple(frame),
            map_levels=tuple((probability, raw) for probability, raw in levels),
            files=content.get("files", {}),
            validation_auroc=content.get("validation_auroc", {}),
        )


def require_names(names: Mapping[str, str], learnt: Sequence[str], folder: Path) -> None:
    """Check the names under which a model is to answer for its findings.

    Args:
        names: Name in the data set by name of the finding that the model learned.
        learnt: All findings that the model learned.
        folder: Folder of the model, for messages.

    Raises:
        InputError: The model did not learn a finding, or two findings get the same name.
    """
    for learnt_name, name in names.items():
        if learnt_name not in learnt:
            raise InputError(f"--finding {learnt_name}: {folder} learnt {', '.join(learnt)}")
        if list(names.values()).count(name) > 1:
            raise InputError(f"--finding: two findings would be called {name!r}; give each its own")
