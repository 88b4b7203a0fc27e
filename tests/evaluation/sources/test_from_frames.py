"""Ground truth and predictions from arrays and frames: aligned, checked, and equal to folders."""

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.sources.from_frames import (
    numbered_ids,
    predictions_from_values,
    truth_from_values,
)
from cxr_compare.evaluation.sources.known_images import KnownImages
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI
from tests.evaluation.evaluated_images import row_of

pytestmark = pytest.mark.usefixtures("no_chart_files")
N = 120


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, N)
    return pd.DataFrame({
        "image_id": [f"i{number:03d}" for number in rng.permutation(N)],
        "label": label,
        "patient_id": [f"p{number // 2}" for number in range(N)],
        "a": 1 / (1 + np.exp(-(label + rng.normal(size=N)))),
        "b": 1 / (1 + np.exp(-(2 * label + rng.normal(size=N)))),
    })  # fmt: skip


def compared(table, truth, **options):
    systems = {"A": table["a"].to_numpy(), "B": table["b"].to_numpy()}
    return cxr_compare.compare(systems, truth=truth, replicates=100, **options)


def test_arrays_series_and_frames_in_any_order_give_the_same_figures(table):
    by_array = compared(table, table["label"].to_numpy(), patients=table["patient_id"].to_numpy())
    shuffled = table.sample(frac=1, random_state=0)
    indexed = shuffled.set_index("image_id")
    by_id = cxr_compare.compare(
        {"A": indexed["a"], "B": shuffled[["image_id", "b"]].rename(columns={"b": "prob"})},
        truth=table[["image_id", "label", "patient_id"]],
        replicates=100,
    )
    names = ["first", "second", "metric", "estimate"]
    first = by_array.to_frame().query("metric == 'auroc'")[names].reset_index(drop=True)
    second = by_id.to_frame().query("metric == 'auroc'")[names].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, second)
    interval = ["ci_low", "ci_high"]
    exact = [
        result.to_frame().query("metric == 'auroc' and second == 'B'")[interval].to_numpy()
        for result in (by_array, by_id)
    ]
    assert np.allclose(*exact)


def test_figures_are_those_of_sklearn_and_of_the_functions_of_arrays(table):
    from sklearn.metrics import average_precision_score, roc_auc_score

    result = compared(table, table["label"].to_numpy())
    figures = result.to_frame().query("second == ''").set_index(["first", "metric"])["estimate"]
    assert figures["A", "auroc"] == pytest.approx(roc_auc_score(table["label"], table["a"]))
    precision = average_precision_score(table["label"], table["b"])
    assert figures["B", "average_precision"] == pytest.approx(precision)


def test_auroc_by_patient_is_that_of_the_highest_scores(table):
    from sklearn.metrics import roc_auc_score

    options = {"patients": table["patient_id"].to_numpy(), "unit": "patient"}
    result = compared(table, table["label"].to_numpy(), **options)
    highest = table.groupby("patient_id")[["label", "a", "b"]].max()
    for system, column in (("A", "a"), ("B", "b")):
        row = row_of(result.figures, system=system, metric="auroc", unit="patient")
        assert row["estimate"] == pytest.approx(roc_auc_score(highest["label"], highest[column]))
        assert row["ci_method"].startswith(OBUCHOWSKI)
        assert row["n_images"] == N // 2
    (note,) = [text for text in result.answer.notes if text.startswith("By patient")]
    assert "validation" not in note  # there are no validation images, so nothing is chosen on them


def test_words_for_labels_mean_in_memory_what_they_mean_in_files(table, tmp_path):
    labels = table[["image_id"]].assign(
        label=np.where(table["label"] == 1, "+", "−").astype(object)
    )
    labels.loc[3, "label"] = "n/a"
    labels.to_csv(tmp_path / "truth.csv", index=False)
    table[["image_id", "a"]].to_csv(tmp_path / "a.csv", index=False)
    by_file = cxr_compare.compare(
        {"A": tmp_path / "a.csv"},
        truth=tmp_path / "truth.csv",
        columns=["score=a"],
        replicates=100,
    )
    scores = {"A": table["a"].to_numpy()}
    for truth in (labels, labels["label"].tolist()):
        in_memory = cxr_compare.compare(scores, truth=truth, replicates=100)
        assert len(in_memory.decisions) == N - 1
        columns = ["metric", "estimate"]
        pd.testing.assert_frame_equal(in_memory.to_frame()[columns], by_file.to_frame()[columns])


