"""The proof of an export: what counts as the same answer, and what is refused."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.dataset_info import DataSetIds, SplitOrigin
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.detection.frames import decode_boxes
from cxr_compare.detection.model import build_detector
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.reduction import Reduction
from cxr_compare.evaluation.thresholds import ThresholdChoice
from cxr_compare.serving.parity import Measure, Proof, match_boxes, prove

SIZE = 64
TARGET = Target("opacity", ("mass", "nodule"), "Opacity")


def boxes_of(count: int, seed: int = 0) -> Boxes:
    """Boxes of two labels; every tenth score repeats."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 40, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(4, 20, (count, 2))]).astype(np.float32)
    scores = np.sort(np.round(rng.uniform(0.01, 1, count), 1))[::-1].astype(np.float32)
    return Boxes(boxes, scores, rng.integers(1, 3, count))


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_equal_score_may_change_order(seed: int) -> None:
    boxes = boxes_of(60, seed)
    order = np.random.default_rng(seed).permutation(60)
    apart = match_boxes(boxes, boxes[order], most=100)
    assert apart == (60, 0, 0.0, 0.0)


def test_largest_difference_of_scores_and_corners_is_measured() -> None:
    boxes = boxes_of(20)
    moved = Boxes(boxes.corners.copy(), boxes.scores.copy(), boxes.labels)
    moved.corners[7, 2] += 0.125
    moved.scores[3] += 0.25
    apart = match_boxes(boxes, moved[np.arange(20)[::-1]], most=100)
    assert apart.unmatched == 0
    assert apart.score == pytest.approx(0.25)
    assert apart.corner == pytest.approx(0.125, abs=1e-5)


def test_a_box_of_another_finding_is_no_partner() -> None:
    boxes = boxes_of(1)
    other = replace(boxes, labels=3 - boxes.labels)
    assert match_boxes(boxes, other, most=100).unmatched == 2


@pytest.mark.parametrize(
    ("lost", "most", "unmatched", "reason"),
    [
        (0, 100, 1, "the surest box is missing"),
        (-1, 100, 1, "the least box is missing, though there was room for it"),
        (-1, 30, 0, "the least box is where the list was cut"),
        (0, 30, 1, "a cut list is no excuse for the surest"),
    ],
)
def test_a_box_without_a_partner_counts_unless_the_list_was_cut_there(
    lost, most, unmatched, reason
):
    boxes = replace(boxes_of(30), labels=np.ones(30, int))
    rest = np.delete(np.arange(30), lost)
    assert match_boxes(boxes, boxes[rest], most=most).unmatched == unmatched, reason


class Store:
    """Noise in place of X-rays."""

    size = SIZE

    def image(self, image_id: str) -> np.ndarray:
        rng = np.random.default_rng(int(image_id))
        return rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)


IDS = [str(number) for number in range(4)]


def run_of(model: Any, decision: Choices | None = None) -> Any:
    return SimpleNamespace(model=model, decision=decision, target=TARGET, folder="run")


def proved(original: Any, exported: Any, decision: Choices | None = None) -> Proof:
    return prove(run_of(original, decision), exported, store=Store(), validation=IDS)


class Answers:
    """A system that gives the same boxes, or scores and maps, whatever the image."""

    def __init__(self, kind: str, precision: str = "fp32", **changed: float) -> None:
        self.kind, self.precision = kind, precision
        self.findings = TARGET.any_of
        self.preprocess = Preprocess(size=SIZE, mean=0.5, std=0.25)
        self.changed = changed

    def predict(self, source: Any, image_ids: Any, sizes: Any, batch_size: int) -> Iterator[Any]:
        moved = self.changed.get
        for start in range(0, len(image_ids), batch_size):
            ids = list(image_ids[start : start + batch_size])
            status = ["failed" if moved("fails") == row else "ok" for row in range(len(ids))]
            rows = [(name, finding) for name in ids for finding in self.findings]
            table = pd.DataFrame(rows, columns=["image_id", "finding"])
            scores = table.assign(score=0.5 + moved("score", 0.0))
            values = [np.array([1.0, 4.0 + moved("map", 0.0)])] * len(table)
            grid = {"method": "cam", "grid_h": 1, "grid_w": 2, "values": values}
            edges = {"x1": 1.0, "y1": 1.0, "x2": 9.0 + moved("corner", 0.0), "y2": 9.0}
            frames = {
                "boxes": {"boxes": scores.assign(**edges)},
                "scores": {"scores": scores, "maps": table.assign(**grid, **edges)},
            }[self.kind]
            images = pd.DataFrame({"image_id": ids, "status": status, "reason": ""})
            yield SimpleNamespace(images=images, tables=frames)


def decided_at(threshold: float) -> Choices:
    chosen = {"max_f1": ThresholdChoice("max_f1", threshold, None)}
    return Choices(target="opacity", chosen_on={}, reduction=Reduction("max"), thresholds=chosen)


