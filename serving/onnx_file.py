"""A run as one ONNX file whose outputs are the answer, and its predictions without torch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Strict

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import require_unchanged
from cxr_compare.data_prep.base.provenance import MadeRecord
from cxr_compare.data_prep.base.records import Digests
from cxr_compare.data_prep.preprocess import Preprocess
from cxr_compare.training.run_info import PREPROCESS_FILE, RunInfo

EXPORT_FILE = "export.json"
MODEL_FILE = "model.onnx"
_OUTPUTS = {"boxes": ("boxes", "scores", "labels"), "scores": ("scores", "maps")}
"""Outputs of the file: boxes of one image in px of the square, by falling score of each finding,
or scores and maps of a batch."""
_OPSET = 17
Output = tuple[np.ndarray, np.ndarray] | list[np.ndarray]
"""Scores ``(B, K)`` and maps ``(B, K, h, w)``, or rows of the boxes of each image: edges in px of
the square, score, and number of the finding from 1."""


class ExportInfo(MadeRecord, kind="export"):
    """Content of ``export.json``: what a network without torch must know of itself.

    Attributes:
        gives: ``boxes`` or ``scores``.
        run: Record of the training.
        map_frame: Edges of the maps, px of the square.
        proof: How far it answers as its run, in words.
        files: SHA-256 of the files beside it.
    """

    gives: Literal["boxes", "scores"]
    run: RunInfo
    map_frame: Annotated[tuple[float, float, float, float], Strict(False)] | None = None
    proof: str = ""
    files: Digests


def write_onnx(model: Any, path: Path, facts: Mapping[str, Any], *, exclusive: bool) -> None:
    """Write a network; `facts` become metadata of the file, each as JSON.

    The findings of an `exclusive` one are classes of which an image has one.
    """
    import onnx
    import torch

    from cxr_compare.classification.loss import probabilities

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            if model.kind == "scores":
                logits, maps = self.model(images)
                return probabilities(logits, exclusive=exclusive), maps
            _, (boxes,) = self.model(images)
            return boxes["boxes"], boxes["scores"], boxes["labels"]

    size, names = model.preprocess.size, _OUTPUTS[model.kind]
    first = "images" if model.kind == "scores" else "boxes"
    axes = {name: {0: first} for name in names}
    axes |= {"images": {0: "images"}} if model.kind == "scores" else {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            Graph().eval(),
            (torch.zeros(1, 1, size, size, dtype=torch.uint8),),
            str(path),
            input_names=["images"],
            output_names=list(names),
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, {key: json.dumps(value) for key, value in facts.items()})
    onnx.save(written, path)


def digest_of_files(folder: Path, names: Sequence[str], what: str) -> str:
    """Return a digest of files and of how they are computed, which tells predictions apart."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    digest.update(what.encode())
    return digest.hexdigest()[:16]


class OnnxNetwork:
    """The network of an export, computed by ONNX Runtime."""

    views: Sequence[str] = ()
    backend = "onnx"

    def __init__(self, folder: Path, device: str = "auto") -> None:
        info = ExportInfo.read(folder / EXPORT_FILE)
        path = folder / MODEL_FILE
        for name in (MODEL_FILE, PREPROCESS_FILE):
            require_unchanged(folder / name, info.files.get(name))
        self.folder = folder
        self.kind = info.gives
        self.info = info.run
        self.files: Mapping[str, str] = info.files
        self.map_frame = info.map_frame
        self.preprocess = Preprocess.read(folder / PREPROCESS_FILE)
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        if not find_spec("onnxruntime"):
            raise InputError(f"{folder}: needs onnxruntime: pip install onnxruntime")
        self._run, self.device = _onnxruntime(path, device)

    def inference_id(self) -> str:
        """Return the digest of what decides a prediction, to its last bit."""
        how = f"{self.backend} fp32 {self.device}"
        return digest_of_files(self.folder, (MODEL_FILE, PREPROCESS_FILE), how)

    def __call__(self, squares: np.ndarray) -> Output:
        """Predict squares; a detector one after another, as its file takes one image."""
        if self.kind == "scores":
            scores, maps = self._run(squares)
            return scores.astype(np.float64), maps
        outputs = [self._run(image[None]) for image in squares]
        return [np.column_stack(each).astype(np.float64) for each in outputs]


def _onnxruntime(path: Path, device: str) -> tuple[Any, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    has_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda" and not has_gpu:
        raise InputError("device: this onnxruntime knows no GPU: pip install onnxruntime-gpu")
    if device != "cpu" and has_gpu:
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": 0}))
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    computes = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
    if device == "cuda" and computes == "cpu":
        raise InputError("device: onnxruntime can use no GPU of this machine; leave device out")
    return lambda images: session.run(None, {"images": images}), computes