@pytest.mark.parametrize("box", ["[1, 2, 3, 4]", np.array([1.0, 2.0, 3.0, 4.0])])
def test_a_box_in_one_cell_of_truth_is_refused_and_not_left_out(table, box):
    truth = table[["image_id", "label"]].assign(bbox=[None, box] * (N // 2))
    with pytest.raises(InputError, match=r"row 1: .*bbox"):
        compared(table, truth)


@pytest.mark.parametrize("word", ["pneumonia", "-2", 2])
def test_a_label_that_is_not_understood_is_refused_with_its_row(table, word):
    labels = np.where(table["label"] == 1, "yes", "no").astype(object)
    labels[5] = word
    with pytest.raises(InputError, match="row 5"):
        compared(table, labels)


def test_a_figure_that_no_system_has_is_no_row_of_the_frame(table):
    frame = compared(table, table["label"].to_numpy()).to_frame()
    assert frame["estimate"].notna().all()
    assert {"auroc", "average_precision"} <= set(frame["metric"])
    assert not frame["metric"].str.startswith(("ap", "froc")).any()


@pytest.mark.parametrize("by_id", [False, True], ids=["array", "series"])
def test_logits_are_refused_by_the_name_of_their_system(table, by_id):
    labels = table.set_index("image_id")["label"]
    logits = pd.Series(3 * np.log(table["a"] + 0.5).to_numpy(), index=labels.index)
    scores = {"Net": logits if by_id else logits.to_numpy(), "B": table["b"].to_numpy()}
    with pytest.raises(InputError, match=r"^Net: row .*logits"):
        cxr_compare.compare(scores, truth=labels if by_id else labels.to_numpy())


@pytest.mark.parametrize("several", [False, True], ids=["array", "list of arrays"])
def test_scores_without_a_name_are_refused_with_how_to_name_them(table, several):
    scores = table["a"].to_numpy()
    with pytest.raises(InputError, match=r"no name; .*\{'A': scores\}"):
        cxr_compare.compare([scores, scores] if several else scores, truth=table["label"])


def test_a_frame_of_scores_and_an_empty_list_are_refused_by_name(table):
    with pytest.raises(InputError, match="DataFrame has no name"):
        cxr_compare.compare(table[["a", "b"]], truth=table["label"])
    with pytest.raises(InputError, match=r"^A: is empty"):
        cxr_compare.compare({"A": []}, truth=table["label"])


def test_a_patient_that_the_list_lacks_is_reported_for_the_argument(table):
    patients = table.set_index("image_id")["patient_id"].iloc[:-1]
    with pytest.raises(InputError, match=r"^patients: .* image"):
        compared(table, table.set_index("image_id")["label"], patients=patients)


def test_a_file_of_patients_is_read_as_on_the_command_line(table, tmp_path):
    file = tmp_path / "patients.csv"
    table[["image_id", "patient_id"]].to_csv(file, sep=";", index=False)
    labels = table.set_index("image_id")["label"]
    from_file = compared(table, labels, patients=file)
    from_series = compared(table, labels, patients=table.set_index("image_id")["patient_id"])
    pd.testing.assert_frame_equal(from_file.to_frame(), from_series.to_frame())
    with pytest.raises(InputError, match=r"absent\.csv"):
        compared(table, labels, patients=tmp_path / "absent.csv")


def test_a_role_gives_thresholds_and_none_gives_figures_without_any(table):
    without = compared(table, table["label"].to_numpy())
    assert set(without.to_frame().dropna(subset="estimate")["policy"]) == {""}
    roles = table.assign(split=["valid" if n < 40 else "test" for n in range(N)])
    with_roles = compared(table, roles[["image_id", "label", "split"]])
    assert "max_f1" in set(with_roles.to_frame()["policy"])
    assert len(with_roles.decisions) == 2 * (N - 40)


def test_without_patients_nothing_counts_or_names_patients(table, tmp_path):
    result = compared(table, table["label"].to_numpy())
    assert result.to_frame()["n_patients"].isna().all()
    assert not any("patient" in method for method in result.figures["ci_method"])
    report = result.save(tmp_path / "report")
    for name in ("figures.csv", "tests.csv", "table.tex"):
        text = (report.folder / name).read_text()
        rows = text.partition("\n")[2]
        assert "patient" not in rows.lower(), name
    assert "patient_id" not in report.decisions


def test_a_system_that_is_called_after_patients_keeps_its_name_without_patients(table, tmp_path):
    systems = {"Patient net": table["a"].to_numpy(), "B": table["b"].to_numpy()}
    result = cxr_compare.compare(systems, truth=table["label"].to_numpy(), replicates=100)
    assert result.systems == ["Patient net", "B"]
    pairs = set(result.figures[["first", "second"]].itertuples(index=False, name=None))
    assert pairs == {("Patient net", ""), ("B", ""), ("Patient net", "B")}
    assert "Patient net" in result.headline
    page = result.save(tmp_path / "report").page.read_text()
    assert "Image net" not in page


def test_columns_beside_the_known_ones_are_subgroups(table):
    ward = np.where(np.arange(N) % 2, "icu", "er")
    result = compared(table, table[["image_id", "label"]].assign(Sex="F", Ward=ward))
    labelled, _ = truth_from_values(table[["image_id", "label"]].assign(Ward=ward))
    assert set(labelled.images["x_ward"]) == {"icu", "er"}
    assert result.decisions["image_id"].nunique() == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"truth": t["label"].replace(1, 2)}, "a label is 1"),
        (lambda t: {"truth": t["label"].to_numpy()[:-1]}, "has 120 values, and truth has 119"),
        (lambda t: {"truth": t[["image_id", "a"]]}, "no column of labels"),
        (lambda t: {"truth": pd.concat([t, t])[["image_id", "label"]]}, "appears more than once"),
        (lambda t: {"truth": t["label"].to_numpy(), "patients": [1, 2]}, "patients: has 2 values"),
        (lambda t: {"truth": t[["image_id", "label"]].assign(role="holdout")}, "a role is val"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_row_or_length(table, change, message):
    with pytest.raises(InputError, match=message):
        compared(table, **change(table))


def test_a_score_beyond_1_names_its_image(table):
    scores = table["a"].to_numpy().copy()
    scores[7] = 3.5
    with pytest.raises(InputError, match=r"image 'image-008'.*score=3\.5"):
        cxr_compare.compare({"A": scores}, truth=table["label"].to_numpy())


def test_true_boxes_beside_labels_are_evaluated_where_all_lesions_are_boxed(table):
    positive = table[table["label"] == 1]
    boxes = pd.DataFrame({"filename": positive["image_id"], "xmin": 10.0, "ymin": 10.0,
                          "xmax": 60.0, "ymax": 60.0})  # fmt: skip
    found = boxes.assign(score=0.9)
    faint = pd.DataFrame({"filename": table["image_id"], "xmin": 10.0, "ymin": 61.0,
                          "xmax": 60.0, "ymax": 80.0, "score": 0.3})  # fmt: skip
    result = cxr_compare.compare(
        {"right": found, "wrong": faint}, truth=table[["image_id", "label"]], boxes=boxes,
        replicates=100,
    )  # fmt: skip
    figures = result.to_frame().query("second == ''").set_index(["first", "metric"])["estimate"]
    assert figures["right", "ap50"] == 1.0
    assert figures["wrong", "ap50"] == 0.0
    (caution,) = [text for text in result.cautions if "AP50" in text]
    assert "wrong" in caution


def test_detector_beside_all_lesions_gets_a_caution_that_does_not_blame_the_size(table):
    positive = table.loc[table["label"] == 1, ["image_id"]]
    boxes = positive.assign(x1=10.0, y1=10.0, x2=60.0, y2=60.0)
    beside = positive.assign(x1=10.0, y1=61.0, x2=60.0, y2=80.0, score=0.5)
    result = cxr_compare.compare(
        {"A": beside}, truth=table[["image_id", "label"]], boxes=boxes, replicates=100
    )
    (caution,) = [text for text in result.cautions if "AP50" in text]
    assert "resized" not in caution


def test_images_with_a_crowd_take_no_part_in_figures_of_boxes(table):
    positive = table.loc[table["label"] == 1, ["image_id"]]
    boxes = positive.assign(x1=10.0, y1=10.0, x2=60.0, y2=60.0)
    found = boxes.assign(score=0.5)
    crowds = boxes.assign(crowd=np.arange(len(boxes)) < 5)
    truth = table[["image_id", "label"]]
    result = cxr_compare.compare({"A": found}, truth=truth, boxes=crowds, replicates=100)
    figures = result.figures.set_index("metric")
    assert figures.loc["ap50", "n_images"] == N - 5
    assert figures.loc["auroc", "n_images"] == N


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ((300, 400, 200, 100), r"row \d+, image '.*\[300, 400, .*widths and heights"),
        ((0.3, 0.4, 0.5, 0.6), r"row \d+, image '.*\[0\.3, .*shares"),
    ],
)
def test_true_boxes_in_another_form_are_asked_about(table, edges, says):
    ids = table.loc[table["label"] == 1, "image_id"]
    boxes = pd.DataFrame({"image_id": ids, **dict(zip(EDGES, edges, strict=True))})
    found = pd.DataFrame({"image_id": table["image_id"], "x1": 10.0, "y1": 10.0, "x2": 60.0,
                          "y2": 60.0, "score": 0.5})  # fmt: skip
    with pytest.raises(InputError, match=says):
        cxr_compare.compare({"A": found}, truth=table[["image_id", "label"]], boxes=boxes)


