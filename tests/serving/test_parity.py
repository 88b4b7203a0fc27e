"""The proof of an export: what counts as the same answer, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.dataset_info import DataSetIds, SplitOrigin
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.reduction import Reduction
from cxr_compare.evaluation.thresholds import ThresholdChoice
from cxr_compare.serving.export_graph import write_graph_with_boxes
from cxr_compare.serving.export_spec import BOXES_FILE
from cxr_compare.serving.exported_model import ExportedModel
from cxr_compare.serving.parity import prove
from cxr_compare.serving.run import OperatingPoint, Run
from tests.serving.conftest import SIZE


class Noise:
    """Noise in place of X-rays."""

    size = SIZE

    def image(self, image_id: str) -> np.ndarray:
        rng = np.random.default_rng(int(image_id))
        return rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)


IDS = [str(number) for number in range(4)]


@pytest.mark.parametrize("kind", ["boxes", "scores"])
def test_a_float_export_that_answers_as_its_run_is_accepted(systems, kind):
    folder, run = systems[kind]
    proof = prove(run, ExportedModel.open(folder), None, Noise(), IDS)
    assert proof.images == "4 validation images"
    assert proof.score_difference < 1e-4
    assert proof.decisions_changed == 0
    assert prove(run, ExportedModel.open(folder)).images == "6 synthetic images"


def altered(export: ExportedModel, name: str, shift: float) -> ExportedModel:
    """The export with a constant added to one of its outputs."""
    session = export.session

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = session.run(images)
        return outputs | {name: outputs[name] + np.float32(shift)}

    export.__dict__["session"] = SimpleNamespace(run=run, stream=lambda batches: map(run, batches))
    return export


@pytest.mark.parametrize(
    ("kind", "name", "shift", "refused"),
    [
        ("boxes", "logits", 0.1, "image scores differ by 0.0"),
        ("boxes", "offsets", 0.1, "of the boxes agree"),
        ("scores", "logits", 0.1, "image scores differ by 0.0"),
        ("scores", "maps", 0.01, "activation maps differ by more than 0.0001"),
    ],
)
def test_a_float_export_with_another_output_is_refused(systems, kind, name, shift, refused):
    folder, run = systems[kind]
    export = altered(ExportedModel.open(folder), name, shift)
    with pytest.raises(InputError, match=refused):
        prove(run, export, None, Noise(), IDS)


def test_a_float_export_without_an_answer_is_refused(systems):
    folder, run = systems["scores"]
    export = altered(ExportedModel.open(folder), "maps", np.nan)
    with pytest.raises(InputError, match="4 images without an answer"):
        prove(run, export, None, Noise(), IDS)


def with_boxes(folder: Path, run: Any, to: Path, decision: Choices | None) -> ExportedModel:
    """A copy of a detector's export with the network that ends in the boxes."""
    for path in folder.iterdir():
        if path.is_file():
            (to / path.name).write_bytes(path.read_bytes())
    write_graph_with_boxes(run.model.model, to, decision, {"size": str(SIZE)})
    return ExportedModel.open(to)


@pytest.mark.parametrize(
    ("reduction", "overlap"),
    [(Reduction("max"), None), (Reduction("top_k"), 0.2), (Reduction("noisy_or", 0.3), 0.2)],
    ids=["max", "top_k", "noisy_or"],
)
def test_network_with_boxes_gives_score_and_boxes_of_the_run(systems, tmp_path, reduction, overlap):
    folder, run = systems["boxes"]
    decision = run.decision.with_values(reduction=reduction, overlap=overlap)
    other = Run(run.folder, run.name)
    other.model, other.target, other.map_levels = run.model, run.target, {}
    other.operating_point = OperatingPoint(decision, "max_f1", None)
    export = with_boxes(folder, run, tmp_path, decision)
    prove(other, export, None, Noise(), IDS)
    if overlap is None:
        return
    with_boxes(folder, run, tmp_path, decision.with_values(overlap=None))
    with pytest.raises(InputError, match=BOXES_FILE):
        prove(other, export, None, Noise(), IDS)


def test_network_with_boxes_gives_no_negative_answer_for_an_output_that_is_not_finite(
    systems, tmp_path
):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, run = systems["boxes"]
    with_boxes(folder, run, tmp_path, run.decision)
    network = onnx.load(tmp_path / BOXES_FILE)
    broken = next(item for item in network.graph.initializer if "cls_logits.weight" in item.name)
    values = onnx.numpy_helper.to_array(broken).copy()
    values[...] = np.nan
    broken.CopyFrom(onnx.numpy_helper.from_array(values, broken.name))
    session = onnxruntime.InferenceSession(network.SerializeToString())
    image = Noise().image("0")[None, None]
    score, *_ = session.run(None, {"images": image, "original_size": np.array([SIZE, SIZE])})
    assert np.isnan(score).all()


