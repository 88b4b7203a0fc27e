"""A protocol fixes the question before the figures are known."""

import hashlib

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError

N = 120
IDS = [f"i{number:03d}" for number in range(N)]
LABEL = np.arange(N) % 2
TRUTH = pd.DataFrame({"image_id": IDS, "label": LABEL, "patient_id": IDS})
TRUTH["role"] = np.where(np.arange(N) < N // 2, "val", "test")


def scores(skill, seed):
    noise = np.random.default_rng(seed).normal(0, 1, N)
    return pd.Series(1 / (1 + np.exp(-(noise + skill * (LABEL - 0.5)))), IDS)


SYSTEMS = {"A": scores(2.0, 1), "B": scores(1.0, 2), "C": scores(0.5, 3)}


@pytest.fixture
def asked(tmp_path):
    def compare(content, systems=SYSTEMS, **options):
        path = tmp_path / "protocol.toml"
        path.write_text(content)
        return cxr_compare.compare(systems, truth=TRUTH, protocol=path, replicates=100, **options)

    return compare


def pairs(result):
    claims = [claim for claim in result.answer.claims if claim["family"] == "answer"]
    return [(claim["first"], claim["second"]) for claim in claims]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('metric = "aurok"', ["aurok", "auroc"]),
        ('metric = "brier"', ["brier"]),
        ('metric = "tp"\npolicy = "max_f1"', ["tp"]),
        ('metric = "recall"\npolicy = "max_f1"', ["recall", "balanced_accuracy"]),
        ('metric = "precision"\npolicy = "max_f1"', ["precision", "balanced_accuracy"]),
        ('metric = "f1"', ["f1", "policy"]),
        ('metric = "auroc"\npolicy = "max_f1"', ["auroc", "policy"]),
        ('metric = "f1"\npolicy = "best"', ["best"]),
        ('metric = "f1"\npolicy = "sensitivity>=0.9@0.9"', ["sensitivity>=0.9@0.9"]),
        ('metric = ["recall", "specificity"]\npolicy = "max_f1"', ["metric"]),
        ("margin = 0.05", ["margin"]),
        ('subgroups = "sex"', ["subgroups"]),
        ("metric = ", ["protocol.toml"]),
        ('reference = "D"', ["D", "A, B, C"]),
    ],
)
def test_a_question_that_no_figure_answers_is_refused_in_one_line(asked, content, parts):
    with pytest.raises(InputError) as refused:
        asked(content)
    line = str(refused.value)
    assert "\n" not in line
    assert [part for part in parts if part not in line] == []


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        cxr_compare.compare(SYSTEMS, truth=TRUTH, protocol=tmp_path / "nowhere.toml")


def test_the_reference_comes_first(asked):
    result = asked('reference = "C"')
    assert result.systems == ["C", "A", "B"]
    assert pairs(result) == [("C", "A"), ("C", "B"), ("A", "B")]


def test_the_figure_of_the_protocol_decides_at_its_threshold(asked):
    result = asked('metric = "f1"\npolicy = "youden"\n')
    assert "F1 at the threshold for" in result.headline
    assert result.answer.primary == ("f1", "youden")
    assert result.answer.policy == "youden"
    assert {claim["metric"] for claim in result.answer.claims if claim["family"] == "answer"} == {
        "f1"
    }
    by_auroc = asked("")
    assert by_auroc.answer.primary == ("auroc", "")


def test_a_report_says_if_its_question_was_fixed_and_by_which_file(asked):
    content = 'metric = "auroc"\n'
    fixed = asked(content).answer.provenance.protocol
    assert fixed["analysis"] == "protocol given"
    assert fixed["file_sha256"] == hashlib.sha256(content.encode()).hexdigest()
    free = cxr_compare.compare(SYSTEMS, truth=TRUTH, replicates=100).answer
    assert free.provenance.protocol["analysis"] == "exploratory"


@pytest.mark.parametrize(
    ("content", "part"),
    [('metric = "ap50"', "ap50"), ('metric = "pointing_accuracy"', "pointing_accuracy")],
)
def test_a_figure_that_a_system_cannot_have_is_refused(asked, content, part):
    with pytest.raises(InputError) as refused:
        asked(content)
    assert str(refused.value).startswith("A: ")
    assert part in str(refused.value)


def test_a_threshold_that_validation_does_not_give_is_refused(tmp_path):
    path = tmp_path / "protocol.toml"
    path.write_text('metric = "f1"\npolicy = "max_f1"\n')
    one_class = TRUTH.assign(label=np.where(TRUTH["role"] == "val", 0, LABEL))
    with pytest.raises(InputError, match="max_f1"):
        cxr_compare.compare(SYSTEMS, truth=one_class, protocol=path, replicates=100)


def test_the_finding_of_a_protocol_is_the_one_that_is_compared(tmp_path):
    truth = TRUTH.rename(columns={"label": "mass"}).assign(edema=LABEL[::-1])
    frame = pd.DataFrame({"image_id": IDS, "mass": SYSTEMS["A"].array, "edema": 0.5})
    path = tmp_path / "protocol.toml"
    path.write_text('target = "mass"\n')
    result = cxr_compare.compare({"A": frame}, truth=truth, protocol=path, replicates=100)
    assert result.answer.target == "mass"
    path.write_text('target = "nodule"\n')
    with pytest.raises(InputError, match="nodule"):
        cxr_compare.compare({"A": frame}, truth=truth, protocol=path, replicates=100)


def test_a_protocol_is_answered_by_patient_too(asked):
    result = asked('metric = "auroc"', unit="patient")
    assert result.answer.unit == "patient"
    assert f"{N // 2} test patients" in result.headline
