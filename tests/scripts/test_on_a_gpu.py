"""What runs on a GPU, rehearsed on a pretended one (`tools/pretended_device.py`)."""

from __future__ import annotations

import copy
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi import FastAPI
from safetensors.torch import load_file

from cxr_compare.classification.activation_maps import MapMethod
from cxr_compare.classification.inference import predict_scores
from cxr_compare.classification.loss import LabelBatch
from cxr_compare.classification.loss import training_losses as classifier_losses
from cxr_compare.classification.model import build_classifier
from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.detection.detector import LesionBatch, predict_boxes
from cxr_compare.detection.detector import training_losses as detector_losses
from cxr_compare.detection.model import build_detector
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.networks.registry import NETWORKS, network_names
from cxr_compare.scripts import child_processes, runtime
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.train import train
from cxr_compare.scripts.runs import load
from cxr_compare.scripts.runtime import choose_device
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.server import build_app
from cxr_compare.training.callbacks import FiniteLoss, FirstBatch
from cxr_compare.training.launch import choose_precision
from cxr_compare.training.module import ClassifierModule, DetectorModule
from cxr_compare.training.optim import build_optimiser
from cxr_compare.training.run_folder import RunFolder
from tests.scripts.small_sets import cxr, interrupted_after
from tests.serving.web.conftest import Client
from tools.pretended_device import PretendedDevice, pretended_cuda

SIZE = 64
SMALL = {"resnet18", "squeezenet1_1"}  # and tests/architectures
PLACE = Placement(1.0, 1.0, 0.0, 0.0)


def networks(kind: str) -> list[object]:
    """All that a kind of model may stand on; the large ones by hand."""
    return [
        pytest.param(name, marks=[] if name in SMALL else [pytest.mark.long])
        for name in network_names(kind)
    ]


@pytest.fixture(autouse=True)
def fixed_sums(one_thread: None) -> None:
    torch.manual_seed(0)


@pytest.fixture
def gpu() -> Iterator[PretendedDevice]:
    with pretended_cuda() as device:
        yield device


def draw_images(size: int, count: int = 3) -> torch.Tensor:
    draw = np.random.default_rng(0)
    return torch.from_numpy(draw.integers(0, 256, (count, 1, size, size), dtype=np.uint8))


def image_ids(images: torch.Tensor) -> list[str]:
    return [str(number) for number in range(len(images))]


def as_labels(images: torch.Tensor) -> LabelBatch:
    return LabelBatch(image_ids(images), images, torch.zeros(len(images), 1))


def as_lesions(images: torch.Tensor) -> LesionBatch:
    boxes = [torch.tensor([[8.0, 8.0, 40.0, 48.0], [20.0, 30.0, 60.0, 60.0]][:n % 3]).view(-1, 4)
             for n in range(len(images))]  # fmt: skip
    labels = [torch.ones(len(rows), dtype=torch.int64) for rows in boxes]
    return LesionBatch(image_ids(images), images, boxes, labels)


def build_small_detector(**settings: object) -> LesionRetinaNet:
    small = {"backbone": "resnet18", "fpn_channels": 16, "head_convs": 1, "image_size": SIZE}
    return build_detector("retinanet", **{**small, **settings})


def test_the_device_refuses_what_cuda_refuses(gpu):
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        there + here
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        there.numpy()
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        np.asarray(there)
    assert (there + torch.tensor(2.0)).tolist() == [3.0, 3.0, 3.0]  # a number may lie anywhere
    gpu.total_memory = gpu.allocated + 1_000
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        torch.empty(1_001, dtype=torch.uint8, device="cuda")


def test_the_device_counts_waits_and_what_is_sent(gpu):
    here = torch.tensor([1.0, 0.0, 2.0])
    there = here.to("cuda")
    assert (sum(gpu.waits.values()), sum(gpu.constants.values())) == (1, 1)
    gpu.forget_counts()
    here.pin_memory().to("cuda", non_blocking=True)
    there[there > 1] = 5.0  # one mask and one number need no places
    assert (sum(gpu.waits.values()), sum(gpu.constants.values())) == (0, 0)
    there[there > 1]
    there.nonzero()
    assert there.sum() > 0
    assert there.max().item() == 5.0
    assert there.tolist() == [1.0, 0.0, 5.0]
    assert sum(gpu.waits.values()) == 5


