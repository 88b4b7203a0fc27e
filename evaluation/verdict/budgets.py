"""Budgets of trainings: in what the trainings of this program differ beside their networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxr_compare.data_prep.base.recipe import Recipe
from cxr_compare.evaluation.metrics import metric_title
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.verdict.prose import listing

_STARTS = {"none": "random", "imagenet": "ImageNet's", "coco": "COCO's"}


def budget_notes(outputs: Mapping[str, Output]) -> list[Note]:
    """Note where the trainings of systems are unequal, and that each system is one training.

    Other software's trainings are unknown, and are left out.
    """
    found = {name: Recipe.of(output.record) for name, output in outputs.items()}
    recipes = {name: recipe for name, recipe in found.items() if recipe is not None}
    if len(recipes) < 2:
        return []
    notes = []
    if texts := _differences({name: _budget(recipe) for name, recipe in recipes.items()}):
        text = "The trainings differ in more than their networks, which may decide the answer"
        notes.append(Note(f"{text}: {'; '.join(texts)}.", "unequal_budget"))
    trained = f"{listing([*recipes])} are one training each"
    trained = "Each system is one training" if len(recipes) == len(outputs) else trained
    text = (
        f"{trained}; no interval here includes what another seed changes. For that, train others "
        "(cxr train --set training.seed=1), or join the reports of folds (cxr folds)."
    )
    return [*notes, Note(text, "one_training")]


def _budget(recipe: Recipe) -> dict[str, Any]:
    """Return what a training was given, by names for readers, from its recipe."""
    model, training = recipe.config["model"], recipe.config["training"]
    batch = training["batch_size"] * training["accumulate"]
    steps = recipe.n_train // batch * recipe.epochs
    changes = [f"{key} {value}" for key, value in recipe.config["augmentation"].items() if value]
    kept = "last" if recipe.monitor == "epoch" else f"best {metric_title(recipe.monitor)}"
    return {
        "image size": f"{recipe.size} px",
        "images seen": f"{steps * batch:,}",
        "steps": f"{steps:,}",
        "batch": batch,
        "start weights": _STARTS.get(recipe.start, recipe.start),
        "trainable stages": model.get("trainable", "unknown"),
        "averaged weights": training["ema_decay"] or "none",
        "kept epoch": kept,
        "share of positives drawn": training["positive_share"] or "as they come",
        "weight of a positive": training.get("positive_weight", 1.0),
        "random changes": ", ".join(changes) or "none",
    }


def _differences(budgets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return in words each fact in which budgets differ, with the systems of each value."""
    texts = []
    for key in next(iter(budgets.values())):
        names_by_value: dict[str, list[str]] = {}
        for name, budget in budgets.items():
            names_by_value.setdefault(str(budget[key]), []).append(name)
        if len(names_by_value) > 1:
            values = [f"{value} ({', '.join(names)})" for value, names in names_by_value.items()]
            texts.append(f"{key} {', '.join(values)}")
    return texts
