"""The network of a run or of an export."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from cxr_compare.data_prep.base.errors import InputError, first_line, require_extra
from cxr_compare.data_prep.base.files import named_file
from cxr_compare.data_prep.base.folders import require_folder
from cxr_compare.data_prep.base.tables import read_table
from cxr_compare.data_prep.pixels import PixelStore
from cxr_compare.data_prep.predictions import SEEN_FILE
from cxr_compare.data_prep.preprocess import Frame, Preprocess
from cxr_compare.detection.inference import predict_views
from cxr_compare.serving.onnx_file import EXPORT_FILE, OnnxNetwork, Output, digest_of_files
from cxr_compare.training.run_info import RunInfo

if TYPE_CHECKING:
    import pandas as pd

RUN_FILES = ("model.safetensors", "model.json", "preprocess.json")
_MOST_IMAGES = 16
_MOST_ON_GPU = 64
_BYTES_PER_PIXEL = 1024
"""Memory of a GPU for an image, by the pixels of its square: twice what VGG takes, the most."""
_BATCH_PIXELS = 8 * 224**2


class Network(Protocol):
    """A network that maps uint8 squares ``(B, 1, S, S)`` to scores and maps, or to boxes.

    Attributes:
        info: Record of its training.
        files: SHA-256 of the files beside it, by name, as the record of its folder names them.
        map_frame: Edges of the maps, px of the square.
        device: Name of what computes, ``cpu`` or ``cuda``.
        backend: Program that computes.
        views: Views of an image that a detector joins with the plain one; others may be set.
    """

    folder: Path
    kind: Literal["boxes", "scores"]
    info: RunInfo
    files: Mapping[str, str]
    preprocess: Preprocess
    map_frame: Frame | None
    device: str
    backend: str
    views: Sequence[str]

    def inference_id(self) -> str: ...  # noqa: D102

    def __call__(self, squares: np.ndarray) -> Output: ...  # noqa: D102


def open_network(folder: Path | str, device: str = "auto", own: Any = None) -> Network:
    """Open the network of a run, or of an export, which needs no torch.

    `own` builds a network of the user's own, as `cxr_compare.train` was given it.
    """
    folder = Path(folder)
    if (folder / EXPORT_FILE).is_file():
        require_extra(f"{folder} (an export)", "images")
        return OnnxNetwork(folder, device=device)
    require_folder(folder, "run")
    require_extra(f"{folder} (a run)", "train")
    return TorchNetwork(folder, device, own)


def seen_by(network: Network) -> pd.DataFrame | None:
    """Return the table of the images that the training of a network has seen; None if unknown."""
    path = named_file(network.folder, SEEN_FILE, network.files)
    return None if path is None else read_table(path, "seen")


def batch_size(network: Network) -> int:
    """Return the number of images that are predicted together: on a GPU, as half its memory holds.

    Memory that torch keeps from a training in this process counts as free.
    """
    pixels = network.preprocess.size**2
    if network.device == "cpu":
        return max(1, min(_MOST_IMAGES, _BATCH_PIXELS // pixels))
    if network.backend != "torch":
        return _MOST_IMAGES
    from torch import cuda

    free = cuda.mem_get_info()[0] + cuda.memory_reserved() - cuda.memory_allocated()
    return max(1, min(_MOST_ON_GPU, free // 2 // (pixels * _BYTES_PER_PIXEL)))


def read_squares(network: Network, store: PixelStore, image_ids: Sequence[str]) -> np.ndarray:
    """Read squares ``(B, 1, S, S)``, for a GPU into memory from which it copies by itself."""
    squares = np.stack([store.image(image_id) for image_id in image_ids])[:, None]
    if network.backend == "torch" and network.device != "cpu":
        import torch

        squares = torch.from_numpy(squares).pin_memory().numpy()
    return squares


def device_name(device: str) -> str:
    """Return the model of a processor or a GPU."""
    if device == "cpu":
        return _processor_name()
    if find_spec("torch") is None:
        return device
    import torch

    return str(torch.cuda.get_device_name(device))


def _processor_name() -> str:
    """Return the model of the processor, such as ``AMD EPYC 9654``, or else its architecture."""
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class TorchNetwork:
    """The network of a run, computed by torch in fp32."""

    backend = "torch"

    def __init__(self, folder: Path, device: str = "auto", own: Any = None) -> None:
        import torch

        from cxr_compare.training.model_files import load_model
        from cxr_compare.training.run_folder import RunFolder

        info = RunFolder.open(folder).info
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.folder = folder
        self.device = device
        self.info = info
        self.files: Mapping[str, str] = info.files
        model = load_model(folder, info.files, own)
        self.map_frame: Frame | None = None if model.kind == "boxes" else model.map_frame()
        try:
            self.model = model.to(device).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:  # no GPU, or no PyTorch that knows it
            raise InputError(f"device: {device} cannot be used ({first_line(error)})") from None
        self.kind = self.model.kind
        self.preprocess = self.model.preprocess
        self._trained_views: Sequence[str] = getattr(model, "views", ())
        self.views = self._trained_views

    def inference_id(self) -> str:
        """Return the digest of what decides a prediction, to its last bit.

        Views of the training are in its files.
        """
        views = "" if self.views == self._trained_views else f" views {','.join(self.views)}"
        return digest_of_files(self.folder, RUN_FILES, f"torch fp32 {self.device}{views}")

    def __call__(self, squares: np.ndarray) -> Output:
        """Predict squares."""
        import torch

        from cxr_compare.classification.loss import probabilities

        images = torch.from_numpy(squares)
        if self.kind == "boxes":
            if self.views:
                return predict_views(self._detect, images, self.views)
            return self._detect(images)
        with torch.inference_mode(), _without_tf32():
            logits, maps = self.model(images.to(self.device, non_blocking=True))
        scores = probabilities(logits.double(), exclusive=bool(self.info.classes))
        return scores.cpu().numpy(), maps.cpu().numpy()

    def _detect(self, images: Any) -> list[np.ndarray]:
        import torch

        with torch.inference_mode(), _without_tf32():
            _, detections = self.model(images.to(self.device, non_blocking=True))
        rows = [
            torch.column_stack([detection["boxes"], detection["scores"], detection["labels"]])
            for detection in detections
        ]
        on_host = torch.cat(rows).double().cpu()  # one copy: a GPU is waited for once
        return [
            image_rows.numpy()
            for image_rows in on_host.split([len(image_rows) for image_rows in rows])
        ]


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Convolve in fp32 here; a training of the same process keeps what its settings say."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
