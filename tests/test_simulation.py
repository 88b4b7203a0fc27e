"""The simulations draw what they say, run, and count a false statement as false."""

import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score

from tools.simulation import __main__ as simulation
from tools.simulation import claims, designs
from tools.simulation.claims import CLAIMS, POWER
from tools.simulation.designs import DESIGNS, Known
from tools.simulation.draw import Law, draw, draw_boxes, skill_of
from tools.simulation.places import PLACES

EQUAL = {"answer", "further", "any claim", "single p"}
RANKS = {"interval auroc", "interval precision", "interval difference"}
THRESHOLDS = {"rate differs", "interval rate"}
FINDINGS = {"finding", "page of a finding", "mean", "interval mean"}
COUNTED = {
    "chance": {"chance"},
    "chance-clusters": {"chance"},
    "above-chance": {"power chance"},
    "equal": EQUAL | RANKS,
    "equal-few": EQUAL | RANKS,
    "equal-skewed": EQUAL | RANKS,
    "equal-four": EQUAL,
    "better": EQUAL | {"power answer"},
    **{f"equal-{patients}": EQUAL | RANKS for patients in designs.SINGLE_IMAGES},
    **{f"better-{patients}": {"power answer"} for patients in designs.SINGLE_IMAGES},
    "thresholds": EQUAL | THRESHOLDS | {"interval predictive", "interval brier"},
    "thresholds-rare": EQUAL | THRESHOLDS,
    "thresholds-unequal": EQUAL | THRESHOLDS,
    "guarantee": {"guarantee"},
    "guarantee-clusters": {"guarantee"},
    "groups": {"interval group"},
    "boxes": EQUAL | {"boxes differ", "interval boxes"},
    **{name: {"localises", "power localises"} for name in PLACES},
    "facts": {"shortcut"},
    "view": {"interval shortcut", "power shortcut"},
    "joint-noise": {"joint"},
    "joint-copy": {"joint"},
    "joint": {"power joint"},
    "findings": FINDINGS,
    "findings-clusters": FINDINGS,
    "findings-joint": {"joint of a finding"},
    "folds": {"folds differ", "interval folds"},
}


OF_FILES = [name for name in PLACES if "rsna" in name]
"""Designs that draw patients of tables which a test does not have."""


def test_every_claim_of_the_tables_is_counted_by_a_design():
    assert set(COUNTED) == set(DESIGNS)
    assert set().union(*COUNTED.values()) == {*CLAIMS, *POWER}


@pytest.mark.parametrize("name", [name for name in DESIGNS if name not in OF_FILES])
def test_a_design_gives_a_row_for_each_of_its_claims(name, monkeypatch):
    # True values rest on many drawn images, which are not needed to count.
    monkeypatch.setattr(designs, "_mean_auroc", lambda law: 0.85)
    monkeypatch.setattr(designs, "_learned_auroc", lambda patients, features: 0.8)
    scores = np.linspace(0.3, 0.9), np.linspace(0.1, 0.7), 0.3
    monkeypatch.setattr(designs, "_population", lambda law: scores)
    figures = dict.fromkeys(claims.BOXES, 0.5), np.array([0.5])
    monkeypatch.setattr(designs, "_box_figures", lambda law: figures)
    monkeypatch.setattr(designs, "_FOLDS", 2)
    design = DESIGNS[name]
    few = {"findings": 3} if "findings" in name else {}
    quick = design._replace(draw=partial(design.draw, **few), replicates=100)
    monkeypatch.setitem(DESIGNS, name, quick)
    result = simulation.run(name, sets=2, seed=16)
    assert {simulation.claim_of(key) for key in result["counted"]} == COUNTED[name]
    assert all(0 <= counted <= of <= 2 for counted, of in result["counted"].values())
    assert len([*simulation.lines(result)]) == len(result["counted"])


