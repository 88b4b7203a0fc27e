"""Baselines without lungs: constant positions of lesions, and metadata that tell the label."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from tests.adapters import groups
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


def row_of(table, **values):
    (row,) = table[(table[list(values)] == pd.Series(values)).all(axis=1)].to_dict("records")
    return row


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
    for metric in ("pointing_accuracy", "localised_sensitivity", "froc_mean"):
        row = row_of(result.figures, first="A", second=blind("A"), metric=metric)
        assert pd.notna(row["estimate"])
        tested = not lacking and metric != "froc_mean"  # boxes are learned once
        assert pd.notna(row["p_value"]) == tested
        assert pd.notna(row["p_holm"]) == (tested and metric == "pointing_accuracy")
        assert re.findall(r"\d+", row["note"]) == lacking
    assert len(result.answer.findings) == (not lacking)
    claimed = {claim.second for claim in result.answer.claims}
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
        # None found at 1/8 and 1/4 false boxes an image (.9), one at 1/2 (.9, .8), all from 1 on.
        "froc_mean": (1 / 3 + 4) / 7,
        "ap50": 1 / 2,  # precision 1/2, 2/5, 3/6 at the three lesions
        "pointing_accuracy": 1 / 2,  # the point is on PLACE
    }
    assert values[list(counted)].to_dict() == pytest.approx(counted, abs=1e-9)


def drawn_boxes(roles, seed):
    rng = np.random.default_rng(seed)
    moved = PLACE + [160, 0, 160, 0] * rng.integers(0, 2, (len(roles), 1))
    table = pd.DataFrame(moved + rng.normal(0, 9, moved.shape), columns=EDGES)
    return table.assign(image_id=roles.index)


@pytest.mark.parametrize("metric", [None, "froc_at_1"])
def test_froc_at_a_rate_has_differences_and_baselines_only_where_it_decides(metric):
    roles = pd.Series(["val", "test"] * 60, index=[f"i{n:03d}" for n in range(120)])
    truth = pd.DataFrame({"image_id": roles.index, "role": roles.array, "width": 400})
    truth = truth.assign(height=400, label=np.arange(120) // 2 % 2, patient_id=truth["image_id"])
    lesions = drawn_boxes(roles, 0)
    lesions = lesions[truth["label"].to_numpy() == 1]
    rng = np.random.default_rng(1)
    systems = {
        name: drawn_boxes(roles, seed).assign(score=rng.random(120))
        for seed, name in enumerate("AB", 1)
    }
    made = cxr_compare.compare(systems, truth=truth, boxes=lesions, metric=metric, replicates=100)
    found = made.figures[made.figures["metric"].str.startswith("froc_")]
    pairs = {("A", "B"), ("A", blind("A")), ("B", blind("B"))}
    for rate in ("mean", "at_1", "at_2"):
        of_rate = found[found["metric"] == f"froc_{rate}"]
        compared = rate == "mean" or f"froc_{rate}" == metric
        single = set(of_rate.loc[of_rate["second"] == "", "first"])
        assert single == {"A", "B"} | ({blind("A"), blind("B")} if compared else set())
        differences = of_rate[of_rate["second"] != ""]
        assert {*zip(differences["first"], differences["second"], strict=True)} == (
            pairs if compared else set()
        )
    primary = metric or "ap50"
    assert primary in {claim.metric for claim in made.answer.claims}


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


def test_the_positions_are_those_that_the_page_defines():
    rng = np.random.default_rng(0)
    names = [f"i{n:02d}" for n in rng.integers(0, 30, 30)]
    middle = rng.uniform(60, 340, (30, 2))
    half = rng.uniform(10, 60, (30, 2))
    corners = np.hstack([middle - half, middle + half])
    lesions = pd.DataFrame([box(*each) for each in zip(names, corners, strict=True)])
    patients = sorted(set(names))  # with an image each
    roles = pd.Series("val", index=patients)
    rows = list(zip(names, *corners.T.tolist(), strict=True))
    drawn = np.random.default_rng([5, 2]).integers(0, len(patients), (8, len(patients)))
    draws = [Counter(patients[n] for n in row) for row in drawn]
    learned = groups.constant_places(lesions, roles, side=np.nan)
    boxes = oracle.constant_boxes(rows)
    assert len(boxes) > 4
    assert np.allclose(learned["boxes"], boxes, atol=1e-9)
    again = groups.points_again(lesions, roles, 8, seed=5)
    assert np.allclose(again, oracle.constant_point(rows, draws), atol=1e-9)
    assert np.allclose(again[0], learned["point"])


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
    alone, together = (found[fact][2] - found[fact][1] for fact in ("view", "view + sex + age"))
    assert together > 1.3 * alone  # models of several columns differ


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