def test_a_gradient_is_that_of_the_processor(gpu):
    layers = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    moved = copy.deepcopy(layers).to("cuda")
    rows = torch.randn(5, 4)
    layers(rows).square().sum().backward()
    moved(rows.to("cuda")).square().sum().backward()
    for one, other in zip(layers.parameters(), moved.parameters(), strict=True):
        assert other.grad.device.type == "cuda"
        assert torch.equal(one.grad, other.grad.cpu())


@pytest.mark.parametrize("maps", ["cam", "gradcam", "layercam"])
@pytest.mark.parametrize("name", networks("classifier"))
def test_a_classifier_scores_and_maps_as_on_the_processor(gpu, name, maps: MapMethod):
    size = max(SIZE, NETWORKS[name].min_size)
    stride = max(NETWORKS[name].strides)
    model = build_classifier(name, image_size=size, last_stride=stride).eval()
    moved = copy.deepcopy(model)
    images = draw_images(size)
    batches = [(image_ids(images), images)]
    how = {"placement": lambda _: PLACE, "maps": maps}
    (expected,) = predict_scores(model, batches, ["opacity"], **how)
    (found,) = predict_scores(moved, batches, ["opacity"], device="cuda", **how)
    found, expected = found.tables, expected.tables
    pd.testing.assert_frame_equal(found["scores"], expected["scores"], rtol=1e-4)
    pd.testing.assert_frame_equal(found["maps"], expected["maps"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", networks("detector"))
def test_a_detector_finds_as_on_the_processor(gpu, name):
    model = build_small_detector(backbone=name).eval()
    moved = copy.deepcopy(model)
    images = draw_images(SIZE)
    sizes = pd.DataFrame({"image_id": image_ids(images), "width": SIZE, "height": SIZE})
    how = {"placement": lambda _: PLACE, "images": sizes}
    batches = [(image_ids(images), images)]
    (expected,) = predict_boxes(model, batches, ["opacity"], **how)
    (found,) = predict_boxes(moved, batches, ["opacity"], device="cuda", **how)
    pd.testing.assert_frame_equal(found.images, expected.images)
    scores = ["image_id", "score"]
    first, second = (part.tables["boxes"][scores] for part in (found, expected))
    pd.testing.assert_frame_equal(first, second, rtol=1e-4)


@pytest.mark.parametrize("loss", ["l1", "ciou"])
def test_the_losses_of_a_detector_are_those_of_the_processor(gpu, loss):
    model = build_small_detector(box_loss=loss)
    moved = copy.deepcopy(model).to("cuda")
    batch = as_lesions(draw_images(SIZE))
    here, there = detector_losses(model, batch), detector_losses(moved, batch.to("cuda"))
    for name, value in here.items():
        assert there[name].item() == pytest.approx(value.item(), rel=1e-6)


def take_a_step(model: torch.nn.Module, losses_of: Any, batch: Any) -> list[torch.Tensor]:
    """The loss, each gradient, and each weight after the optimiser's step."""
    torch.manual_seed(0)  # of dropout
    settings = {"optimiser": "sgd", "learning_rate": 0.01, "monitor": "auroc"}
    how = TrainingSettings(epochs=1, batch_size=3, **settings)
    optimiser = build_optimiser(model.train(), how)
    loss = torch.stack([*losses_of(model, batch).values()]).sum()
    loss.backward()
    optimiser.step()
    learnt = [p for p in model.parameters() if p.grad is not None]
    return [part.detach().cpu() for part in (loss, *(p.grad for p in learnt), *learnt)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, *param.values, marks=param.marks)
        for kind in ("classifier", "detector")
        for param in networks(kind)
    ],
)
def test_a_step_is_that_of_the_processor(gpu, kind, name):
    size = max(SIZE, NETWORKS[name].min_size)
    if kind == "detector":
        model, losses, batch = build_small_detector(backbone=name), detector_losses, as_lesions
    else:
        losses, batch = classifier_losses, as_labels
        model = build_classifier(name, image_size=size, last_stride=max(NETWORKS[name].strides))
    moved, images = copy.deepcopy(model).to("cuda"), batch(draw_images(size))
    here, there = take_a_step(model, losses, images), take_a_step(moved, losses, images.to("cuda"))
    assert len(here) > 10
    for expected, found in zip(here, there, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max())


