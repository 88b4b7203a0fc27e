"""What a detector must be able to do before any figure of it is worth reading."""

import pandas as pd
import pytest
import torch

from data_prep.images.image import read_image
from detection.dataset import LesionDataset, collate
from detection.detector import training_losses
from detection.model import build_detector
from scripts.runtime import choose_precision
from scripts.train import train
from tests.memory_store import ImageStore
from tests.scripts.small_sets import drawn_images
from tests.training.small_training import training_settings
from training.detector import _detection_metrics, _validate
from training.loop import _build_schedule, build_optimiser
from training.run_folder import RunFolder

_SIDE, _STEPS = 192, 160


@pytest.mark.long
def test_eight_real_images_are_learned_by_heart(shared_data):
    labels = pd.read_csv(shared_data / "rsna/stage_2_train_labels.csv")
    boxed = labels[labels["Target"] == 1]
    image_ids = sorted(boxed["patientId"].unique())[:8]
    boxed = boxed[boxed["patientId"].isin(image_ids)]
    boxes = pd.DataFrame(
        {
            "image_id": boxed["patientId"],
            "finding": "opacity",
            "x1": boxed["x"],
            "y1": boxed["y"],
            "x2": boxed["x"] + boxed["width"],
            "y2": boxed["y"] + boxed["height"],
        }
    )
    films = shared_data / "rsna/stage_2_train_images"
    images = {name: read_image(films / f"{name}.dcm").pixels for name in image_ids}
    store = ImageStore(images, _SIDE)
    dataset = LesionDataset(store, image_ids, boxes, ("opacity",))
    batch = collate([dataset[row] for row in range(len(dataset))])
    torch.manual_seed(0)
    model = build_detector(
        "retinanet",
        backbone="resnet18",
        head="v2",
        norm="batch",
        fpn_channels=64,
        head_convs=2,
        image_size=_SIDE,
    ).to(memory_format=torch.channels_last)
    how = training_settings(learning_rate=2e-3, warmup_epochs=0.2)
    optimiser = build_optimiser(model, how)
    schedule = _build_schedule(optimiser, how, _STEPS)
    bf16 = choose_precision("auto", "cpu") == "bf16"
    for _ in range(_STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = training_losses(model, batch)
        optimiser.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    assert _detection_metrics([_validate(model, batch)[1]])["ap50"] == 1.0


@pytest.mark.long
def test_lesions_well_above_the_noise_are_found(tmp_path):
    drawn_images(tmp_path, 900, 128, [128], seed=1, contrast="high", prevalence=0.5)
    changes = ["training.epochs=14"]
    train(
        "retinanet_quickstart",
        data=tmp_path / "data",
        out=tmp_path / "run",
        set_=changes,
        device="cpu",
    )
    info = RunFolder.open(tmp_path / "run").info
    assert info["best_figures"]["ap50"] >= 0.95
