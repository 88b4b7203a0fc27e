"""`cxr plan` from the outside."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.cli import run_command
from cxr_compare.studies.plan.plan import plan
from cxr_compare.studies.readers.readers import readers
from tests.scripts.small_sets import refusal, table_set, write_predictions

ASSUMED = {"auroc": "0.85,0.80", "prevalence": 0.3}
TRAINED = {"seed_deviation": 0.01, "seed_correlation": 0.8}


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A data set without pixels, and two systems' predictions of it."""
    folder = tmp_path_factory.mktemp("pilot")
    rng = np.random.default_rng(0)
    ids = [f"i{number:03d}" for number in range(160)]
    positive = np.arange(160) % 4 < 2
    states = {"opacity": np.where(positive, "present", "absent")}
    data = table_set(folder, ids, states, split=["val", "test"] * 80)
    written = []
    for system, apart in (("A", 1.5), ("B", 1.0)):
        score = 1 / (1 + np.exp(-rng.normal(apart * positive, 1)))
        rows = pd.DataFrame({"image_id": ids, "finding": "opacity", "score": score})
        written.append(str(write_predictions(folder / system, data, ids, system, scores=rows)))
    return data, written


def test_assumptions_are_enough_for_an_answer_with_the_tables_beside_it():
    text = str(plan(**ASSUMED))
    assert "0.05 is shown in 80% of studies with 696 test patients, 209" in text
    assert "1,148 patients, 344 of them positive" in text
    assert "docs/" not in text  # whoever installed the wheel has none


def test_an_interval_can_be_planned_for_one_system_alone():
    (study,) = plan(auroc=0.85, prevalence=0.3, half_width=0.03).rows
    assert (
        study["half_width"]
        <= 0.03
        < study["half_width"] * np.sqrt(study["patients"] / (study["patients"] - 5))
    )


def test_one_answer_for_each_number_of_images_and_seeds():
    result = plan(**ASSUMED, images=[1, 4], seeds="1,3,5", **TRAINED)
    studies = [row for row in result.rows if row["power"] == 0.8]
    needed = {(row["images_of_a_patient"], *row["seeds"]): row["patients"] for row in studies}
    assert list(needed) == [(i, s, s) for i in (1, 4) for s in (1, 3, 5)]
    assert all(needed[4, s, s] < needed[1, s, s] for s in (1, 3, 5))
    # One seed asks of this training alone; of the way of training, more seeds say more.
    assert all(needed[i, 5, 5] < needed[i, 3, 3] for i in (1, 4))
    assert "4 images a patient, 3 seeds: a true difference of 0.05 is shown" in str(result)
    assert "With one seed the result is for these" in str(result)


def test_unequal_numbers_of_images_need_more_patients_and_their_source_is_named():
    result = plan(**ASSUMED, images="2,rsna", within=0.4)
    needed = {row["plan"]: row["patients"] for row in result.rows if row["power"] == 0.8}
    assert needed["images as in RSNA"] > 1.5 * needed["2 images a patient"]
    assert "--images rsna" in str(result)
    assert "--images" not in str(plan(**ASSUMED, images="rsna"))


def test_readers_can_be_planned_without_a_pilot_with_stated_assumptions():
    result = plan(auroc="0.85,0.78", prevalence=0.5, readers="4,12", reader_deviation=0.03)
    cases = {row["plan"]: row["patients"] for row in result.rows if row["power"] == 0.8}
    assert cases["12 readers"] < cases["4 readers"]
    assert result.difference == pytest.approx(0.07)
    assert "Assumed, as in published tables (Obuchowski 2000" in str(result)
    assert "protocol" not in str(result), "the tables of two systems are not for readers"


def test_pilot_of_several_seeds_gives_the_need_of_more_seeds(pilot):
    data, systems = pilot
    studies = plan({"both": systems}, data=data, half_width=0.2, seeds="4,8").rows
    assert [(row["plan"], row["seeds"]) for row in studies] == [("4 seeds", [4]), ("8 seeds", [8])]
    assert studies[1]["patients"] < studies[0]["patients"]


def test_a_pilot_gives_patients_and_how_sure_it_is_and_figures(pilot, tmp_path, capsys):
    data, systems = pilot
    asked = {"data": data, "difference": 0.1, "half_width": 0.05, "out": tmp_path / "plan"}
    run_command(plan, systems, **asked, as_json=True)
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert shown.err.endswith(f"Figure: {tmp_path / 'plan/figures/half_width.svg'}\n")
    assert result["basis"]["systems"] == ["A", "B"]
    assert result["basis"]["pilot_patients"] == 80
    asked = next(row for row in result["studies"] if row.get("power") == 0.8)
    low, high = asked["patients_range"]
    assert low < asked["patients"] < high
    assert json.loads((tmp_path / "plan/plan.json").read_text())["studies"] == result["studies"]
    assert {path.name for path in (tmp_path / "plan/figures").glob("*.svg")} == {
        "power.svg", "half_width.svg"
    }  # fmt: skip


