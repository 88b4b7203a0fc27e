"""An exported network in 8-bit integers, by post-training quantisation on training images.

Ranges of every layer are measured on images that the run learned from. Images of validation and
test never take part: the first judge the export, the second the system.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.store.dataset import DataSet
from serving.exported.session import without_telemetry
from serving.exported.spec import INPUT, MODEL_FILES, ExportSpec

_GATES = {"Sigmoid", "HardSigmoid", "HSigmoid", "Swish", "HSwish"}
# Beside gates, as EfficientNet and MobileNetV3 have them, these take longer in integers, because of
# the conversions around them: both were 1.3 times as fast with them in bf16.
_FLOATS_OF_GATED = ["GroupConvolution", "Multiply", "Add", "ReduceMean", "Swish", "HSwish"]


def calibration_images(
    seen: pd.DataFrame, dataset: DataSet, split: str, *, most: int = 300, seed: int = 0
) -> list[str]:
    """Choose the images that the ranges are measured on: of the run's training images alone.

    More than 300 change the ranges little, and take their time.
    """
    trained = seen[seen["role"] == "train"]
    candidates = sorted(set(trained["image_id"]) & set(dataset.images["image_id"]))
    if not candidates:
        raise InputError(
            f"{dataset.folder}: has none of the run's training images, on which --precision int8 "
            "is calibrated; give the data set that it was trained on"
        )
    roles = dataset.split(split).set_index("image_id")["role"]
    chosen = np.random.default_rng(seed).permutation(candidates)[:most]
    wrong = sorted(name for name in chosen if roles.get(name) != "train")
    if wrong:
        raise InputError(
            f"{dataset.folder}: image '{wrong[0]}' has the role '{roles.get(wrong[0])}' in split "
            f"'{split}', and the run learned from it; give the data set that it was trained on"
        )
    return sorted(map(str, chosen))


def quantise(
    folder: Path, spec: ExportSpec, image: Callable[[str], np.ndarray], image_ids: Sequence[str]
) -> None:
    """Turn an export's float32 network into one of 8-bit integers, in its place.

    `image` gives the store pixels of an image, uint8 (S, S). Weights have a scale for each channel,
    activations one for each layer. The first convolution stays in float32, as the faint contrasts
    of X-rays are lost in 8 bits there: of 188 validation images of the quickstart 9 changed their
    decision with it in 8 bits (CheXNet and RetinaNet alike), and 1 and 4 without.

    Source: post-training quantisation with fast bias correction, NNCF (Kozlov et al. 2020).
    """
    without_telemetry()
    # Imported by nncf; it warns of a missing GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        import nncf
    except ImportError as error:
        raise InputError(
            f"--precision int8 needs nncf, which is not installed ({error}): pip install nncf"
        ) from None
    nncf.set_log_level(logging.ERROR)
    path = folder / MODEL_FILES[spec.format][0]
    data = nncf.Dataset(image_ids, lambda image_id: {INPUT: image(image_id)[None, None]})
    settings = {"calibration_dataset": data, "subset_size": len(image_ids)}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its libraries; what comes of it is judged afterwards
        if spec.format == "onnx":
            import onnx

            graph = onnx.load(path)
            first = next(node.name for node in graph.graph.node if node.op_type == "Conv")
            scope = nncf.IgnoredScope(names=[first])
            onnx.save(nncf.quantize(graph, ignored_scope=scope, **settings), path)
            return
        import openvino

        model = openvino.Core().read_model(path)
        kinds = {op.get_friendly_name(): op.get_type_name() for op in model.get_ordered_ops()}
        convolutions = ("Convolution", "GroupConvolution")
        first = next(name for name, kind in kinds.items() if kind in convolutions)
        floats = _FLOATS_OF_GATED if _GATES & set(kinds.values()) else []
        scope = nncf.IgnoredScope(names=[first], types=floats, validate=False)
        whole = nncf.quantize(model, ignored_scope=scope, **settings)
        # The old weights are read from their file as they are needed: the new ones get another.
        new = folder / f"quantised{path.suffix}"
        openvino.save_model(whole, new, compress_to_fp16=False)
    for name in MODEL_FILES[spec.format]:
        new.with_suffix(Path(name).suffix).replace(folder / name)