SETTINGS = {
    "retinanet_quickstart": [
        "data.image_size=96", "training.epochs=2", "model.fpn_channels=16", "model.head_convs=1",
        "model.backbone=mobilenet_v3_small", "training.batch_size=4", "training.workers=0",
    ],
    "chexnet_quickstart": [
        "data.image_size=96", "training.epochs=2", "model.backbone=small_cnn",
        "training.batch_size=4", "training.workers=0",
    ],
}  # fmt: skip
# All that a training can be asked for, in two trainings of each model.
WAYS = {
    "detector": ("retinanet_quickstart", ["augmentation.mosaic=0.5", "training.ema_decay=0.9",
                 "training.accumulate=2", "training.clip=0.5"]),
    "frozen detector in fp16": ("retinanet_quickstart", ["model.trainable=2",
                                "model.weights={start}", "training.precision=fp16"]),
    "classifier": ("chexnet_quickstart", ["training.ema_decay=0.9",
                   "training.label_smoothing=0.1", "training.positive_weight=balanced",
                   "training.accumulate=2", "training.optimiser=rmsprop"]),
    "thawing classifier in fp16": ("chexnet_quickstart", ["model.trainable=stages",
                                   "model.weights={start}", "training.precision=fp16"]),
}  # fmt: skip


def train_there(data: Path, out: Path, config: str, *changes: str) -> Path:
    sets = [*SETTINGS[config], *changes]
    run_command(train, config, data=data, out=out, set_=sets, device="cuda")
    return out