def test_a_large_difference_in_a_report_is_false_of_equal_systems():
    law = Law((0.97, 0.6), 150, 100, images="1-3")
    made = designs.report_of(designs.scores(np.random.default_rng(5), law), 100)
    equal, better = Known({"A": 0.8, "B": 0.8}, law), Known({"A": 0.97, "B": 0.6}, law)
    found = claims.differences(made, equal)
    assert found["answer"]
    assert found["further @ average_precision"]
    assert found["any claim"]
    assert found["single p @ auroc, A-B"]
    assert not any(claims.differences(made, better).values())
    assert claims.power(made, better) == {"power answer": True}
    assert any(claims.rate_differences(made, equal).values())


def test_figures_far_from_the_true_ones_are_counted():
    law = Law((0.97,), 150, 100, images="1-3")
    made = designs.report_of(designs.with_facts(np.random.default_rng(5), law), 100)
    right, wrong = Known({"A": 0.97}, law), Known({"A": 0.6}, replace(law, auroc=(0.6,)))
    for count in (claims.rank_intervals, claims.group_intervals, claims.brier_intervals):
        assert sum(count(made, wrong).values()) > sum(count(made, right).values())


def test_what_a_report_shows_of_places_facts_and_joint_systems_is_seen():
    found = {}
    for name in ("places", "view", "joint"):
        drawn = DESIGNS[name].draw(np.random.default_rng(3))
        for count in DESIGNS[name].counts:
            found |= count(designs.report_of(drawn, DESIGNS[name].replicates), drawn.known)
    assert found["power localises"]
    assert found["power shortcut"]
    assert found["power joint"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["chance", "above-chance", "equal-25", "view", "facts", "joint"])
def test_what_is_counted_is_what_the_sentences_say(name, seed):
    drawn = DESIGNS[name].draw(np.random.default_rng(seed))
    made = designs.report_of(drawn, 100)
    found = {}
    for count in DESIGNS[name].counts:
        found |= count(made, drawn.known)
    said = " ".join([made.headline, *made.answer.findings, *made.cautions])
    if "power chance" in found or "chance" in found:
        better = "better than chance" not in said and "worse than chance" not in said
        assert better == found.get("power chance", False)
    if "answer" in found:
        assert found["answer"] == ("had a higher AUROC" in said)
    if "shortcut @ any" in found:
        assert found["shortcut @ any"] or "The label can be predicted" not in said
    if "power joint" in found:
        assert found["power joint"] == ("was shown to have a higher AUROC" in said)


def test_a_large_difference_in_one_of_several_findings_is_false_of_equal_systems():
    rng = np.random.default_rng(3)
    drawn = designs.several_findings(rng, 100, most_images=1, least=0.3, findings=3)
    guessed = drawn.systems["B"]
    for finding in guessed.columns.drop("image_id"):
        guessed[finding] = rng.random(len(guessed))
    found = claims.findings(designs.report_of(drawn, 100), drawn.known)
    assert found["finding"]
    assert found["page of a finding @ auroc"]
    assert found["mean"]


def claim(family, first, second, higher, p_value=0.3):
    return {
        "family": family,
        "first": first,
        "second": second,
        "metric": "auroc" if family == "answer" else "ap50",
        "policy": "",
        "higher": higher,
        "p_value": p_value,
    }


def result(*made, **more):
    """A result with the parts that the counts read."""
    answer = SimpleNamespace(claims=made, joint="A + B")
    return SimpleNamespace(**{"answer": answer, **more})


def test_a_claim_about_equal_systems_is_false_and_one_about_a_better_one_is_not():
    equal, better = Known({"A": 0.8, "B": 0.8}), Known({"A": 0.9, "B": 0.8})
    made = result(claim("answer", "A", "B", "A", 0.01))
    found = {"answer": True, "any claim": True, "single p @ auroc, A-B": True}
    assert claims.differences(made, equal) == found
    assert claims.differences(made, better) == {"answer": False, "any claim": False}
    assert claims.power(made, better) == {"power answer": True}
    made = result(claim("answer", "A", "B", None), claim("further", "A", "B", "B"))
    found = {"answer": False, "further @ ap50": True, "any claim": True}
    assert claims.differences(made, better) == found
    assert claims.power(made, better) == {"power answer": False}


