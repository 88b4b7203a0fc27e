"""Model cards: sections, metadata, figures and what is unknown."""

import re
from dataclasses import replace

import pandas as pd
import pytest
import yaml

from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.groups.failure_analysis import FAILURE_COLUMNS
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.report.model_card import ModelCard, starting_weights
from cxr_compare.evaluation.report.system_cards import card_files, cards_of_comparison, write_cards

SECTIONS = [  # of Mitchell et al. 2019, in their order
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
    "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
]  # fmt: skip
RECIPE = {
    "network": "resnet18",
    "config": {
        "model": {"architecture": "retinanet", "backbone": "resnet18", "weights": "imagenet"},
        "training": {"batch_size": 8},
    },
    "preprocess": {"size": 512},
    "run": {"epochs": 12},
}


def section(card: str, title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.DOTALL | re.MULTILINE)[1]


@pytest.fixture
def trained(comparison):
    """The comparison, in which RetinaNet is a run of this program and CheXNet was imported."""
    records = {
        "RetinaNet": {
            "kind": "boxes", "seed": 1, "recipe": RECIPE, "backend": "torch",
            "inference_id": "abc", "training_id": "def",
            "trained_on": {"data set": "rsna", "train": "500 images of 455 patients"},
            "decision": {"calibration": {"method": "platt"}},
        },
        "CheXNet": {"kind": "scores", "trained_on": "unknown", "inference_id": "import-1"},
    }  # fmt: skip
    return replace(comparison, records=records)


def test_card_has_the_sections_of_the_layout_in_their_order(trained):
    for name in trained.names:
        text = cards_of_comparison(trained)[name].to_markdown()
        found = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert found == [title for title in SECTIONS if title in found]
        assert {"Model details", "Metrics", "Quantitative analyses"} <= set(found)
        assert not re.search(r"[ \t]$|\n{3}", text, re.MULTILINE)


def test_card_of_a_run_says_what_it_is_and_what_it_learned_from(trained):
    text = cards_of_comparison(trained)["RetinaNet"].to_markdown()
    training = section(text, "Training data")
    assert "500 images of 455 patients" in training
    assert "**Network**: resnet18." in training
    assert "**Architecture**: retinanet." in training
    assert "**Input size**: 512 px." in training
    assert "**Length of training**: 12 epochs." in training
    assert "**Batch**: 8 images." in training
    assert "torchvision" in section(text, "Model details")  # whose weights it started from


def test_what_no_file_records_is_left_out(trained):
    text = cards_of_comparison(trained)["CheXNet"].to_markdown()
    details = section(text, "Model details")
    assert not re.search("Network|Input|Random seed|training|Licence|None|unknown", details)
    assert "## Training data" not in text
    assert "may have seen images of any data set" in section(text, "Caveats and recommendations")
    assert "not calibrated" in section(text, "Metrics")
    bare = ModelCard("A", "scores", "mass", ("mass",), {})
    assert "## Evaluation data" not in bare.to_markdown()
    assert "None" not in bare.to_markdown()


def test_figures_have_their_intervals_and_are_those_of_this_system(trained):
    figures = section(
        cards_of_comparison(trained)["CheXNet"].to_markdown(), "Quantitative analyses"
    )
    assert "| AUROC | 0.862 (0.812 to 0.902) |" in figures
    assert "0.891" not in figures  # of RetinaNet
    data = section(cards_of_comparison(trained)["CheXNet"].to_markdown(), "Evaluation data")
    assert "12 test images, 12 patients and 6 positive images" in data


def test_card_without_a_threshold_has_no_empty_table(trained):
    metrics = trained.metrics.copy()
    at_threshold = (metrics["first"] == "CheXNet") & (metrics["policy"] != "")
    metrics.loc[at_threshold, ["estimate", "ci_low", "ci_high"]] = float("nan")
    untuned = replace(
        trained,
        systems={**trained.systems, "CheXNet": replace(trained.systems["CheXNet"], thresholds={})},
        figures=Figures.from_table(metrics),
    )
    card = cards_of_comparison(untuned)["CheXNet"]
    assert [table.title.split(",")[0] for table in card.evaluation.figures] == [
        "Without a threshold"
    ]
    figures = section(card.to_markdown(), "Quantitative analyses")
    assert "| AUROC | 0.862 (0.812 to 0.902) |" in figures
    assert "| – |" not in figures
    assert "Threshold for" not in card.to_markdown()


def test_every_threshold_is_named_and_the_main_one_is_marked(trained):
    text = section(cards_of_comparison(trained)["RetinaNet"].to_markdown(), "Metrics")
    assert text.count("positive from 0.5 on") == len(trained.policies)
    assert text.count("(the figures below)") == 1


def test_card_of_several_seeds_says_what_is_of_the_first_seed_alone(trained):
    record = trained.records["RetinaNet"]
    models = [record | {"seed": seed, "inference_id": f"id-{seed}"} for seed in (4, 7)]
    records = {**trained.records, "RetinaNet": models[0] | {"seed": [4, 7], "models": models}}
    systems = dict(trained.systems)
    systems["RetinaNet"] = replace(systems["RetinaNet"], seeds=2)
    text = cards_of_comparison(replace(trained, records=records, systems=systems))[
        "RetinaNet"
    ].to_markdown()
    assert "id-4, id-7" in section(text, "Model details")
    metrics = section(text, "Metrics")
    assert "means over 2 trainings" in metrics
    assert "are those of seed 4" in metrics
    assert "Rockette" in metrics
    assert "of images are those of the first" in section(text, "Quantitative analyses")