@pytest.fixture(scope="module")
def runs(drawn_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Short trainings there, of each kind."""
    out = tmp_path_factory.mktemp("there")
    with pretended_cuda():
        return {
            config: train_there(drawn_set, out / config, config, "training.epochs=1")
            for config in SETTINGS
        }


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way == "detector" else pytest.mark.long) for way in WAYS]
)
def test_a_training_ends_as_one_that_was_interrupted(gpu, drawn_set, runs, tmp_path, capsys, way):
    config, changes = WAYS[way]
    changes = [*(change.format(start=runs[config]) for change in changes), "training.workers=1"]
    with interrupted_after(1):
        train_there(drawn_set, tmp_path / "halves", config, *changes)
    runs = [
        RunFolder.open(train_there(drawn_set, tmp_path / name, config, *changes))
        for name in ("whole", "halves")
    ]
    whole, halves = (load_file(run.folder / "model.safetensors") for run in runs)
    assert all(torch.equal(value, halves[name]) for name, value in whole.items())
    assert runs[0].info.device == "cuda"
    assert runs[0].info.device_name == "Pretended GPU"


STEPS_MAY_WAIT = {
    # The numbers of anchors that count, for all images of the batch; the loss, a step late.
    "retinanet_quickstart": {"copy to the host: detection/retinanet.py:compute_loss": 1},
    "chexnet_quickstart": {},
}


# Boxes and targets of the batch: a few numbers, for which none waits.
BATCH_PARTS = {"detection/detector.py:build_targets", "classification/loss.py:masked_cross_entropy"}


@pytest.mark.parametrize(
    "average",
    [pytest.param("training.ema_decay=0", marks=pytest.mark.long), "training.ema_decay=0.9"],
)
@pytest.mark.parametrize("config", STEPS_MAY_WAIT)
def test_a_step_waits_for_nothing_but_what_is_listed(
    gpu, drawn_set, tmp_path, monkeypatch, config, average
):
    steps: list[tuple[Counter[str], Counter[tuple[str, int]]]] = []
    end = FiniteLoss.on_train_batch_end

    def note(*arguments: object) -> None:
        end(*arguments)
        steps.append((gpu.waits.copy(), gpu.constants.copy()))

    monkeypatch.setattr(FiniteLoss, "on_train_batch_end", note)
    more = ["training.positive_weight=3"] if "chexnet" in config else []
    train_there(drawn_set, tmp_path / "run", config, average, "training.epochs=1", *more)
    for (waits, sent), (later_waits, later_sent) in pairwise(steps[1:]):
        assert later_waits - waits == STEPS_MAY_WAIT[config]
        assert {where for where, _ in later_sent - sent} <= BATCH_PARTS


@pytest.mark.parametrize(
    ("config", "bad"), [("retinanet_quickstart", 0), ("chexnet_quickstart", 2)]
)
def test_a_loss_that_is_not_finite_is_told_a_step_late_with_its_own_images(
    gpu, drawn_set, tmp_path, monkeypatch, config, bad
):
    module: Any = DetectorModule if "retina" in config else ClassifierModule
    losses, batches = module.losses, []

    def spoilt(module: object, batch: LabelBatch) -> dict[str, torch.Tensor]:
        batches.append(batch.image_ids)
        found = losses(module, batch)
        factor = torch.nan if len(batches) == bad + 1 else 1.0
        return {name: factor * value for name, value in found.items()}

    monkeypatch.setattr(module, "losses", spoilt)
    monkeypatch.setattr(FirstBatch, "on_train_start", lambda *_: None)  # it takes steps on a copy
    with pytest.raises(InputError, match=r"the loss is not finite .* on the images") as told:
        train_there(drawn_set, tmp_path / "run", config)
    assert ", ".join(batches[bad]) in str(told.value)
    assert len(batches) == bad + 2


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        pytest.param((6, 0), "fp32", id="P100: no tensor cores"),
        pytest.param((7, 0), "fp16", id="V100"),
        pytest.param((8, 0), "bf16", id="A100"),
    ],
)
def test_precision_follows_the_card(gpu, capability, precision):
    gpu.capability = capability
    assert choose_precision("auto", "cuda") == precision


def test_a_card_that_torch_has_no_kernels_for_is_not_used(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_100", "compute_120"])
    gpu.name, gpu.capability = "Tesla P100", (6, 0)
    assert choose_device("auto") == "cpu"
    says = "Tesla P100 has compute capability 6.0, and torch .* is built for 7.5 and newer; pytorch"
    assert re.fullmatch(f"On the CPU: {says}.*\n", capsys.readouterr().err)
    with pytest.raises(InputError, match=f"--device cuda: {says}.*choose cpu"):
        choose_device("cuda")
    gpu.capability = (7, 5)
    assert choose_device("cuda") == "cuda"


def test_a_slurm_task_that_sees_one_gpu_of_several_names_the_option(gpu, monkeypatch):
    with pytest.raises(InputError, match="1 CUDA device; ask for 1 at most"):
        choose_device("cuda", 4)
    for name, value in {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"1 CUDA device; .*--gpus-per-node"):
        choose_device("cuda", 4)


@pytest.mark.parametrize(
    "build", [build_small_detector, lambda: build_classifier("resnet18", image_size=SIZE)]
)
def test_fp32_is_not_tf32_whoever_builds_the_network(build, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    build()
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.release
def test_a_card_of_tensor_cores_in_fp16_learns_all_weights_in_one_pass(gpu, drawn_set, tmp_path):
    gpu.capability = (7, 5)
    out = train_there(drawn_set, tmp_path / "run", "chexnet_quickstart", "training.epochs=1")
    assert RunFolder.open(out).info.precision == "fp16"
    assert gpu.operations["_foreach_addcdiv_.ScalarList"]
    assert not gpu.operations["addcdiv_.default"]
    assert not torch.backends.cudnn.benchmark  # which would choose the kernels of predictions


def open_on(device: str, runs: dict[str, Path]) -> FastAPI:
    served = [Run.open(run, device=device).load() for run in runs.values()]
    return build_app(served, ServeSettings(allowed_hosts=("testserver",)))


def test_a_server_answers_over_http_as_on_the_processor(gpu, drawn_set, runs):
    image = next((drawn_set.parent / "source").rglob("*.dcm"))
    upload = {"files": {"file": (image.name, image.read_bytes())}}
    answers = []
    for device in ("cpu", "cuda"):
        with Client(open_on(device, runs)) as client:
            gpu.forget_counts()
            assert "<html" in client.get("/").text
            answer = client.post("/v1/analyze", params={"include": ["maps", "overlay"]}, **upload)
            assert bool(gpu.operations["convolution.default"]) == (device == "cuda")
        assert answer.json()["overlay_png"]
        answers.append(answer.json()["systems"])
    for here, there in zip(*map(parts_of, answers), strict=True):
        close = isinstance(here, float)
        assert there == (pytest.approx(here, rel=1e-3, abs=1e-4) if close else here)


def parts_of(value: Any) -> Iterator[Any]:
    """Words and numbers of what JSON held, in their order."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from parts_of(part)
    else:
        yield value


COMMANDS = [
    ("predict {run} --data {data} --out {out} --device cuda", "chexnet_quickstart"),
    ("predict {run} --data {data} --out {out} --device cuda --tta flip", "retinanet_quickstart"),
    ("predict {run} {image} --out {out} --device cuda", "retinanet_quickstart"),
    ("overlay {run} --data {data} --out {out}", "chexnet_quickstart"),
    ("tune {untuned} --data {data}", "retinanet_quickstart"),
    ("compare {runs} --data {data} --out {out} --replicates 100", "chexnet_quickstart"),
]
# Their trainings run here, one after another.
OF_CHILDREN = [
    # annex studies
    (
        "curve --classifier {run}/config.toml --detector {other}/config.toml --data {data} "
        "--out {out} --sizes 0.5,1 --seeds 1",
        "chexnet_quickstart",
    ),
    # end of annex studies
]


@pytest.mark.parametrize(
    ("command", "config"),
    [*COMMANDS, *(pytest.param(*each, marks=pytest.mark.long) for each in OF_CHILDREN)],
)
def test_a_command_works_on_the_device(
    gpu, drawn_set, runs, tmp_path, monkeypatch, command, config
):
    def here(words: list[str], environment: object, log: object) -> Any:
        status = cxr(*words)
        return SimpleNamespace(poll=lambda: status)

    monkeypatch.setattr(child_processes, "start", here)
    monkeypatch.setattr(runtime, "_GPU_NODES", ["/dev/null"])
    untuned = shutil.copytree(
        runs[config], tmp_path / "run", ignore=shutil.ignore_patterns("validation")
    )
    gpu.forget_counts()
    words = command.format(
        run=runs[config],
        other=next(run for name, run in runs.items() if name != config),
        runs=" ".join(map(str, runs.values())),
        untuned=untuned,
        data=drawn_set,
        out=tmp_path / "out",
        image=next((drawn_set.parent / "source").rglob("*.dcm")),
    )
    assert cxr(*words.split()) == 0
    assert gpu.operations["convolution.default"]


def test_a_run_that_is_loaded_answers_on_the_device(gpu, runs):
    for run in runs.values():
        gpu.forget_counts()
        assert load(run).predict(np.zeros((SIZE, SIZE), np.uint8)).score > 0
        assert gpu.operations["convolution.default"]


# annex hospital
def test_an_archive_is_answered_for_on_the_device(gpu, runs, tmp_path, monkeypatch):
    pacs = pytest.importorskip("tests.hospital.pacs.test_pacs", reason="needs the extra")
    shelves = []

    class Archive(pacs.Shelf):
        shown = "http://127.0.0.1:9"

        def __init__(self, *_: object) -> None:
            super().__init__(pacs.radiograph())
            shelves.append(self)

        def close(self) -> None:
            pass

    monkeypatch.setattr("cxr_compare.hospital.pacs.connections.DicomWebArchive", Archive)
    options = ["--dicomweb", "http://127.0.0.1:9", "--journal", tmp_path / "journal"]
    assert cxr("pacs", *runs.values(), *options, "--device", "cuda") == 0
    assert len(shelves[0].stored) == 2  # a report and a capture
    assert gpu.operations["convolution.default"]


# end of annex hospital


def test_a_run_from_there_is_exported_where_there_is_no_gpu(runs):
    assert cxr("export", runs["chexnet_quickstart"], "--format", "onnx") == 0
    assert list((runs["chexnet_quickstart"] / "exports").iterdir())