@pytest.mark.parametrize(
    ("changed", "threshold", "refused"),
    [
        ({}, 0.5, None),
        ({"score": 1e-5}, 0.500005, None),  # it crosses the threshold, from just below it
        ({"score": 0.01}, 0.9, "scores differ by 0.01"),
        ({"map": 0.1}, 0.9, "maps differ, as a share of their largest value, by 0.025"),
        ({"score": 0.2}, 0.6, "decisions changed: 4"),
        ({"fails": 2}, 0.9, "images that one side alone can answer: 1"),
    ],
)
def test_float_export_of_a_classifier_is_stored_only_if_its_answers_are_equal(
    changed, threshold, refused
):
    proof = proved(Answers("scores"), Answers("scores", **changed), decided_at(threshold))
    assert {measure.case for measure in proof.measures} == {"validation images", "a black image"}
    if refused is None:
        proof.require("out")
        assert proof.verdict == "kept"
        return
    with pytest.raises(InputError, match=refused) as error:
        proof.require("out")
    assert "--format" in str(error.value)
    assert proof.verdict == "refused"


class Detector(Answers):
    """A small RetinaNet of random weights: by torch the run, by numpy its export."""

    def __init__(self, model: LesionRetinaNet, numpy: bool, wrong: float = 0.0) -> None:
        super().__init__("boxes")
        self.model, self.numpy, self.wrong = model, numpy, wrong
        self.session = SimpleNamespace(run=self.outputs)
        heads = model.run(torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8))
        self.anchors = heads.anchors[0].numpy()
        self.level_sizes = heads.level_sizes

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = self.model.run(torch.from_numpy(images)).outputs
        logits, offsets = outputs["cls_logits"].numpy(), outputs["bbox_regression"].numpy()
        return {"logits": logits[..., 1:], "offsets": offsets + np.float32(self.wrong)}

    def decode(self, outputs: dict[str, np.ndarray]) -> list[Boxes | None]:
        return decode_boxes(*outputs.values(), self.anchors, self.level_sizes, SIZE)

    def predict(self, source: Any, image_ids: Any, sizes: Any, batch_size: int) -> Iterator[Any]:
        images = np.stack([source.image(name) for name in image_ids])[:, None]
        if self.numpy:
            raw = self.outputs(images)
            outputs = self.decode(raw)
        else:
            with torch.inference_mode():
                outputs = self.model(torch.from_numpy(images))
        tables = []
        for name, output in zip(image_ids, outputs, strict=True):
            table = pd.DataFrame(output.corners.astype(float), columns=["x1", "y1", "x2", "y2"])
            names = np.array(TARGET.any_of, object)[output.labels - 1]
            tables.append(table.assign(image_id=name, finding=names, score=output.scores))
        images = pd.DataFrame({"image_id": list(image_ids), "status": "ok", "reason": ""})
        yield SimpleNamespace(images=images, tables={"boxes": pd.concat(tables)})


@pytest.fixture(scope="module")
def network() -> LesionRetinaNet:
    torch.manual_seed(0)
    small = {"backbone": "resnet18", "fpn_channels": 16, "head_convs": 1, "image_size": SIZE}
    return build_detector("retinanet", n_findings=2, **small).eval()


def test_a_detector_is_compared_without_a_box_and_with_as_many_as_there_may_be(network):
    proof = prove(run_of(Detector(network, numpy=False)), Detector(network, numpy=True))
    assert proof.images == "6 synthetic images"
    proof.require("out")
    compared = {
        measure.case: measure.value
        for measure in proof.measures
        if measure.name == "boxes compared:"
    }
    assert compared.pop("images without a detection") == 0
    assert 1100 < compared["images at every limit"] <= 6 * 2 * 100  # images, findings, boxes
    assert set(compared) == {"synthetic images", "a black image", "images at every limit"}


def test_a_detector_whose_boxes_lie_elsewhere_is_refused(network: LesionRetinaNet) -> None:
    moved = Detector(network, numpy=True, wrong=0.01)
    proof = proved(Detector(network, numpy=False), moved)
    with pytest.raises(InputError, match=r"corners differ, in px, by 1\.\d+ \(at most 0.05"):
        proof.require("out")


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("NMS_IOU", 0.5, "share of boxes without a partner: .* on images at every limit"),
        ("LARGEST_GROWTH", 0.0, "on images at every limit"),
    ],
)
def test_shared_decoding_is_compared_with_decoding_on_a_gpu(
    network, monkeypatch, name, value, refused
):
    monkeypatch.setattr(f"cxr_compare.detection.frames.{name}", value)
    proof = proved(Detector(network, numpy=False), Detector(network, numpy=True))
    with pytest.raises(InputError, match=refused):
        proof.require("out")


N = 40
NAMES = pd.Index([f"{number:03d}" for number in range(N)], name="image_id")
SICK = np.arange(N) % 2 == 0
GOOD = np.where(SICK, 0.8, 0.2) + np.linspace(0, 0.1, N)