N = 40
NAMES = pd.Index([f"{number:03d}" for number in range(N)], name="image_id")
SICK = np.arange(N) % 2 == 0
GOOD = np.where(SICK, 0.8, 0.2) + np.linspace(0, 0.1, N)
TARGET = Target("opacity", ("mass",), "Opacity")


class Evaluated:
    """A data set of 40 images of 40 patients; every other one has a lesion."""

    folder, name = "data", "set"
    images = pd.DataFrame({"image_id": NAMES, "patient_id": NAMES, "width": 64, "height": 64})
    is_in_memory = False
    findings = pd.DataFrame({"image_id": NAMES, "finding": "mass", "state": "absent"})
    ids = DataSetIds(content_id="c", labels_id="l", split_ids={})

    def labels(self, target: Target) -> pd.Series:
        return pd.Series(SICK.astype(float), index=NAMES)

    def target_boxes(self, target: Target) -> pd.DataFrame:
        corners = {"x1": 8.0, "y1": 8.0, "x2": 24.0, "y2": 24.0}
        return pd.DataFrame({"image_id": NAMES[SICK], "finding": "mass", **corners})

    def boxes_trusted(self, target: Target) -> pd.Index:
        return NAMES

    def split_rule(self, name: str) -> SplitOrigin:
        return SplitOrigin(method="by patient")

    def split(self, name: str) -> pd.DataFrame:
        return pd.DataFrame({"image_id": NAMES, "role": "val"})


class Scored:
    """A model with a score an image, or a box an image with that score."""

    precision, backend = "int8", "openvino"
    folder, findings, learnt = Path("export"), ("mass",), ("mass",)
    preprocess = Preprocess(size=SIZE, mean=0.5, std=0.25)

    def __init__(self, kind: str, scores: np.ndarray, right: float = 24.0, lost: int = 0) -> None:
        self.kind, self.lost = kind, lost
        self.table = pd.DataFrame({"image_id": NAMES, "finding": "mass", "score": scores})
        if kind == "boxes":
            self.table = self.table.assign(x1=8.0, y1=8.0, x2=right, y2=24.0)

    def predict(self, source: Any, image_ids: Any, sizes: Any, batch_size: int) -> Iterator[Part]:
        status = ["failed"] * self.lost + ["ok"] * (N - self.lost)
        images = pd.DataFrame({"image_id": NAMES, "status": status, "reason": ""})
        yield Part(images, {self.kind: self.table.iloc[self.lost :]})


DECISION = Choices(
    target="opacity",
    chosen_on={},
    reduction=Reduction("max"),
    thresholds={"max_f1": ThresholdChoice("max_f1", 0.5, None)},
)


@pytest.mark.parametrize(
    ("exported", "refused"),
    [
        (Scored("scores", GOOD), None),
        (Scored("scores", GOOD * 0.9 + 0.05), None),  # other numbers, the same order and decisions
        (Scored("scores", np.where(np.arange(N) < 4, 0.5, GOOD)), None),  # 5 % of the decisions
        (Scored("scores", np.where(np.arange(N) < 6, 0.5, GOOD)), "7.5%"),
        (Scored("scores", 1 - GOOD), "AUROC falls from 1 to 0"),
        (Scored("scores", GOOD, lost=1), "1 image without"),
        (Scored("boxes", GOOD, right=26.0), None),
        (Scored("boxes", GOOD, right=48.0), "AP50 falls from 1 to 0"),
    ],
)
def test_lower_precision_is_evaluated_by_its_answers(exported, refused):
    run = Run(Path("run"), "RetinaNet")
    run.model, run.target, run.map_levels = Scored(exported.kind, GOOD), TARGET, {}
    run.operating_point = OperatingPoint(DECISION, "max_f1", None)
    arguments: Any = (run, exported, Evaluated(), Noise(), list(NAMES))
    if refused is None:
        proof = prove(*arguments)
        assert proof.images == "40 validation images of “set”"
        assert proof.auroc is not None
        assert proof.auroc[0] == 1.0
        assert (proof.ap50 is None) is (exported.kind == "scores")
        return
    with pytest.raises(InputError, match=refused) as error:
        prove(*arguments)
    assert str(error.value).endswith("--precision fp32")
