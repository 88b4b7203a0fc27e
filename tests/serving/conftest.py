"""Systems that are served: a tiny detector and a tiny classifier, each as a run and its export."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cxr_compare.classification.activation_maps import activation_maps
from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.detection.model import build_detector
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.reduction import Reduction
from cxr_compare.evaluation.statistics.calibration import PlattScaling
from cxr_compare.evaluation.thresholds import ThresholdChoice
from cxr_compare.serving.export import write_requirements
from cxr_compare.serving.export_graph import anchors_of, write_graph
from cxr_compare.serving.export_spec import ANCHORS_FILE, PREPROCESS_FILE, ExportSpec
from cxr_compare.serving.guard import GUARD_NAME, Guard, GuardFit, pack_arrays
from cxr_compare.serving.guard_images import MEASURES, STATISTICS_VERSION
from cxr_compare.serving.run import OperatingPoint, Run
from cxr_compare.serving.trained_model import TrainedModel
from cxr_compare.training.run_info import RunInfo

SIZE = 64
TARGET = Target("opacity", ("lung_opacity",), "Lung opacity")


def _decision(kind: str) -> Choices:
    thresholds = {
        "max_f1": ThresholdChoice("max_f1", 0.5),
        "youden": ThresholdChoice("youden", 0.999999),
    }
    shared: dict[str, Any] = {
        "target": TARGET.name,
        "chosen_on": {"n_images": 3},
        "calibration": PlattScaling(0.8, -0.3),
        "thresholds": thresholds,
        "validation": {"": {}, **{name: {} for name in thresholds}},
    }
    if kind == "boxes":
        return Choices(**shared, reduction=Reduction("top_k"))
    return Choices(**shared, map_scale=(-0.05, 0.05), map_boxes=MapBoxRule(0.5))


def accepting_guard() -> Guard:
    """Return an out-of-distribution check that accepts every image."""
    layout, edges, overall = MEASURES
    d = overall + 4
    shapes = [(layout,), (1, layout), (edges,), (1, edges), (d,), (d,), (d, d), (2 * d + 2,)]
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    arrays[-1] *= 0
    return Guard(
        size=SIZE,
        limit=1.0,
        images=50,
        false_alarms=0.0,
        statistics=STATISTICS_VERSION,
        arrays=pack_arrays(GuardFit(*arrays)),
    )


def _network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "scores":
        return build_classifier("small_cnn", image_size=SIZE).eval()
    model = build_detector(
        "retinanet", backbone="resnet18", fpn_channels=32, head_convs=1, image_size=SIZE
    )
    nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.5)
    return model.eval()


@pytest.fixture(scope="session")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Run]]:
    """The export of a detector and of a classifier, each with the run that it was made of."""
    made = {}
    for kind, name in (("boxes", "RetinaNet"), ("scores", "CheXNet")):
        folder = tmp_path_factory.mktemp("exports") / name
        folder.mkdir()
        network, decision = _network(kind), _decision(kind)
        preprocess = Preprocess(size=SIZE, mean=0.5, std=0.25)
        write_graph(network, folder, "onnx")
        write_requirements(folder, "onnx")
        preprocess.write(folder / PREPROCESS_FILE)
        accepting_guard().write(folder / GUARD_NAME)
        (folder / "decisions").mkdir()
        decision.write(folder / "decisions/opacity.json")
        info = RunInfo(name=name, inference_id="of-run", findings=("lung_opacity",))
        spec: dict[str, Any] = {"kind": kind, "target": TARGET, "run": info}
        if kind == "boxes":
            anchors, spec["level_sizes"] = anchors_of(network)  # type: ignore[arg-type]
            np.save(folder / ANCHORS_FILE, anchors)
        else:
            pixels = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
            maps = activation_maps(network, pixels, "cam")  # type: ignore[arg-type]
            spec["map_frame"] = maps.frame
        shared = {"format": "onnx", "precision": "fp32", "findings": ("lung_opacity",)}
        ExportSpec(**shared, size=SIZE, **spec).complete(folder)
        run: Any = SimpleNamespace(folder=folder, info=info, synthetic=False)
        model = TrainedModel(run, network, preprocess, "fp32", "cpu")
        loaded = Run(folder, name)
        loaded.model, loaded.target, loaded.guard = model, TARGET, accepting_guard()
        loaded.operating_point = OperatingPoint(decision, "max_f1", None)
        loaded.map_levels = {}
        made[kind] = (folder, loaded)
    return made
