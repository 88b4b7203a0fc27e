"""Networks and trainings of systems in words, as their runs record them.

What a run does not record is left out. ``facts`` is the record of a system in the provenance of a
comparison, and ``recipe`` its entry on the training run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report.citations import Citations, network_titles
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.statistics.joint_score import METHOD
from cxr_compare.evaluation.verdict.unequal_recipes import (
    SETTINGS,
    STATED_ELSEWHERE,
    conditions_of,
)

Facts = Mapping[str, Any]

_GATES = {
    "rescaled": "those of the detector, rescaled so that the highest of an image has its score",
    "multiplied": "those of the detector, with their scores multiplied by the score of the image",
    "untouched": "those of the detector, untouched",
}
"""Words on how a joint system changes the scores of boxes."""
_PAPERS = {
    "adam": "adam2015",
    "adamw": "adamw2019",
    "coco": "coco2014",
    "giou": "giou2019",
    "imagenet": "imagenet2015",
}
"""Key of the reference of a setting's value."""
_IN_THE_SENTENCE = frozenset({"network", "architecture", SETTINGS, "input size"})
"""Conditions of training that the sentences before their list state."""


def system_text(
    name: str, facts: Facts, citations: Citations, described: Collection[str] = ()
) -> str:
    """Describe a system and its training, without its members that are `described` already."""
    recipe = facts.get("recipe")
    if recipe:
        parts = [
            f"{name} {_network(recipe, citations)}",
            f"Images were {_preprocessed(recipe)}.",
            _training(facts, citations),
            prediction_text(facts),
        ]
        return " ".join(part for part in parts if part)
    if facts.get("members"):
        names = [member["system"] for member in facts["members"]]
        ensemble = facts.get("ensemble") or {}
        parts = [f"{name} combines the predictions of {listing(names)}."]
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
    """Say what was trained, with the settings of its network."""
    model = dict(recipe["config"]["model"])
    if model.get("box_loss") == "auto":
        model["box_loss"] = "giou" if model["head"] == "v2" else "l1"
    if recipe["config"]["kind"] == "detector":
        architecture = model.get("architecture", "retinanet")
        cited = citations.cite_for("detectors", architecture)
        start = f"is a detector of lesions, {_title(architecture)}{cited} on"
    elif model.get("trainable") == "none":
        start = (
            "is a probe, a classifier of whole images: a logistic regression (loss: mean "
            "cross-entropy, and half the squared norm of the weights times a penalty) on the "
            "standardised mean of the last maps of"
        )
    else:
        cited = citations.cite("chexnet2017")
        start = f"is a classifier of whole images, as CheXNet{cited} is, on"
    network = recipe["network"]
    text = f"{start} {_title(network)}{citations.cite_for('networks', network)}"
    settings = []
    for key, value in model.items():
        if key not in STATED_ELSEWHERE:
            settings.append(f"{key.replace('_', ' ')} {value}{_cited(value, citations)}")
    return f"{text} ({'; '.join(settings)})." if settings else f"{text}."


def _cited(value: Any, citations: Citations) -> str:
    """Cite the paper on the value of a setting; empty without one."""
    return citations.cite(_PAPERS[value]) if isinstance(value, str) and value in _PAPERS else ""


def _title(name: str) -> str:
    return network_titles().get(name, name.replace("_", " "))


def _preprocessed(recipe: Facts) -> str:
    facts = recipe["preprocess"]
    return (
        f"scaled to fit a square of {facts['size']} × {facts['size']} px without distortion "
        f"(letterbox), 8-bit grey, and normalised by mean {facts['mean']:.3g} and standard "
        f"deviation {facts['std']:.3g}"
    )


def _training(facts: Facts, citations: Citations) -> str:
    """List the conditions of a training; of several training seeds, those of the first."""
    recipe, seeds = facts["recipe"], facts.get("seed")
    training, run = recipe["config"]["training"], recipe["run"]
    conditions = conditions_of(facts)
    known: dict[str, Any] = {
        name: text for name, text in conditions.items() if name not in _IN_THE_SENTENCE
    }
    known["epochs at most"] = training.get("epochs")
    known["validation images"] = run.get("n_val")
    known["kept epoch"] = run.get("best_epoch")
    known["L2 penalties tried"] = ", ".join(map(str, training.get("penalties") or ()))
    for finding, penalty in (run.get("penalties") or {}).items():
        known[f"penalty for {finding.replace('_', ' ')}"] = penalty
    subject = "Training"
    if isinstance(seeds, list | tuple):
        subject = f"First of the trainings with the seeds {listing(list(map(str, seeds)))}"
    else:
        known["seed"] = training.get("seed") if seeds is None else seeds
    first = (recipe["config"]["model"].get("weights"), training.get("optimiser"))
    papers = [_PAPERS[value] for value in first if value in _PAPERS]
    if conditions.get("augmentation", "none") != "none":
        papers.append("albumentations2020")
    texts = [f"{name} {value}" for name, value in known.items() if value not in (None, "")]
    return f"{subject}{citations.cite(*papers)}: {'; '.join(texts)}."
