"""The figures of kept comparisons, to 1e-9, and what their answers claim."""

import json

import pytest

from tests.kept.comparisons import (
    HERE,
    KEPT,
    NEEDS_SHARED_DATA,
    RECORDED,
    differences,
    kept,
    numbers,
    read_table,
)

ANSWERS = json.loads((HERE / "answers.json").read_text(encoding="utf-8"))
OWN = [name for name in KEPT if name not in NEEDS_SHARED_DATA]
# Five reports with their pages: 14 s of processor.
SLOW = {"five-folds": pytest.mark.release}


def require_equal(name, rows, answer):
    lines = differences(read_table(HERE / f"{name}.csv"), rows)
    assert not lines, "\n".join([f"{name}: {len(lines)} rows", *lines[:40]])
    assert not answer_differences(ANSWERS[name], answer)


def answer_differences(expected, got):
    """Return the differences between two answers; values of claims by 1e-9."""
    if expected is None or got is None:
        return [] if expected is got else ["one is missing"]
    expected, got = dict(expected), dict(got)
    claims = [
        {claim_key(claim): claim for claim in answer.pop("claims", [])}
        for answer in (expected, got)
    ]
    lines = [] if expected == got else [f"{got} instead of {expected}"]
    if claims[0].keys() != claims[1].keys():
        return [*lines, f"claims {sorted(claims[1])} instead of {sorted(claims[0])}"]
    for key, claim in claims[0].items():
        for name, value in claim.items():
            other = claims[1][key][name]
            both_numbers = isinstance(value, float) and isinstance(other, float)
            equal = abs(value - other) <= 1e-9 if both_numbers else value == other
            if not equal:
                lines.append(f"{name} of {key}: {other} instead of {value}")
    return lines


def claim_key(claim):
    return tuple(claim[name] for name in ("first", "second", "metric", "policy"))


@pytest.mark.parametrize("name", OWN)
def test_every_figure_and_claim_of_a_kept_comparison_stays(name):
    require_equal(name, *kept(name))


@pytest.mark.parametrize("name", NEEDS_SHARED_DATA)
def test_every_figure_and_claim_on_real_scores_stays(name, shared_data):
    require_equal(name, *kept(name, shared_data))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW.get(name, ())) for name in RECORDED]
)
def test_every_figure_of_what_no_kept_comparison_has_stays(name, tmp_path):
    require_equal(name, *RECORDED[name](tmp_path))


def test_five_comparisons_need_no_other_data():
    assert len(OWN) >= 5
    for name in OWN:
        assert len(read_table(HERE / f"{name}.csv")) > 140, name
        assert ANSWERS[name]["claims"], name


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda rows: rows, 0),
        (lambda rows: rows.sample(frac=1.0, random_state=0), 0),
        (lambda rows: rows[1:], 1),
        (lambda rows: rows.replace({"metric": {"auroc": "auc"}}), 12),
        (lambda rows: rows.assign(estimate=rows["estimate"] + 2e-9), 198),
        (lambda rows: rows.assign(ci_low=rows["ci_low"].where(rows.index != 5)), 1),
        (lambda rows: rows.assign(n_images=rows["n_images"] + (rows.index == 7)), 1),
        (lambda rows: rows.drop(columns="p_value"), 1),
        (lambda rows: rows.drop(columns="policy"), 120),
    ],
)
def test_a_lost_new_or_other_row_is_a_difference(change, lines):
    rows = read_table(HERE / "drawn-1.csv")
    assert len(differences(rows, change(rows.copy()))) == lines


def test_another_winner_or_number_is_a_difference():
    expected = ANSWERS["drawn-1"]
    first, *others = expected["claims"]
    assert not answer_differences(expected, json.loads(json.dumps(expected)))
    for changed in (
        expected | {"kind": "other"},
        expected | {"numbers": expected["numbers"][1:]},
        expected | {"claims": others},
        expected | {"claims": [first | {"higher": "nobody"}, *others]},
        expected | {"claims": [first | {"estimate": first["estimate"] + 1e-6}, *others]},
    ):
        assert len(answer_differences(expected, changed)) == 1


def test_numbers_are_read_without_words():
    assert numbers("On 2,437 images, A led (0.824, −0.01); p = 0.0520.") == [
        *("-0.01", "0.0520", "0.824", "2437")
    ]
