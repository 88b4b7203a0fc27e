"""Methods, references and explanations of a report, by kind and value."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from cxr_compare.evaluation.figure_intervals import EXACT_METHOD
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.report.citations import read_references
from cxr_compare.evaluation.report.interval_facts import IntervalFacts
from cxr_compare.evaluation.report.interval_texts import families_text
from cxr_compare.evaluation.report.methods import methods, policy_meaning
from cxr_compare.evaluation.sources.read_predictions import store_decision
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.evaluation.thresholds import check_policy
from cxr_compare.evaluation.tuning_options import TuningOptions
from cxr_compare.networks.trunks import NETWORKS
from tests.compared import compare_predictions


def test_decisions_paragraph_has_the_values_that_validation_chose(predict, test_set):
    detector = predict("A", "boxes", seed=1)
    classifier = predict("B", seed=2)
    for system, options in (
        (detector, TuningOptions(calibration="choose", reductions=("max", "top_k"))),
        (classifier, TuningOptions(calibration="isotonic")),
    ):
        decision = tune_predictions(system, test_set, options=options)
        store_decision(system, decision)
    systems = {"A": detector, "B": classifier}
    comparison = compare_predictions(systems, test_set, replicates=100)
    paragraph = methods(comparison, test_set.truth).paragraphs[2]
    detector_text, classifier_text = paragraph.split(" B: ")
    (decision,) = comparison.systems["A"].decisions
    assert f"score of {decision.box_cut:g}" in detector_text
    assert f"({len(decision.tried)} " in detector_text
    for name in decision.losses:
        assert name.replace("_", " ") in detector_text
    (decision,) = comparison.systems["B"].decisions
    levels = len(set(decision.calibration.probabilities))
    assert f"{levels} levels" in classifier_text
    assert "in the RSNA score" not in classifier_text


def test_a_further_policy_is_evaluated_beside_the_stored_ones(predict, test_set, evaluation_set):
    tuned = predict("A", seed=1)
    untuned = predict("B", seed=2)
    decision = tune_predictions(tuned, test_set, policies=("youden",))
    store_decision(tuned, decision)
    comparison = compare_predictions(
        {"A": tuned, "B": untuned},
        test_set,
        replicates=100,
        policies=("threshold=0.3", "cost:5/1"),
    )
    assert list(comparison.systems["A"].thresholds) == ["youden", "threshold=0.3", "cost:5/1"]
    assert comparison.systems["A"].thresholds["threshold=0.3"] == 0.3
    assert {"max_f1", "threshold=0.3", "cost:5/1"} <= set(comparison.systems["B"].thresholds)
    expected = (comparison.decisions["score"] >= 0.3).tolist()
    assert comparison.decisions["decision_threshold=0.3"].tolist() == expected


def test_a_single_system_has_no_test_of_a_difference_and_seeds_have_one_printed_choice(
    predict, test_set
):
    systems = {"A": [predict("A", seed=1), predict("B", seed=2)]}
    comparison = compare_predictions(systems, test_set, replicates=20)
    assert not IntervalFacts.from_comparison(comparison).tested
    made = methods(comparison, test_set.truth)
    assert "p of a difference" not in made.paragraphs[3]
    (note,) = [note.text for note in comparison.notes if note.kind == "seeds"]
    assert "thresholds" in note
    assert note in made.paragraphs[2]


OBUCHOWSKI = "Obuchowski 1997, clustered by patient"


@pytest.mark.parametrize(
    ("policy", "parts"),
    [
        ("max_f1", ("F1",)),
        ("youden", ("sensitivity + specificity − 1",)),
        ("cost:10/1", (" 10 times",)),
        ("cost:10/4@0.05", (" 2.5 times", "prevalence of 0.05")),
        ("threshold=0.3", ("user",)),
        ("sensitivity>=0.95", ("highest", "sensitivity of 0.95")),
        ("specificity>=0.90", ("lowest", "specificity of 0.9")),
    ],
)
def test_each_policy_has_a_meaning_of_its_own_with_its_values(policy, parts):
    meaning = policy_meaning(check_policy(policy))
    for part in parts:
        assert part in meaning


def with_methods(comparison, auroc, paired=None, others=None):
    metrics = comparison.metrics.copy()
    single = metrics["second"] == ""
    of = metrics["metric"] == "auroc"
    metrics.loc[of & single, "ci_method"] = auroc
    metrics.loc[of & ~single, "ci_method"] = paired or auroc
    if others is not None:
        metrics.loc[~of, "ci_method"] = others
    return replace(comparison, figures=Figures.from_table(metrics))


def test_text_to_copy_names_the_method_of_an_interval(comparison, image_set):
    bootstrap = "patient-cluster bootstrap percentile, 2000 resamples"
    made = with_methods(comparison, f"{OBUCHOWSKI} (on the logit)", OBUCHOWSKI, bootstrap)
    facts = IntervalFacts.from_comparison(made)
    assert facts.single == {"obuchowski", "bootstrap"}
    assert facts.paired >= {"obuchowski"}
    paragraph = methods(made, image_set.labelled).paragraphs[3]
    assert "Obuchowski" in paragraph
    assert "bootstrap" in paragraph


def test_uncertainty_names_what_was_used_and_nothing_else(comparison, image_set):
    made = with_methods(comparison, OBUCHOWSKI, others=EXACT_METHOD)
    text = methods(made, image_set.labelled).paragraphs[3]
    assert "Obuchowski" in text
    assert "Clopper-Pearson" in text
    assert "bootstrap" not in text


def test_the_variance_of_an_auroc_is_described_as_it_is_computed(comparison, image_set):
    made = with_methods(comparison, OBUCHOWSKI)
    made_methods = methods(made, image_set.labelled)
    paragraph = made_methods.paragraphs[3]
    cited = " ".join(made_methods.references)
    for name in ("Mancl and DeRouen (2001)", "Satterthwaite's", "logit", "Clopper-Pearson"):
        assert name in paragraph
    for key in ("obuchowski1997", "manclderouen2001", "satterthwaite1946"):
        assert read_references()[key]["title"] in cited


def test_paragraph_and_report_give_one_account_of_the_families(predict, test_set):
    systems = {name: predict(name, seed=seed) for seed, name in enumerate("ABC")}
    comparison = compare_predictions(systems, test_set, replicates=100)
    facts = IntervalFacts.from_comparison(comparison)
    tests = comparison.tests_with_holm
    assert facts.families["answer"] == 3
    in_families = facts.families["answer"] + facts.families["findings"]
    assert in_families == tests["p_holm"].notna().sum()
    made = methods(comparison, test_set.truth)
    account = families_text(facts, lambda key: "")
    for size in facts.families.values():
        assert f"({size} " in account
    without_numbers = re.sub(r" \[[\d, ]+\]", "", made.paragraphs[3])
    assert account in without_numbers


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


def systems_paragraph(comparison, image_set, **facts):
    """Return the paragraph on systems, with these facts of each."""
    return methods(replace(comparison, records=facts), image_set.labelled).paragraphs[1]


def test_a_trained_system_is_described_from_its_run(comparison, image_set):
    records = {"RetinaNet": {"recipe": RECIPE, "seed": 4}, "CheXNet": {}}
    paragraph = systems_paragraph(comparison, image_set, **records)
    for value in (
        "RetinaNet [1, 2] on ResNet-18 [3]",
        "fpn channels 64",
        "box loss giou [4]",  # that of the head for "auto"
        "128 × 128 px",
        "Training [5, 6, 7]: ",  # ImageNet, AdamW, albumentations
        "first weights imagenet",
        "deepest 3 stages",
        "training images 748",
        "7 epochs",
        "after 3 epochs without improvement",
        "epochs at most 12",
        "8 images",
        "adamw; learning rate 0.001; schedule one_cycle",
        "rotate degrees 10",
        "validation images 188",
        "kept epoch 4",
        "seed 4",
        "10 min on a GPU",
        "CheXNet",
    ):
        assert value in paragraph
    assert "mosaic" not in paragraph


def test_seeds_ensembles_and_exports_have_their_own_descriptions(comparison, image_set):
    several = {"recipe": RECIPE, "seed": [0, 1, 2]}
    joined = {"members": [{"system": "A", "recipe": RECIPE}, {"system": "B", "recipe": None}]}
    paragraph = systems_paragraph(comparison, image_set, RetinaNet=several, CheXNet=joined)
    assert "seeds 0, 1 and 2" in paragraph
    seeds, ensemble = paragraph.split("CheXNet combines")
    assert "First of the trainings with the seeds" in seeds
    assert "A and B" in ensemble
    assert "A is a detector" in ensemble
    export = {
        "recipe": RECIPE,
        "seed": 4,
        "exported_from": "1",
        "backend": "onnx",
        "precision": "int8",
    }
    records = {"RetinaNet": export, "CheXNet": {"backend": "torch"}}
    paragraph = systems_paragraph(comparison, image_set, **records)
    assert "onnx in int8" in paragraph
    assert "CheXNet was run by this program" in paragraph


def test_keys_that_an_older_run_lacks_are_left_out(comparison, image_set):
    config = RECIPE["config"] | {"augmentation": {}}
    old = RECIPE | {"config": config, "run": {"n_train": 748, "n_val": 188, "epochs": 12}}
    records = {"RetinaNet": {"recipe": old}, "CheXNet": {}}
    paragraph = systems_paragraph(comparison, image_set, **records)
    assert "augmentation" not in paragraph
    assert "arithmetic" not in paragraph
    assert "None" not in paragraph


def test_every_citation_has_its_reference():
    folder = Path(methods.__code__.co_filename).parent
    texts = [path.read_text() for path in folder.glob("*.py")]
    references = read_references()
    cited = {key for text in texts for key in re.findall(r"""cite\(["'](\w+)["']""", text)}
    assert cited <= set(references)
    used = {key for key in references for text in texts if f'"{key}"' in text or key in cited}
    cited_by_data = {
        key
        for key, entry in references.items()
        if {"networks", "detectors", "sources"} & set(entry)
    }
    uncited = set(references) - used - cited_by_data
    assert uncited == set()
    for entry in references.values():
        assert entry["key"] == "cxrcompare" or (entry["journal"] and 1900 < entry["year"] < 2030)
        assert not entry.get("doi") or re.fullmatch(r"10\.\d{4,}/\S+", entry["doi"])


def test_networks_of_classifiers_have_their_papers():
    printed: dict[str, str] = {}
    for entry in read_references().values():
        printed |= entry.get("networks", {})
    # Nobody published small_cnn.
    assert set(NETWORKS) - set(printed) == {"small_cnn"}


def paragraphs(comparison, image_set):
    return " ".join(methods(comparison, image_set.labelled).paragraphs)


def test_pytorch_is_named_only_where_a_system_was_trained_by_this_program(comparison, image_set):
    versions = {"versions": {"torch": "2.9.1", "numpy": "2.4.0"}}
    imported = replace(comparison, provenance=comparison.provenance | versions)
    text = paragraphs(imported, image_set)
    assert "2.4.0" in text
    assert "2.9.1" not in text


def test_a_rule_chosen_among_several_is_named_as_a_choice_that_stays_fixed(comparison):
    name = comparison.names[0]
    decision = {"reduction": {"rule": "max"}, "tried": [{}] * 8}
    chosen = replace(comparison, records={name: {"decision": decision}})
    alone = replace(comparison, records={name: {"decision": decision | {"tried": []}}})
    fixed = set(IntervalFacts.from_comparison(chosen).fixed)
    assert fixed - set(IntervalFacts.from_comparison(alone).fixed) == {
        "rule from boxes to an image score"
    }


def test_what_no_file_says_of_the_patients_is_left_out(comparison, image_set):
    known = image_set.labelled.images[["image_id", "patient_id"]]
    labelled = replace(image_set.labelled, images=known.assign(sex="F"))
    paragraph = methods(comparison, labelled).paragraphs[0]
    (of_test,) = re.findall(r"Evaluated test images: (.*?)\.", paragraph)
    assert re.fullmatch(r"\d+ images of \d+ patients; sex F \d+", of_test)