def test_names_match_by_their_last_part_where_each_fits_one_image(table):
    truth = table.set_index("image_id")["label"]
    positive = table.loc[table["label"] == 1, "image_id"]
    edges = {"x1": 10, "y1": 10, "x2": 60, "y2": 60}
    boxes = pd.DataFrame({"image_id": "a/" + positive + ".PNG", **edges})
    found = boxes.assign(image_id="C:\\d\\" + positive + ".png", score=0.5)
    result = cxr_compare.compare({"A": found}, truth=truth, boxes=boxes, replicates=100)
    assert result.figures.set_index("metric").loc["ap50", "estimate"] == 1
    assert "last part" in str(result)
    scores = table["a"].set_axis("x/" + table["image_id"] + ".dcm")
    by_path = cxr_compare.compare({"A": scores}, truth=truth, replicates=100)
    plain = cxr_compare.compare(
        {"A": table.set_index("image_id")["a"]}, truth=truth, replicates=100
    )
    assert by_path.figures.equals(plain.figures)
    twice = table["a"].set_axis(
        [f"{k % 2}/{i}" for k, i in enumerate(np.repeat(truth.index[:60], 2))]
    )
    with pytest.raises(InputError):
        cxr_compare.compare({"A": twice}, truth=truth)


def test_columns_of_one_output_and_texts_of_numbers_are_scores(table):
    truth = table["label"].to_numpy()
    scores = table["a"].to_numpy()
    plain = cxr_compare.compare({"A": scores}, truth=truth, replicates=100).figures
    texts = [repr(score) for score in scores.tolist()]
    for given in (scores.reshape(-1, 1), texts):
        result = cxr_compare.compare({"A": given}, truth=truth.reshape(-1, 1), replicates=100)
        assert result.figures.equals(plain)
    with pytest.raises(InputError, match="row 3"):
        cxr_compare.compare({"A": pd.Series([*texts[:3], "x", *texts[4:]])}, truth=truth)


