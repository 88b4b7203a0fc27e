"""Conditions of training, such as the input size: what each system had, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cxr_compare.data_prep.contracts.errors import counted

_Record = Mapping[str, Any]

_MONITORED = {
    "ap50": "AP50",
    "ap": "AP",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "val_loss": "loss",
    "epoch": "none, the last epoch",
}
_PARTS = {
    "all": "all of the backbone",
    "head": "no part of the backbone",
    "none": "no part of the network, only a regression on its maps",
    "head_first": "no part of the backbone in the first epoch, then all of it",
    "stages": "one stage of the backbone more in each epoch",
}
_OF_THE_QUESTION = frozenset(
    {"architecture", "parameters", "loss", "learned annotations", "settings tried on validation"}
)
"""Conditions that differ because one system learns boxes and the other labels."""
STATED_ELSEWHERE = frozenset({"architecture", "backbone", "weights", "trainable", "compile"})
"""Settings of a network that another condition states, or that change nothing but the speed."""
SETTINGS = "settings of the network"
_DURATION = frozenset({"length of training", "time of training"})
_OF_ONE_RECIPE = _DURATION | {
    "training data",
    "training images",
    "learned annotations",
    "arithmetic",
    "test-time views",  # validation chooses them in each training
    "settings tried on validation",
}
"""Conditions that may differ between trainings of one recipe."""
_PUBLISHED = {"random", "imagenet", "coco"}
"""First weights that are the same for every seed; a file or run may be of the same seed."""
_EQUAL_TIMES = 1.5  # two trainings of one recipe differ by less on one machine
_FOCAL = ("retinanet", "fcos")
"""Detectors that learn classes by the focal loss, which weighs easy images down."""


def training_conditions(records: Mapping[str, _Record]) -> dict[str, dict[str, str]]:
    """Return the conditions of the training of each system, such as the input size, in words.

    `records` are those of `unequal_conditions`. The result has, by condition and display name, the
    value of each system whose value is known. A condition that is known for no system is left out.

    Example:
        >>> training_conditions({"A": {"recipe": {"run": {"n_train": 500, "n_boxes": 90}}}})
        {'training images': {'A': '500'}, 'learned annotations': {'A': '90 boxes'}}
    """
    conditions: dict[str, dict[str, str]] = {condition: {} for condition in _CONDITIONS}
    for name, record in records.items():
        for condition, text in conditions_of(record).items():
            conditions[condition][name] = text
    return {condition: values for condition, values in conditions.items() if values}


def conditions_of(record: _Record) -> dict[str, str]:
    """Return the known conditions of the training of one system, in words."""
    if not record.get("recipe"):
        return {}
    texts = {condition: describe(record) for condition, describe in _CONDITIONS.items()}
    return {condition: text for condition, text in texts.items() if text}


def is_boxes_against_labels(unequal: Mapping[str, Mapping[str, str]]) -> bool:
    """Return True if trainings differ only because one side learns boxes and the other labels.

    Of the number of epochs and the time one may differ, too: two networks with equal numbers of
    steps take different times. `unequal` is what `unequal_conditions` returns.

    Example:
        >>> annotations = {"A": "90 boxes", "B": "500 image labels"}
        >>> is_boxes_against_labels({"learned annotations": annotations})
        True
        >>> sizes = {"A": "160 px", "B": "96 px"}
        >>> is_boxes_against_labels({"learned annotations": annotations, "input size": sizes})
        False
    """
    kinds = {
        text.split()[-1].rstrip("s") for text in unequal.get("learned annotations", {}).values()
    }
    further = set(unequal) - _OF_THE_QUESTION
    return len(kinds) > 1 and further <= _DURATION and len(further) < len(_DURATION)


def unequal_conditions(records: Mapping[str, _Record]) -> dict[str, dict[str, str]]:
    """Find the conditions of training, such as the input size, in which systems differ.

    If two systems were trained under unequal conditions, the difference in their figures may come
    from the conditions, and not only from the kinds of the systems.

    The record of a system that cxr-compare trained has the key ``recipe``, a dictionary with
    ``config``, ``preprocess`` and ``run``, and ``decision``, what validation chose. Systems without
    a recipe are left out. The result has, by condition and display name, the value of each system
    in words. A condition is included if it is known for at least two systems and not equal for all
    of them; the time of training, if the longest is more than 1.5 times the shortest, and settings
    of the network, if the architecture is equal.

    Example:
        >>> def record(size):
        ...     preprocess = {"size": size}
        ...     run = {"n_train": 500, "epochs": 6}
        ...     return {"recipe": {"config": {}, "preprocess": preprocess, "run": run}}
        >>> unequal_conditions({"A": record(128), "B": record(96)})
        {'input size': {'A': '128 px', 'B': '96 px'}}
    """
    seconds = [_run(record).get("seconds_training") for record in records.values()]
    times = [value for value in seconds if value]
    has_equal_times = bool(times) and max(times) <= _EQUAL_TIMES * min(times)
    unequal = {
        condition: values
        for condition, values in training_conditions(records).items()
        if len(set(values.values())) > 1
        if not (condition == "time of training" and has_equal_times)
    }
    if "architecture" in unequal:  # each has settings of its own
        unequal.pop(SETTINGS, None)
    return unequal


def conditions_of_other_recipes(records: Mapping[str, _Record]) -> dict[str, dict[str, str]]:
    """Return the unequal conditions that trainings of one recipe, its seeds, cannot have."""
    unequal = unequal_conditions(records)
    if not _PUBLISHED & set(unequal.get("first weights", {}).values()):
        unequal.pop("first weights", None)
    return {name: values for name, values in unequal.items() if name not in _OF_ONE_RECIPE}


def _time(record: _Record) -> str:
    """Return the time of training and the device on which it was spent."""
    seconds = _run(record).get("seconds_training")
    if not seconds:
        return ""
    text = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    device = _run(record).get("device_name")
    return f"{text} on {device}" if device else text


def _run(record: _Record) -> _Record:
    return (record.get("recipe") or {}).get("run") or {}


def _section(record: _Record, name: str) -> _Record:
    return (record["recipe"].get("config") or {}).get(name) or {}


def _network(record: _Record) -> str:
    return str(record["recipe"].get("network") or "")


def _architecture(record: _Record) -> str:
    """Return the architecture of a detector, or that the whole image is classified."""
    config = record["recipe"].get("config") or {}
    if config.get("kind") == "classifier":
        return "classifier of whole images"
    return str(_section(record, "model").get("architecture") or "")


def _network_settings(record: _Record) -> str:
    settings = [
        f"{key.replace('_', ' ')} {value}"
        for key, value in _section(record, "model").items()
        if key not in STATED_ELSEWHERE and value is not None
    ]
    return "; ".join(settings)


def _parameters(record: _Record) -> str:
    count = _run(record).get("parameters")
    return "" if count is None else f"{count / 1e6:.1f} million"


def _input_size(record: _Record) -> str:
    size = (record["recipe"].get("preprocess") or {}).get("size")
    return "" if size is None else f"{size} px"


def _first_weights(record: _Record) -> str:
    weights = _section(record, "model").get("weights")
    return "random" if weights == "none" else str(weights or "")


def _trained_part(record: _Record) -> str:
    model = _section(record, "model")
    trainable = model.get("trainable")
    if trainable is None:
        return ""
    text = _PARTS.get(str(trainable), f"the deepest {trainable} stages of the backbone")
    if model.get("norm") == "frozen":
        text += " without its batch norms"
    return text


def _training_data(record: _Record) -> str:
    """Return the data set of the training with digests: of other data, one of them differs."""
    data_set = _run(record).get("data_set") or {}
    digests = [
        f"{name} {data_set[key][:8]}"
        for name, key in (("images", "content_id"), ("labels", "labels_id"), ("split", "split_id"))
        if data_set.get(key)
    ]
    if not digests:
        return ""
    return f"{data_set['name']}, split {data_set.get('split')} ({', '.join(digests)})"


def _training_images(record: _Record) -> str:
    count = _run(record).get("n_train")
    return "" if count is None else f"{count:,}"


def _annotations(record: _Record) -> str:
    """Return the number of boxes, or of known labels, from which a system learned."""
    run = _run(record)
    if run.get("n_boxes") is not None:
        return counted(run["n_boxes"], "box")
    return "" if run.get("n_labels") is None else counted(run["n_labels"], "image label")


def _length(record: _Record) -> str:
    """Return the epochs of a training, and its optimiser steps where the batch size is known."""
    epochs = _run(record).get("epochs")
    if epochs is None:
        return ""
    text = counted(epochs, "epoch")
    batch = _section(record, "training").get("batch_size")
    n_train = _run(record).get("n_train")
    if batch is None or n_train is None:
        return text
    accumulated = _section(record, "training").get("accumulate", 1)
    steps = epochs * (n_train // (batch * accumulated))  # an epoch is of whole steps
    return f"{text}, {counted(steps, 'step')}"


def _batch(record: _Record) -> str:
    training = _section(record, "training")
    if training.get("batch_size") is None:
        return ""
    return counted(training["batch_size"] * training.get("accumulate", 1), "image")


def _positives(record: _Record) -> str:
    share = _section(record, "training").get("positive_share")
    if share is None:
        return ""
    return f"{100 * share:g} % of the drawn images" if share else "as they come"


def _loss(record: _Record) -> str:
    """Return how the loss weighs positives: by a number, or inside the loss of a detector."""
    training = _section(record, "training")
    if training.get("module"):  # a class of the user's own may compute any loss
        return f"that of {training['module']}"
    if "positive_weight" in training:
        weight = training["positive_weight"]
        if weight == "balanced":
            return "cross-entropy, positives by the ratio of negatives to positives"
        return f"cross-entropy, positives by {weight:g}"
    architecture = _section(record, "model").get("architecture")
    if architecture in _FOCAL:
        return "focal loss"
    return f"those of {architecture}" if architecture else ""


def _label_smoothing(record: _Record) -> str:
    smoothing = _section(record, "training").get("label_smoothing")
    return "" if smoothing is None else f"{smoothing:g}"


def _chosen_epoch(record: _Record) -> str:
    monitor = _section(record, "training").get("monitor")
    return "" if monitor is None else _MONITORED.get(monitor, str(monitor))


def _optimiser(record: _Record) -> str:
    training = _section(record, "training")
    if training.get("optimiser") is None:
        return ""
    parts = [str(training["optimiser"])]
    keys = ["learning_rate", "schedule", "warmup_epochs", "weight_decay", "clip"]
    if training["optimiser"] in ("sgd", "rmsprop"):
        keys.append("momentum")
    parts += [f"{key.replace('_', ' ')} {training[key]}" for key in keys if key in training]
    return "; ".join(parts)


def _callbacks(record: _Record) -> str:
    callbacks = _section(record, "training").get("callbacks")
    return "" if callbacks is None else ", ".join(callbacks) or "none"


def _arithmetic(record: _Record) -> str:
    return str(_run(record).get("precision") or "")


def _averaged(record: _Record) -> str:
    decay = _section(record, "training").get("ema_decay")
    if decay is None:
        return ""
    return f"decay {decay:g}" if decay else "none"


def _patience(record: _Record) -> str:
    patience = _section(record, "training").get("patience")
    if patience is None:
        return ""
    return f"after {counted(patience, 'epoch')} without improvement" if patience else "none"


def _augmentation(record: _Record) -> str:
    kinds = _section(record, "augmentation")
    parts = []
    for key, value in kinds.items():
        if value:
            text = value if isinstance(value, str) else f"{value:g}"
            parts.append(f"{key.replace('_', ' ')} {text}")
    if not parts:
        return "none" if kinds else ""
    return "; ".join(parts)


def _views(record: _Record) -> str:
    """Return the views of an image whose boxes are joined; the plain image is the first."""
    if "tta" not in record:
        return ""
    views = (record["tta"] or {}).get("views", [])[1:]
    return ", ".join(views) or "none"


def _choices(record: _Record) -> str:
    """Return how many settings validation chose from; a single one is no choice."""
    decision = record.get("decision")
    if decision is None:
        return ""
    n_scores = len(decision.get("tried") or ())
    n_boxes = len(decision.get("boxes_tried") or ())
    parts = []
    if n_scores > 1:
        parts.append(counted(n_scores, "image score"))
    if n_boxes > 1:
        parts.append(counted(n_boxes, "box rule"))
    return " and ".join(parts) or "none"


_CONDITIONS: Mapping[str, Callable[[_Record], str]] = {
    "network": _network,
    "architecture": _architecture,
    SETTINGS: _network_settings,
    "parameters": _parameters,
    "input size": _input_size,
    "first weights": _first_weights,
    "trained part": _trained_part,
    "training data": _training_data,
    "training images": _training_images,
    "learned annotations": _annotations,
    "length of training": _length,
    "batch": _batch,
    "sampling of positives": _positives,
    "loss": _loss,
    "label smoothing": _label_smoothing,
    "figure that chose the epoch": _chosen_epoch,
    "early stopping": _patience,
    "optimiser": _optimiser,
    "averaged weights": _averaged,
    "callbacks": _callbacks,
    "arithmetic": _arithmetic,
    "augmentation": _augmentation,
    "test-time views": _views,
    "settings tried on validation": _choices,
    "time of training": _time,
}
"""Function that words each condition of a training from its record; empty where it is unknown."""