def test_more_readers_need_fewer_cases(tmp_path):
    rng = np.random.default_rng(2)
    truth = pd.DataFrame({"case": range(60), "label": [0, 1] * 30})
    rows = [
        {"case": case, "reader": reader, "modality": modality,
         "rating": rng.normal(label * apart + 0.2 * reader, 1)}
        for case, label in truth.itertuples(index=False)
        for reader in range(4)
        for modality, apart in (("plain", 1.0), ("aided", 1.4))
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "ratings.csv", index=False)
    truth.to_csv(tmp_path / "truth.csv", index=False)
    readers([str(tmp_path / "ratings.csv")], truth=tmp_path / "truth.csv", out=tmp_path / "readers")
    studies = plan(tmp_path / "readers", difference=0.1, readers="4,12").rows
    cases = {row["plan"]: row["patients"] for row in studies if row["power"] == 0.8}
    assert cases["12 readers"] < cases["4 readers"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--auroc A,B and --prevalence"),
        ("--auroc 0.8,2 --prevalence 0.3", "--auroc 0.8,2: "),
        ("--auroc x --prevalence 0.3", "--auroc x: "),
        ("--auroc 0.8,0.7 --prevalence 3", "--prevalence 3.0: "),
        ("--auroc 0.8,0.8 --prevalence 0.3", "--difference"),
        ("--auroc 0.8 --prevalence 0.3", "--half-width"),
        ("--auroc 0.8 --prevalence 0.3 --difference 0.1", "one system"),
        ("--auroc 0.8,0.7 --prevalence 0.3 --seeds 3", "--seed-deviation"),
        (
            "--auroc 0.8,0.7 --prevalence 0.3 --seeds 3 --seed-deviation 0.01",
            "--seed-correlation",
        ),
        ("--auroc 0.8,0.7 --prevalence 0.3 --readers 1,5", "2 readers"),
        ("--auroc 0.8,0.7 --prevalence 0.3 --readers 5", "--reader-deviation"),
        ("--auroc 0.8,0.7 --prevalence 0.3 --images 1,kermany", "1,kermany: "),
        ("some --difference 0.1", "--data"),
        ("some --auroc 0.8 --difference 0.1", "--auroc: "),
        ("--auroc 0.8,0.7 --prevalence 0.3 --seeds 0", "--seeds 0: "),
        ("--auroc 0.8,0.7 --prevalence 0.3 --images 1,2,3,4,5,6,7,8,9,10", "9"),
    ],
)
def test_what_does_not_fit_together_is_one_line(capsys, arguments, message):
    assert message in refusal(capsys, "plan", *arguments.split())


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ("some --data DATA --images 3", "--images"),
        ("some --data DATA --correlation 0.5", "--correlation"),  # its default, but given
        ("some --data DATA --readers 5", "--readers"),
        ("READERS --seeds 3", "--seeds"),
        ("--auroc 0.8,0.7 --prevalence 0.3 --target t", "--target"),
        ("--auroc 0.8,0.7 --prevalence 0.3 --within 0.2", "--within"),
        ("--auroc 0.8,0.7 --prevalence 0.3 --readers 5 --images 2", "--images"),
        ("READERS --reader-deviation 0.1", "--reader-deviation"),
        ("--auroc 0.8 --prevalence 0.3 --correlation 0.2 --half-width 0.1", "--correlation"),
        ("--auroc 0.8 --prevalence 0.3 --power 0.9 --half-width 0.1", "--power"),
        ("--auroc 0.8,0.7 --prevalence 0.3 --seeds 1 --seed-deviation 0.1", "--seed-deviation"),
    ],
)
def test_an_option_that_would_not_be_read_is_refused(capsys, tmp_path, arguments, option):
    (tmp_path / "readers.json").touch()
    (tmp_path / "dataset.json").touch()
    filled = arguments.replace("READERS", str(tmp_path)).replace("DATA", str(tmp_path)).split()
    assert refusal(capsys, "plan", *filled).startswith(f"cxr: plan {option}: is ")


def test_no_number_of_patients_makes_up_for_trainings_that_differ():
    trained = {"seed_deviation": 0.05, "seed_correlation": 0.8}
    result = plan(**ASSUMED, difference=0.02, seeds=2, **trained)
    assert "No number of patients" in str(result)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "report.html").touch()
    with pytest.raises(InputError, match=r"holds 'report.html'.*out="):
        plan(**ASSUMED, out=tmp_path)
