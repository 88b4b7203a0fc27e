"""The simulations draw what they say, run, and count a false statement as false."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tools.simulation import __main__ as simulation
from tools.simulation import claims, designs
from tools.simulation.claims import CLAIMS
from tools.simulation.designs import DESIGNS, Known
from tools.simulation.draw import Law, draw, draw_boxes, skill_of

EQUAL = {"answer", "further", "any claim", "corrected p"}
SINGLE = {"interval auroc", "interval difference"}
THRESHOLDS = {"rate differs", "interval rate"}
COUNTED = {
    "chance": {"chance"},
    "chance-clusters": {"chance"},
    "above-chance": {"power chance"},
    "equal": EQUAL | SINGLE,
    "equal-few": EQUAL | SINGLE,
    "equal-skewed": EQUAL | SINGLE,
    "equal-four": EQUAL,
    "better": EQUAL | {"power answer"},
    "thresholds": EQUAL | THRESHOLDS | {"interval predictive"},
    "thresholds-rare": EQUAL | THRESHOLDS,
    "boxes": EQUAL | {"boxes differ", "interval boxes", "power localises"},
    "places": {"localises", "power localises"},
    "places-called": {"localises", "power localises"},
    "facts": {"shortcut"},
    "view": {"interval shortcut", "power shortcut"},
    "joint-noise": {"joint"},
    "joint-copy": {"joint"},
    "joint": {"power joint"},
    "findings": {"finding", "page of a finding", "mean", "interval mean"},
    "findings-clusters": {"finding", "page of a finding", "mean", "interval mean"},
    "folds": {"folds differ", "interval folds"},
}


def test_every_claim_of_the_table_is_counted_by_a_design():
    assert set(COUNTED) == set(DESIGNS)
    assert set().union(*COUNTED.values()) == set(CLAIMS)


@pytest.mark.parametrize("name", DESIGNS)
def test_a_design_gives_a_row_for_each_of_its_claims(name, monkeypatch):
    # True values rest on many drawn images, which are not needed to count.
    monkeypatch.setattr(designs, "_mean_auroc", lambda law: 0.85)
    monkeypatch.setattr(designs, "_learned_auroc", lambda patients, features: 0.8)
    monkeypatch.setattr(designs, "_box_figures", lambda law: dict.fromkeys(claims.BOXES, 0.5))
    monkeypatch.setattr(designs, "_FOLDS", 2)
    monkeypatch.setattr(designs, "_FINDINGS", 3)
    result = simulation.run(name, sets=2, seed=16)
    assert {simulation.claim_of(key) for key in result["counted"]} == COUNTED[name]
    assert all(0 <= counted <= of <= 2 for counted, of in result["counted"].values())
    assert len([*simulation.lines(result)]) == len(result["counted"])


def test_a_large_difference_in_a_report_is_false_of_equal_systems():
    law = Law((0.97, 0.6), 150, 100, images="1-3")
    made = designs.report_of(designs.scores(np.random.default_rng(5), law), 100)
    equal, better = Known({"A": 0.8, "B": 0.8}, law), Known({"A": 0.97, "B": 0.6}, law)
    assert claims.differences(made, equal) == dict.fromkeys(EQUAL, True)
    assert claims.differences(made, better) == dict.fromkeys(EQUAL, False)
    assert claims.power(made, better) == {"power answer": True}
    assert any(claims.rate_differences(made, equal).values())
    alone = designs.scores(np.random.default_rng(5), Law((0.97,), 150))
    assert claims.chance(designs.report_of(alone, 100), alone.known) == {"power chance": True}


def test_what_a_report_shows_of_places_facts_and_joint_systems_is_seen():
    found = {}
    for name in ("places", "view", "joint"):
        drawn = DESIGNS[name].draw(np.random.default_rng(3))
        for count in DESIGNS[name].counts:
            found |= count(designs.report_of(drawn, 100), drawn.known)
    assert found["power localises"]
    assert found["power shortcut"]
    assert found["power joint"]


def test_a_large_difference_in_one_of_several_findings_is_false_of_equal_systems(monkeypatch):
    monkeypatch.setattr(designs, "_FINDINGS", 3)
    rng = np.random.default_rng(3)
    drawn = designs.several_findings(rng, 100, most_images=1, least=0.3)
    guessed = drawn.systems["B"]
    for finding in guessed.columns.drop("image_id"):
        guessed[finding] = rng.random(len(guessed))
    found = claims.findings(designs.report_of(drawn, 100), drawn.known)
    assert found["finding"]
    assert found["page of a finding"]
    assert found["mean"]


def claim(family, first, second, higher):
    return {"family": family, "first": first, "second": second, "higher": higher}


def result(*made, **more):
    """A result with the parts that the counts read."""
    figures = pd.DataFrame({"metric": ["auroc"], "first": "A", "second": "B", "p_holm": [0.3]})
    answer = SimpleNamespace(claims=made, joint=("A + B", "A", "B"))
    return SimpleNamespace(**{"answer": answer, "figures": figures, "cautions": (), **more})


def test_a_claim_about_equal_systems_is_false_and_one_about_a_better_one_is_not():
    equal, better = Known({"A": 0.8, "B": 0.8}), Known({"A": 0.9, "B": 0.8})
    none = dict.fromkeys(EQUAL, False)
    made = result(claim("answer", "A", "B", "A"))
    assert claims.differences(made, equal) == none | {"answer": True, "any claim": True}
    assert claims.differences(made, better) == none
    assert claims.power(made, better) == {"power answer": True}
    made = result(claim("answer", "A", "B", None), claim("findings", "A", "B", "B"))
    assert claims.differences(made, better) == none | {"further": True, "any claim": True}
    assert claims.power(made, better) == {"power answer": False}
    shown = pd.DataFrame({"metric": ["auroc"], "first": "A", "second": "B", "p_holm": [0.01]})
    made = result(figures=shown)
    assert claims.differences(made, equal) == none | {"corrected p": True}
    assert claims.differences(made, better) == none


def test_a_claim_that_constant_boxes_localise_is_false():
    known = Known({"A": 0.8, "B": 0.8}, image_blind=frozenset("B"))
    made = [claim("findings", name, f"baseline of {name}", name) for name in "AB"]
    assert claims.localises(result(*made), known) == {"power localises": True, "localises": True}
    made[1]["higher"] = "baseline of B"
    assert claims.localises(result(*made), known) == {"power localises": True, "localises": False}


def test_a_joint_system_must_be_called_better_than_each_member():
    known = Known({"A": 0.8, "B": 0.5})
    made = [claim("joint", "A + B", name, "A + B") for name in "AB"]
    assert claims.joint(result(*made), known) == {"joint": True}
    made[0]["higher"] = None
    assert claims.joint(result(*made), known) == {"joint": False}


def test_a_true_statement_about_chance_is_told_from_a_false_one():
    caution = "By AUROC, A (0.520, 95 % interval 0.4 to 0.6) was not shown to be better than chance"
    said = result(cautions=(f"{caution} (0.5).",))
    assert claims.chance(said, Known({"A": 0.5})) == {"chance": False}
    assert claims.chance(result(), Known({"A": 0.5})) == {"chance": True}
    assert claims.chance(result(), Known({"A": 0.8})) == {"power chance": True}


def test_an_interval_beside_the_true_value_is_counted(monkeypatch):
    columns = ["first", "second", "metric", "policy", "estimate", "ci_low", "ci_high"]
    rows = [("A", "", "auroc", "", 0.8, 0.7, 0.84), ("A", "B", "auroc", "", 0.1, -0.1, 0.2)]
    made = result(figures=pd.DataFrame(rows, columns=columns))
    monkeypatch.setattr(designs, "_mean_auroc", lambda law: 0.85)
    found = claims.auroc_intervals(made, Known({"A": 0.85, "B": 0.85}))
    assert found == {"interval auroc": True, "interval difference": False}
    table = pd.DataFrame(rows, columns=columns).assign(ci_high=[0.9, -0.01])
    found = claims.folds(table, Known({"A": 0.85, "B": 0.85}))
    assert found == {"folds differ": True, "interval folds": False}


def test_a_claim_fails_if_the_lower_end_of_its_rate_is_above_what_is_stated():
    assert not simulation.fails("answer", 28, 400)  # 7.0 %, 4.7 to 10.0
    assert simulation.fails("answer", 30, 400)  # 7.5 %, 5.1 to 10.5
    assert not simulation.fails("any claim", 30, 400)  # 10 % are stated
    assert not simulation.fails("power answer", 400, 400)  # no limit: what is shown is true
    assert simulation.fails("interval boxes @ ap50", 30, 400)


def test_the_table_has_the_new_figures_of_a_claim_or_those_of_the_former_program():
    old = {"designs": 3, "counted": 5, "of": 1000, "lowest": 0.0, "highest": 0.01, "when": "once"}
    former = [{"claim": "answer", **old}, {"claim": "joint", **old}]
    new = {"design": "equal", "date": "2027-01-01", "counted": {"answer": [4, 400]}}
    rows = simulation.table({"former": former, "designs": [new]}).splitlines()[2:]
    assert [row.split(" | ")[1:] for row in rows] == [
        ["1", "400", "1.0", "0.3–2.5", "1.0–1.0", "at most 5", "2027-01-01 |"],
        ["3", "1,000", "0.5", "0.2–1.2", "0.0–1.0", "at most 5", "once |"],
    ]


def test_kept_results_are_of_claims_and_designs_that_exist():
    kept = simulation.read()
    assert {row["claim"] for row in kept["former"]} <= set(CLAIMS)
    assert {each["design"] for each in kept["designs"]} <= set(DESIGNS)
    assert simulation.PAGE.read_text() == simulation.with_table(simulation.PAGE.read_text())


def test_a_kept_result_replaces_that_of_its_design(tmp_path, monkeypatch):
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text("before <!--table-->\n<!--end of table--> after")
    results.write_text(json.dumps({"former": [], "designs": []}))
    monkeypatch.setattr(simulation, "PAGE", page)
    monkeypatch.setattr(simulation, "_RESULTS", results)
    one = {"design": "equal", "date": "2027-01-01", "counted": {"answer": [4, 400]}}
    other = {**one, "design": "chance", "counted": {"chance": [3, 400]}}
    for each in (one, other, {**one, "date": "2027-01-02"}):
        simulation.keep(each)
    assert simulation.read()["designs"] == [other, {**one, "date": "2027-01-02"}]
    assert page.read_text().startswith("before")
    assert "2027-01-02" in page.read_text()


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
