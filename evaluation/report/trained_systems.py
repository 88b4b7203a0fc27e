"""Networks, training and augmentation of systems in words, as their runs record them.

What a run does not record is left out. ``facts`` is the record of a system in the provenance of a
comparison, and ``recipe`` its entry on the training run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.report.citations import Citations, network_titles

Facts = Mapping[str, Any]

_AUGMENTATIONS = {
    "rotate_degrees": ("rotation by up to %g degrees", 1),
    "scale": ("scale by up to %g %%", 100),
    "shift": ("shift by up to %g %% of the side", 100),
    "brightness": ("brightness by up to %g %%", 100),
    "contrast": ("contrast by up to %g %%", 100),
    "gamma": ("gamma by up to %g", 1),
    "blur": ("blur of up to %g px", 1),
    "noise": ("noise of up to %g %%", 100),
    "cutout": ("holes of up to %g %% of the side", 100),
    "horizontal_flip": ("left-right flips of %g %%", 100),
    "mosaic": ("mosaics of four images in %g %% of cases", 100),
}
"""Words on each augmentation, and the factor of its setting in them."""
_BOX_LOSSES = {
    "giou": "generalised IoU",
    "l1": "L1",
    "smooth_l1": "smooth L1",
    "diou": "distance IoU",
    "ciou": "complete IoU",
}
_OPTIMISERS = {
    "adamw": "AdamW",
    "adam": "Adam",
    "sgd": "stochastic gradient descent with Nesterov momentum",
    "rmsprop": "RMSprop with momentum",
}
_MONITORED = {
    "ap50": "AP50",
    "ap": "AP",
    "auroc": "AUROC",
    "average_precision": "average precision",
}


def system_text(
    name: str, facts: Facts, citations: Citations, described: Collection[str] = ()
) -> str:
    """Describe a system and its training, without its members that are `described` already."""
    recipe = facts.get("recipe")
    if recipe:
        parts = [
            f"{name} {_network(recipe, citations)} Images were {_preprocessed(recipe)}.",
            _first_weights(recipe, citations),
            _training(recipe, facts.get("seed"), citations),
            prediction_text(facts),
        ]
        return " ".join(part for part in parts if part)
    if facts.get("members"):
        names = listing([member["system"] for member in facts["members"]])
        is_fused = (facts.get("ensemble") or {}).get("fusion") == "wbf"
        fusion = citations.cite("wbf2021") if is_fused else ""
        parts = [f"{name} combines the predictions of {names}{fusion}."]
        parts += [
            system_text(member["system"], member, citations)
            for member in facts["members"]
            if member["system"] not in described
        ]
        return " ".join(parts)
    if facts.get("description"):
        return f"{name} {facts['description']}"
    if facts.get("backend"):
        return (
            f"{name} was run by this program. Its training files were not available, so its "
            "network and training are not described here."
        )
    return imported_text([name])


def imported_text(systems: Sequence[str]) -> str:
    """Say that nothing but the predictions of some systems is known."""
    network = "which network made them or how it was trained"
    if len(systems) > 1:
        network = "which networks made them or how they were trained"
    return f"The predictions of {listing(systems)} were imported, and it is not recorded {network}."


def prediction_text(facts: Facts) -> str:
    """Say if a system was evaluated as an export or over several views; empty if not."""
    texts = []
    if facts.get("exported_from"):
        texts.append(
            f"It was evaluated as its export to {facts['backend']} in {facts['precision']}."
        )
    if facts.get("tta"):
        texts.append(f"Predictions were combined over the views {listing(facts['tta']['views'])}.")
    return " ".join(texts)


def _network(recipe: Facts, citations: Citations) -> str:
    config = recipe["config"]
    model = config["model"]
    if config["kind"] == "detector":
        return _detector(recipe, citations)
    cells = ""
    if model.get("last_stride"):
        cells = f"; each cell of its map covers {model['last_stride']} px of the input"
    network = _network_title(recipe["network"], citations)
    if model.get("trainable") == "none":
        return (
            "is a probe, a classifier of whole images: a logistic regression of the standardised "
            f"mean of the last maps of {network}{cells}."
        )
    training = config["training"]
    details = "cross-entropy"
    if training.get("positive_weight") == "balanced":
        details += ", positives weighted by the ratio of negatives to positives"
    elif training.get("positive_weight", 1) != 1:
        details += f", positives weighted by {training['positive_weight']:g}"
    if training.get("label_smoothing"):
        details += f", label smoothing {training['label_smoothing']:g}"
    if model.get("dropout"):
        details += f", dropout {model['dropout']:g}"
    return (
        f"is a classifier of whole images, {network}, trained from image labels as CheXNet"
        f"{citations.cite('chexnet2017')} was ({details}{cells})."
    )


def _detector(recipe: Facts, citations: Citations) -> str:
    model = recipe["config"]["model"]
    architecture = model.get("architecture", "retinanet")
    if architecture != "retinanet":
        title = network_titles().get(architecture, architecture)
        detector = f"{title}{citations.cite_for('detectors', architecture)}"
        settings = "; ".join(
            f"{key.replace('_', ' ')} {value}"
            for key, value in model.items()
            if key not in ("architecture", "backbone", "weights", "trainable")
        )
        network = _network_title(recipe["network"], citations)
        return f"is a detector of lesions, {detector} on {network} ({settings})."
    loss = model["box_loss"]
    if loss == "auto":
        loss = "giou" if model["head"] == "v2" else "l1"
    detector = (
        f"RetinaNet{citations.cite('retinanet2017')} with a feature pyramid"
        f"{citations.cite('fpn2017')} of {model['fpn_channels']} channels"
    )
    network = _network_title(recipe["network"], citations)
    cited = citations.cite("giou2019") if loss == "giou" else ""
    return (
        f"is a detector of lesions: {detector} on {network} (heads of {model['head_convs']} "
        f"convolutions; focal loss and {_BOX_LOSSES[loss]} loss of boxes{cited}; norms of the "
        f"backbone: {model['norm']})."
    )


def _network_title(name: str, citations: Citations) -> str:
    title = network_titles().get(name, name.replace("_", " "))
    return f"{title}{citations.cite_for('networks', name)}"


def _preprocessed(recipe: Facts) -> str:
    facts = recipe["preprocess"]
    return (
        f"scaled to fit a square of {facts['size']} × {facts['size']} px without distortion "
        f"(letterbox), 8-bit grey, and normalised by mean {facts['mean']:.3g} and standard "
        f"deviation {facts['std']:.3g}"
    )


def _first_weights(recipe: Facts, citations: Citations) -> str:
    model = recipe["config"]["model"]
    learned = model.get("trainable")
    weights = _weights(model["weights"], citations)
    if learned == "none":
        return f"Its network has {weights}, which were not changed."
    text = f"It started from {weights}"
    if learned == "head":
        text += "; only the last layer was trained"
    elif learned == "head_first":
        text += "; in the first epoch only the last layer was trained"
    elif learned == "stages":
        text += "; one more stage was trained in each epoch"
    elif isinstance(learned, int | float) and learned < 5:
        text += f"; of the backbone, the deepest {learned} stages were trained"
    return f"{text}."


def _weights(name: str, citations: Citations) -> str:
    if name == "none":
        return "random weights"
    if name == "imagenet":
        return f"weights published for ImageNet{citations.cite('imagenet2015')}"
    if name == "coco":
        return f"weights published for COCO{citations.cite('coco2014')}"
    return f"the weights “{name}”"


def _training(recipe: Facts, seeds: Any, citations: Citations) -> str:
    if recipe["config"]["training"].get("penalties"):
        return _fitted_probe(recipe)
    return _trained_in_epochs(recipe, seeds, citations)


def _fitted_probe(recipe: Facts) -> str:
    """Describe how the logistic regression of a probe was fitted."""
    run = recipe["run"]
    tried = recipe["config"]["training"]["penalties"]
    chosen = run.get("penalties") or {}
    penalties = ",".join(
        f" of {penalty:g}" + (f" for {finding.replace('_', ' ')}" if len(chosen) > 1 else "")
        for finding, penalty in chosen.items()
    )
    choice = ""
    if len(tried) > 1:
        choice = (
            f", chosen from {len(tried)} values between {min(tried):g} and {max(tried):g} by the "
            f"loss on {counted(run['n_val'], 'validation image')}, in which each patient counted "
            "once"
        )
    return (
        f"The logistic regression was fitted to {counted(run['n_train'], 'image')} by scikit-learn "
        f"with an L2 penalty{penalties}{choice}; half the squared norm of the weights, times the "
        "penalty, was added to the mean cross-entropy. Training images were not augmented."
    )


def _trained_in_epochs(recipe: Facts, seeds: Any, citations: Citations) -> str:
    """Describe a training in epochs; ``seeds`` is a list for several training seeds."""
    how, run = recipe["config"]["training"], recipe["run"]
    several = isinstance(seeds, list | tuple)
    if run.get("epochs") == how["epochs"] or several:
        length = counted(how["epochs"], "epoch")
        if several and how.get("patience"):
            length += " at most"
    else:
        length = f"{run['epochs']} of {how['epochs']} epochs"
        if how.get("patience"):
            length += f" (stopped after {how['patience']} without improvement)"
    start = (
        f"It was trained on {counted(run['n_train'], 'image')} for {length} with "
        f"{_optimiser(how, citations)} ({_learning_rate(how)}), in batches of {how['batch_size']} "
        f"images{_batches(how)}; {_augmentation(recipe['config']['augmentation'], citations)}."
    )
    end = f"{_kept_weights(how, run, several=several)}; "
    if several:
        end += f"{len(seeds)} trainings with seeds {listing(list(map(str, seeds)))}"
    else:
        end += f"seed {how.get('seed', 'unknown') if seeds is None else seeds}"
    if run.get("device_name"):
        precision = f"{run['precision']} " if run.get("precision") else ""
        end += f"; {precision}arithmetic on {run['device_name']}"
    if not several and run.get("seconds_training"):
        seconds = run["seconds_training"]
        end += f", {seconds / 60:.0f} min" if seconds >= 120 else f", {seconds:.0f} s"
    return f"{start} {end}."


def _learning_rate(how: Facts) -> str:
    text = f"peak learning rate {how['learning_rate']:g}"
    if how.get("schedule"):
        text += f", {how['schedule'].replace('_', '-')} schedule"
    if how.get("warmup_epochs"):
        epochs = how["warmup_epochs"]
        text += f" after warm-up over {epochs:g} {'epoch' if epochs == 1 else 'epochs'}"
    if how.get("weight_decay"):
        text += f", weight decay {how['weight_decay']:g}"
    return text


def _batches(how: Facts) -> str:
    text = ""
    if how.get("accumulate", 1) > 1:
        text += f", with gradients accumulated over {how['accumulate']} batches"
    if how.get("clip"):
        text += f", gradients clipped to a norm of {how['clip']:g}"
    if how.get("ema_decay"):
        text += f", weights averaged with decay {how['ema_decay']:g}"
    if how.get("positive_share"):
        text += f", positive images drawn in {100 * how['positive_share']:g} % of cases"
    return text


def _kept_weights(how: Facts, run: Facts, *, several: bool) -> str:
    monitor = how.get("monitor")
    if not monitor:
        return "The files do not say which epoch was kept"
    if monitor == "epoch":
        return "The last epoch's weights were kept"
    best = "lowest loss" if monitor == "val_loss" else f"highest {_MONITORED.get(monitor, monitor)}"
    epoch = f" (epoch {run['best_epoch']})" if not several and run.get("best_epoch") else ""
    return (
        f"The epoch with the {best} on {counted(run['n_val'], 'validation image')} was kept{epoch}"
    )


def _optimiser(how: Facts, citations: Citations) -> str:
    name = str(how.get("optimiser", "an optimiser that was not recorded"))
    text = _OPTIMISERS.get(name, name)
    if name == "adamw":
        text += citations.cite("adamw2019")
    elif name == "adam":
        text += citations.cite("adam2015")
    elif name in ("sgd", "rmsprop") and how.get("momentum"):
        text += f" {how['momentum']:g}"
    return text


def _augmentation(kinds: Facts, citations: Citations) -> str:
    parts = [
        words % round(factor * kinds[key], 6)
        for key, (words, factor) in _AUGMENTATIONS.items()
        if kinds.get(key)
    ]
    if not parts:
        return "training images were not augmented"
    cited = citations.cite("albumentations2020")
    return f"training images were changed at random: {listing(parts)}{cited}"
