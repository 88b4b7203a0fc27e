"""What the report says of a system beside its figures."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxr_compare.evaluation.compare.estimates import Estimates
from cxr_compare.evaluation.compare.intervals import EXACT_METHOD
from cxr_compare.evaluation.decisions.thresholds import check_policy
from cxr_compare.evaluation.decisions.tuning_options import (
    TuningOptions,
)
from cxr_compare.evaluation.report.cost_table import cost_rows
from cxr_compare.evaluation.report.interval_facts import IntervalFacts
from cxr_compare.evaluation.report.methods import _toml, methods
from cxr_compare.evaluation.report.templates import render, sentence
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions, tune_predictions
from cxr_compare.networks.registry import NETWORKS


def as_table(rows):
    return {row[0]: list(row[1:]) for row in rows}


def test_an_ensemble_shows_its_cost_against_the_first_system(comparison):
    cost = {"parameters": 64_400_000, "flops": None, "latency_ms": 392.0, "made_of": "A + B"}
    comparison.systems["CheXNet"] = replace(comparison.systems["CheXNet"], cost=cost)
    table = as_table(cost_rows(comparison))
    assert table["Made of"] == ["one model", "A + B"]
    assert table["Parameters"] == ["32.2 million", "64.4 million (2.0 times)"]
    assert table["Time per image"] == ["196.0 ms", "392.0 ms (2.0 times)"]


def test_what_was_asked_of_validation_is_told_with_what_it_was_chosen_by(predict, test_set):
    detector = predict("A", "boxes", seed=1)
    classifier = predict("B", seed=2)
    for system, options in (
        (detector, TuningOptions(calibration="choose", reductions=("max", "top_k"))),
        (classifier, TuningOptions(calibration="isotonic")),
    ):
        decision = tune_predictions(system, test_set, options=options)
        system.write_decision("opacity", decision.to_dict())
    systems = {"A": detector, "B": classifier}
    comparison = compare_predictions(systems, test_set, replicates=100)
    told = methods(comparison, test_set.dataset)["paragraphs"][2]
    detector, classifier = told.split(" B: ")
    cut = comparison.records["A"]["decision"]["box_cut"]
    assert f"boxes called from score {cut:g} in the RSNA score" in detector
    assert "(2 ways from boxes to an image score" in detector
    assert "held-out log loss: as it is" in detector
    assert "order is kept, scores on one level are tied" in classifier
    assert "boxes called" not in classifier


def test_a_further_policy_is_judged_beside_the_stored_ones(predict, test_set, evaluation_set):
    tuned = predict("A", seed=1)
    untuned = predict("B", seed=2)
    decision = tune_predictions(tuned, test_set, policies=("youden",))
    tuned.write_decision("opacity", decision.to_dict())
    comparison = compare_predictions(
        {"A": tuned, "B": untuned},
        test_set,
        replicates=100,
        extra_policies=("threshold=0.3", "cost:5/1"),
    )
    assert list(comparison.systems["A"].thresholds) == ["youden", "threshold=0.3", "cost:5/1"]
    assert comparison.systems["A"].thresholds["threshold=0.3"] == 0.3
    assert {"max_f1", "threshold=0.3", "cost:5/1"} <= set(comparison.systems["B"].thresholds)
    expected = (comparison.decisions["score"] >= 0.3).tolist()
    assert comparison.decisions["decision_threshold=0.3"].tolist() == expected


OBUCHOWSKI = "Obuchowski 1997, clustered by patient"


def test_a_measure_that_no_system_has_is_not_explained(comparison, image_set):
    def explained(each):
        return [metric.title for metric in methods(each, image_set)["metrics"]]

    assert "AP50" in explained(comparison)
    metrics = comparison.metrics.copy()
    metrics.loc[metrics["metric"] == "ap50", "estimate"] = np.nan
    fewer = replace(comparison, estimates=Estimates.from_table(metrics))
    assert "AP50" not in explained(fewer)


@pytest.mark.parametrize(
    ("policy", "parts"),
    [
        ("max_f1", ("highest F1", "several equally good ones the highest")),
        ("youden", ("Youden's J = sensitivity + specificity − 1", "equally good ones the highest")),
        (
            "cost:10/1",
            (
                "least expected cost",
                "costs 10 times",
                "that of validation",
                "equally good ones the highest",
            ),
        ),
        ("cost:10/4@0.05", ("costs 2.5 times", "a prevalence of 0.05")),
        ("threshold=0.3", ("Declared by the user", "no image chose it")),
        ("sensitivity>=0.95", ("The highest threshold that reaches a sensitivity of 0.95",)),
        ("specificity>=0.90", ("The lowest threshold that reaches a specificity of 0.9",)),
    ],
)
def test_each_policy_says_its_rule_and_what_decides_between_equals(policy, parts):
    told = sentence("policy_meaning", check_policy(policy))
    for part in parts:
        assert part in told


def with_ways(comparison, auroc, paired=None, others=None):
    metrics = comparison.metrics.copy()
    single = metrics["system"].isin(comparison.names)
    of = metrics["metric"] == "auroc"
    metrics.loc[of & single, "ci_method"] = auroc
    metrics.loc[of & ~single, "ci_method"] = paired or auroc
    if others is not None:
        metrics.loc[~of, "ci_method"] = others
    return replace(comparison, estimates=Estimates.from_table(metrics))


def test_an_interval_is_explained_as_it_was_made(comparison):
    bootstrap = "patient-cluster bootstrap percentile, 2000 resamples"
    made = with_ways(comparison, f"{OBUCHOWSKI} (on the logit)", OBUCHOWSKI, bootstrap)
    facts = IntervalFacts.of(made)
    single, paired = (sentence(f"{kind}_meaning", facts) for kind in ("interval", "difference"))
    assert "Obuchowski (1997)" in single
    assert "logit" in single
    assert "resampled with replacement" in single
    assert "Obuchowski's variance of the difference" in paired
    assert "same resampled patients" in paired


def test_an_interval_is_of_the_true_figure_and_not_of_the_next_study(comparison):
    told = sentence("interval_meaning", IntervalFacts.of(comparison))
    assert "hold the true figure" in told
    assert "not the range in which another study's figure would fall" in told


def test_uncertainty_names_what_was_used_and_nothing_else(comparison):
    made = with_ways(comparison, OBUCHOWSKI, others=EXACT_METHOD)
    told = sentence("uncertainty", IntervalFacts.of(made))
    assert "Obuchowski (1997)" in told
    assert "Clopper-Pearson" in told
    assert "bootstrap" not in told
    assert "McNemar" not in told  # no tests were made
    assert "Holm" not in told


RECIPE = {
    "network": "resnet18",
    "config": {
        "kind": "detector",
        "model": {
            "fpn_channels": 64,
            "head_convs": 2,
            "head": "v2",
            "box_loss": "auto",
            "norm": "batch",
            "weights": "imagenet",
            "trainable": 3,
        },
        "augmentation": {"rotate_degrees": 10.0, "scale": 0.1, "mosaic": 0.0},
        "training": {
            "epochs": 12,
            "patience": 3,
            "optimiser": "adamw",
            "learning_rate": 0.001,
            "schedule": "one_cycle",
            "warmup_epochs": 1.0,
            "weight_decay": 0.05,
            "batch_size": 8,
            "monitor": "ap50",
            "seed": 4,
        },
    },
    "preprocess": {"size": 128, "mean": 0.449, "std": 0.226},
    "run": {
        "epochs": 7,
        "best_epoch": 4,
        "n_train": 748,
        "n_val": 188,
        "precision": "bf16",
        "device_name": "a GPU",
        "seconds_training": 600.0,
        "monitor": "ap50",
    },
}


def systems_told(comparison, image_set, **facts):
    """The paragraph on systems, with these facts of each."""
    return methods(replace(comparison, records=facts), image_set)["paragraphs"][1]


def test_a_trained_system_is_described_from_its_run(comparison, image_set):
    told = systems_told(comparison, image_set, RetinaNet={"recipe": RECIPE, "seed": 4}, CheXNet={})
    for words in (
        "RetinaNet is a detector of lesions: RetinaNet [1] with a feature pyramid [2] of 64",
        "on ResNet-18 [3]",
        "128 × 128 px",
        "started from weights published for ImageNet [5], of",
        "the deepest 3 stages learned",
        "748 images for 7 of 12 epochs (stopped after 3 without",
        "AdamW [6]",
        "rotation by up to 10 degrees and scale by up to 10 % [",
        "highest AP50 on 188 validation images was kept (epoch 4)",
        "seed 4",
        "10 min",
        "CheXNet: predictions that were imported; which network made them",
    ):
        assert words in told
    assert "mosaic" not in told


def test_seeds_ensembles_and_exports_are_told_as_what_they_are(comparison, image_set):
    several = {"recipe": RECIPE, "seed": [0, 1, 2]}
    joined = {"members": [{"system": "A", "recipe": RECIPE}, {"system": "B", "recipe": None}]}
    told = systems_told(comparison, image_set, RetinaNet=several, CheXNet=joined)
    assert "3 trainings with seeds 0, 1 and 2" in told
    assert "(epoch 4)" not in told.split("CheXNet joins")[0]  # of each seed another
    assert "CheXNet joins the predictions of A and B. A is a detector of lesions" in told
    assert "B: predictions that were imported" in told
    export = {
        "recipe": RECIPE,
        "seed": 4,
        "exported_from": "1",
        "backend": "onnx",
        "precision": "int8",
    }
    told = systems_told(comparison, image_set, RetinaNet=export, CheXNet={"backend": "torch"})
    assert "It was evaluated as its export to onnx in int8." in told
    assert "CheXNet was run by this program; its training files were not beside it" in told


def test_keys_that_an_older_run_lacks_are_left_out(comparison, image_set):
    config = RECIPE["config"] | {"augmentation": {}}
    old = RECIPE | {"config": config, "run": {"n_train": 748, "n_val": 188, "epochs": 12}}
    told = systems_told(comparison, image_set, RetinaNet={"recipe": old}, CheXNet={})
    assert "training images were not augmented" in told
    assert "arithmetic" not in told
    assert "None" not in told


def test_every_citation_has_its_reference_and_bibtex_its_entry(comparison, image_set):
    folder = Path(methods.__code__.co_filename).parent
    texts = (folder / name for name in ("methods.txt.jinja", "words.txt.jinja"))
    used = {key for text in texts for key in re.findall(r'(?:cite|_at)\("(\w+)"', text.read_text())}
    known = _toml("references")
    assert used <= set(known)
    own = used | {each["key"] for each in _toml("checklists").values()}
    by_data = {key for key, each in known.items() if {"networks", "detectors", "sources"} & {*each}}
    assert set(known) == own | by_data | {"korngraubard1998"}  # nothing is kept that nobody cites
    for each in known.values():
        assert each["key"] == "cxrcompare" or (each["journal"] and 1900 < each["year"] < 2030)
        assert not each.get("doi") or re.fullmatch(r"10\.\d{4,}/\S+", each["doi"])
    records = {"RetinaNet": {"recipe": RECIPE, "seed": 4}, "CheXNet": {}}
    told = methods(replace(comparison, records=records), image_set)
    written = render("references.bib.jinja", **told)
    assert re.findall(r"^@\w+\{(\w+),$", written, re.M) == [r["key"] for r in told["references"]]
    assert written.count("{") == written.count("}")
    assert "author = {Lin, T. Y. and Goyal, P. and" in written
    assert "pages = {2999--3007}" in written


def test_networks_of_the_registry_have_their_papers_and_titles():
    named = [each.get("networks", {}) for each in _toml("references").values()]
    printed = {name: title for networks in named for name, title in networks.items()}
    titles = {name: network.title.split(",")[0] for name, network in NETWORKS.items()}
    assert printed.items() - {("timm:", "")} == titles.items() - {
        ("small_cnn", titles["small_cnn"])  # nobody published it
    }
