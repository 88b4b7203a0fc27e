"""What an answer may say of figures and intervals, and what it then claims."""

import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from tests.adapters import verdict

CASES = json.loads((Path(__file__).parent / "cases" / "verdict.json").read_text())["cases"]
NAN = float("nan")


def rows_of(case):
    return [[NAN if cell is None else cell for cell in row] for row in case["rows"]]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_a_verdict_says_what_its_intervals_show(case):
    options = {key: case[key] for key in ("joint", "protocol") if key in case}
    further = ("policy", "unit", "synthetic", "n_findings")
    options |= {key: case[key] for key in further if key in case}
    found = verdict.verdict_of(case["systems"], rows_of(case), **options)
    expect, headline = case["expect"], found["headline"]
    assert found["kind"] == expect["kind"]
    assert headline.startswith(expect.get("starts", ""))
    assert [part for part in expect.get("says", []) if part not in headline] == []
    assert [part for part in expect.get("unsaid", []) if part in headline] == []
    claims = {f"{claim['first']} {claim['second']}": claim for claim in found["claims"][::-1]}
    for pair, higher in expect.get("higher", {}).items():
        assert claims[pair]["higher"] == higher, pair
    for pair, p_value in expect.get("p_holm", {}).items():
        assert claims[pair]["p_holm"] == pytest.approx(p_value, abs=1e-3), pair
    if "claims" in expect:
        assert len(found["claims"]) == expect["claims"]
    if "findings" in expect:
        assert len(found["findings"]) == len(expect["findings"])
        for part, sentence in zip(expect["findings"], found["findings"], strict=True):
            assert part in sentence
    for family, metrics in expect.get("families", {}).items():
        of_family = [claim for claim in found["claims"] if claim["family"] == family]
        assert [claim["metric"] for claim in of_family] == metrics
    if "whole" in expect:
        for claim, whole in zip(found["claims"], expect["whole"], strict=True):
            assert {key: claim[key] for key in whole} == pytest.approx(whole)


def drawn(rng, names):
    """Figures of no system in particular: some pairs far apart, some close, some equal."""
    rows = []
    for metric in ("auroc", "average_precision"):
        values = dict(zip(names, rng.choice([0.5, 0.6, 0.61, 0.7, 0.9], len(names)), strict=True))
        rows += [(n, "", metric, "", v, v - 0.1, v + 0.1, "") for n, v in values.items()]
        for one, other in combinations(names, 2):
            gap, half = values[one] - values[other], rng.uniform(0.005, 0.3)
            ends = (gap - half, gap + half * rng.uniform(0.2, 1))
            if rng.random() < 0.05:
                ends = (NAN, NAN)
            if rng.random() < 0.5:
                rows.append((one, other, metric, "", gap, *ends, ""))
            else:
                rows.append((other, one, metric, "", -gap, -ends[1], -ends[0], ""))
    return rows


QUOTED = re.compile(r"(−?\d\.\d+) to (−?\d\.\d+)")


def test_a_sentence_shows_a_difference_exactly_where_its_interval_excludes_0():
    rng = np.random.default_rng(16)
    shown = open_ = 0
    for _ in range(250):
        found = verdict.verdict_of(["A", "B"], drawn(rng, ["A", "B"]))
        sentence = found["headline"].partition(", ")[2]
        for low, high in QUOTED.findall(sentence):
            ends = [float(end.replace("−", "-")) for end in (low, high)]
            excludes = ends[0] > 0 or ends[1] < 0
            assert excludes == ("had a higher" in sentence), sentence
            assert excludes != ("not shown to differ" in sentence), sentence
            shown, open_ = shown + excludes, open_ + (not excludes)
        assert QUOTED.search(sentence) or re.search("nothing can be claimed|0.000", sentence)
    assert min(shown, open_) > 30


@pytest.mark.parametrize("n_systems", [3, 5, 9])
def test_each_other_system_is_in_exactly_one_group_of_the_answer(n_systems):
    rng = np.random.default_rng(n_systems)
    names = list("ABCDEFGHI"[:n_systems])
    for _ in range(40):
        found = verdict.verdict_of(names, drawn(rng, names))
        answer = found["headline"]
        top = re.search(r"([A-I]) had the highest", answer)[1]
        groups = re.split(r"(shown to exceed|not shown to differ from|not tested against)", answer)
        said = dict(zip(groups[1::2], groups[2::2], strict=True))
        of_groups = {words: re.findall(r"\b([A-I]) \(", text) for words, text in said.items()}
        assert sorted(name for of in of_groups.values() for name in of) == sorted({*names} - {top})
        of_top = [c for c in found["claims"] if c["family"] == "answer"]
        of_top = [claim for claim in of_top if top in (claim["first"], claim["second"])]
        for claim in of_top:
            other = claim["second"] if claim["first"] == top else claim["first"]
            words = "not shown to differ from"
            if claim["higher"]:
                words = "shown to exceed"
            elif claim["ci_low"] is None and claim["estimate"]:
                words = "not tested against"
            assert other in of_groups[words]


def test_claims_of_a_family_are_decided_as_holm_decides_their_p_values():
    rng = np.random.default_rng(9)
    for size in (1, 2, 5, 8) * 10:
        gaps = rng.normal(0.02, 0.02, size)
        p_values = verdict.holm([2 * norm.sf(abs(gap) / 0.01) for gap in gaps])
        assert verdict.decided(gaps.tolist(), 0.01) == [p < 0.05 for p in p_values]


def training(size, **run):
    config = {"training": {"seed": 1, "batch_size": 8}, "model": {"weights": "none"}}
    return {"recipe": {"network": "N", "config": config, "preprocess": {"size": size}, "run": run}}


def test_settings_in_which_trainings_differ_are_named_with_that_of_each_system():
    records = {"A": training(128, n_train=500), "B": training(96, n_train=500)}
    assert verdict.differing_settings(records) == {"size": {"A": "128", "B": "96"}}
    records["B"]["recipe"]["config"]["own"] = {"new_setting": 3}
    assert verdict.differing_settings(records)["own.new_setting"] == {"A": "", "B": "3"}


def test_equal_trainings_and_systems_without_a_training_differ_in_nothing():
    one, other = training(96, epochs=6), training(96, epochs=6)
    other["recipe"]["config"]["training"]["seed"] = 2
    assert verdict.differing_settings({"A": one, "B": other, "C": {}}) == {}
    assert verdict.differing_settings({"C": {}}) == {}