class Evaluated:
    """A data set of 40 images of 40 patients; every other one has a lesion."""

    folder, name = "data", "set"
    images = pd.DataFrame({"image_id": NAMES, "patient_id": NAMES, "width": 64, "height": 64})

    def __init__(self, sick: np.ndarray = SICK) -> None:
        self.sick = sick

    def labels(self, target: Target) -> pd.Series:
        return pd.Series(self.sick.astype(float), index=NAMES)

    def target_boxes(self, target: Target) -> pd.DataFrame:
        corners = {"x1": 8.0, "y1": 8.0, "x2": 24.0, "y2": 24.0}
        return pd.DataFrame({"image_id": NAMES[self.sick], "finding": "mass", **corners})

    def boxes_trusted(self, target: Target) -> pd.Index:
        return NAMES

    @property
    def findings(self) -> pd.DataFrame:
        return pd.DataFrame({"image_id": NAMES, "finding": "mass", "state": "absent"})

    @property
    def is_in_memory(self) -> bool:
        return False

    def split_rule(self, name: str) -> SplitOrigin:
        return SplitOrigin(method="by patient")

    @property
    def ids(self) -> DataSetIds:
        return DataSetIds(content_id="c", labels_id="l", split_ids={})

    def split(self, name: str) -> pd.DataFrame:
        return pd.DataFrame({"image_id": NAMES, "role": "val"})


class Scored(Answers):
    """A system with a score an image, or a box an image with that score."""

    def __init__(self, kind: str, scores: np.ndarray, right: float = 24.0) -> None:
        super().__init__(kind, "int8")
        self.table = pd.DataFrame({"image_id": NAMES, "finding": "mass", "score": scores})
        if kind == "boxes":
            self.table = self.table.assign(x1=8.0, y1=8.0, x2=right, y2=24.0)

    def predict(self, source: Any, image_ids: Any, sizes: Any, batch_size: int) -> Iterator[Any]:
        images = pd.DataFrame({"image_id": NAMES, "status": "ok", "reason": ""})
        missing = pd.DataFrame(columns=["image_id", "finding", "method", "grid_h", "grid_w",
                                        "values", "x1", "y1", "x2", "y2"])  # fmt: skip
        named = {"boxes": {"boxes": self.table}, "scores": {"scores": self.table, "maps": missing}}
        yield SimpleNamespace(images=images, tables=named[self.kind])


def evaluated_by(exported: Scored, decision: Choices | None, sick: np.ndarray = SICK) -> Proof:
    run, data = run_of(Scored(exported.kind, GOOD), decision), Evaluated(sick)
    return prove(run, exported, data, Store(), list(NAMES))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exported", "refused"),
    [
        (Scored("scores", GOOD), None),
        (Scored("scores", GOOD * 0.9 + 0.05), None),  # other numbers, the same order and decisions
        (Scored("scores", np.where(np.arange(N) < 4, 0.5, GOOD)), None),  # 5 % of the decisions
        (Scored("scores", np.where(np.arange(N) < 6, 0.5, GOOD)), "decisions changed: 0.075"),
        (Scored("scores", 1 - GOOD), r"AUROC falls by 1 \(1 to 0; at most 0.02 is kept\)"),
        (Scored("boxes", GOOD, right=26.0), None),
        (Scored("boxes", GOOD, right=48.0), r"AP50 falls by 1 \(1 to 0; at most 0.02 is kept\)"),
    ],
)  # fmt: skip
def test_lower_precision_is_evaluated_by_its_answers(exported, refused):
    proof = evaluated_by(exported, decided_at(0.5))
    assert proof.images == "40 validation images of “set”"
    if refused is None:
        proof.require("out")
        return
    with pytest.raises(InputError, match=refused) as error:
        proof.require("out")
    assert str(error.value).endswith("--precision fp32 or bf16")


@pytest.mark.parametrize(
    ("decision", "sick", "message"),
    [
        (None, SICK, "^run: .*operating point.*cxr train"),
        (decided_at(0.5), np.ones(N, bool), "^data: .*AUROC"),
    ],
)
def test_data_that_cannot_evaluate_lower_precision_are_named(decision, sick, message):
    with pytest.raises(InputError, match=message):
        evaluated_by(Scored("scores", GOOD), decision, sick)


def test_lower_precision_needs_the_data_set() -> None:
    answers = Scored("scores", GOOD)
    with pytest.raises(InputError, match=r"--precision int8: .*--data"):
        prove(run_of(answers, decided_at(0.5)), answers)


def test_summary_counts_the_checks_that_hold_and_names_the_largest_difference() -> None:
    measures = (
        Measure("4 images", "image scores differ by", 1e-6, 1e-4),
        Measure("a black image", "scores of boxes differ by", 3e-5, 1e-4),
        Measure("4 images", "boxes compared:", 12),  # a count, and no check
        Measure("4 images", "AUROC falls by", 0.03, 0.02, 0.91, 0.88),
    )
    summary = Proof("int8", "4 images", measures).summary()
    assert "on 4 images: 2 of 3 checks hold" in summary
    assert "AUROC 0.91 to 0.88" in summary
    assert summary.endswith("at most 3e-05")
    assert "\n" not in summary