def test_a_claim_that_constant_boxes_localise_is_false():
    known = Known({"A": 0.8, "B": 0.8}, image_blind=frozenset("B"))
    made = [claim("places", name, f"baseline of {name}", name) for name in "AB"]
    assert claims.localises(result(*made), known) == {"power localises": True, "localises": True}
    made[1]["higher"] = "baseline of B"
    assert claims.localises(result(*made), known) == {"power localises": True, "localises": False}


def test_a_joint_system_must_be_called_better_than_each_member():
    known = Known({"A": 0.8, "B": 0.5})
    made = [claim("joint", "A + B", name, "A + B") for name in "AB"]
    assert claims.joint(result(*made), known) == {"joint": True}
    made[0]["higher"] = None
    assert claims.joint(result(*made), known) == {"joint": False}


def test_a_guarantee_is_violated_below_the_sensitivity_that_it_names():
    known = Known({"A": 0.85}, Law((0.85,), 400))
    for threshold, is_violated in ((0.5, False), (0.6, True)):  # sensitivity 0.929 and 0.856
        made = result()
        made.answer.thresholds = {"A": {"sensitivity>=0.90@0.95": threshold}}
        assert claims.guarantees(made, known) == {"guarantee": is_violated}


def test_an_interval_beside_the_true_value_is_counted(monkeypatch):
    columns = ["first", "second", "metric", "policy", "estimate", "ci_low", "ci_high"]
    rows = [("A", "", "auroc", "", 0.8, 0.7, 0.84), ("A", "B", "auroc", "", 0.1, -0.1, 0.2)]
    made = result(figures=pd.DataFrame(rows, columns=columns))
    monkeypatch.setattr(designs, "_mean_auroc", lambda law: 0.85)
    found = claims.rank_intervals(made, Known({"A": 0.85, "B": 0.85}))
    assert found == {"interval auroc": True, "interval difference": False}
    for true, name, is_counted in (
        (0.5, "chance", True),
        (0.85, "power chance", True),
    ):
        assert claims.chance(made, Known({"A": true})) == {name: is_counted}
    table = pd.DataFrame(rows, columns=columns).assign(ci_high=[0.9, -0.01])
    found = claims.folds(table, Known({"A": 0.85, "B": 0.85}))
    assert found == {"folds differ": True, "interval folds": False}


def test_a_claim_fails_if_the_lower_end_of_its_rate_is_above_what_is_stated():
    assert not simulation.fails("answer", 28, 400)  # 7.0 %, 4.7 to 10.0
    assert simulation.fails("answer", 30, 400)  # 7.5 %, 5.1 to 10.5
    assert simulation.fails("interval boxes @ ap50", 30, 400)
    assert not simulation.fails("any claim", 400, 400)  # no rate is stated
    assert not simulation.fails("power answer", 400, 400)  # what is shown is true


def cells(rows):
    return [row.strip("| ").split(" | ") for row in [*rows][2:]]


def test_tables_have_a_row_for_each_claim_each_failure_and_each_power():
    results = [
        {"design": "equal", "counted": {"answer": [4, 400], "further @ ap50": [30, 400]}},
        {"design": "better", "counted": {"answer": [0, 400], "power answer": [300, 400]}},
    ]
    counted = [row[1:] for row in cells(simulation.false_table(results))]
    assert counted == [
        ["2", "800", "0.5", "0.1–1.3", "0.0–1.0", "at most 5"],
        ["1", "400", "7.5", "5.1–10.5", "7.5–7.5", "at most 5"],
    ]
    ((design, title, *numbers),) = cells(simulation.fails_table(results))
    assert (design, numbers) == ("`equal`", ["400", "7.5", "5.1–10.5"])
    assert title.endswith(": ap50")
    ((_, *numbers),) = cells(simulation.power_table(results))
    assert numbers == ["`better`", "400", "75.0", "70.5–79.2"]


def test_the_page_has_the_kept_results_of_every_design():
    kept = simulation.read()
    assert [each["design"] for each in kept] == list(DESIGNS)
    for each in kept:
        assert {simulation.claim_of(name) for name in each["counted"]} == COUNTED[each["design"]]
    page = simulation.PAGE.read_text()
    assert page == simulation.with_tables(page)
    assert all(f"`{name}`" in page for name in DESIGNS)