def test_repeated_boxes_are_a_caution(table):
    ids = table.loc[table["label"] == 1, "image_id"]
    boxes = pd.DataFrame({"image_id": ids, "x1": 10, "y1": 10, "x2": 60, "y2": 60})
    found = boxes.assign(score=0.5)
    truth = table[["image_id", "label"]]
    for system, drawn in ((pd.concat([found, found]), boxes), (found, pd.concat([boxes, boxes]))):
        result = cxr_compare.compare({"A": system}, truth=truth, boxes=drawn, replicates=100)
        assert any("given twice" in caution for caution in result.cautions)


def test_a_table_of_labels_and_several_scores_is_a_system_once_a_column_is_named(table, tmp_path):
    wide = table[["image_id", "label", "a", "b"]].rename(columns={"label": "y_true"})
    wide.to_csv(tmp_path / "w.csv", index=False)
    for given in (wide, tmp_path / "w.csv"):
        with pytest.raises(InputError, match=r"'score'.* a, b;.*all\.score=COLUMN"):
            cxr_compare.compare({"all": given}, truth=given, replicates=100)
        options = {"truth": given, "columns": ["A.score=a", "B.score=b"], "replicates": 100}
        result = cxr_compare.compare({"A": given, "B": given}, **options)
        figures = result.to_frame().query("second == ''").set_index(["first", "metric"])["estimate"]
        for name, column in (("A", "a"), ("B", "b")):
            auroc = cxr_compare.metrics.auroc(table["label"].to_numpy(), table[column].to_numpy())
            assert figures[name, "auroc"] == pytest.approx(auroc)


