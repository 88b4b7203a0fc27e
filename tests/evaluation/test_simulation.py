"""Simulations draw what they say, and what they count is false or true of a design."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, ndtr
from scipy.stats import kurtosis
from sklearn.metrics import average_precision_score, roc_auc_score

from tools.simulation import __main__ as simulation
from tools.simulation import checks, claims, designs, primary, real
from tools.simulation.__main__ import DESIGNS
from tools.simulation.claims import CLAIMS, POWER
from tools.simulation.designs import Known
from tools.simulation.draw import Law, draw, draw_boxes, skill_of
from tools.simulation.quick import claim_of, scores_of, verdict_of

LAW = Law((0.85,), 100)


def claims_of(result):
    return {simulation.claim_of(name) for name in result["counted"]}


def test_every_design_has_a_kept_result_and_every_claim_is_counted_by_one():
    kept = simulation.read()
    assert [each["design"] for each in kept] == list(DESIGNS)
    assert set().union(*map(claims_of, kept)) == {*CLAIMS, *POWER}
    described = (Path(simulation.__file__).parent / "README.md").read_text()
    assert [name for name in DESIGNS if f"`{name}`" not in described] == []


@pytest.mark.release
@pytest.mark.parametrize("name", DESIGNS)
def test_a_design_counts_what_its_kept_result_has(name):
    if why := DESIGNS[name].lacks():
        pytest.skip(why)
    (kept,) = (each for each in simulation.read() if each["design"] == name)
    result = simulation.run(name, sets=2, seed=16)
    assert claims_of(result) == claims_of(kept)
    assert all(0 <= counted <= of <= 2 for counted, of in result["counted"].values())


def test_a_large_difference_in_a_report_is_false_of_equal_systems():
    law = Law((0.97, 0.6), 150, 100, images="1-3")
    made = designs.report_of(designs.scores(np.random.default_rng(5), law), 100)
    equal, better = Known({"A": 0.8, "B": 0.8}, LAW), Known({"A": 0.97, "B": 0.6}, LAW)
    found = claims.differences(made, equal)
    assert found["answer"]
    assert found["further @ average_precision"]
    assert found["any claim"]
    assert found["single p @ auroc, A-B"]
    assert not any(claims.differences(made, better).values())
    assert claims.power(made, better) == {"power answer": True}
    assert any(claims.rate_differences(made, equal).values())


def test_a_large_difference_in_one_of_several_findings_is_false_of_equal_systems():
    rng = np.random.default_rng(3)
    drawn = designs.several_findings(rng, 100, least=0.3, findings=3)
    guessed = drawn.systems["B"]
    for finding in guessed.columns.drop("image_id"):
        guessed[finding] = rng.random(len(guessed))
    found = claims.findings(designs.report_of(drawn, 100), drawn.known)
    assert found["finding"]
    assert found["page of a finding @ auroc"]
    assert found["mean"]


@pytest.mark.parametrize("name", ["chance-clusters", "equal-25", "joint", "places-1000"])
def test_what_is_counted_is_what_the_sentences_say(name):
    design = DESIGNS[name]
    drawn = design.draw(np.random.default_rng(3))
    made = designs.report_of(drawn, 100)
    found = {}
    for count in design.counts:
        if count not in (claims.rank_intervals, claims.group_intervals):  # which no sentence says
            found |= count(made, drawn.known)
    said = " ".join([made.headline, *made.answer.findings, *made.cautions])
    if name == "chance-clusters":
        assert found["chance"] != ("better than chance" in said)
    if name == "equal-25":
        assert found["answer"] == ("had a higher AUROC" in said)
    if name == "joint":
        assert found["power joint"] == ("was shown to have a higher AUROC" in said)
    if name == "places-1000":
        assert found["power localises"]


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
    found = {"answer": True, "images": True, "any claim": True, "single p @ auroc, A-B": True}
    assert claims.differences(made, equal) == found
    found = {"answer": False, "images": False, "any claim": False}
    assert claims.differences(made, better) == found
    made = result(claim("answer", "A", "B", None), claim("further", "A", "B", "B"))
    found = {"answer": False, "further @ ap50": True, "images": True, "any claim": True}
    assert claims.differences(made, better) == found
    made = result(claim("answer", "A", "B", None), claim("places", "A", "B", "B"))
    found = {"answer": False, "images": False, "places": True, "any claim": True}
    assert claims.differences(made, better) == found
    assert claims.power(made, better) == {"power answer": False}


def test_a_claim_that_constant_boxes_localise_is_false():
    known = Known({"A": 0.8, "B": 0.8}, image_blind=frozenset("B"))
    made = [claim("places", name, f"baseline of {name}", name) for name in "AB"]
    assert claims.localises(result(*made), known) == {"power localises": True, "localises": True}
    made[1]["higher"] = "baseline of B"
    assert claims.localises(result(*made), known) == {"power localises": True, "localises": False}


def test_a_system_at_the_best_place_does_not_point_less_often():
    known = Known({"A": 0.8, "B": 0.8}, image_blind=frozenset("B"))
    made = [claim("places", name, f"baseline of {name}", "") for name in "AB"]
    made[0]["higher"] = "baseline of A"
    assert claims.points_less_often(result(*made), known) == {"less often": False}
    made[1]["higher"] = "baseline of B"
    assert claims.points_less_often(result(*made), known) == {"less often": True}


def test_a_joint_system_must_be_called_better_than_each_member():
    known = Known({"A": 0.8, "B": 0.5})
    made = [claim("joint", "A + B", name, "A + B") for name in "AB"]
    assert claims.joint(result(*made), known) == {"joint": True}
    made[0]["higher"] = None
    assert claims.joint(result(*made), known) == {"joint": False}


def test_a_decision_by_a_margin_as_large_as_the_difference_is_false():
    known = Known({"A": 0.8, "B": 0.7, "C": 0.7, "D": 0.8, "E": 0.9, "F": 0.9})
    decisions = {"B": "not worse", "C": "worse", "D": "equivalent", "E": "equivalent"}
    decisions |= {"F": "not worse"}
    assert claims.margin(decisions, known) == {
        "margin @ B": True,
        "margin @ C": False,
        "power margin": True,
        "equivalent @ E": True,
        "equivalent @ F": False,
    }
    assert claims.worse(decisions, known) == {"worse @ B": False, "worse @ C": True}
    margin = {"metric": "f1", "decisions": {"B": "equivalent"}}
    made = SimpleNamespace(answer=SimpleNamespace(margin=margin))
    found = {"margin figure @ f1": True, "worse figure @ f1": False}
    assert primary.decisions(made, known) == found


def test_a_headline_in_a_chosen_figure_is_counted_as_the_systems_are():
    equal, better = Known({"A": 0.8, "B": 0.8}), Known({"A": 0.8, "B": 0.9})
    for higher, known, is_false in (
        ("A", equal, True),
        (None, equal, False),
        ("A", better, True),
        ("B", better, False),
    ):
        made = result(claim("answer", "A", "B", higher))
        assert primary.headline(made, known) == {"metric answer @ auroc": is_false}


def test_a_detectable_difference_must_be_shown_with_its_sign():
    known = Known({"A": 0.9, "B": 0.8})
    for higher, is_missed in (("A", False), ("B", True), (None, True)):
        made = result(claim("answer", "A", "B", higher))
        assert primary.not_detected(made, known) == {"detectable @ auroc": is_missed}


def require_equal_statements(name, sets):
    design = DESIGNS[name]
    for seed in range(sets):
        drawn = design.draw(np.random.default_rng(seed))
        quick, public = design.report(drawn, 100), designs.report_of(drawn, 100)
        answer = vars(quick.answer)
        if "claims" in answer:
            assert answer["claims"][:1] == list(public.answer.claims[:1])
        assert dict(answer.get("margin", {})) == (
            dict(public.answer.margin) if "margin" in answer else {}
        )
        for system, chosen in answer.get("thresholds", {}).items():
            known = public.answer.thresholds[system].items()
            assert chosen == {policy: value for policy, value in known if value is not None}
        if hasattr(quick, "cautions"):
            assert [line for line in public.cautions if line in quick.cautions] == quick.cautions
        for count in design.counts:
            assert count(quick, drawn.known) == count(public, drawn.known)
        for table in ("figures", "groups") if design.report is verdict_of else ():
            ends = [
                getattr(each, table).get(["estimate", "ci_low", "ci_high"])
                for each in (quick, public)
            ]
            np.testing.assert_array_equal(*ends)


QUICK = [name for name in DESIGNS if DESIGNS[name].report in (verdict_of, claim_of, scores_of)]
IN_40_SETS = {*primary.DESIGNS, *checks.DESIGNS, *real.DESIGNS, "near-1", "facts"}


@pytest.mark.parametrize("name", ["margin-f1-chosen", "metric-pointing", "turned-round"])
def test_the_quick_way_states_what_compare_states(name):
    require_equal_statements(name, 1)


@pytest.mark.release
@pytest.mark.parametrize("name", QUICK)
def test_the_quick_way_states_what_compare_states_in_many_sets(name):
    if why := DESIGNS[name].lacks():
        pytest.skip(why)
    require_equal_statements(name, 40 if name in IN_40_SETS else 4)


@pytest.mark.release
def test_the_quick_way_states_what_compare_states_of_several_findings_in_40_sets():
    design = DESIGNS["findings"]
    for seed in range(40):
        drawn = design.draw(np.random.default_rng(seed))
        quick, public = design.report(drawn, 100), designs.report_of(drawn, 100)
        pd.testing.assert_frame_equal(quick.macro, public.macro, check_dtype=False)
        assert claims.findings(quick, drawn.known) == claims.findings(public, drawn.known)


@pytest.mark.release
def test_figures_over_folds_are_those_of_reports_in_40_sets():
    for seed in range(40):
        drawn = DESIGNS["folds"].draw(np.random.default_rng(seed))
        joined = designs.joined_folds(drawn, 100)
        pd.testing.assert_frame_equal(
            joined, designs.joined_folds(drawn, 100, report=designs.report_of)
        )


@pytest.mark.release
@pytest.mark.parametrize("name", ["margin-five", "margin-few"])
def test_what_is_decided_by_a_margin_in_a_design_is_what_a_report_decides(name):
    design = DESIGNS[name]
    for seed in range(3):
        drawn = design.draw(np.random.default_rng(seed))
        report = designs.report_of(drawn, 100)
        assert design.report(drawn, 100) == report.answer.margin["decisions"]


@pytest.mark.parametrize(
    ("ranks", "is_missed"),
    [
        ({"A": (1, 2), "B": (1, 3), "C": (2, 3)}, False),
        ({"A": (1, 1), "B": (2, 3), "C": (2, 3)}, False),
        ({"A": (1, 2), "B": (2, 2), "C": (3, 3)}, True),
    ],
)
def test_a_range_must_have_the_rank(ranks, is_missed):
    made = result()
    made.answer.ranks = ranks
    known = Known({"A": 0.9, "B": 0.8, "C": 0.8})
    assert claims.ranks(made, known) == {"ranks": is_missed}


def figures(*rows):
    columns = ["first", "second", "metric", "policy", "estimate", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def test_an_interval_beside_the_true_value_is_counted():
    difference = ("A", "B", "auroc", "", 0.1, -0.1, 0.2)
    for low, high, missed in ((0.7, 0.8, True), (0.7, 0.9, False), (0.9, 0.95, True)):
        made = result(figures=figures(("A", "", "auroc", "", 0.8, low, high), difference))
        found = claims.rank_intervals(made, Known({"A": 0.85, "B": 0.85}, LAW))
        assert found == {"interval auroc": missed, "interval difference": False}
    precision = ("A", "", "average_precision", "", 0.4, 0.1, 0.2)
    made = result(claim("answer", "A", "B", "A"), figures=figures(difference, precision))
    found = claims.ranking(made, Known({"A": 0.8, "B": 0.8}, LAW))
    assert found == {"answer": True, "interval difference": False}
    made = result(figures=figures(("A", "", "auroc", "", 0.6, 0.52, 0.7)))
    assert claims.chance(made, Known({"A": 0.5})) == {"chance": True}
    shown = figures(("A", "", "auroc", "", 0.8, 0.7, 0.84), ("A", "B", "auroc", "", 0.1, 0.01, 0.2))
    found = claims.folds(shown, Known({"A": 0.85, "B": 0.85}))
    assert found == {"folds differ": True, "interval folds": True}


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
        ["800", "0.5 (0.1–1.3)", "0.0–1.0", "5"],
        ["400", "7.5 (5.1–10.5)", "7.5–7.5", "5"],
    ]
    ((design, title, *numbers),) = cells(simulation.fails_table(results))
    assert (design, numbers) == ("`equal`", ["400", "7.5 (5.1–10.5)"])
    assert title.endswith(": ap50")
    ((_, *numbers),) = cells(simulation.power_table(results))
    assert numbers == ["`better`", "400", "75.0 (70.5–79.2)"]


def test_drawn_scores_have_the_auroc_and_the_correlations_that_are_stated():
    law = Law((0.85, 0.85), images="rsna")
    sample = draw(np.random.default_rng(0), law, 20_000)
    assert roc_auc_score(sample.positive, sample.scores[0]) == pytest.approx(0.85, abs=0.01)
    assert sample.positive.mean() == pytest.approx(0.3, abs=0.02)
    noise = logit(sample.scores) - skill_of(0.85) * sample.positive
    assert np.corrcoef(noise)[0, 1] == pytest.approx(0.5, abs=0.02)
    neighbours = np.flatnonzero(np.diff(sample.patients) == 0)
    alike = np.corrcoef(noise[0, neighbours], noise[0, neighbours + 1])[0, 1]
    assert alike == pytest.approx(0.4, abs=0.03)


def test_heavy_tails_keep_the_variance_and_faint_evidence_has_the_score_0():
    law = Law((0.85,), heavy_tails=True, positive=0.5)
    sample = draw(np.random.default_rng(1), law, 40_000)
    noise = logit(sample.scores[0]) - skill_of(0.85) * sample.positive
    assert noise.var() == pytest.approx(1, abs=0.05)
    assert kurtosis(noise) > 0.5
    faint = draw(np.random.default_rng(1), replace(law, least_evidence=0.3), 40_000)
    assert (faint.scores == 0).mean() == pytest.approx((sample.scores < expit(0.3)).mean())
    assert (faint.scores[faint.scores > 0] >= expit(0.3)).all()


def test_of_one_patient_with_20_images_all_others_have_one():
    sample = draw(np.random.default_rng(1), Law((0.85,), images="one-20"), 60)
    assert sorted(np.bincount(sample.patients)) == [*[1] * 59, 20]


def test_true_figures_are_those_of_the_binormal_model_and_of_many_images():
    known = Known({"A": 0.85}, LAW)
    rates = known.rates(0.5)
    assert rates["specificity"] == pytest.approx(0.5, abs=0.01)
    assert rates["recall"] == pytest.approx(0.9286, abs=0.01)
    assert rates["accuracy"] == pytest.approx(0.3 * 0.9286 + 0.7 * 0.5, abs=0.01)
    assert rates["f1"] == pytest.approx(0.6 * 0.9286 / (0.3 + 0.3 * 0.9286 + 0.35), abs=0.01)
    at_5_percent = 0.05 * 0.9286 / (0.05 * 0.9286 + 0.95 * 0.5)
    assert known.rates(0.5, 0.05)["precision"] == pytest.approx(at_5_percent, abs=0.005)
    sample = draw(np.random.default_rng(3), LAW, 20_000)
    precision = average_precision_score(sample.positive, sample.scores[0])
    assert known.average_precision() == pytest.approx(precision, abs=0.01)
    scores = pd.Series(sample.scores[0])
    probabilities = expit(0.7 * logit(scores) - 1)
    error = ((probabilities - sample.positive) ** 2).mean()
    assert known.brier(scores, probabilities) == pytest.approx(error, abs=0.003)


def test_equal_scores_are_one_step_of_the_true_average_precision():
    positive, negative = np.array([0.0, 0.0, 0.4, 0.9]), np.array([0.0, 0.0, 0.0, 0.4, 0.6])
    labels = np.repeat([1, 0], [4, 5])
    expected = average_precision_score(labels, np.concatenate([positive, negative]))
    assert designs.precision_over_ranks(positive, negative, 4 / 9) == pytest.approx(expected)


def test_both_detectors_are_equal_and_boxes_lie_in_the_image():
    drawn = draw_boxes(np.random.default_rng(0), replace(LAW, auroc=(0.85, 0.85)), 2000)
    counts = [len(boxes) for boxes in drawn.boxes]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)
    for boxes in (drawn.lesions, *drawn.boxes):
        assert boxes[["x1", "y1"]].min().min() >= 0
        assert boxes[["x2", "y2"]].max().max() <= 1024
    assert set(drawn.lesions["image"]) == set(np.flatnonzero(drawn.sample.positive))


def test_a_true_difference_in_a_figure_is_that_of_the_binormal_model():
    law = Law((0.9, 0.8), 100, positive=0.3)
    skills = np.array([skill_of(auroc) for auroc in law.auroc])
    recall = ndtr(skills - logit(0.7))
    gap = primary._true_gap(law, "accuracy", "threshold=0.7")
    assert gap == pytest.approx(0.3 * (recall[0] - recall[1]), abs=0.004)
    assert primary._true_gap(law, "auroc", "") == pytest.approx(0.1)
    assert primary._true_gap(replace(law, auroc=(0.8, 0.8)), "f1", "max_f1") == 0


def test_a_detector_that_lost_boxes_is_worse_in_each_figure_of_boxes():
    gaps = primary._box_gaps(Law(patients=50), sets=1)
    assert gaps.keys() == {"ap50", "ap", "froc_mean", "pointing_accuracy"}
    assert all(0.02 < gap < 0.4 for gap in gaps.values())


def test_a_caution_on_scores_is_true_only_of_those_that_were_changed():
    said = SimpleNamespace(
        cautions=["The scores of A have another scale on test than on validation images (...)."]
    )
    for misread, found in (("", "scale"), ("scale", "power scale"), ("turned", "scale")):
        known = Known({"A": 0.8}, misread=misread)
        assert checks.said_of_scale(said, known) == {found: True}
    assert checks.said_turned(said, Known({"A": 0.5})) == {"turned": False}


def test_validation_images_may_have_another_prevalence_and_the_same_scores_by_class():
    law = Law((0.85,), 4000, 4000, positive=0.1)
    drawn = checks.other_prevalence(np.random.default_rng(0), law, positive=0.4)
    scores = drawn.truth.assign(score=logit(drawn.systems["A"].to_numpy()))
    found = scores.groupby(["role", "label"])["score"]
    assert found.size()["val", 1] == pytest.approx(1600, rel=0.1)
    assert found.size()["test", 1] == pytest.approx(400, rel=0.15)
    means = found.mean()
    assert means["val", 1] == pytest.approx(means["test", 1], abs=0.15)
    assert means["val", 0] == pytest.approx(means["test", 0], abs=0.1)


def test_scores_are_changed_in_one_role():
    law = Law((0.85,), 50, 30)
    plain = designs.scores(np.random.default_rng(2), law).systems["A"]
    moved = checks.moved_on_test(np.random.default_rng(2), law, step=2.0)
    turned = checks.turned_on_validation(np.random.default_rng(2), law)
    is_test = (moved.truth["role"] == "test").to_numpy()
    step = (logit(moved.systems["A"]) - logit(plain)).to_numpy()
    assert step == pytest.approx(np.where(is_test, 2.0, 0.0))
    expected = np.where(is_test, plain, 1 - plain)
    assert turned.systems["A"].to_numpy() == pytest.approx(expected)


def test_shares_of_lesions_are_those_of_many_images_at_the_same_threshold(monkeypatch):
    monkeypatch.setattr(checks, "_MANY", 300)
    design = DESIGNS["lesions"]
    made = design.report(design.draw(np.random.default_rng(1)), 100)
    known = Known({"A": 0.9}, Law(patients=300, images="1-3"))
    names = checks.lesion_intervals(made, known)
    assert "interval lesions @ missed_iou_50 errors" in names
    assert any("lesions in the image" in name for name in names)
    table = checks.lesion_table(made.comparison)
    for low, is_missed in ((0.0, False), (-2.0, True)):
        changed = table.assign(ci_low=low, ci_high=low + 1.999)
        at_cut = checks.lesion_table
        monkeypatch.setattr(
            checks,
            "lesion_table",
            lambda of, changed=changed, at_cut=at_cut: (
                changed if of is made.comparison else at_cut(of)
            ),
        )
        assert set(checks.lesion_intervals(made, known).values()) == {is_missed}
        monkeypatch.setattr(checks, "lesion_table", at_cut)


def test_the_real_population_has_the_published_figures(shared_data):
    images = real.population()
    assert (len(images), images["patient"].nunique(), images["label"].sum()) == (3553, 1569, 732)
    positive = (images["label"] == 1).to_numpy()
    for name, auroc in (("A", 0.7891), ("B", 0.8161)):
        assert designs.auroc(positive, images[name].to_numpy()) == pytest.approx(auroc, abs=1e-4)
    drawn = real.real_patients(np.random.default_rng(0), 50, 20)
    assert drawn.truth.groupby("role")["patient_id"].nunique().to_dict() == {"test": 50, "val": 20}
    found = drawn.known.rates(0.02)
    called = (images["A"] >= 0.02).to_numpy()
    assert found["recall"] == pytest.approx(called[positive].mean())
    assert found["accuracy"] == pytest.approx((called == positive).mean())


def test_a_design_without_its_data_is_skipped_with_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(real, "_FOLDER", tmp_path / "nowhere")
    monkeypatch.setattr("sys.argv", ["simulation", "--designs", "real-60", "--sets", "5"])
    with pytest.raises(SystemExit) as ended:
        simulation.main()
    assert ended.value.code == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "real-60" in line
    assert str(tmp_path / "nowhere") in line
