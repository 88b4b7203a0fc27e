"""Classes that exclude each other: the class of the highest score decides."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

import cxr_compare
from cxr_compare import InputError
from tests.adapters import classes as product

NAMES = np.array(["NORMAL", "BACTERIA", "VIRUS"])
ORDER = ["no_finding", "bacteria", "virus"]


def drawn(n=120, k=3, seed=0):
    """Return classes, the same for each seed, and scores that sum to 1."""
    y_true = np.r_[np.arange(k), np.random.default_rng(0).integers(0, k, n - k)]
    scores = np.random.default_rng(seed).dirichlet(np.ones(k), n)
    scores[np.arange(n), y_true] += 0.3
    return y_true, scores / scores.sum(axis=1, keepdims=True)


def patients(n=120):
    return np.arange(n) // 2


def row_of(table, metric, name="", first="A", second=""):
    where = (table["class"] == name) & (table["metric"] == metric)
    (row,) = table[where & (table["first"] == first) & (table["second"] == second)].to_dict(
        "records"
    )
    return row


def matrix_of(result, system):
    calls = result.calls[result.calls["system"] == system]
    return pd.crosstab(calls["class"], calls["called"])


@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_figures_of_all_classes_are_those_of_scikit_learn(k):
    y_true, scores = drawn(k=k)
    y_pred = product.called_classes(scores)
    counts = product.counts_by_patient(y_true, y_pred, patients(), 60, k).sum(axis=0)
    assert (counts[:, :-1] == oracle.confusion_matrix(y_true, y_pred)).all()
    assert product.FIGURES["accuracy"](counts) == pytest.approx(
        oracle.accuracy_score(y_true, y_pred)
    )
    balanced = oracle.balanced_accuracy_score(y_true, y_pred)
    assert product.FIGURES["balanced_accuracy"](counts) == pytest.approx(balanced)
    f1 = oracle.f1_score(y_true, y_pred, average="macro")
    assert product.FIGURES["f1"](counts) == pytest.approx(f1)


@pytest.fixture(scope="module")
def compared():
    y_true, scores = drawn()
    systems = {"A": scores, "B": drawn(seed=3)[1]}
    return cxr_compare.compare(systems, truth=y_true, patients=patients(), replicates=200)


def test_arrays_of_classes_have_figures_intervals_and_a_matrix(compared):
    y_true, scores = drawn()
    y_pred = scores.argmax(axis=1)
    matrix = oracle.confusion_matrix(y_true, y_pred)
    assert (matrix_of(compared, "A").to_numpy() == matrix).all()
    assert (compared.confusion["A"].to_numpy() == matrix).all()
    row = row_of(compared.classes, "balanced_accuracy")
    assert row["estimate"] == pytest.approx(oracle.balanced_accuracy_score(y_true, y_pred))
    assert row["ci_low"] < row["estimate"] < row["ci_high"]
    precision = oracle.precision_score(y_true, y_pred, average=None)
    assert row_of(compared.classes, "precision", "2")["estimate"] == pytest.approx(precision[2])
    macro = compared.macro[(compared.macro["metric"] == "auroc") & (compared.macro["first"] == "A")]
    auroc = oracle.roc_auc_score(y_true, scores, multi_class="ovr")
    assert macro["estimate"].iloc[0] == pytest.approx(auroc)
    assert "balanced accuracy over 3 classes" in compared.headline
    gap = row_of(compared.classes, "balanced_accuracy", second="B")
    assert gap["p_holm"] == gap["p_value"]
    assert row_of(compared.classes, "f1", second="B")["p_holm"] >= gap["p_holm"]


def test_two_classes_have_the_interval_of_binary_balanced_accuracy():
    rng = np.random.default_rng(1)
    truth = pd.DataFrame({"image_id": [f"i{n}" for n in range(80)], "patient_id": patients(80)})
    ill = rng.random(80) < 0.4
    truth["mass"], truth["nodule"] = 1 * ill, 1 * ~ill
    scores = truth[["image_id"]].assign(mass=rng.random(80) + 0.3 * ill)
    scores["mass"] /= 1.3
    scores["nodule"] = 1 - scores["mass"]
    found = cxr_compare.compare(
        {"A": scores}, truth=truth, columns={"classes": "exclusive"}, replicates=100
    )
    row = row_of(found.classes, "balanced_accuracy")
    called = (scores["mass"] > 0.5).to_numpy()
    binary = product.binary_interval(ill, called, patients(80), row["estimate"])
    assert row["ci_low"] == pytest.approx(binary["ci_low"], abs=1e-12)
    assert row["ci_high"] == pytest.approx(binary["ci_high"], abs=1e-12)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    y_true, scores = drawn()
    ids = [f"i{number:03d}" for number in range(len(y_true))]
    people = {"image_id": ids, "patient_id": [f"p{number:02d}" for number in patients()]}
    made = {
        "truth": pd.DataFrame({**people, "label": NAMES[y_true]}),
        "one_hot": pd.DataFrame(np.eye(3, dtype=int)[y_true], columns=NAMES).assign(**people),
        "soft": pd.DataFrame(scores, columns=NAMES).assign(image_id=ids),
        "without_normal": pd.DataFrame(scores[:, 1:], columns=NAMES[1:]).assign(image_id=ids),
        "hard": pd.DataFrame({"image_id": ids, "prediction": NAMES[scores.argmax(axis=1)]}),
        "one_class": pd.DataFrame({"image_id": ids, "bacteria": scores[:, 1]}),
    }
    for name, table in made.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


STATED = {"classes": "exclusive"}


@pytest.mark.parametrize("truth", ["truth", "one_hot"])
def test_tables_of_class_names_are_compared(tables, tmp_path, truth):
    systems = [str(tables / f"{name}.csv") for name in ("soft", "without_normal", "hard")]
    out = tmp_path / "report"
    options = {"truth": tables / f"{truth}.csv", "columns": STATED, "replicates": 100}
    made = cxr_compare.compare(*systems, **options, target="bacteria,virus", out=out)
    y_true, scores = drawn()
    expected = oracle.confusion_matrix(y_true, scores.argmax(axis=1))
    for system in made.systems:
        assert (matrix_of(made, system).loc[ORDER, ORDER].to_numpy() == expected).all()
    assert "Decision among the classes" in made.page.read_text()
    row = json.loads((out / "answers.json").read_text())
    assert "classes.csv" in row["files"]


REFUSED = [
    ({"truth": "truth", "target": "virus"}, ["soft"], "only all together"),
    ({"truth": "truth"}, ["one_class"], "says nothing of virus"),
    ({"truth": "truth", "unit": "patient"}, ["soft"], "decided for each image"),
]


@pytest.mark.parametrize(("options", "systems", "reason"), REFUSED)
def test_what_is_no_decision_among_all_classes_is_refused(tables, options, systems, reason):
    paths = [str(tables / f"{name}.csv") for name in systems]
    truth = tables / f"{options['truth']}.csv"
    with pytest.raises(InputError, match=reason):
        cxr_compare.compare(*paths, **{**options, "truth": truth}, columns=STATED, replicates=100)


def test_balanced_accuracy_over_classes_may_be_named(tables):
    systems = [str(tables / "soft.csv"), str(tables / "hard.csv")]
    options = {"metric": "balanced_accuracy", "margin": 0.2, "replicates": 100}
    found = cxr_compare.compare(
        *systems, truth=tables / "truth.csv", columns=STATED, gate=True, **options
    )
    assert found.margin == "pass"  # the same calls


def test_a_column_of_one_finding_is_no_score_of_others(tables):
    logits = pd.read_csv(tables / "soft.csv")
    logits[NAMES] = np.log(logits[NAMES])
    options = {"truth": tables / "truth.csv", "target": "all", "replicates": 100}
    with pytest.raises(InputError, match="are these logits") as refused:
        cxr_compare.compare({"A": logits}, **options, columns={"classes": "together"})
    assert not refused.value.remedies
    answer = {"classes": "together", "A.score": "BACTERIA"}
    with pytest.raises(InputError, match="has scores of bacteria, and not of virus"):
        cxr_compare.compare({"A": logits}, **options, columns=answer)