def test_cautions_of_the_answer_are_caveats(trained):
    warned = replace(trained, notes=[Note("few_patients", "Only six patients are positive.")])
    text = cards_of_comparison(warned)["RetinaNet"].to_markdown()
    assert "- Only six patients are positive." in section(text, "Caveats and recommendations")


def test_failures_by_group_are_the_columns_of_this_system(trained):
    def row(group, system, estimate):
        given = {"topic": "sex", "group": group, "policy": "max_f1", "system": system,
                 "metric": "recall", "estimate": estimate, "ci_low": estimate - 0.1,
                 "ci_high": estimate + 0.1, "of": 5.0, "count": 3.0, "note": ""}  # fmt: skip
        return {column: given.get(column) for column in FAILURE_COLUMNS}

    rows = [
        row(group, name, value + shift)
        for name, shift in (("RetinaNet", 0.0), ("CheXNet", 0.1))
        for group, value in (("F", 0.6), ("not F", 0.3), ("M", 0.3))
    ]
    table = pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))
    failing = replace(trained, compute_groups=lambda: table)
    card = cards_of_comparison(failing)["CheXNet"]
    (section_of_groups,) = card.evaluation.groups
    assert list(section_of_groups.frame.columns) == ["CheXNet", "Positive images"]
    assert section_of_groups.frame.T.to_dict("list") == {
        "Sex: F": ["0.700 (0.600 to 0.800)", "5"],
        "Sex: M": ["0.400 (0.300 to 0.500)", "5"],
    }
    assert "| Sex: F | 0.700 (0.600 to 0.800) | 5 |" in card.to_markdown()


def test_the_hub_reads_the_card_and_its_figures_back(trained, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub reads the metadata")
    for name, task in (("RetinaNet", "object-detection"), ("CheXNet", "image-classification")):
        card = cards_of_comparison(trained)[name]
        path = tmp_path / "card.md"
        path.write_text(card.to_markdown(), encoding="utf-8")
        data = hub.ModelCard.load(path).data
        assert (data.license, data.pipeline_tag, data.model_name) == ("other", task, name)
        wanted = [
            hub.EvalResult(
                task_type=task,
                dataset_type=card.evaluation.data_set,
                dataset_name=card.evaluation.data_set,
                dataset_split="test",
                metric_type=figure["type"],
                metric_name=figure["name"],
                metric_value=figure["value"],
            )
            for figure in card.evaluation.hub
        ]
        assert len(wanted) > 3
        assert data.eval_results == wanted


@pytest.mark.parametrize("odd", ["A: \"quoted\" | 'x'", "- yes: [no]", "two\nlines", "{{x}} # y"])
def test_a_name_cannot_break_the_head_of_a_card(trained, odd):
    text = replace(cards_of_comparison(trained)["CheXNet"], name=odd).to_markdown()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["model-index"][0]["name"] == odd


def test_a_name_is_no_markup_of_the_card(trained):
    odd = "A|B <b>*x*</b> my_net"
    systems = {odd if name == "CheXNet" else name: of for name, of in trained.systems.items()}
    text = cards_of_comparison(replace(trained, systems=systems))[odd].to_markdown()
    assert r"# Model card: A\|B \<b>\*x\*\</b> my_net" in text


def test_report_folder_holds_a_card_of_each_system_that_was_made_here(trained, report_folder):
    decisions = trained.decisions.assign(probability=trained.decisions["score"])
    calibrated = replace(trained, decisions=decisions)
    write_cards(calibrated, report_folder)
    names = sorted(path.name for path in (report_folder / "cards").iterdir())
    assert names == ["RetinaNet.md"]  # CheXNet was imported
    write_cards(replace(calibrated, records={}), report_folder)
    assert not list((report_folder / "cards").iterdir())


def test_two_systems_never_share_a_file():
    chosen = card_files(["a b", "A/B", "…", "ok"])
    assert len({file.lower() for file in chosen.values()}) == 4
    assert all(re.fullmatch(r"cards/[A-Za-z0-9._-]+\.md", file) for file in chosen.values())


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ({"backbone": "resnet18", "weights": "none"}, "random"),
        ({"backbone": "resnet18", "weights": "imagenet"}, "torchvision"),
        ({"backbone": "efficientnet_lite1", "weights": "imagenet"}, "EfficientNet-Lite"),
        ({"backbone": "timm:vit", "weights": "imagenet"}, "timm"),
        ({"weights": "imagenet"}, "depends on the network"),
        ({"backbone": "resnet18", "weights": "old/run"}, "user"),
    ],
)
def test_source_of_the_starting_weights(model, source):
    assert source in starting_weights({"config": {"model": model}})
    assert starting_weights({"config": {"model": {}}}) == ""