def test_validation_images_of_a_frame_of_boxes_on_test_images_alone_are_not_empty(table):
    roles = ["val"] * 40 + ["test"] * (len(table) - 40)
    truth = table[["image_id", "label"]].assign(role=roles)
    labelled, _ = truth_from_values(truth)
    found = pd.DataFrame({"image_id": table["image_id"].iloc[50:80], "x": 10, "y": 10,
                          "width": 50, "height": 50, "score": 0.5})  # fmt: skip
    read = predictions_from_values("A", found, KnownImages.of_truth(labelled))
    ok = set(read.images.loc[read.images["status"] == "ok", "image_id"])
    assert ok == set(truth.loc[truth["role"] == "test", "image_id"])
    assert read.boxes[EDGES].iloc[0].tolist() == [10, 10, 60, 60]


def test_numbered_ids_sort_in_their_order():
    ids = numbered_ids(1234)
    assert ids.equals(ids.sort_values())


def test_a_data_set_has_no_order_for_plain_arrays(table):
    labelled, _ = truth_from_values(table[["image_id", "label"]])
    with pytest.raises(InputError, match="have no order"):
        predictions_from_values("A", table["a"].to_numpy(), KnownImages.of_truth(labelled))


def test_outputs_of_a_detector_give_the_figures_of_their_table():
    rng = np.random.default_rng(5)
    ids = [f"p{number:02d}" for number in range(60)]
    labels = pd.Series(rng.integers(0, 2, 60), index=ids)
    drawn = [{"boxes": np.array([[100, 100, 200, 200.0]] * label)} for label in labels]
    outputs = [
        {
            "boxes": np.array([[100, 100, 200, 200.0]]) + rng.normal(0, 20, (1, 1)),
            "scores": rng.random(1) * 0.5 + 0.4 * label,
            "labels": np.ones(1, int),
        }
        if rng.random() < 0.8
        else {"boxes": [], "scores": [], "labels": []}
        for label in labels
    ]
    table = cxr_compare.boxes_table(outputs, ids)
    true = cxr_compare.boxes_table(drawn, ids)
    options = {"truth": labels, "replicates": 100}
    of_outputs = cxr_compare.compare({"A": outputs}, boxes=drawn, **options)
    of_table = cxr_compare.compare({"A": table.drop(columns="finding")}, boxes=true, **options)
    pd.testing.assert_frame_equal(of_outputs.figures, of_table.figures)
    ap50 = of_outputs.figures.query("metric == 'ap50' and subgroup == 'all'")["estimate"].iloc[0]
    direct = cxr_compare.metrics.box_average_precision(outputs, drawn, ids)["ap50"]
    assert ap50 == pytest.approx(direct)
    with pytest.raises(InputError, match=r"A: outputs: .*\b59\b.*\b60\b"):
        cxr_compare.compare({"A": outputs[1:]}, boxes=drawn, **options)


def numbered_boxes(count=60):
    """Boxes of a detection library, whose one class has the number 1, and their labels."""
    rng = np.random.default_rng(2)
    ids = [f"im{number}" for number in range(count)]
    labels = (rng.random(count) < 0.5).astype(int)
    corners = {"x1": 10.0, "y1": 10.0, "x2": 50.0, "y2": 60.0}
    found = pd.DataFrame({"image_id": ids, **corners, "finding": "1"})
    found["score"] = (0.3 + 0.4 * labels + 0.2 * rng.normal(size=count)).clip(0.01, 0.99)
    return ids, labels, found, found[labels == 1].drop(columns=["score", "finding"])


def test_boxes_with_ids_beside_labels_without_ids_are_refused_with_the_way_out():
    _, labels, found, true_boxes = numbered_boxes()
    with pytest.raises(InputError, match=r"pd\.Series"):
        cxr_compare.compare({"A": found}, truth=labels, boxes=true_boxes, replicates=100)


RSNA = pd.DataFrame({
    "patientId": ["b", "a", "a", "c", "d"],
    "x": [None, 10.0, 50, None, 5],
    "y": [None, 20.0, 60, None, 5],
    "width": [None, 30.0, 10, None, 20],
    "height": [None, 40.0, 10, None, 20],
    "Target": [0, 1, 1, 0, 1],
})  # fmt: skip
RSNA_BOXES = [[10, 20, 40, 60], [50, 60, 60, 70], [5, 5, 25, 25]]


