"""Classes that exclude each other: the class of the highest score decides."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

import cxr_compare
from cxr_compare import InputError
from tests.adapters import classes as product

NAMES = np.array(["NORMAL", "BACTERIA", "VIRUS"])
ORDER = ["Normal", "Bacteria", "Virus"]


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
    assert row_of(compared.classes, "precision", "class 2")["estimate"] == pytest.approx(
        precision[2]
    )
    auroc = oracle.roc_auc_score(y_true, scores, multi_class="ovr")
    assert row_of(compared.classes, "auroc")["estimate"] == pytest.approx(auroc)
    assert "120 test images of 60 patients" in compared.headline
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
    systems = [str(tables / f"{name}.csv") for name in ("soft", "hard")]
    out = tmp_path / "report"
    options = {"truth": tables / f"{truth}.csv", "columns": STATED, "replicates": 100}
    made = cxr_compare.compare(*systems, **options, target="bacteria,virus", out=out)
    y_true, scores = drawn()
    expected = oracle.confusion_matrix(y_true, scores.argmax(axis=1))
    # Labels of one column name the class; a column of 1 and 0 is none of the two findings.
    order = [ORDER[0] if truth == "truth" else "No finding", *ORDER[1:]]
    for system in made.systems:
        assert (matrix_of(made, system).loc[order, order].to_numpy() == expected).all()
    assert "Decision among the classes" in made.page.read_text()
    record = json.loads((out / "classes.json").read_text())
    files = ["calls.csv", "classes.csv", "figures/confusion.svg", "table.md", "table.tex"]
    assert {*files} < {*record["files"]}
    assert record["counts"] == {"test image": 120, "patient": 60}
    assert cxr_compare.show(out).to_dict()["headline"] == made.headline


REFUSED = [
    ({"truth": "truth", "target": "virus"}, ["soft"], "only all together"),
    ({"truth": "truth"}, ["one_class"], "says nothing of virus"),
    ({"truth": "truth", "unit": "patient"}, ["soft"], "unit: is for one finding"),
    ({"truth": "truth", "policy": "youden"}, ["soft"], "policy: is for one finding"),
    ({"truth": "truth", "both": True}, ["soft", "hard"], "both: is for one finding"),
    ({"truth": "truth", "metric": "mcc"}, ["soft"], "mcc is none of"),
    ({"truth": "truth", "metric": "f1"}, ["without_normal"], "f1 is none of"),
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
    assert found.margin["gate"] == "pass"  # the same calls
    assert found.exit_status == 0


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


def test_a_system_without_a_score_of_a_class_calls_none_until_it_has_one(tables):
    truth, systems = tables / "truth.csv", [tables / "soft.csv", tables / "without_normal.csv"]
    found = cxr_compare.compare(*systems, truth=truth, columns=STATED, margin=0.2)
    assert list(found.confusion) == ["soft"]
    (caution,) = [text for text in found.cautions if "without_normal" in text]
    assert found.comparison.decides == found.margin["metric"] == "auroc"
    assert found.margin["decisions"] == {"without_normal": "cannot tell"}  # no figure of a call
    assert "AUROC over 2 of 3 classes (Bacteria, Virus)" in found.headline
    (column,) = re.findall("add the column '(.*)' with 1 minus their sum", caution)
    frame = pd.read_csv(systems[1])
    frame[column] = 1 - frame[["BACTERIA", "VIRUS"]].sum(axis=1)
    both = {"soft": pd.read_csv(systems[0]), "without_normal": frame}
    mended = cxr_compare.compare(both, truth=truth, columns=STATED)
    assert mended.comparison.decides == "balanced_accuracy"
    assert (mended.confusion["without_normal"] == mended.confusion["soft"]).all(axis=None)


def test_systems_that_call_nothing_beside_a_class_of_one_patient_are_compared(tmp_path):
    rng = np.random.default_rng(4)
    label = np.repeat(["normal", "mass", "nodule"], [40, 20, 2])
    people = [f"p{number:02d}" for number in range(60)] + ["p60", "p60"]
    ids = [f"i{number:02d}" for number in range(62)]
    truth = pd.DataFrame({"image_id": ids, "patient_id": people, "label": label})
    systems = {
        name: pd.DataFrame({"image_id": ids, "mass": rng.random(62), "nodule": rng.random(62)})
        for name in "AB"
    }
    options = {"truth": truth, "columns": STATED, "margin": 0.1}
    found = cxr_compare.compare(systems, **options, out=tmp_path / "report")
    expected = oracle.roc_auc_score(label == "mass", systems["A"]["mass"])
    assert row_of(found.classes, "auroc", "Mass")["estimate"] == pytest.approx(expected)
    assert found.calls.empty
    assert found.confusion == {}
    assert found.margin["decisions"]["B"] in {"not shown", "cannot tell"}


def test_called_classes_alone_are_compared(tables, tmp_path):
    hard, out = tables / "hard.csv", tmp_path / "report"
    options = {"truth": tables / "truth.csv", "columns": STATED, "replicates": 100}
    found = cxr_compare.compare(hard, **options, out=out)
    y_true, scores = drawn()
    value = oracle.balanced_accuracy_score(y_true, scores.argmax(axis=1))
    assert row_of(found.classes, "balanced_accuracy", first="hard")["estimate"] == pytest.approx(
        value
    )
    assert set(found.classes["metric"]).isdisjoint({"auroc"})
    assert found.page.is_file()


def test_many_images_without_a_called_class_are_said():
    y_true, scores = drawn()
    shared = np.where(np.arange(len(y_true))[:, None] < 20, 1 / 3, scores)
    systems = {"A": scores, "Shared": shared}
    found = cxr_compare.compare(systems, truth=y_true, patients=patients(), replicates=100)
    (caution,) = [text for text in found.cautions if "no class" in text]
    assert caution.startswith("Shared calls 20 of the 120 test images no class")


def test_each_claim_waits_for_the_one_before_it():
    rng = np.random.default_rng(2)
    y_true = np.arange(240) % 3
    strong, weak = (rng.normal(size=(240, 3)) + gain * np.eye(3)[y_true] for gain in (2.0, 0.8))
    # The same ranks in each class as `strong`, and nearly all called the first one.
    moved = strong + np.array([4.0, 0, 0])
    table = product.figures_of({"A": weak, "B": moved, "C": strong}, y_true, np.arange(240))
    gaps = table[table["second"] != ""]
    for pair, rows in gaps[gaps["first"] == "A"].groupby(["first", "second"]):
        of_all = rows[rows["class"] == ""].set_index("metric")["p_holm"]
        singles = rows.loc[rows["class"] != "", "p_holm"]
        assert (of_all[["accuracy", "f1", "auroc"]] >= of_all["balanced_accuracy"]).all(), pair
        assert (singles >= of_all["auroc"]).all(), pair
    a_b = gaps[(gaps["first"] == "A") & (gaps["second"] == "B")].set_index(["class", "metric"])
    assert a_b.loc[("", "auroc"), "p_value"] < 1e-6
    assert a_b.loc[("0", "auroc"), "p_holm"] >= a_b.loc[("", "balanced_accuracy"), "p_value"]


@pytest.mark.parametrize("n_rare", [1, 2, 5])
def test_a_rare_class_has_a_difference_by_its_patients(n_rare):
    rng = np.random.default_rng(4)
    y_true = np.r_[np.repeat([0, 1], 60), [2] * n_rare]
    people = np.arange(len(y_true))
    systems = {
        name: rng.normal(size=(len(y_true), 3)) + gain * np.eye(3)[y_true]
        for name, gain in (("A", 3.0), ("B", 0.5))
    }
    table = product.figures_of(systems, y_true, people)
    gaps = table[table["second"] != ""]
    assert (gaps["p_value"].isna() == gaps["ci_low"].isna()).all()  # none without an interval
    of_all = gaps[gaps["class"] == ""].set_index("metric")
    assert of_all.loc["accuracy", "ci_low"] > 0
    balanced = of_all.loc["balanced_accuracy"]
    assert np.isnan(balanced["p_value"]) == (n_rare == 1) == bool(balanced["note"])
    if n_rare > 1:
        assert balanced["ci_high"] - balanced["ci_low"] > 2 / 3 / n_rare


def test_calls_of_nearly_all_images_are_cautioned():
    y_true, scores = drawn()
    systems = {"A": scores, "B": scores + np.array([0.9, 0, 0])}
    systems["B"] /= systems["B"].sum(axis=1, keepdims=True)
    found = cxr_compare.compare(systems, truth=y_true, patients=patients())
    (caution,) = [text for text in found.cautions if "class 0" in text]
    matrix = found.confusion["B"]
    assert f"B calls {matrix['class 0'].sum()} of the 120 test images class 0" in caution
    assert f"{matrix['class 0'][1:].sum()} of the {matrix[1:].to_numpy().sum()} of other" in caution


def test_a_notebook_draws_the_matrices_and_the_aurocs(compared):
    matrices = compared.plot("confusion")
    texts = [text.get_text() for axes in matrices.axes for text in axes.texts]
    counts = [f"{n} " for cells in compared.confusion.values() for n in cells.to_numpy().ravel()]
    assert [text[: len(count)] for text, count in zip(texts, counts, strict=True)] == counts
    labels = [text.get_text() for text in compared.plot("classes").axes[0].get_yticklabels()]
    assert sorted(labels) == ["class 0", "class 1", "class 2"]
    with pytest.raises(InputError, match="this result has confusion, classes"):
        compared.plot("roc")
