"""Predicting takes no more memory for more images."""

import gc
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.detection.model import build_detector
from cxr_compare.serving.predict_folder import write_parts
from cxr_compare.serving.trained_model import TrainedModel
from cxr_compare.training.run_info import RunInfo

BATCH = 16


class Repeated:
    """Stands for a pixel store of any number of images: a few, again and again."""

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self.ids = pd.Index([f"i{number:06d}" for number in range(count)], name="image_id")
        rng = np.random.default_rng(0)
        self._images = rng.integers(0, 256, (16, size, size), dtype=np.uint8)

    def image(self, image_id: str) -> np.ndarray:
        return self._images[int(image_id[1:]) % 16]

    def placement(self, image_id: str) -> Placement:
        return Placement(scale_x=0.5, scale_y=0.5, offset_x=0.0, offset_y=0.0)


def resident() -> int:
    gc.collect()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def growth(network: nn.Module, size: int, count: int, part: int, out: Path) -> float:
    """MiB by which the process grows from a tenth of the images to all of them."""
    run: Any = SimpleNamespace(folder=out, info=RunInfo(name="run", findings=["opacity"]))
    model = TrainedModel(
        run, network.eval(), Preprocess(size=size, mean=0.5, std=0.25), "fp32", "cpu"
    )
    source = Repeated(count, size)
    sizes = pd.DataFrame({"image_id": source.ids, "width": 2 * size, "height": 2 * size})
    seen, memory = 0, {}

    def advance(images: int) -> None:
        nonlocal seen
        seen += images
        if seen in (count // 10, count):
            memory[seen] = resident() / 2**20

    info = PredictionsInfo(system="tiny", kind=model.kind, inference_id="0")
    with PredictionWriter(out / "predictions", info) as writer:
        write_parts(writer, model.predict(source, source.ids, sizes, BATCH), advance, part)
    predicted = Predictions.open(out / "predictions")
    assert predicted.images["image_id"].tolist() == source.ids.tolist()  # none lost, in order
    assert len(getattr(predicted, model.kind)) >= count
    first, last = memory[count // 10], memory[count]
    print(f"{model.kind}, {count} images: {first:.0f} MiB after a tenth, {last:.0f} at the end")
    return last - first


pytestmark = pytest.mark.usefixtures("one_thread")


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    size = 256
    network = build_classifier("small_cnn", image_size=size)
    network.trunk = nn.Conv2d(3, 2, 4, stride=4)  # as good as nothing, but for maps of 16 KiB
    network.classifier = nn.Linear(2, 1)
    growth(network, size, 320, 64, tmp_path / "first")  # the libraries' own pools fill up
    # With all parts kept it grows by 290 MiB, by 30 as it is.
    assert growth(network, size, 960, 96, tmp_path / "second") < 100


def test_an_export_is_described_without_torch_which_takes_600_mib() -> None:
    info = "RunInfo(name='CheXNet', seed=0, inference_id='1', folder='gone')"
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace as Model\n"
        "from cxr_compare.serving import exported_model\n"
        "from cxr_compare.serving.predict_folder import describe_system\n"
        "from cxr_compare.training.run_info import RunInfo\n"
        f"model = Model(info={info}, backend='openvino', precision='fp32', kind='scores', "
        "findings=['opacity'], names=None, tta=None, maps='cam', "
        "folder=Path('a/b/c'), run_folder=None, inference_id=lambda: '2', "
        "training_id=lambda: '3')\n"
        "assert describe_system(model, None).exported_from == '3'\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["boxes", "scores"])
def test_memory_stays_flat_over_a_hundred_thousand_images(kind: str, tmp_path: Path) -> None:
    size = 32
    if kind == "boxes":  # whose boxes are 350 MiB
        network: nn.Module = build_detector(
            "retinanet", backbone="resnet18", fpn_channels=8, head_convs=1, image_size=size
        )
        nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)  # type: ignore
    else:
        network = build_classifier("small_cnn", image_size=size)
    assert growth(network, size, 100_000, 1000, tmp_path) < 48
