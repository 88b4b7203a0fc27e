"""What may make an answer wrong is said beside it, and an honest comparison has no caution."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from tests.adapters.sets import table_set, write_predictions

N = 160
IDS = [f"img{number:03d}" for number in range(N)]
LABEL = (np.arange(N) % 2).astype(float)
IS_TEST = np.arange(N) >= N // 2
TRUTH = pd.DataFrame({"image_id": IDS, "label": LABEL, "patient_id": IDS})
TRUTH["role"] = np.where(IS_TEST, "test", "val")
EDGES = ["x1", "y1", "x2", "y2"]


def drawn(skill, seed):
    noise = np.random.default_rng(seed).normal(size=N)
    return 1 / (1 + np.exp(-(noise + skill * (LABEL - 0.5))))


A, B = drawn(2.2, 1), drawn(1.5, 2)


def cautions(systems, truth=TRUTH, **options):
    given = {name: pd.Series(values, IDS) for name, values in systems.items()}
    return list(cxr_compare.compare(given, truth=truth, replicates=100, **options).cautions)


@pytest.mark.parametrize("seed", range(8))
def test_honest_systems_have_no_caution(seed):
    assert cautions({"A": drawn(2.2, 100 + seed), "B": drawn(1.5, 200 + seed)}) == []


@pytest.mark.parametrize(
    ("first", "second", "part"),
    [
        (A, (A >= 0.5).astype(float), "decisions"),
        (A, np.full(N, 0.3), "0.300"),
        (A, np.full(N, 0.7), "0.700"),
        (np.where(IS_TEST, A / 20, A), B, "another scale"),
        (np.where(IS_TEST, A, 1 - A), B, "turned round"),
        (A, A.copy(), "one file"),
        (LABEL, B, "labels"),
        (0.1 + 0.8 * LABEL, B, "labels"),
    ],
    ids=[
        *("decisions", "one value", "one high value", "other scale", "turned", "identical"),
        *("labels", "made from labels"),
    ],
)
def test_scores_that_are_not_what_they_are_called_have_one_caution(first, second, part):
    (said,) = (text for text in cautions({"A": first, "B": second}) if "score" in text.lower())
    assert part in said


def test_two_values_that_disagree_with_one_label_are_no_labels():
    scores = 0.1 + 0.8 * LABEL
    scores[-1] = 0.1
    assert not any("labels" in text for text in cautions({"A": scores, "B": B}))


def test_without_an_interval_because_all_scores_are_equal_the_note_says_so():
    systems = {"K": pd.Series(0.3, IDS), "A": pd.Series(A, IDS)}
    figures = cxr_compare.compare(systems, truth=TRUTH, replicates=100).figures
    (row,) = figures.query("first == 'K' and second == '' and metric == 'auroc'").to_dict("records")
    assert np.isnan(row["ci_low"])
    assert "all scores are equal" in row["note"]


def test_of_the_training_of_scores_it_is_only_said_that_it_is_unknown(tmp_path):
    systems = {name: pd.Series(A, IDS) for name in ("A", "Copy")}
    call = {"truth": TRUTH, "replicates": 100}
    result = cxr_compare.compare(systems, **call, out=tmp_path / "report")
    assert not any("train" in text for text in (result.headline, *result.cautions))
    about = [note for note in result.answer.notes if "train" in note]
    assert len(about) == 2
    assert all("unknown" in note for note in about)
    assert all("training_id" not in of for of in result.answer.provenance.systems.values())
    page = result.page.read_text(encoding="utf-8")
    assert "training of each system" not in page
    assert not re.search(r"same (trained|training|network)", page)


def test_the_training_of_a_joint_system_is_known():
    systems = {"A": pd.Series(A, IDS), "B": pd.Series(B, IDS)}
    result = cxr_compare.compare(systems, truth=TRUTH, both=True, replicates=100)
    (own,) = (note for note in result.answer.notes if "A + B" in note)
    assert f"fitted on {N // 2} validation images" in own


def test_confidence_of_the_predicted_class_is_asked_about_and_a_caution_if_it_is_meant():
    confidence = np.maximum(A, 1 - A)
    with pytest.raises(cxr_compare.InputError, match=r"^A: .*0\.5"):
        cautions({"A": confidence})
    said = cautions({"A": confidence}, columns=["A.score=score"])
    assert sum("confidence" in text for text in said) == 1


def test_scores_that_are_no_probabilities_count_by_their_ranks():
    logits = np.log(A / (1 - A))
    (said,) = cautions({"A": logits, "B": B}, columns=["A.score=score"])
    assert "A" in said
    assert "ranks" in said


def test_boxes_of_one_score_are_no_ranking():
    lesions = pd.DataFrame({"image_id": IDS[1::2], "x1": 10.0, "y1": 10.0, "x2": 60.0, "y2": 60.0})
    found = lesions.iloc[::2].assign(score=0.7)
    boxes = {"D": found}
    result = cxr_compare.compare(boxes, truth=TRUTH, boxes=lesions, replicates=100)
    assert sum("no ranking" in text for text in result.cautions) == 1


def test_few_patients_of_a_class_are_a_caution_and_so_is_a_patient_of_many_images():
    few = TRUTH.assign(label=np.where(np.arange(N) % 8 == 1, 1.0, 0.0))
    (said,) = (text for text in cautions({"A": A}, few) if "patient" in text)
    assert "10 positive images" in said
    one = TRUTH.copy()
    one.loc[N - 40 :, "patient_id"] = "many"
    said = [text for text in cautions({"A": A}, one) if "One patient has" in text]
    assert len(said) == 1
    assert "20 of the 40 positive images" in said[0]


def test_where_no_patient_is_known_images_of_a_class_are_counted():
    few = TRUTH.assign(label=np.where(np.arange(N) % 8 == 1, 1.0, 0.0))
    (said,) = (text for text in cautions({"A": A}, few.drop(columns="patient_id")) if "20" in text)
    assert "10 positive images" in said
    assert "patient" not in said


@pytest.mark.parametrize(("label", "absent"), [(1.0, "negative"), (0.0, "positive")])
def test_test_images_of_one_class_are_a_caution_that_names_the_absent_one(label, absent):
    one = TRUTH.assign(label=np.where(IS_TEST, label, LABEL))
    (said,) = cautions({"A": A, "B": B}, one)
    assert f"No test image is {absent}" in said


@pytest.mark.parametrize(("label", "absent"), [(1.0, "negative"), (0.0, "positive")])
@pytest.mark.parametrize("policy", ["max_f1", "sensitivity>=0.9"])
def test_a_policy_without_a_threshold_is_named_with_the_reason(label, absent, policy):
    truth = TRUTH.assign(label=np.where(IS_TEST, LABEL, label))
    systems = {"A": pd.Series(A, IDS)}
    policies = [policy, "threshold=0.5"]
    result = cxr_compare.compare(systems, truth=truth, policy=policies, replicates=100)
    reason = f"no validation image is {absent}"
    assert sum(reason in note for note in result.answer.notes) == 1
    undefined = result.figures.query("policy == @policy and metric == 'accuracy'")
    assert undefined["note"].tolist() == [reason]


@pytest.mark.parametrize(
    ("skill", "kind"), [(0.0, "not shown to be better than chance"), (-2.0, "worse than chance")]
)
def test_a_system_that_is_not_shown_to_beat_chance_is_named_with_its_auroc(skill, kind):
    said = [text for text in cautions({"A": A, "X": drawn(skill, 5)}) if kind in text]
    assert len(said) == 1
    assert "X (0." in said[0]
    assert "A (" not in said[0]


def test_unknown_patients_are_the_first_caution():
    truth = TRUTH.drop(columns="patient_id")
    said = cautions({"A": A, "X": drawn(0.0, 5)}, truth)
    assert len(said) == 2
    assert "by image" in said[0]


def boxed():
    rng = np.random.default_rng(4)
    low = rng.integers(20, 300, (N // 2, 2)).astype(float)
    lesions = pd.DataFrame(np.hstack([low, low + rng.uniform(40, 120, (N // 2, 2))]), columns=EDGES)
    lesions.insert(0, "image_id", IDS[1::2])
    near = lesions.assign(
        **{edge: lesions[edge] + rng.normal(0, 5, len(lesions)) for edge in EDGES}
    )
    return lesions, near.assign(score=rng.uniform(0.3, 0.9, len(near)))


def test_boxes_that_match_no_lesion_and_boxes_that_match_if_read_otherwise_are_asked_about():
    lesions, found = boxed()
    truth = TRUTH.assign(width=500, height=500)
    call = {"truth": truth, "boxes": lesions, "replicates": 100}
    assert cxr_compare.compare({"D": found}, **call).cautions == ()
    away = found.assign(x1=470.0, x2=490.0, y1=470.0, y2=490.0)
    said = cxr_compare.compare({"D": away}, **call).cautions
    assert sum("AP50 is 0" in text for text in said) == 1
    said = cxr_compare.compare({"D": away, "E": away.assign(x1=460.0)}, **call).cautions
    (both,) = (text for text in said if "AP50 is 0" in text)
    assert "D and E" in both
    swapped = found.rename(columns={"x1": "y1", "y1": "x1", "x2": "y2", "y2": "x2"})
    said = cxr_compare.compare({"D": swapped}, **call).cautions
    assert any("D" in text and "AP50" in text for text in said)


def test_positive_images_without_boxes_are_counted():
    lesions, found = boxed()
    tested = lesions["image_id"].isin(np.array(IDS)[IS_TEST])
    some = lesions.drop(lesions.index[tested][:7])
    said = cxr_compare.compare({"D": found}, truth=TRUTH, boxes=some, replicates=100).cautions
    assert sum("7 of the 40 positive test images have no boxes" in text for text in said) == 1


@pytest.fixture
def data(tmp_path):
    """A data set of tables with one finding, and predictions of a system on it."""
    states = {"opacity": np.where(LABEL == 1, "present", "absent")}
    folder = table_set(tmp_path, IDS, states)
    TRUTH[["image_id", "role"]].to_csv(tmp_path / "roles.csv", index=False)
    cxr_compare.split(folder, name="ours", file=tmp_path / "roles.csv")
    return folder


def on_data(data, folder, **facts):
    scores = pd.DataFrame({"image_id": IDS, "finding": "opacity", "score": A})
    stored = write_predictions(folder / "A", data, IDS, "A", scores=scores, **facts)
    call = {"data": data, "split": "ours", "replicates": 100}
    return list(cxr_compare.compare({"A": stored}, **call).cautions)


def test_a_split_that_was_not_audited_and_one_with_an_error_are_cautions(data, tmp_path):
    cxr_compare.check(data)
    assert on_data(data, tmp_path) == []
    audit = json.loads((data / "audit.json").read_text())
    leak = {
        "check": "patient_leak",
        "severity": "error",
        "message": "split 'ours': patient in more than one role",
        "count": 3,
        "split": "ours",
    }
    audit["problems"].append(leak)
    (data / "audit.json").write_text(json.dumps(audit))
    (said,) = on_data(data, tmp_path / "error")
    assert "patient in more than one role (3 images)" in said
    (data / "audit.json").unlink()
    (said,) = on_data(data, tmp_path / "none")
    assert "not checked" in said


def test_synthetic_images_are_the_answer_and_a_caution(world):
    systems = {"C": world.predictions("classifier")}
    result = cxr_compare.compare(systems, data=world.data, replicates=100)
    assert "synthetic test images" in result.headline
    assert any(text.startswith("Synthetic images") for text in result.cautions)
    by_patient = cxr_compare.compare(systems, data=world.data, unit="patient", replicates=100)
    assert any(text.startswith("Synthetic images") for text in by_patient.cautions)


def test_a_system_that_was_trained_on_another_data_set_is_named(world, tmp_path):
    made = shutil.copytree(world.predictions("classifier"), tmp_path / "C")
    info = json.loads((made / "predictions.json").read_text())
    own = info["trained_on"]
    info["trained_on"] = [{"name": "elsewhere", "content_id": "another"}]
    (made / "predictions.json").write_text(json.dumps(info))
    said = cxr_compare.compare({"C": made}, data=world.data, replicates=100).cautions
    assert sum("elsewhere" in text for text in said) == 1
    info["trained_on"] = own
    (made / "predictions.json").write_text(json.dumps(info))
    said = cxr_compare.compare({"C": made}, data=world.data, replicates=100).cautions
    assert not any("was trained on" in text for text in said)


def test_validation_images_from_which_a_system_learned_are_counted(world, tmp_path):
    data = shutil.copytree(world.data, tmp_path / "data")
    roles = cxr_compare.DataSet.open(data).split()[["image_id", "role"]]
    patients = cxr_compare.DataSet.open(data).images.set_index("image_id")["patient_id"]
    owner = patients.reindex(roles["image_id"]).to_numpy()
    moved = sorted(set(owner[roles["role"] == "train"]))[:3]
    roles.loc[np.isin(owner, moved), "role"] = "val"
    roles.to_csv(tmp_path / "roles.csv", index=False)
    cxr_compare.split(data, name="moved", file=tmp_path / "roles.csv")
    systems = {"C": world.run("classifier")}
    notes = [
        " ".join(cxr_compare.compare(systems, data=data, split=split, replicates=100).answer.notes)
        for split in ("default", "moved")
    ]
    count = int(np.isin(owner, moved).sum())
    assert "C learned from" not in notes[0]
    assert f"C learned from patients, or from copies, of {count} of the" in notes[1]


def test_start_weights_of_unknown_training_are_named(world, tmp_path):
    made = shutil.copytree(world.predictions("classifier"), tmp_path / "C")
    info = json.loads((made / "predictions.json").read_text())
    info["seen_unknown"] = ["other.pth"]
    (made / "predictions.json").write_text(json.dumps(info))
    notes = cxr_compare.compare({"C": made}, data=world.data, replicates=100).answer.notes
    assert sum("other.pth in C" in note for note in notes) == 1


def test_a_part_of_synthetic_images_is_counted_and_not_called_the_whole():
    mixed = TRUTH.copy()
    mixed.loc[N - 30 :, "patient_id"] = [f"phantom-7:{number:08d}" for number in range(30)]
    result = cxr_compare.compare({"A": pd.Series(A, IDS)}, truth=mixed, replicates=100)
    assert sum("30 of the 80 test images are synthetic" in text for text in result.cautions) == 1
    assert "synthetic" not in result.headline
