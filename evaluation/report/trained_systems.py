"""Networks, training and augmentation of systems in words, as their runs record them.

What a run does not record is left out. ``facts`` is the record of a system in the provenance of a
comparison, and ``recipe`` its entry on the training run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report.citations import Citations, network_titles
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.statistics.joint_score import METHOD

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
_GATES = {
    "rescaled": "those of the detector, rescaled so that the highest of an image has its score",
    "multiplied": "those of the detector, with their scores multiplied by the score of the image",
    "untouched": "those of the detector, untouched",
}
"""Words on how a joint system changes the scores of boxes."""
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
        names = [member["system"] for member in facts["members"]]
        ensemble = facts.get("ensemble") or {}
        fusion = citations.cite("wbf2021") if ensemble.get("fusion") == "wbf" else ""
        parts = [f"{name} combines the predictions of {listing(names)}{fusion}."]
        if ensemble.get("method") == METHOD:
            parts += _joint_model(names, ensemble, citations)
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


def _joint_model(names: Sequence[str], ensemble: Facts, citations: Citations) -> list[str]:
    """Describe how a joint system was fitted, with the values that it took from validation."""
    sentences = [
        f"Its image score is a logistic regression{citations.cite('wolpert1992')} on the logits of "
        "the image scores of its members, limited to 0.0001 to 0.9999; a score of 0 is a variable "
        "of its own.",
        "The variables were standardised, and half of 0.1 times the squares of their coefficients "
        "was added to the loss (ridge).",
        "It was fitted on the labelled validation images; these themselves have the scores of fits "
        "on other patients, in five folds or as many as there are patients of the rarer class.",
    ]
    for finding, rule in ensemble["findings"].items():
        weights = [
            f"{name} {number(weight)} ({number(at_zero)} for a score of 0)"
            for name, weight, at_zero in zip(names, rule["weights"], rule["at_zero"], strict=True)
        ]
        sentences.append(
            f"Log-odds of {finding.replace('_', ' ')}: {number(rule['intercept'])}, and the logit "
            f"of each member times its weight: {', '.join(weights)}."
        )
        tried = rule.get("gates_tried")
        if tried:
            figure = METRICS[ensemble["boxes_by"]].title_in_sentence
            values = ", ".join(f"{gate} {number(value)}" for gate, value in tried.items())
            sentences.append(
                f"Boxes are {_GATES[rule['gate']]}, the best of {len(tried)} ways by {figure} "
                f"on validation images ({values})."
            )
    return sentences


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
    own = _own_parts(config["training"])
    if config["kind"] == "detector":
        return " ".join([_detector(recipe, citations), *own])
    network = _network_title(recipe["network"], citations)
    if model.get("trainable") == "none":
        sentences = [
            "is a probe, a classifier of whole images: a logistic regression of the standardised "
            f"mean of the last maps of {network}."
        ]
    else:
        sentences = [
            f"is a classifier of whole images, {network}, trained from image labels as CheXNet"
            f"{citations.cite('chexnet2017')} was.",
            *_classifier_loss(config["training"]),
            *own,
        ]
        if model.get("dropout"):
            sentences.append(f"Dropout was {model['dropout']:g}.")
    if model.get("last_stride"):
        sentences.append(f"Each cell of its map covers {model['last_stride']} px of the input.")
    return " ".join(sentences)


def _own_parts(training: Facts) -> list[str]:
    """Name the classes of the user's own that took part, about which nothing else is known."""
    sentences = []
    if training.get("module"):
        sentences.append(
            f"The loss was computed by the class {training['module']}, which may differ from the "
            "program's."
        )
    if training.get("callbacks"):
        sentences.append(f"Callbacks took part: {listing(training['callbacks'])}.")
    return sentences


def _classifier_loss(training: Facts) -> list[str]:
    if training.get("module"):
        return []
    sentences = ["The loss was cross-entropy."]
    weight = training.get("positive_weight", 1)
    if weight == "balanced":
        sentences.append("Positives were weighted by the ratio of negatives to positives.")
    elif weight != 1:
        sentences.append(f"Positives were weighted by {weight:g}.")
    if training.get("label_smoothing"):
        sentences.append(f"Labels were smoothed by {training['label_smoothing']:g}.")
    return sentences


