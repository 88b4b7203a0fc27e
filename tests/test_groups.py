"""Where each system fails: groups of images, lesions, constant positions and shortcuts."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import cxr_compare
from cxr_compare import InputError
from tests.adapters import groups
from tests.adapters.activation_maps import evaluated_boxes, output_with_maps
from tests.oracles import boxes as oracle

EDGES = ["x1", "y1", "x2", "y2"]
CUT = "threshold=0.5"
PLACE = np.array([40.0, 80.0, 140.0, 220.0])
"""Usual place of a lesion on an image of 400 px."""
OTHER_LUNG = np.array([240.0, 80.0, 340.0, 220.0])
ELSEWHERE = np.array([300.0, 300.0, 390.0, 390.0])
THIRD = np.array([140.0, 240.0, 240.0, 380.0])


def blind(system):
    """Name of the constant positions with the scores of a system."""
    return f"image-blind with {system}'s scores"


def people(n=240, seed=4):
    """Images of people of whom sex, age, ward and class are known, with scores of one system."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"image_id": [f"i{number:03d}" for number in range(n)]})
    table["patient_id"] = [f"p{number // 2:03d}" for number in range(n)]
    table["label"] = rng.integers(0, 2, n)
    table["sex"] = rng.choice(["F", "M"], n // 2).repeat(2)
    table["age"] = rng.uniform(20, 90, n).round()
    table["Ward"] = np.where(np.arange(n) < 4, "small", rng.choice(["a", "b"], n))
    table["class"] = np.where(table["label"] == 1, "lesion", rng.choice(["normal", "other"], n))
    scores = rng.normal(table["label"], 1.0)
    return table, pd.Series(1 / (1 + np.exp(-scores)), table["image_id"], name="score")


def compared(truth, scores, **options):
    call = {"replicates": 100, "policy": CUT}
    return cxr_compare.compare({"A": scores}, truth=truth, **call | options)


def row_of(table, **values):
    (row,) = table[(table[list(values)] == pd.Series(values)).all(axis=1)].to_dict("records")
    return row


@pytest.mark.parametrize("of_file", [False, True])
def test_figures_of_groups_equal_recounted_figures(of_file, tmp_path):
    table, scores = people()
    truth = table
    if of_file:
        truth = tmp_path / "truth.csv"
        table.to_csv(truth, index=False)
    found = compared(truth, scores, subgroups="sex,ward,x_class,age").groups
    assert {"sex", "ward", "x_class", "age_band"} <= set(found["topic"])
    table["score"] = scores.to_numpy()
    bands = pd.cut(table["age"], [0, 18, 40, 60, 80, 200], right=False, labels=False)
    names = ["under 18", "18 to 39", "40 to 59", "60 to 79", "80 up"]
    groups_of = {
        "sex": table["sex"],
        "ward": table["Ward"],
        "x_class": table["class"],
        "age_band": bands.map(dict(enumerate(names))),
    }
    checked = 0
    for topic, values in groups_of.items():
        for group, rows in table.groupby(values.to_numpy()):
            called = rows["score"] >= 0.5
            for metric, of in (("recall", 1), ("specificity", 0)):
                chosen = rows["label"] == of
                row = row_of(found, topic=topic, group=group, metric=metric)
                assert row["of"] == chosen.sum()
                assert row["count"] == (called == of)[chosen].sum()
                assert row["n_patients"] == rows.loc[chosen, "patient_id"].nunique()
                if chosen.any():
                    assert row["estimate"] == pytest.approx((called == of)[chosen].mean())
                checked += 1
            if rows["label"].nunique() == 2:
                row = row_of(found, topic=topic, group=group, metric="auroc")
                area = roc_auc_score(rows["label"], rows["score"])
                assert row["estimate"] == pytest.approx(area)
    assert checked >= 20


def test_a_group_of_fewer_than_five_patients_has_counts_and_no_interval():
    table, scores = people()
    found = compared(table, scores, subgroups="ward").groups
    of_ward = found[found["topic"] == "ward"]
    small = of_ward[of_ward["group"] == "small"]
    assert len(small) >= 2
    assert small["ci_low"].isna().all()
    assert (small["note"] != "").all()
    assert (small["of"] > 0).any()
    large = of_ward[of_ward["group"] != "small"]
    assert large["ci_low"].notna().all()


def test_an_unknown_value_is_in_no_group():
    table, scores = people()
    table.loc[:99, "sex"] = None
    found = compared(table, scores, subgroups="sex").groups
    of_sex = found[(found["topic"] == "sex") & (found["metric"] == "auroc")]
    assert set(of_sex["group"]) == {"F", "M"}
    assert of_sex["of"].sum() == len(table) - 100


@pytest.mark.parametrize(("named", "part"), [("nowhere", "nowhere"), ("many", "240")])
def test_a_column_without_groups_is_refused_before_the_work(named, part, tmp_path):
    table, scores = people()
    table["many"] = table["image_id"]
    with pytest.raises(InputError) as refused:
        compared(table, scores, subgroups=f"sex,{named}", out=tmp_path / "report")
    assert str(refused.value).startswith("subgroups: ")
    assert part in str(refused.value)
    assert not (tmp_path / "report").exists()


def test_groups_of_a_data_set_are_those_of_its_columns(world):
    systems = {"C": world.predictions("classifier")}
    result = cxr_compare.compare(systems, data=world.data, subgroups="sex,class", replicates=100)
    images = cxr_compare.DataSet.open(world.data).images.set_index("image_id")
    found = result.groups
    for topic, column in (("sex", "sex"), ("class", "x_class")):
        groups_of = images[column].reindex(result.decisions["image_id"]).to_numpy()
        assert len(set(groups_of)) > 1
        for group, rows in result.decisions.groupby(groups_of):
            of = rows["label"] == 1
            row = row_of(found, topic=topic, group=group, metric="recall")
            assert (row["of"], row["count"]) == (of.sum(), rows.loc[of, "decision_max_f1"].sum())


def test_groups_of_a_protocol_are_those_of_the_option(tmp_path):
    table, scores = people()
    (tmp_path / "protocol.toml").write_text('metric = "auroc"\nsubgroups = ["ward"]\n')
    by_file = compared(table, scores, protocol=tmp_path / "protocol.toml").groups
    by_option = compared(table, scores, subgroups=["ward"]).groups
    pd.testing.assert_frame_equal(by_file, by_option)


def test_predictive_values_at_a_prevalence_equal_counted_people():
    table, scores = people()
    result = compared(table, scores, prevalence="0.01")
    figures = result.figures[result.figures["policy"] == CUT].set_index("metric")["estimate"]
    # 10,000 people, of whom 1 % are ill.
    hits, false_alarms = 100 * figures["recall"], 9_900 * (1 - figures["specificity"])
    misses, kept = 100 - hits, 9_900 - false_alarms
    for metric, value in (("ppv", hits / (hits + false_alarms)), ("npv", kept / (kept + misses))):
        row = row_of(result.groups, topic="prevalence", group="0.01", metric=metric)
        assert row["estimate"] == pytest.approx(value)
        assert row["ci_low"] < value < row["ci_high"]


@pytest.mark.parametrize("given", ["0", "5", "x", "1.0", "0.05:0.03-0.08", "12/240"])
def test_a_text_that_is_no_prevalence_is_refused(given):
    table, scores = people(40)
    with pytest.raises(InputError, match=r"prevalence: "):
        compared(table, scores, prevalence=given)


def test_images_that_a_system_has_seen_are_no_test_images(tmp_path):
    table, scores = people()
    table["seen"] = (np.arange(len(table)) < 40).astype(int)
    unseen = table[table["seen"] == 0].drop(columns="seen")
    for truth in (table, tmp_path / "truth.csv"):
        table.to_csv(tmp_path / "truth.csv", index=False)
        result = compared(truth, scores)
        assert set(result.decisions["image_id"]) == set(unseen["image_id"])
        assert any("40" in note and "seen" in note for note in result.answer.notes)
        alone = compared(unseen, scores[unseen["image_id"]])
        pd.testing.assert_frame_equal(result.figures, alone.figures)
    several = table.rename(columns={"label": "mass"}).assign(edema=table["label"])
    frame = pd.DataFrame({"image_id": scores.index, "mass": scores.array, "edema": scores.array})
    results = cxr_compare.compare({"A": frame}, truth=several, target="all", replicates=100)
    assert set(results.results) == {"mass", "edema"}
    assert set(results.results["mass"].decisions["image_id"]) == set(unseen["image_id"])


@pytest.mark.parametrize(("cell", "part"), [("", "i003"), ("perhaps", "i003"), ("all", "seen")])
def test_what_is_not_said_of_seen_images_is_asked(cell, part):
    table, scores = people()
    table["seen"] = "1" if cell == "all" else "0"
    if cell != "all":
        table.loc[3, "seen"] = cell
    with pytest.raises(InputError) as refused:
        compared(table, scores)
    assert part in str(refused.value)


UNITS = pd.DataFrame(
    {
        "image_id": list("abcdefgh"),
        "patient_id": ["p1", "p1", "p2", "p2", "p3", "p3", "p4", "p5"],
        "study_id": ["1", "2", "1", "1", "1", "2", "1", "1"],
        "label": [1, None, 0, 0, 0, None, 0, 1],
    }
)
SCORES = pd.Series([0.2, 0.9, 0.4, 0.7, 0.9, 0.1, 0.3, 0.6], index=list("abcdefgh"))


def by_unit(unit, truth=UNITS, scores=SCORES, **options):
    result = cxr_compare.compare(
        {"A": scores}, truth=truth, unit=unit, replicates=100, policy=CUT, **options
    )
    decisions = result.decisions.set_index("image_id")
    return result, dict(zip(decisions["patient_id"], decisions["score"], strict=True))


def test_a_patient_has_the_highest_score_and_label_of_the_images_that_count():
    result, scores = by_unit("patient")
    # p3 has a negative image and one of unknown label; the unknown image of p1 does not count.
    assert scores == {"p1": 0.2, "p2": 0.7, "p4": 0.3, "p5": 0.6}
    labels = dict(zip(result.decisions["patient_id"], result.decisions["label"], strict=True))
    assert labels == {"p1": 1, "p2": 0, "p4": 0, "p5": 1}
    assert "4 test patients" in result.headline


def test_studies_of_one_name_are_studies_of_their_patients():
    result, _ = by_unit("study", UNITS.assign(label=[1, 0, 0, 0, 0, 0, 0, 1]))
    assert len(result.decisions) == 7
    with pytest.raises(InputError) as refused:
        by_unit("study", UNITS.assign(study_id=["1", None] * 4))
    assert "'b'" in str(refused.value)
    with pytest.raises(InputError):
        by_unit("study", UNITS.drop(columns="study_id"))


def test_a_system_that_lacks_an_image_of_a_patient_is_refused_by_patient_too():
    labels = UNITS.assign(label=[1, 0, 0, 0, 0, 0, 0, 1])
    with pytest.raises(InputError) as refused:
        by_unit("patient", labels, SCORES.drop("d"))
    assert "d" in str(refused.value)
    _, scores = by_unit("patient", labels, SCORES.drop("d"), images="common")
    assert scores["p2"] == 0.4


def test_a_patient_of_two_roles_is_decided_in_each_by_its_own_images():
    table, scores = people()
    table["role"] = np.where(np.arange(len(table)) % 4 == 1, "val", "test")
    result, by_patient = by_unit("patient", table, scores, allow_shared_patients=True)
    rows = table.assign(score=scores.to_numpy())[table["role"] == "test"]
    assert by_patient == pytest.approx(rows.groupby("patient_id")["score"].max().to_dict())
    assert result.answer.counts["images"] == rows["patient_id"].nunique()


def test_figures_by_patient_are_those_of_the_highest_scores():
    table, scores = people()
    result, _ = by_unit("patient", table, scores, subgroups="sex")
    table["score"] = scores.to_numpy()
    highest = table.groupby("patient_id")[["label", "score"]].max()
    row = row_of(result.figures, first="A", second="", metric="auroc")
    assert row["estimate"] == pytest.approx(roc_auc_score(highest["label"], highest["score"]))
    assert row["n_images"] == row["n_patients"] == len(highest)


def boxed(**columns):
    """200 images, of which each second has a lesion, with boxes of a detector at some of them."""
    rng = np.random.default_rng(0)
    names = [f"i{number:03d}" for number in range(200)]
    truth = pd.DataFrame({"image_id": names, "patient_id": names, "label": np.arange(200) % 2})
    truth = truth.assign(width=1000, height=1000, **columns)
    low, side = rng.uniform(0, 600, (100, 2)), rng.uniform(50, 300, (100, 1))
    lesions = pd.DataFrame(np.hstack([low, low + side]), columns=EDGES)
    lesions.insert(0, "image_id", names[1::2])
    second = lesions.iloc[:30].copy()
    second[EDGES] = np.tile([700.0, 700.0, 760.0, 790.0], (30, 1))
    lesions = pd.concat([lesions, second], ignore_index=True)
    near = lesions.sample(90, random_state=1)
    near = near.assign(**{edge: near[edge] + rng.normal(0, 25, 90) for edge in EDGES})
    near[EDGES[2:]] = np.maximum(near[EDGES[2:]], near[EDGES[:2]].to_numpy() + 10)
    false = near.iloc[:40].assign(image_id=rng.choice(names, 40))
    boxes = pd.concat([near, false, near.iloc[:10]], ignore_index=True)
    return truth, lesions, boxes.assign(score=rng.uniform(0.05, 0.95, len(boxes)).round(2))


def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def test_kinds_of_errors_add_up_to_lesions_and_to_called_boxes():
    truth, lesions, boxes = boxed()
    result = cxr_compare.compare(
        {"D": boxes}, truth=truth, boxes=lesions, policy=CUT, replicates=100
    )
    kinds = result.lesions[result.lesions["topic"] == "errors"].set_index("metric")
    of_lesions = kinds.loc[["found", "poorly_boxed", "missed"]]
    assert of_lesions["count"].sum() == len(lesions)
    assert (of_lesions["of"] == len(lesions)).all()
    counts = kinds["count"]
    wrong = counts[["poor_box", "duplicate", "background"]].sum()
    assert counts["found"] + wrong == (boxes["score"] >= 0.5).sum()
    assert (counts > 0).all()


def test_lesions_that_are_found_by_place_equal_a_plain_loop():
    truth, lesions, boxes = boxed()
    result = cxr_compare.compare(
        {"D": boxes}, truth=truth, boxes=lesions, policy=CUT, replicates=100
    )
    called = boxes[boxes["score"] >= 0.5]
    found = []
    for lesion in lesions.itertuples():
        own = called[called["image_id"] == lesion.image_id]
        corners = [getattr(lesion, edge) for edge in EDGES]
        found.append(any(overlap(corners, box) >= 0.2 for box in own[EDGES].to_numpy()))
    centre = (lesions["x1"] + lesions["x2"]) / 2
    number = lesions.groupby("image_id")["x1"].transform("size")
    table = result.lesions[result.lesions["metric"] == "lesion_recall"]
    for topic, group, chosen in (
        ("side", "left of the image", centre <= 500),
        ("side", "right of the image", centre > 500),
        ("lesions in the image", "1", number == 1),
        ("lesions in the image", "2", number == 2),
    ):
        row = row_of(table, topic=topic, group=group)
        assert (row["count"], row["of"]) == (np.array(found)[chosen].sum(), chosen.sum())
        assert row["ci_low"] < row["estimate"] < row["ci_high"]


def test_millimetres_count_only_where_the_spacing_can_be_right():
    images = pd.DataFrame({"width": [2000, 2000], "height": [2000, 2000]}, index=["a", "b"])
    lesions = pd.DataFrame(
        [("a", 0.0, 0, 100, 100), ("a", 900.0, 1500, 1400, 1900), ("b", 0.0, 0, 1000, 1000)],
        columns=["image_id", *EDGES],
    )
    spacing = {"spacing_row_mm": 0.2, "spacing_col_mm": 0.2}
    in_mm = groups.groups_of_lesions(lesions, images.assign(**spacing))
    assert in_mm["lesion size"] == ["up to 30 mm", "over 60 mm", "over 60 mm"]
    assert in_mm["third of the image"] == ["upper", "lower", "upper"]
    impossible = images.assign(**spacing)
    impossible.loc["b", ["spacing_row_mm", "spacing_col_mm"]] = 0.02  # a chest of 40 mm
    for unknown in (images, impossible):
        shares = groups.groups_of_lesions(lesions, unknown)["lesion size"]
        assert [text.rpartition(" % ")[2] for text in shares] == ["of the image"] * 3
        assert len(set(shares)) == 3


def box(image_id, corners, **score):
    return {"image_id": image_id, **dict(zip(EDGES, corners, strict=True)), **score}


def constant(n_boxes, n_patients):
    """Eight test images of 800 px; of four lesions, three are at the place of the validation boxes.

    The detector's box is never on a lesion, and its score is the score of the image.
    """
    rows = [(f"v{n}", f"v{n // 2 % n_patients}", n % 2, "val", 400) for n in range(2 * n_boxes)]
    scores = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
    rows += [(f"t{n}", f"t{n}", int(n < 4), "test", 800) for n in range(len(scores))]
    truth = pd.DataFrame(rows, columns=["image_id", "patient_id", "label", "role", "width"])
    truth = truth.assign(height=truth["width"])
    lesions = [box(f"v{n}", PLACE) for n in range(1, 2 * n_boxes, 2)]
    lesions += [box(f"t{n}", 2 * (ELSEWHERE if n == 2 else PLACE)) for n in range(4)]
    corner = (300.0, 290.0, 329.0, 329.0)
    found = [box(f"t{n}", corner, score=score) for n, score in enumerate(scores)]
    found += [
        box(f"v{n}", corner, score=0.2 + 0.5 * (n % 2) + n / 1000) for n in range(2 * n_boxes)
    ]
    systems = {"A": pd.DataFrame(found)}
    return cxr_compare.compare(systems, truth=truth, boxes=pd.DataFrame(lesions), replicates=100)


def test_constant_positions_have_the_figures_that_are_counted():
    result = constant(100, 20)
    counted = {
        "pointing_accuracy": 3 / 4,
        "froc_mean": 3 / 4,  # three of four lesions at one false positive, 1/8 an image
        "ap50": (51 * 1 + 25 * 3 / 4) / 101,  # precision 1, 1, 3/4 at recalls 1/4, 1/2, 3/4
    }
    for metric, value in counted.items():
        figures = result.figures[result.figures["metric"] == metric]
        values = figures.set_index(["first", "second"])["estimate"]
        assert values[blind("A"), ""] == pytest.approx(value, abs=1e-9)
        assert values["A", ""] == 0
        assert values["A", blind("A")] == pytest.approx(-value, abs=1e-9)
    of_baseline = result.figures[result.figures["first"] == blind("A")]
    assert "auroc" not in set(of_baseline["metric"])


@pytest.mark.parametrize(
    ("n_boxes", "n_patients", "lacking"),
    [(100, 20, []), (99, 99, ["100"]), (100, 19, ["20"]), (99, 19, ["100", "20"])],
)
def test_nothing_is_claimed_below_100_boxes_or_20_effective_patients(n_boxes, n_patients, lacking):
    result = constant(n_boxes, n_patients)
    for metric in ("pointing_accuracy", "froc_mean"):
        row = row_of(result.figures, first="A", second=blind("A"), metric=metric)
        assert pd.notna(row["estimate"])
        tested = not lacking and metric == "pointing_accuracy"  # boxes are learned once
        assert pd.notna(row["p_value"]) == pd.notna(row["p_holm"]) == tested
        assert re.findall(r"\d+", row["note"]) == lacking
    assert len(result.answer.findings) == (not lacking)
    claimed = {claim["second"] for claim in result.answer.claims}
    assert (blind("A") in claimed) == (not lacking)
    (note,) = [text for text in result.answer.notes if text.startswith("Image-blind")]
    of_patients = np.bincount(np.arange(n_boxes) % n_patients)
    effective = n_boxes**2 / (of_patients**2).sum()
    said = np.array(re.findall(r"\d+(?:\.\d+)?", note), dtype=float)
    assert n_boxes in said
    assert np.abs(said - effective).min() < 0.1


def three_places():
    """Validation images of 400 px with lesions at three places: three, two and one."""
    images = pd.DataFrame({"image_id": [f"v{n}" for n in range(6)], "role": "val", "label": 1})
    places = [PLACE] * 3 + [OTHER_LUNG] * 2 + [THIRD]
    boxes = [box(f"v{n}", place) for n, place in enumerate(places)]
    return images.assign(width=400, height=400), boxes


def test_a_baseline_has_as_many_boxes_on_each_image_and_their_scores():
    images, lesions = three_places()
    tested = pd.DataFrame({"image_id": [f"t{n}" for n in range(4)], "role": "test"})
    tested = tested.assign(label=[1, 1, 0, 0], width=800, height=800)
    truth = pd.concat([images, tested]).assign(patient_id=lambda table: table["image_id"])
    lesions += [box("t0", 2 * OTHER_LUNG), box("t1", 2 * PLACE), box("t1", 2 * THIRD)]
    given = [("t0", 0.5), ("t0", 0.9), ("t1", 0.2), ("t1", 0.8), ("t1", 0.6), ("t1", 0.8)]
    given += [("t2", 0.7)]  # none on t3
    corner = (700.0, 10.0, 730.0, 40.0)
    boxes = pd.DataFrame([box(name, corner, score=score) for name, score in given])
    result = cxr_compare.compare(
        {"A": boxes}, truth=truth, boxes=pd.DataFrame(lesions), policy=CUT, replicates=100
    )
    figures = result.figures[result.figures["first"] == blind("A")]
    values = figures.set_index("metric")["estimate"]
    # t0: .9 false, .5 hit; t1: .8 hit, .8 false, .6 hit, and no fourth position; t2: .7 false.
    counted = {
        "froc_at_1_8": 0,
        "froc_at_1_4": 0,  # one false positive: .9
        "froc_at_1_2": 1 / 3,  # two: .9, .8
        "froc_at_1": 1,  # all three lesions at three false positives
        "froc_at_8": 1,
        "froc_mean": (1 / 3 + 4) / 7,
        "ap50": 1 / 2,  # precision 1/2, 2/5, 3/6 at the three lesions
        "pointing_accuracy": 1 / 2,  # the point is on PLACE
    }
    assert values[list(counted)].to_dict() == pytest.approx(counted, abs=1e-9)


def test_moved_boxes_keep_rows_and_scores_and_rank_as_they_are_stored():
    images, lesions = three_places()
    roles = images.set_index("image_id")["role"]
    corner = (0.0, 0.0, 9.0, 9.0)
    scores = [0.3, 0.8, 0.3, 0.8, 0.1]
    boxes = pd.DataFrame([box("v0", corner, score=score) for score in scores] + [box("v5", corner)])
    boxes["score"] = boxes["score"].fillna(0.4)
    moved = groups.moved_boxes(boxes, pd.DataFrame(lesions), roles)
    assert moved["image_id"].tolist() == ["v0"] * 3 + ["v5"]
    assert moved["score"].tolist() == [0.3, 0.8, 0.8, 0.4]
    assert np.allclose(moved[EDGES], [THIRD, PLACE, OTHER_LUNG, PLACE])
    assert groups.moved_boxes(boxes[:0], pd.DataFrame(lesions), roles).empty


def test_a_baseline_of_maps_has_the_number_and_the_scores_of_the_boxes_that_are_cut_from_them():
    rng = np.random.default_rng(11)
    names = [f"i{n:03d}" for n in range(120)]
    truth = pd.DataFrame({"image_id": names, "patient_id": names, "width": 400, "height": 400})
    truth["label"] = np.arange(120) % 2
    truth["role"] = np.where(np.arange(120) < 80, "val", "test")
    places = rng.permutation([PLACE, OTHER_LUNG, THIRD] * 20)
    lesions = [box(name, place) for name, place in zip(names[1::2], places, strict=True)]
    scores = pd.Series(rng.uniform(0.2, 1, 120), names)
    maps = output_with_maps(scores, rng.uniform(0, 1, (120, 8, 8)) ** 6, [0, 0, 400, 400])
    found = evaluated_boxes({"C": maps}, truth, pd.DataFrame(lesions), policy=["max_f1"])
    own, moved = found["C"]
    most = len(moved[EDGES].drop_duplicates())
    assert most == 3 < own.groupby("image_id").size().max()
    for image, of_image in own.groupby("image_id"):
        kept = -np.sort(-of_image["score"])[:most]
        rows = moved[moved["image_id"] == image]
        assert np.array_equal(-np.sort(-rows["score"]), kept)
        assert len(rows[EDGES].drop_duplicates()) == len(kept)
    assert set(moved["image_id"]) == set(own["image_id"])


def test_a_system_whose_boxes_lie_at_the_learned_positions_equals_its_baseline():
    rng = np.random.default_rng(8)
    names = [f"i{n:03d}" for n in range(300)]
    truth = pd.DataFrame({"image_id": names, "patient_id": names, "width": 400, "height": 400})
    truth["label"] = np.arange(300) % 2
    truth["role"] = np.where(np.arange(300) < 220, "val", "test")
    middle = rng.uniform(100, 300, (150, 2))
    corners = np.hstack([middle - 60, middle + 60])
    lesions = [box(name, place) for name, place in zip(names[1::2], corners, strict=True)]
    roles = truth.set_index("image_id")["role"]
    learned = groups.constant_places(pd.DataFrame(lesions), roles)["boxes"]
    assert len(learned) > 4
    found = [
        box(name, learned[rank], score=score)
        for name in names
        for rank, score in enumerate(-np.sort(-rng.uniform(0, 1, rng.integers(0, len(learned)))))
    ]
    result = cxr_compare.compare(
        {"A": pd.DataFrame(found)}, truth=truth, boxes=pd.DataFrame(lesions), replicates=100
    )
    gaps = result.figures[result.figures["second"] == blind("A")].set_index("metric")
    of_boxes = gaps.index.str.startswith(("ap", "froc"))
    assert of_boxes.sum() == 10
    assert (gaps.loc[of_boxes, "estimate"].abs() < 1e-12).all()


def drawn_boxes(roles, seed):
    rng = np.random.default_rng(seed)
    moved = PLACE + [160, 0, 160, 0] * rng.integers(0, 2, (len(roles), 1))
    table = pd.DataFrame(moved + rng.normal(0, 9, moved.shape), columns=EDGES)
    return table.assign(image_id=roles.index)


def test_test_boxes_move_no_constant_position_and_others_do():
    roles = pd.Series(["val", "train", "test"] * 80, index=[f"i{n:03d}" for n in range(240)])
    boxes = drawn_boxes(roles, 0)
    learned = groups.constant_places(boxes, roles)
    assert learned["n_boxes"] == 160
    tested = boxes["image_id"].isin(roles.index[roles == "test"])
    exchanged = boxes.copy()
    exchanged.loc[tested, EDGES] = boxes.loc[tested, EDGES].to_numpy()[::-1]
    for other in (exchanged, boxes[~tested]):
        assert groups.constant_places(other, roles) == learned
    shifted = boxes.copy()
    shifted.loc[~tested, EDGES] += 30.0
    assert groups.constant_places(shifted, roles) != learned


def test_the_best_positions_are_those_of_most_lesions():
    roles = pd.Series("val", index=[f"i{n:03d}" for n in range(120)])
    rows = [box(name, PLACE) for name in roles.index]
    rows += [box(name, OTHER_LUNG) for name in roles.index[:80]]
    learned = groups.constant_places(pd.DataFrame(rows), roles)
    assert np.allclose(learned["boxes"], [PLACE, OTHER_LUNG])
    assert np.all(learned["point"] > PLACE[:2])
    assert np.all(learned["point"] < PLACE[2:])
    in_px = groups.constant_places(pd.DataFrame(rows), roles, side=np.nan)
    assert np.allclose(in_px["boxes"], [PLACE, OTHER_LUNG])
    assert groups.constant_places(pd.DataFrame(rows), roles.replace("val", "test")) is None
    tiny = [
        box(name, [40.0 * n, 7.0 * n, 40.0 * n + 4, 7.0 * n + 4]) for n, name in enumerate("ab")
    ]
    assert groups.constant_places(pd.DataFrame(tiny), pd.Series("val", index=["a", "b"]))["boxes"]


@pytest.mark.parametrize("seed", range(3))
def test_the_positions_are_those_that_the_page_defines(seed):
    rng = np.random.default_rng(seed)
    names = [f"i{n:02d}" for n in rng.integers(0, 30, 40)]
    middle = rng.uniform(60, 340, (40, 2))
    half = rng.uniform(10, 60, (40, 2))
    corners = np.hstack([middle - half, middle + half])
    lesions = pd.DataFrame([box(*each) for each in zip(names, corners, strict=True)])
    patients = sorted(set(names))  # with an image each
    roles = pd.Series("val", index=patients)
    rows = list(zip(names, *corners.T.tolist(), strict=True))
    drawn = np.random.default_rng([5, 2]).integers(0, len(patients), (20, len(patients)))
    draws = [Counter(patients[n] for n in row) for row in drawn]
    learned = groups.constant_places(lesions, roles, side=np.nan)
    boxes = oracle.constant_boxes(rows)
    assert len(boxes) > 4
    assert np.allclose(learned["boxes"], boxes, atol=1e-9)
    again = groups.points_again(lesions, roles, 20, seed=5)
    assert np.allclose(again, oracle.constant_point(rows, draws), atol=1e-9)
    assert np.allclose(again[0], learned["point"])


def test_the_interval_of_a_baseline_holds_the_choice_of_its_point():
    places = [PLACE] * 60 + [OTHER_LUNG] * 55 + [PLACE] * 40
    names = [f"i{n:03d}" for n in range(200)]
    truth = pd.DataFrame({"image_id": names, "patient_id": names, "width": 400, "height": 400})
    truth["label"] = (np.arange(200) < len(places)).astype(int)
    truth["role"] = np.where(np.arange(200) < 115, "val", "test")
    lesions = [box(name, place) for name, place in zip(names, places, strict=False)]
    found = pd.DataFrame([box(name, ELSEWHERE, score=0.5) for name in names])
    result = cxr_compare.compare(
        {"A": found}, truth=truth, boxes=pd.DataFrame(lesions), replicates=100
    )
    row = row_of(result.figures, first=blind("A"), second="", metric="pointing_accuracy")
    assert row["estimate"] == 1
    assert (row["ci_low"], row["ci_high"]) == (0, 1)  # many resamples choose the other lung
    row = row_of(result.figures, first="A", second=blind("A"), metric="pointing_accuracy")
    assert (row["estimate"], row["ci_low"], row["ci_high"]) == (-1, -1, 0)
    assert result.answer.claims[-1]["higher"] is None


def test_a_system_of_constant_boxes_does_not_localise():
    rng = np.random.default_rng(3)
    names = [f"i{n:03d}" for n in range(400)]
    truth = pd.DataFrame({"image_id": names, "patient_id": names, "width": 400, "height": 400})
    truth["label"] = np.arange(400) % 2
    truth["role"] = np.where(np.arange(400) < 240, "val", "test")
    moved = PLACE + np.tile(rng.uniform(-30, 150, (200, 2)), 2)
    lesions = [box(name, place) for name, place in zip(names[1::2], moved, strict=True)]
    scores = rng.uniform(0.2, 0.6, 400) + 0.3 * truth["label"]
    fixed = [box(name, PLACE + 60, score=score) for name, score in zip(names, scores, strict=True)]
    true = pd.DataFrame(lesions)
    seeing = true.assign(score=scores[1::2].to_numpy())
    systems = {"Fixed": pd.DataFrame(fixed), "Seeing": seeing}
    result = cxr_compare.compare(systems, truth=truth, boxes=true, replicates=100)
    higher = {
        claim["first"]: claim["higher"]
        for claim in result.answer.claims
        if claim["second"] == blind(claim["first"])
    }
    assert higher["Fixed"] != "Fixed"
    assert higher["Seeing"] == "Seeing"


def metadata(n=1200, seed=0):
    """Images of patients with two each, of whom one half is ill."""
    rng = np.random.default_rng(seed)
    names = [f"i{number:04d}" for number in range(n)]
    label = pd.Series((rng.random(n // 2) < 0.5).repeat(2).astype(float), index=names)
    patients = [f"p{number // 2}" for number in range(n)]
    images = pd.DataFrame({"image_id": names, "patient_id": patients})
    return images, pd.DataFrame({"image_id": names}), label, rng


def test_a_fact_that_tells_the_label_is_found_on_other_patients_and_one_that_does_not_is_chance():
    images, decode, label, rng = metadata()
    images["view"] = np.where(rng.random(len(images)) < 0.2 + 0.6 * label, "AP", "PA")
    images["sex"] = rng.choice(["F", "M"], len(images))
    images["age_years"] = rng.integers(20, 90, len(images)).astype(float)
    found = groups.guesses(images, decode, label)
    share = pd.crosstab(images["view"], label.to_numpy(), normalize="columns").loc["AP"]
    assert found["view"][0] == pytest.approx(0.5 + (share[1.0] - share[0.0]) / 2, abs=0.02)
    assert found["view"][1] > 0.7
    for fact in ("sex", "age"):
        assert found[fact][1] < 0.5 < found[fact][2]


def numbers(kind, rng, n=2000):
    """Ages of images and their labels, of which a straight line of the values knows nothing."""
    age = rng.uniform(1, 90, n)
    if kind == "both ends":
        return age, np.abs(age - 45) > 30
    if kind == "an outlier among unknown ages":
        age[0] = 1e12
        return age, age > 45
    label = rng.random(n) < 0.3
    return np.where(label, np.nan, age), label


@pytest.mark.parametrize(
    "kind", ["both ends", "an outlier among unknown ages", "missing tells the label"]
)
def test_a_number_tells_the_label_in_a_bend_beside_outliers_and_where_it_is_missing(kind):
    age, label = numbers(kind, np.random.default_rng(1))
    names = [f"i{number:04d}" for number in range(len(age))]
    images = pd.DataFrame({"image_id": names, "patient_id": names, "age_years": age})
    labels = pd.Series(label.astype(float), index=names)
    decode = pd.DataFrame({"image_id": names})
    found = groups.guesses(images, decode, labels)
    assert found["age"][0] > 0.95
    shuffled = groups.guesses(images.sample(frac=1, random_state=0), decode, labels)
    assert shuffled["age"] == pytest.approx(found["age"], abs=1e-9)


def test_facts_together_tell_what_none_tells_alone():
    rng = np.random.default_rng(7)
    parts = rng.random((2000, 3))
    names = [f"i{number:04d}" for number in range(2000)]
    images = pd.DataFrame({"image_id": names, "patient_id": names, "age_years": 90 * parts[:, 1]})
    images["sex"] = np.where(parts[:, 0] > 0.5, "M", "F")
    images["view"] = np.where(parts[:, 2] > 0.5, "AP", "PA")
    score = (images["sex"] == "M") + (images["view"] == "AP") + images["age_years"] / 45
    label = pd.Series((score > 2).astype(float).to_numpy(), index=names)
    found = groups.guesses(images, pd.DataFrame({"image_id": names}), label)
    alone = max(found[fact][0] for fact in ("view", "sex", "age"))
    assert found["view + sex + age"][0] > 0.95 > alone + 0.05


def test_a_fact_that_names_the_patient_tells_nothing_of_others():
    rng = np.random.default_rng(2)
    names = [f"i{number:04d}" for number in range(1800)]
    owner = np.arange(1800) // 30
    label = pd.Series((rng.random(60) < 0.5)[owner].astype(float), index=names)
    images = pd.DataFrame({"image_id": names, "patient_id": owner.astype(str)})
    images["source"] = images["patient_id"]  # which tells each label to who saw the patient
    found = groups.guesses(images, pd.DataFrame({"image_id": names}), label)
    assert abs(found["source"][0] - 0.5) < 0.1


def test_grey_levels_at_the_border_are_a_fact_also_where_some_are_unknown():
    images, decode, label, rng = metadata()
    greys = rng.integers(0, 80, (len(images), 16))
    greys[:, 3] += (40 * label).astype(int).to_numpy()
    decode["border_greys"] = [bytes(row.tolist()).hex() for row in greys]
    whole = groups.guesses(images, decode, label)
    assert whole["outer tenth of the image"][1] > 0.7
    decode.loc[rng.random(len(images)) < 0.3, "border_greys"] = None
    some = groups.guesses(images, decode, label)
    assert some["outer tenth of the image"][1] > 0.7


@pytest.mark.parametrize("positive", [19, 30])
def test_too_few_images_of_a_class_or_all_of_one_patient_leave_no_guess(positive):
    table, scores = people(160)
    table["label"] = (np.arange(160) < positive).astype(int)
    table.loc[: positive - 1, "patient_id"] = "one"
    found = compared(table, scores).groups
    assert not found["topic"].str.contains("shortcut").any()
    assert len(found) > 0


def with_view(chance, seed=4):
    """Images whose view is AP with this chance if they are positive, and 0.5 if they are not."""
    table, scores = people(400, seed)
    rng = np.random.default_rng(seed)
    is_ap = rng.random(400) < np.where(table["label"] == 1, chance, 0.5)
    table["view"] = np.where(is_ap, "AP", "PA")
    random = pd.Series(rng.random(400), scores.index)
    strong = pd.Series(0.1 + 0.6 * table["label"].array + 0.3 * random.array, scores.index)
    systems = {"Weak": random, "Middle": 0.5 * random + 0.1 * table["label"].array, "Good": strong}
    return systems, table[["image_id", "patient_id", "label", "view"]]


@pytest.mark.parametrize("chance", [0.5, 0.9, 0.98])
def test_systems_that_are_not_shown_to_exceed_a_guess_without_the_lungs_have_a_caution(chance):
    systems, table = with_view(chance)
    result = cxr_compare.compare(systems, truth=table, replicates=100)
    guess = row_of(result.groups, topic="shortcut", group="view")
    beyond = result.groups[result.groups["topic"] == "beyond shortcut"].set_index("system")
    assert [*beyond.index] == [*systems]
    said = [text for text in result.cautions if "without the lungs" in text]
    if guess["ci_low"] <= 0.5:  # the view itself is no better than chance
        assert said == []
        return
    exceeds = beyond["ci_low"] > 0
    assert exceeds["Good"]
    assert not exceeds["Weak"]
    assert beyond.loc["Middle", "estimate"] > 0 or chance > 0.9
    (text,) = said
    assert {name for name in systems if f"{name} (" in text} == {*exceeds.index[~exceeds]}


def test_a_system_is_compared_with_a_guess_on_the_images_of_each_fold():
    systems, table = with_view(1.0)
    table["view"] = np.where(table["label"] == 1, "AP", "PA")
    result = cxr_compare.compare(systems, truth=table, replicates=100)
    guess = row_of(result.groups, topic="shortcut", group="view")
    assert guess["estimate"] == 1.0
    gap = row_of(result.groups, topic="beyond shortcut", system="Middle")["estimate"]
    area = row_of(result.figures, first="Middle", second="", metric="auroc")["estimate"]
    assert gap == pytest.approx(area - 1, abs=0.03)


def test_localised_sensitivity_of_a_group_rests_on_images_with_boxes():
    truth, lesions, boxes = boxed(sex=["F", "M", "M", "F"] * 50)
    some = lesions[lesions["image_id"] >= "i060"]
    result = cxr_compare.compare({"D": boxes}, truth=truth, boxes=some, policy=CUT, replicates=100)
    of_boxed = truth[truth["image_id"].isin(some["image_id"])]
    decisions = result.decisions.set_index("image_id")
    for group, rows in of_boxed.groupby("sex"):
        row = row_of(result.groups, topic="sex", group=group, metric="localised_sensitivity")
        own = decisions.loc[rows["image_id"]]
        assert row["of"] == len(rows)
        assert row["count"] == (own[f"decision_{CUT}"] & own["localised"]).sum()
