"""What a run needs to answer, added when it is trained: its decision on validation, its guard."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from data_prep.contracts.words import Terminal, counted
from data_prep.store.dataset import DataSet
from data_prep.store.predictions import Predictions
from evaluation.decisions.test_set import TestSet
from evaluation.decisions.thresholds import POLICIES
from evaluation.decisions.tuning import tune
from serving.export_spec import validation_folder
from serving.guard import GUARD_NAME, MIN_IMAGES, MIN_PATIENTS, Guard, fit_guard
from serving.predict_folder import predict_data_set
from serving.trained_model import TrainedModel


def predict_validation(
    run: Path, test_set: TestSet, terminal: Terminal, *, device: Literal["cpu", "cuda"] = "cpu"
) -> Predictions:
    """A run's predictions of its validation images, in the run's folder; made where absent."""
    folder = validation_folder(run)
    if not (folder / "predictions.json").is_file():
        predict_data_set(
            TrainedModel.open(run, device=device), test_set.dataset, folder, test_set.split,
            terminal, validation_of=test_set.target,
        )  # fmt: skip
    return Predictions.open(folder)


def freeze_decision(
    run: Path, test_set: TestSet, terminal: Terminal, *, device: Literal["cpu", "cuda"] = "cpu"
) -> None:
    """Choose the decision by which a run answers for single images; the last step of training.

    It is what `cxr tune` chooses by default, on the run's validation images, and lies in the run's
    folder with the predictions that it was chosen on. One that is there stays.
    """
    name = test_set.target.name
    if (validation_folder(run) / "decisions" / f"{name}.json").is_file():
        return
    predictions = predict_validation(run, test_set, terminal, device=device)
    decision = tune(predictions, test_set)
    predictions.write_decision(name, decision.to_dict())
    policy = POLICIES[0]
    chosen = decision.thresholds[policy]
    point = (
        f"no threshold ({chosen.reason})"
        if chosen.threshold is None
        else f"positive from score {chosen.threshold:.3g} on"
    )
    images = counted(decision.chosen_on["n_images"], "validation image")
    terminal.say(f"Operating point ({policy}, {images}): {point}")


def add_guard(run: Path, dataset: DataSet, split: str, size: int, terminal: Terminal) -> None:
    """Learn what is no frontal chest X-ray from a run's training images; one that is there stays.

    The images are squares of `size` px, as the run sees them.
    """
    path = run / GUARD_NAME
    if path.is_file():
        Guard.read(path)  # refuses a damaged one
        return
    images = dataset.images.set_index("image_id").loc[dataset.image_ids("train", split)]
    store = dataset.make_store(size, terminal)
    guard = fit_guard(store, images["patient_id"], images.get("age_years"))
    if guard is None:
        terminal.say(
            f"No guard against other images: learning it takes {MIN_IMAGES} training images of "
            f"{MIN_PATIENTS} patients"
        )
        return
    guard.write(path)
    terminal.say(f"Guard: {guard.images} training images tell what is no frontal chest X-ray")