def _detector(recipe: Facts, citations: Citations) -> str:
    model = recipe["config"]["model"]
    architecture = model.get("architecture", "retinanet")
    if architecture != "retinanet":
        title = network_titles().get(architecture, architecture)
        detector = f"{title}{citations.cite_for('detectors', architecture)}"
        settings = "; ".join(
            f"{key.replace('_', ' ')} {value}"
            for key, value in model.items()
            if key not in ("architecture", "backbone", "weights", "trainable", "compile")
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
        f"is a detector of lesions: {detector} on {network}. Its heads have {model['head_convs']} "
        "convolutions. "
        f"The losses are focal loss and the {_BOX_LOSSES[loss]} loss of boxes{cited}. "
        f"Norms of the backbone: {model['norm']}."
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
    start = f"It started from {weights}."
    if learned == "head":
        return f"{start} Only the last layer was trained."
    if learned == "head_first":
        return f"{start} In the first epoch only the last layer was trained."
    if learned == "stages":
        return f"{start} One more stage was trained in each epoch."
    if isinstance(learned, int | float) and learned < 5:
        return f"{start} Of the backbone, the deepest {learned} stages were trained."
    return start


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
    sentences = [
        f"The logistic regression was fitted to {counted(run['n_train'], 'image')} by scikit-learn "
        "with an L2 penalty: half the squared norm of the weights, times the penalty, was added to "
        "the mean cross-entropy."
    ]
    for finding, penalty in chosen.items():
        sentences.append(f"The penalty for {finding.replace('_', ' ')} was {penalty:g}.")
    if chosen and len(tried) > 1:
        sentences.append(
            f"It was chosen from {len(tried)} values between {min(tried):g} and {max(tried):g} by "
            f"the loss on {counted(run['n_val'], 'validation image')}, in which each patient "
            "counted once."
        )
    sentences.append("Training images were not augmented.")
    return " ".join(sentences)


def _trained_in_epochs(recipe: Facts, seeds: Any, citations: Citations) -> str:
    """Describe a training in epochs; ``seeds`` is a list for several training seeds."""
    how, run = recipe["config"]["training"], recipe["run"]
    several = isinstance(seeds, list | tuple)
    sentences = [
        f"It was trained on {counted(run['n_train'], 'image')} for {_length(how, run, several)} in "
        f"batches of {how['batch_size']} images.",
        f"It learned by {_optimiser(how, citations)} at a {_learning_rate(how)}.",
        *_details(how),
        _augmentation(recipe["config"]["augmentation"], citations),
        _kept_epoch(how, run),
    ]
    if several:
        sentences.append(
            f"There are {len(seeds)} trainings, with the seeds {listing(list(map(str, seeds)))}."
        )
    else:
        if run.get("best_epoch") and how.get("monitor") not in (None, "epoch"):
            sentences.append(f"It was epoch {run['best_epoch']}.")
        seed = how.get("seed") if seeds is None else seeds
        if seed is not None:
            sentences.append(f"The seed was {seed}.")
    if run.get("precision"):
        sentences.append(f"Arithmetic was in {run['precision']}.")
    if run.get("device_name"):
        sentences.append(f"The training ran on {run['device_name']}.")
    if run.get("seconds_training") and not several:
        sentences.append(f"It took {_time(run['seconds_training'])}.")
    return " ".join(sentence for sentence in sentences if sentence)


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _length(how: Facts, run: Facts, several: bool) -> str:
    """Return the number of epochs, and why a training ended before its last."""
    planned = counted(how["epochs"], "epoch")
    if several:
        return f"{planned} at most" if how.get("patience") else planned
    if run.get("epochs") == how["epochs"]:
        return planned
    text = f"{run['epochs']} of {planned}"
    if how.get("patience"):
        text += f" (stopped after {how['patience']} without improvement)"
    return text


def _learning_rate(how: Facts) -> str:
    text = f"peak learning rate of {how['learning_rate']:g}"
    if how.get("schedule"):
        text += f", {how['schedule'].replace('_', '-')} schedule"
    if how.get("warmup_epochs"):
        text += f", warm-up until epoch {how['warmup_epochs']:g}"
    if how.get("weight_decay"):
        text += f", weight decay {how['weight_decay']:g}"
    return text


def _details(how: Facts) -> list[str]:
    """Describe the settings of a training that are not those of every training."""
    sentences = []
    if how.get("accumulate", 1) > 1:
        sentences.append(f"Gradients were accumulated over {how['accumulate']} batches.")
    if how.get("clip"):
        sentences.append(f"Gradients were clipped to a norm of {how['clip']:g}.")
    if how.get("ema_decay"):
        sentences.append(f"Weights were averaged with a decay of {how['ema_decay']:g}.")
    if how.get("positive_share"):
        sentences.append(
            f"Positive images were drawn in {100 * how['positive_share']:g} % of cases."
        )
    return sentences


def _kept_epoch(how: Facts, run: Facts) -> str:
    """Say which epoch's weights were kept; empty if the files do not say it."""
    monitor = how.get("monitor")
    if not monitor:
        return ""
    if monitor == "epoch":
        return "The last epoch's weights were kept."
    best = "lowest loss" if monitor == "val_loss" else f"highest {_MONITORED.get(monitor, monitor)}"
    return f"The epoch with the {best} on {counted(run['n_val'], 'validation image')} was kept."


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
    if kinds.get("function"):
        parts.append(f"by the function {kinds['function']}")
    if not parts:
        return "Training images were not augmented."
    cited = citations.cite("albumentations2020")
    return f"Training images were changed at random: {listing(parts)}{cited}."