def test_a_kept_result_replaces_that_of_its_design(tmp_path, monkeypatch):
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text("before <!-- false -->\n<!-- end of false --> after")
    results.write_text("[]")
    monkeypatch.setattr(simulation, "PAGE", page)
    monkeypatch.setattr(simulation, "_RESULTS", results)
    made = {"sets": 400, "seed": 70, "date": "2027-01-01", "commit": "a1b2"}
    one = {**made, "design": "equal", "counted": {"answer": [4, 400]}}
    other = {**one, "design": "chance", "counted": {"chance": [3, 400]}}
    for each in (one, other, {**one, "date": "2027-01-02"}):
        simulation.keep(each)
    assert simulation.read() == [other, {**one, "date": "2027-01-02"}]
    assert page.read_text().startswith("before")
    assert "| 1.0 |" in page.read_text()


def test_a_run_ends_with_status_1_if_a_claim_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["simulation", "--designs", "equal", "--sets", "50"])
    counted = {"answer": (20, 50)}
    monkeypatch.setattr(simulation, "count", lambda design, sets, stream: counted)
    with pytest.raises(SystemExit, match="True"):
        simulation.main()
    assert "FAILS" in capsys.readouterr().out


def test_drawn_scores_have_the_auroc_and_the_correlations_that_are_stated():
    law = Law((0.85, 0.85), images="rsna")
    sample = draw(np.random.default_rng(0), law, 20_000)
    assert designs.auroc(sample.positive, sample.scores[0]) == pytest.approx(0.85, abs=0.01)
    assert sample.positive.mean() == pytest.approx(0.3, abs=0.02)
    noise = np.log(sample.scores / (1 - sample.scores)) - skill_of(0.85) * sample.positive
    assert np.corrcoef(noise)[0, 1] == pytest.approx(0.5, abs=0.02)
    neighbours = np.flatnonzero(np.diff(sample.patients) == 0)
    alike = np.corrcoef(noise[0, neighbours], noise[0, neighbours + 1])[0, 1]
    assert alike == pytest.approx(0.4, abs=0.03)


def test_true_rates_at_a_threshold_are_those_of_the_binormal_model():
    known = Known({"A": 0.85}, Law((0.85,), 400))
    rates = known.rates(0.5)
    assert rates["specificity"] == pytest.approx(0.5, abs=0.01)
    assert rates["recall"] == pytest.approx(0.9286, abs=0.01)
    assert rates["accuracy"] == pytest.approx(0.3 * 0.9286 + 0.7 * 0.5, abs=0.01)
    assert rates["f1"] == pytest.approx(0.6 * 0.9286 / (0.3 + 0.3 * 0.9286 + 0.35), abs=0.01)
    at_5_percent = 0.05 * 0.9286 / (0.05 * 0.9286 + 0.95 * 0.5)
    assert known.rates(0.5, 0.05)["precision"] == pytest.approx(at_5_percent, abs=0.005)


def test_both_detectors_are_equal_and_boxes_lie_in_the_image():
    drawn = draw_boxes(np.random.default_rng(0), Law(), 2000)
    counts = [len(boxes) for boxes in drawn.boxes]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)
    for boxes in (drawn.lesions, *drawn.boxes):
        assert boxes[["x1", "y1"]].min().min() >= 0
        assert boxes[["x2", "y2"]].max().max() <= 1024
    assert set(drawn.lesions["image"]) == set(np.flatnonzero(drawn.sample.positive))


def test_the_true_average_precision_is_that_of_many_images():
    law = Law((0.85,), 100)
    sample = draw(np.random.default_rng(3), law, 20_000)
    found = average_precision_score(sample.positive, sample.scores[0])
    assert Known({"A": 0.85}, law).average_precision() == pytest.approx(found, abs=0.01)


def test_the_true_brier_score_is_that_of_many_images():
    law = Law((0.85,), 100)
    sample = draw(np.random.default_rng(3), law, 20_000)
    scores = pd.Series(sample.scores[0])
    probabilities = expit(0.7 * logit(scores) - 1)
    found = Known({"A": 0.85}, law).brier(scores, probabilities)
    of_images = ((probabilities - sample.positive) ** 2).mean()
    assert found == pytest.approx(of_images, abs=0.003)
