"""Simulations draw what they say, and what they count is false or true of a design."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tools.simulation import __main__ as simulation
from tools.simulation import checks, claims, classes, designs, primary, real
from tools.simulation.__main__ import DESIGNS
from tools.simulation.claims import CLAIMS, POWER
from tools.simulation.designs import Known
from tools.simulation.quick import claim_of, scores_of, verdict_of


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


def claim(family, first, second, higher, p_value=0.3):
    metric = "auroc" if family == "answer" else "ap50"
    names = {"family": family, "first": first, "second": second, "metric": metric, "policy": ""}
    return SimpleNamespace(**names, higher=higher, p_value=p_value, tested=True)


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


def require_equal_statements(name, sets):
    design = DESIGNS[name]
    for seed in range(sets):
        drawn = design.draw(np.random.default_rng(seed))
        quick, public = design.report(drawn, 100), designs.report_of(drawn, 100)
        answer = vars(quick.answer)
        if "claims" in answer:
            assert repr([*answer["claims"][:1]]) == repr([*public.answer.claims[:1]])  # NaN, too
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


def figures(*rows):
    columns = ["first", "second", "metric", "policy", "estimate", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def test_a_claim_fails_if_the_lower_end_of_its_rate_is_above_what_is_stated():
    assert not simulation.fails("answer", 28, 400)  # 7.0 %, 4.7 to 10.0
    assert simulation.fails("answer", 30, 400)  # 7.5 %, 5.1 to 10.5
    assert simulation.fails("interval boxes @ ap50", 30, 400)
    assert not simulation.fails("any claim", 400, 400)  # no rate is stated
    assert not simulation.fails("power answer", 400, 400)  # what is shown is true


@pytest.mark.release
@pytest.mark.parametrize("name", ["margin-five", "margin-few"])
def test_what_is_decided_by_a_margin_in_a_design_is_what_a_report_decides(name):
    design = DESIGNS[name]
    for seed in range(3):
        drawn = design.draw(np.random.default_rng(seed))
        report = designs.report_of(drawn, 100)
        assert design.report(drawn, 100) == report.answer.margin["decisions"]


def test_the_differences_that_classes_count_are_those_of_their_figures():
    law = classes.DESIGNS["5 patients in a class"]
    drawn = classes.draw(np.random.default_rng(1), law, 60)
    quick, whole = classes.gaps_of(drawn, "AD"), classes.figures_of(drawn, "AD")[""]
    for metric in classes.FIGURES:
        of_both = [each.claim("answer", "A", "D", metric) for each in (quick, whole)]
        assert of_both[0].to_dict() | {"p_holm": 0} == of_both[1].to_dict() | {"p_holm": 0}
    true = classes.true_figures(law._replace(most=1), 60)
    counted = classes.count_intervals(law, 60, 7, 0, true)
    assert set(counted.values()) <= {0, 1, 2}
    shares = {name: of["accuracy"] for name, of in true.items()}
    assert shares["A"] == pytest.approx(shares["B"], abs=0.01)
    assert shares["C"] < shares["A"] - 0.05