@pytest.mark.parametrize("boxes", [None, RSNA])
def test_the_label_frame_of_rsna_has_one_row_a_box_and_images_as_patient_ids(boxes):
    labelled, ids = truth_from_values(RSNA, boxes=boxes)
    assert ids.tolist() == ["b", "a", "c", "d"]
    assert ids.index.tolist() == [0, 1, 2, 3]
    assert labelled.true_boxes[EDGES].to_numpy().tolist() == RSNA_BOXES
    assert labelled.label.to_dict() == dict.fromkeys("ad", 1.0) | dict.fromkeys("bc", 0.0)
    assert set(labelled.boxes_trusted) == set("abcd")
    assert (labelled.images["patient_id_source"] == "assumed_image").all()


def test_outputs_beside_the_label_frame_of_rsna_are_in_the_order_of_its_images(tmp_path):
    outputs = [
        {"boxes": np.array(boxes, float).reshape(-1, 4), "scores": np.full(len(boxes), 0.9)}
        for boxes in ([], RSNA_BOXES[:2], [], RSNA_BOXES[2:])
    ]
    result = cxr_compare.compare({"A": outputs}, truth=RSNA, replicates=100)
    figures = result.to_frame().set_index("metric")["estimate"]
    assert figures["ap50"] == pytest.approx(1)
    assert figures["auroc"] == 1
    RSNA.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(InputError, match="read_csv"):
        cxr_compare.compare({"A": outputs}, truth=tmp_path / "labels.csv")
    frame = cxr_compare.boxes_table(outputs, list("bacd"))
    of_file = cxr_compare.compare({"A": frame}, truth=tmp_path / "labels.csv", replicates=100)
    assert of_file.to_frame().set_index("metric")["estimate"]["ap50"] == pytest.approx(1)


def test_rows_of_one_image_with_two_labels_are_refused_by_the_image():
    with pytest.raises(InputError, match=r"image 'a'.*Target"):
        truth_from_values(RSNA.assign(Target=[0, 1, 0, 0, 1]))


def test_boxes_in_the_label_file_of_rsna_are_taken_by_the_figures():
    predicted = pd.DataFrame(RSNA_BOXES, columns=EDGES).assign(image_id=list("aad"), score=0.5)
    figures = cxr_compare.metrics.box_average_precision(predicted, RSNA, list("abcd"))
    assert figures["ap50"] == pytest.approx(1)


def test_a_wrong_label_or_argument_is_named_as_the_user_wrote_it():
    with pytest.raises(InputError, match="row 0 is -1:"):
        cxr_compare.metrics.auroc(np.array([-1, 1]), [0.1, 0.2])
    with pytest.raises(InputError, match=r"^box_average_precision: "):
        cxr_compare.metrics.box_average_precision([], [], ["a"], box_formats="xywh")
    with pytest.raises(InputError, match=r"^average_precision: "):
        cxr_compare.metrics.average_precision([1], [0.1], box_formats="xywh")


def test_scores_in_bf16_are_scores():
    torch = pytest.importorskip("torch")
    scores = torch.tensor([0.25, 0.75, 0.5]).bfloat16()
    truth, ids = truth_from_values([0, 1, None])
    known = KnownImages.of_truth(truth)
    assert predictions_from_values("A", scores, known, ids).scores["score"].tolist() == [
        0.25,
        0.75,
        0.5,
    ]


def test_a_few_unknown_patients_count_as_their_own_and_intervals_stay_by_patient(table):
    patients = table["patient_id"].to_numpy()
    some = np.where(np.arange(N) < 4, None, patients)
    known, partly, none = (
        compared(table, table["label"].to_numpy(), patients=each) for each in (patients, some, None)
    )
    assert not any("unknown" in caution for caution in known.cautions)
    (caution,) = [each for each in partly.cautions if "4 images" in each]
    assert "by image" not in caution
    assert any("by image" in each for each in none.cautions)
    n_patients = [each.figures["n_patients"].iloc[0] for each in (known, partly)]
    assert n_patients == [N // 2, N // 2 + 2]


def test_a_frame_with_ids_beside_an_array_of_labels_is_told_how_to_name_images():
    frame = pd.DataFrame({"image": ["a", "b", "c"], "prob": [0.2, 0.4, 0.9]})
    systems = {"A": np.array([0.1, 0.2, 0.3]), "B": frame}
    with pytest.raises(InputError, match=r"^B: .*'a'.*index=image_ids"):
        cxr_compare.compare(systems, truth=np.array([0, 1, 1]))


def test_both_without_validation_images_asks_for_a_role(table):
    with pytest.raises(InputError, match=r"validation.*role"):
        compared(table, table[["image_id", "label"]], both=True)
