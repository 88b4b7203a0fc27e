"""Failures of each system: groups of images and lesions, patients as units, kinds of errors."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import cxr_compare
from cxr_compare import InputError
from tests.adapters import groups

EDGES = ["x1", "y1", "x2", "y2"]
CUT = "threshold=0.5"


"""Usual place of a lesion on an image of 400 px."""


def compared(truth, scores, **options):
    call = {"replicates": 100, "policy": CUT}
    return cxr_compare.compare({"A": scores}, truth=truth, **call | options)


def row_of(table, **values):
    (row,) = table[(table[list(values)] == pd.Series(values)).all(axis=1)].to_dict("records")
    return row


def test_figures_of_groups_equal_recounted_figures(tmp_path):
    table, scores = groups.people()
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
    table, scores = groups.people()
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
    table, scores = groups.people()
    table.loc[:99, "sex"] = None
    found = compared(table, scores, subgroups="sex").groups
    of_sex = found[(found["topic"] == "sex") & (found["metric"] == "auroc")]
    assert set(of_sex["group"]) == {"F", "M"}
    assert of_sex["of"].sum() == len(table) - 100


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


def test_images_that_a_system_has_seen_are_no_test_images(tmp_path):
    table, scores = groups.people()
    table["seen"] = (np.arange(len(table)) < 40).astype(int)
    unseen = table[table["seen"] == 0].drop(columns="seen")
    table.to_csv(tmp_path / "truth.csv", index=False)
    result = compared(tmp_path / "truth.csv", scores)
    assert set(result.decisions["image_id"]) == set(unseen["image_id"])
    assert any("40" in note for note in result.answer.notes)
    alone = compared(unseen, scores[unseen["image_id"]])
    pd.testing.assert_frame_equal(result.figures, alone.figures)
    several = table.rename(columns={"label": "mass"}).assign(edema=table["label"])
    frame = pd.DataFrame({"image_id": scores.index, "mass": scores.array, "edema": scores.array})
    results = cxr_compare.compare({"A": frame}, truth=several, target="all", replicates=100)
    assert set(results.results) == {"mass", "edema"}
    assert set(results.results["mass"].decisions["image_id"]) == set(unseen["image_id"])


@pytest.mark.parametrize(("cell", "part"), [("", "i003"), ("perhaps", "row 3"), ("all", "seen")])
def test_what_is_not_said_of_seen_images_is_asked(cell, part):
    table, scores = groups.people()
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
    # Patients have the numbers of their sorted names.
    assert scores == {"1": 0.2, "2": 0.7, "4": 0.3, "5": 0.6}
    labels = dict(zip(result.decisions["patient_id"], result.decisions["label"], strict=True))
    assert labels == {"1": 1, "2": 0, "4": 0, "5": 1}
    assert result.answer.unit == "patient"


def test_studies_of_one_name_are_studies_of_their_patients():
    result, _ = by_unit("study", UNITS.assign(label=[1, 0, 0, 0, 0, 0, 0, 1]))
    assert len(result.decisions) == 7
    with pytest.raises(InputError) as refused:
        by_unit("study", UNITS.assign(study_id=["1", None] * 4))
    assert "'b'" in str(refused.value)
    with pytest.raises(InputError):
        by_unit("study", UNITS.drop(columns="study_id"))


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


@pytest.fixture(scope="module")
def detected():
    """The true boxes, the boxes of a detector, and its comparison."""
    truth, lesions, boxes = boxed(view=np.where(np.arange(200) % 3, "PA", "AP"))
    result = cxr_compare.compare(
        {"D": boxes}, truth=truth, boxes=lesions, policy=CUT, replicates=100
    )
    return lesions, boxes, result


def test_lesions_that_are_found_by_size_and_view_equal_a_plain_loop(detected):
    lesions, boxes, result = detected
    called = boxes[boxes["score"] >= 0.5]
    found = []
    for lesion in lesions.itertuples():
        own = called[called["image_id"] == lesion.image_id]
        corners = [getattr(lesion, edge) for edge in EDGES]
        found.append(any(overlap(corners, box) >= 0.2 for box in own[EDGES].to_numpy()))
    area = (lesions["x2"] - lesions["x1"]) * (lesions["y2"] - lesions["y1"])
    low, high = np.quantile(area, [1 / 3, 2 / 3])
    from_front = lesions["image_id"].str[1:].astype(int) % 3 == 0
    table = result.lesions[result.lesions["metric"] == "lesion_recall"]
    assert set(table["topic"]) == {"all lesions", "lesion size", "view"}
    for topic, begins, chosen in (
        ("lesion size", "up to", area <= low),
        ("lesion size", "over", area > high),
        ("view", "AP", from_front),
        ("view", "PA", ~from_front),
    ):
        in_group = table["group"].str.startswith(begins)
        (row,) = table[(table["topic"] == topic) & in_group].to_dict("records")
        assert (row["count"], row["of"]) == (np.array(found)[chosen].sum(), chosen.sum())
        assert row["ci_low"] < row["estimate"] < row["ci_high"]


def test_false_boxes_of_an_image_are_counted_without_an_interval(detected):
    _, boxes, result = detected
    called = boxes[boxes["score"] >= 0.5]
    table = result.lesions[result.lesions["topic"] == "errors"].set_index("metric")
    false = table.loc[["poor_box_iou_50", "duplicate_iou_50", "background_iou_50"]]
    matched = table.loc["found_iou_50"]
    assert false["count"].sum() == len(called) - matched["count"]
    assert (false["of"] == 200).all()
    assert (false["estimate"] == false["count"] / 200).all()
    assert false[["ci_low", "ci_high", "method"]].isna().all(axis=None)
    assert matched["ci_low"] < matched["estimate"] < matched["ci_high"]


def test_millimetres_count_only_where_the_spacing_can_be_right():
    images = pd.DataFrame({"width": [2000, 2000], "height": [2000, 2000]}, index=["a", "b"])
    lesions = pd.DataFrame(
        [("a", 0.0, 0, 100, 100), ("a", 900.0, 1500, 1400, 1900), ("b", 0.0, 0, 1000, 1000)],
        columns=["image_id", *EDGES],
    )
    spacing = {"spacing_row_mm": 0.2, "spacing_col_mm": 0.2}
    in_mm = groups.groups_of_lesions(lesions, images.assign(**spacing))
    assert in_mm["lesion size"] == ["up to 30 mm", "over 60 mm", "over 60 mm"]
    assert set(in_mm) == {"lesion size"}
    impossible = images.assign(**spacing)
    impossible.loc["b", ["spacing_row_mm", "spacing_col_mm"]] = 0.02  # a chest of 40 mm
    for unknown in (images, impossible):
        shares = groups.groups_of_lesions(lesions, unknown)["lesion size"]
        assert [text.rpartition(" % ")[2] for text in shares] == ["of the image"] * 3
        assert len(set(shares)) == 3
