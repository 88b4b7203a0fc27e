"""Claims of an answer, cautions about it, and the protocol that fixes the question."""

import json
import re
import shutil
import tomllib
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError, Result
from tests.adapters import folders, verdict
from tests.adapters.sets import table_set, write_predictions
from tests.oracles import rebuild

CASES = json.loads((Path(__file__).parents[1] / "cases" / "verdict.json").read_text())["cases"]
NAN = float("nan")


def rows_of(case):
    return [[NAN if cell is None else cell for cell in row] for row in case["rows"]]


NUMBER = re.compile(r"(?<![\w.])[−-]?\d[\d,]*(?:\.\d+)?")


def numbers_in(text):
    return NUMBER.findall(text)


def named_in(text, systems):
    """Systems in the order in which a text first names them."""
    longest_first = sorted(systems, key=len, reverse=True)
    pattern = "|".join(rf"\b{re.escape(name)}\b" for name in longest_first)
    return [*dict.fromkeys(re.findall(pattern, text))]


@pytest.mark.parametrize(
    ("ap50", "froc", "with_boxes", "n"),
    [
        ((0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), "AB", 1),
        ((0.2, 0.1, 0.3), (0.2, 0.1, 0.3), "AB", 0),
        ((0.2, 0.1, 0.3), (-0.2, -0.5, 0.1), "AB", 0),
        ((0.2, -0.1, 0.5), (-0.2, -0.3, -0.1), "AB", 0),
        ((0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), "A", 0),
    ],
)
def test_figures_of_boxes_that_show_opposite_differences_are_said(ap50, froc, with_boxes, n):
    found = verdict.verdict_of("AB", two_detectors(ap50, froc), with_boxes=[*with_boxes])
    assert len(found["findings"]) == n


def two_detectors(ap50, froc):
    """Figures of A and B, and the difference of both in each."""
    rows = []
    gaps = {"auroc": (0.0, -0.1, 0.1), "ap50": ap50, "ap": ap50, "froc_mean": froc}
    for metric, gap in gaps.items():
        for name, value in (("A", 0.5 + gap[0] / 2), ("B", 0.5 - gap[0] / 2)):
            rows.append((name, "", metric, "", value, value - 0.1, value + 0.1, ""))
        rows.append(("A", "B", metric, "", *gap, ""))
    return rows


@pytest.mark.parametrize(
    ("protocol", "with_boxes", "metrics"),
    [
        (None, "AB", ["ap", "froc_mean"]),
        ({"metric": "ap50"}, "AB", ["ap", "froc_mean"]),
        ({"metric": "froc_mean"}, "AB", ["ap50", "ap"]),
        ({"metric": "auroc"}, "AB", ["ap50", "ap", "froc_mean"]),
        ({"metric": "auroc"}, "A", []),
    ],
)
def test_detectors_are_compared_in_each_figure_of_boxes_once(protocol, with_boxes, metrics):
    rows = two_detectors((0.2, 0.1, 0.3), (-0.21, -0.31, -0.11))
    found = verdict.verdict_of("AB", rows, protocol=protocol, with_boxes=[*with_boxes])
    of_places = [claim for claim in found["claims"] if claim["family"] == "places"]
    assert [claim["metric"] for claim in of_places] == metrics
    higher = {"ap50": "A", "ap": "A", "froc_mean": "B"}
    assert all(claim["higher"] == higher[claim["metric"]] for claim in of_places)


@pytest.mark.parametrize(
    ("metric", "first"), [("auroc", "ap50"), ("ap50", "ap50"), ("froc_mean", "froc_mean")]
)
def test_further_figures_of_boxes_wait_for_the_first_one(metric, first):
    shown, open_ = (0.2, 0.1, 0.3), (0.2, -0.1, 0.5)
    gaps = (open_, shown) if first == "ap50" else (shown, open_)
    options = {"protocol": {"metric": metric}, "with_boxes": ["A", "B"]}
    found = verdict.verdict_of("AB", two_detectors(*gaps), **options)
    of_places = [claim for claim in found["claims"] if claim["family"] == "places"]
    assert {"ap", "ap50", "froc_mean"} - {metric} <= {claim["metric"] for claim in of_places}
    assert all(claim["higher"] is None for claim in of_places)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_a_verdict_says_what_its_intervals_show(case):
    options = {key: case[key] for key in ("joint", "protocol") if key in case}
    further = ("policy", "unit", "synthetic", "n_findings", "with_boxes")
    options |= {key: case[key] for key in further if key in case}
    found = verdict.verdict_of(case["systems"], rows_of(case), **options)
    expect, headline = case["expect"], found["headline"]
    assert found["kind"] == expect["kind"]
    assert numbers_in(headline) == expect["numbers"]
    if "named" in expect:
        assert named_in(headline, case["systems"]) == expect["named"]
    if "chance" in expect:
        assert ("chance" in headline) == expect["chance"]
    assert [term for term in expect.get("terms", []) if term not in headline] == []
    claims = {f"{claim['first']} {claim['second']}": claim for claim in found["claims"][::-1]}
    for pair, higher in expect.get("higher", {}).items():
        assert claims[pair]["higher"] == higher, pair
    of_figure = {(c["metric"], f"{c['first']} {c['second']}"): c for c in found["claims"]}
    for metric, pairs in expect.get("by_figure", {}).items():
        assert {p: c["higher"] for (m, p), c in of_figure.items() if m == metric} == pairs, metric
    for pair, p_value in expect.get("p_holm", {}).items():
        assert claims[pair]["p_holm"] == pytest.approx(p_value, abs=1e-3), pair
    if "claims" in expect:
        assert len(found["claims"]) == expect["claims"]
    if "findings" in expect:
        assert len(found["findings"]) == expect["findings"]
    for family, metrics in expect.get("families", {}).items():
        of_family = [claim for claim in found["claims"] if claim["family"] == family]
        assert [claim["metric"] for claim in of_family] == metrics
    if "whole" in expect:
        for claim, whole in zip(found["claims"], expect["whole"], strict=True):
            assert {key: claim[key] for key in whole} == pytest.approx(whole)


def drawn_figures(rng, names):
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


def excludes_0(claim):
    return claim["ci_low"] is not None and (claim["ci_low"] > 0 or claim["ci_high"] < 0)


def test_a_difference_is_shown_exactly_where_its_interval_excludes_0_and_said_in_other_words():
    rng = np.random.default_rng(16)
    worded = {True: set(), False: set()}
    for _ in range(60):
        found = verdict.verdict_of(["A", "B"], drawn_figures(rng, ["A", "B"]))
        (claim,) = (claim for claim in found["claims"] if claim["family"] == "answer")
        shown = excludes_0(claim)
        assert (claim["higher"] is not None) == shown
        assert (found["kind"] == "decided") == shown
        if shown:
            better = claim["first"] if claim["estimate"] > 0 else claim["second"]
            assert claim["higher"] == better
            assert named_in(found["headline"], "AB")[0] == better
        answer = found["headline"].partition(":")[0].partition(", ")[2]
        worded[shown].add(re.sub(r"\b[AB]\b", "X", answer))
    assert worded[True]
    assert worded[False]
    assert not worded[True] & worded[False]


N = 160
IDS = [f"img{number:03d}" for number in range(N)]
LABEL = (np.arange(N) % 2).astype(float)
IS_TEST = np.arange(N) >= N // 2
PATIENTS = [f"p{number:03d}" for number in range(N)]
TRUTH = pd.DataFrame({"image_id": IDS, "label": LABEL, "patient_id": PATIENTS})
TRUTH["role"] = np.where(IS_TEST, "test", "val")
EDGES = ["x1", "y1", "x2", "y2"]


def drawn_scores(skill, seed):
    noise = np.random.default_rng(seed).normal(size=N)
    return 1 / (1 + np.exp(-(noise + skill * (LABEL - 0.5))))


A, B = drawn_scores(2.2, 1), drawn_scores(1.5, 2)


def cautions(systems, truth=TRUTH, **options):
    """Kind and text of each caution; systems are scores of the images or frames of boxes."""
    given = {
        name: value if isinstance(value, pd.DataFrame) else pd.Series(value, IDS)
        for name, value in systems.items()
    }
    return verdict.cautions_of(given, truth, **options)


@pytest.mark.parametrize("seed", range(3))
def test_honest_systems_have_no_caution(seed):
    assert cautions({"A": drawn_scores(2.2, 100 + seed), "B": drawn_scores(1.5, 200 + seed)}) == []


@pytest.mark.parametrize(
    ("first", "second", "parts"),
    [
        (A, (A >= 0.5).astype(float), ["B"]),
        (A, np.full(N, 0.3), ["B", "0.300"]),
        (A, np.full(N, 0.7), ["B", "0.700"]),
        (np.where(IS_TEST, A / 20, A), B, ["A"]),
        (np.where(IS_TEST, A, 1 - A), B, ["A"]),
        (A, A.copy(), ["A", "B"]),
        (LABEL, B, ["A"]),
        (0.1 + 0.8 * LABEL, B, ["A"]),
    ],
    ids=[
        *("decisions", "one value", "one high value", "other scale", "turned", "identical"),
        *("labels", "made from labels"),
    ],
)
def test_scores_that_are_not_what_they_are_called_have_one_caution(first, second, parts):
    (said,) = (text for kind, text in cautions({"A": first, "B": second}) if kind == "scores")
    assert [part for part in parts if not re.search(rf"\b{re.escape(part)}\b", said)] == []
    assert len({"A", "B"} & set(re.findall(r"\b[AB]\b", said))) == len({*parts} & {"A", "B"})


def test_confidence_of_the_predicted_class_is_asked_about_and_a_caution_if_it_is_meant():
    systems = {"A": pd.Series(np.maximum(A, 1 - A), IDS)}
    with pytest.raises(cxr_compare.InputError, match=r"^A: .*0\.5"):
        cxr_compare.compare(systems, truth=TRUTH, replicates=100)
    call = {"columns": ["A.score=score"], "replicates": 100}
    first, *_ = cxr_compare.compare(systems, truth=TRUTH, **call).cautions
    assert re.search(r"\bA\b.*\b0\.5\b", first)
    logits = {"A": pd.Series(np.log(A / (1 - A)), IDS), "B": pd.Series(B, IDS)}
    (said,) = cxr_compare.compare(logits, truth=TRUTH, **call).cautions  # ranks alone
    assert re.search(r"\bA\b", said)


def test_few_patients_of_a_class_are_a_caution_and_so_is_a_patient_of_many_images():
    few = TRUTH.assign(label=np.where(np.arange(N) % 8 == 1, 1.0, 0.0))
    assert "10 positive images" in dict(cautions({"A": A}, few))["few_patients"]
    one = TRUTH.copy()
    one.loc[N - 40 :, "patient_id"] = "many"
    said = dict(cautions({"A": A}, one))["few_patients"]
    assert re.search("20 .* 40 positive", said)


def test_where_no_patient_is_known_images_of_a_class_are_counted_and_that_comes_first():
    few = TRUTH.assign(label=np.where(np.arange(N) % 8 == 1, 1.0, 0.0))
    found = cautions({"A": A, "X": drawn_scores(0.0, 5)}, few.drop(columns="patient_id"))
    kinds = ["by_image", "chance", "all_alike", "few_patients", "few_validation"]
    assert [kind for kind, _ in found] == kinds
    assert "10 positive images" in dict(found)["few_patients"]


@pytest.mark.parametrize(
    ("validation", "policy", "is_said"),
    [(30, "max_f1", True), (40, "max_f1", False), (30, "threshold=0.5", False)],
)
def test_a_threshold_that_few_validation_patients_chose_is_a_caution(validation, policy, is_said):
    """Half of them are positive."""
    kept = np.arange(N) >= N // 2 - validation
    systems = {
        name: pd.Series(of[kept], TRUTH["image_id"][kept]) for name, of in (("A", A), ("B", B))
    }
    found = verdict.cautions_of(systems, TRUTH[kept], policies=[policy])
    assert [kind for kind, _ in found] == ["few_validation"] * is_said
    for _, said in found:
        assert re.search(r"\bA and B\b.*\b30\b.*\b15\b.*\bA: .* of 80 .*\bB: .* of 80 ", said)


@pytest.mark.parametrize("n_called", [0, 4, 5, 40, 75, 76, 80])
def test_a_system_that_calls_nearly_every_image_positive_or_nearly_none_is_a_caution(n_called):
    cut = (np.sort(A[IS_TEST])[::-1].tolist()[n_called - 1]) if n_called else 1.0
    found = cautions({"A": A}, policies=[f"threshold={cut!r}"])
    said = [numbers_in(text) for kind, text in found if kind == "all_alike"]
    assert said == [[f"{n_called}", "80", "40"]] * (not 5 <= n_called <= 75)


def test_few_calls_are_no_caution_where_few_images_are_positive():
    rare = TRUTH.assign(label=LABEL * (np.arange(N) % 20 == 1))  # 4 of 80 test images
    for n_called, is_said in ((2, False), (1, True)):
        cut = float(np.sort(A[IS_TEST])[-n_called])
        found = cautions({"A": A}, rare, policies=[f"threshold={cut!r}"])
        assert ("all_alike" in dict(found)) == is_said


@pytest.mark.parametrize(("label", "absent"), [(1.0, "negative"), (0.0, "positive")])
def test_test_images_of_one_class_are_a_caution_that_names_the_absent_one(label, absent):
    one = TRUTH.assign(label=np.where(IS_TEST, label, LABEL))
    ((kind, said),) = cautions({"A": A, "B": B}, one)
    assert kind == "one_class"
    assert absent in said


@pytest.mark.parametrize(("skill", "kind"), [(0.0, "chance"), (-2.0, "below_chance")])
def test_a_system_that_is_not_shown_to_beat_chance_is_named_with_its_auroc(skill, kind):
    said = dict(cautions({"A": A, "X": drawn_scores(skill, 5)}))[kind]
    assert re.findall(r"\b([AX]) \(0\.", said) == ["X"]


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
    call = {"truth": TRUTH.assign(width=500, height=500), "boxes": lesions}
    assert cautions({"D": found}, **call) == []
    away = found.assign(x1=470.0, x2=490.0, y1=470.0, y2=490.0)
    said = dict(cautions({"D": away, "E": away.assign(x1=460.0)}, **call))
    assert named_in(said["no_box_hits"], "DE") == ["D", "E"]


@pytest.mark.parametrize(
    ("beside", "content", "families"),
    [
        ("", "", {("answer", "auroc"), ("answer", "ap50")}),
        ("C", "", {("answer", "auroc"), ("places", "ap50")}),
        ("", 'metric = "auroc"', {("answer", "auroc"), ("places", "ap50")}),
        ("", 'metric = "ap50"', {("answer", "ap50"), ("further", "auroc")}),
    ],
)
def test_images_and_places_are_two_questions(beside, content, families):
    lesions, found = boxed()
    draw = np.random.default_rng(6)
    stray = found.assign(image_id=IDS[::2], score=draw.uniform(0.1, 0.7, len(found)))
    found = pd.concat([found, stray], ignore_index=True)
    scores = draw.uniform(0.3, 0.9, len(found))
    systems = {"D": found, "E": found.assign(x1=0.0, x2=500.0, score=scores)}
    systems |= {name: drawn_scores(2.0, 5) for name in beside}
    result = cxr_compare.compare(
        systems,
        truth=TRUTH.assign(width=500, height=500),
        boxes=lesions,
        **tomllib.loads(content),
        replicates=200,
    )
    claims = [claim for claim in result.answer.claims if {claim.first, claim.second} == {*"DE"}]
    assert {(c.family, c.metric) for c in claims if c.metric in ("auroc", "ap50")} == families
    (of_places,) = [claim for claim in claims if claim.metric == "ap50"]
    assert of_places.higher == "D"
    primary = [(metric, "") for family, metric in sorted(families, key=str) if family == "answer"]
    assert rebuild.require_corrected({"": result.figures}, primary=primary, with_boxes="DE") > 14
    assert ("AP50" in result.answer.sentences[0]) == (("answer", "ap50") in families)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A data set of tables with one finding, with an audit of its split."""
    folder = tmp_path_factory.mktemp("audited")
    states = {"opacity": np.where(LABEL == 1, "present", "absent")}
    data = table_set(folder, IDS, states, patient_id=PATIENTS)
    TRUTH[["image_id", "role"]].to_csv(folder / "roles.csv", index=False)
    cxr_compare.split(data, name="ours", file=folder / "roles.csv")
    cxr_compare.check(data)
    return data


@pytest.fixture
def data(audited, tmp_path):
    return shutil.copytree(audited, tmp_path / "data")


def on_data(data, folder, **facts):
    scores = pd.DataFrame({"image_id": IDS, "finding": "opacity", "score": A})
    stored = write_predictions(folder / "A", data, IDS, "A", scores=scores, **facts)
    call = {"data": data, "split": "ours", "replicates": 100}
    return list(cxr_compare.compare({"A": stored}, **call).cautions)


def test_a_split_that_was_not_audited_and_one_with_an_error_are_cautions(data, tmp_path):
    assert on_data(data, tmp_path) == []
    audit = json.loads((data / "audit.json").read_text())
    leak = {
        "check": "patient_leak",
        "severity": "error",
        "message": "split 'ours': patient in more than one role",
        "count": 3,
        "split": "ours",
    }
    folders.edit_record(data / "audit.json", problems=[*audit["problems"], leak])
    (said,) = on_data(data, tmp_path / "error")
    assert leak["message"] in said
    assert "3 images" in said
    (data / "audit.json").unlink()
    assert len(on_data(data, tmp_path / "none")) == 1


def test_a_shortcut_of_the_whole_set_is_named_with_the_systems_that_do_not_exceed_it(tmp_path):
    """The view is known by half of the labels."""
    states = {"opacity": np.where(LABEL == 1, "present", "absent")}
    views = np.where((LABEL == 1) | (np.arange(N) % 4 == 0), "AP", "PA")
    data = table_set(tmp_path, IDS, states, view=views)
    cxr_compare.check(data)
    roles = TRUTH[["image_id"]].assign(role=np.where(np.arange(N) < N - 30, "val", "test"))
    for name, table in (("few", roles), ("many", TRUTH[["image_id", "role"]])):
        table.to_csv(tmp_path / "roles.csv", index=False)
        cxr_compare.split(data, name=name, file=tmp_path / "roles.csv")
    (row,) = json.loads((data / "audit.json").read_text())["facts"]["shortcuts"]
    assert row["auroc"] > 0.65
    good, poor = drawn_scores(4.0, 3), drawn_scores(0.3, 5)

    def noted(split, **scores):
        systems = {}
        for name, values in scores.items():
            table = pd.DataFrame({"image_id": IDS, "finding": "opacity", "score": values})
            folder = tmp_path / f"{split}-{name}-{len(scores)}"
            systems[name] = write_predictions(folder, data, IDS, name, split=split, scores=table)
        made = cxr_compare.compare(systems, data=data, split=split, replicates=100)
        rows = made.figures.query("metric == 'auroc' and second == ''")
        lower_ends = rows.set_index("first")["ci_low"]
        notes = [note for note in made.answer.notes if f"AUROC {row['auroc']:.3f}" in note]
        for note in notes:
            assert f"On {N} images" in note
            said = note.partition("data.html")[2]
            for name in scores:
                assert (f" {name} " in said) == (not lower_ends[name] > row["auroc"]), note
        assert bool(notes) == (not (lower_ends > row["auroc"]).all())
        return len(notes)

    assert noted("many", Good=good) == 0
    assert noted("many", Poor=poor) == 1
    assert noted("many", Good=good, Poor=poor) == 1
    assert noted("few", Poor=poor) == 1
    assert noted("many", Equal=np.full(N, 0.5)) == 1  # an AUROC without an interval


def test_synthetic_images_are_the_answer_and_a_caution(world):
    systems = {"C": world.predictions("classifier")}
    of_images = Result.open(world.report)
    of_patients = cxr_compare.compare(systems, data=world.data, unit="patient", replicates=100)
    for result in (of_images, of_patients):
        assert "synthetic" in result.headline
        assert any("Synthetic" in text for text in result.cautions)


def test_what_predictions_say_of_a_training_is_a_caution_or_a_note(world, tmp_path):
    """Another data set, and start weights of unknown training."""
    made = shutil.copytree(world.predictions("classifier"), tmp_path / "C")
    elsewhere = [{"name": "elsewhere", "content_id": "a"}, {"name": "", "content_id": "b"}]
    folders.edit_record(made / "predictions.json", trained_on=elsewhere, seen_unknown=["other.pth"])
    found = cxr_compare.compare({"C": made}, data=world.data, replicates=100)
    plain = Result.open(world.report)
    (trained,) = (text for text in found.cautions if "elsewhere" in text)
    assert trained.count("data set") == 2  # neither has a name
    assert sum("other.pth" in note for note in found.answer.notes) == 1
    assert not any("elsewhere" in text for text in plain.cautions)


@pytest.mark.parametrize(
    ("of_b", "said"),
    [
        (["c", "b", "a"], []),
        (["a", "c"], ["A from 3 (2 positive) and B from 2 (1 positive)"]),
        (["a", "b", "other"], ["A from 3 (2 positive) and B from 3."]),  # of unknown label
    ],
    ids=["the same", "fewer", "one of another data set"],
)
def test_systems_that_learned_from_other_images_are_told_apart(of_b, said):
    notes = verdict.training_notes({"A": ["a", "b", "c"], "B": of_b}, {"a": 1, "b": 1, "c": 0})
    assert [text for text in said if text not in " ".join(notes)] == []
    assert len(notes) == len(said)


def test_a_part_of_synthetic_images_is_counted_and_not_called_the_whole():
    mixed = TRUTH.copy()
    mixed.loc[N - 30 :, "patient_id"] = [f"phantom-7:{number:08d}" for number in range(30)]
    result = cxr_compare.compare({"A": pd.Series(A, IDS)}, truth=mixed, replicates=100)
    assert sum("30" in text and "80" in text for text in result.cautions) == 1
    assert "synthetic" not in result.headline


N_ASKED = 120
ASKED_IDS = [f"i{number:03d}" for number in range(N_ASKED)]
ASKED_LABEL = np.arange(N_ASKED) % 2
ASKED_TRUTH = pd.DataFrame({"image_id": ASKED_IDS, "label": ASKED_LABEL})
ASKED_TRUTH["patient_id"] = PATIENTS[:N_ASKED]
ASKED_TRUTH["role"] = np.where(np.arange(N_ASKED) < N_ASKED // 2, "val", "test")


def scores(skill, seed):
    noise = np.random.default_rng(seed).normal(0, 1, N_ASKED)
    return pd.Series(1 / (1 + np.exp(-(noise + skill * (ASKED_LABEL - 0.5)))), ASKED_IDS)


SYSTEMS = {"A": scores(2.0, 1), "B": scores(1.0, 2), "C": scores(0.5, 3)}


def asked(content, systems=SYSTEMS, **options):
    """Compare systems by options, which are written as TOML."""
    options = {**tomllib.loads(content), **options}
    return cxr_compare.compare(systems, truth=ASKED_TRUTH, replicates=100, **options)


def pairs(result):
    claims = [claim for claim in result.answer.claims if claim.family == "answer"]
    return [(claim.first, claim.second) for claim in claims]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('metric = "aurok"', ["aurok", "auroc"]),
        ('metric = "brier"', ["brier"]),
        ('metric = "tp"\npolicy = "max_f1"', ["tp"]),
        ('metric = "recall"\npolicy = "max_f1"', ["recall", "balanced_accuracy"]),
        ('metric = "precision"\npolicy = "max_f1"', ["precision", "balanced_accuracy"]),
        ('metric = "f1"\npolicy = "best"', ["best"]),
        ("margin = 5", ["margin", "5"]),
        ("margin = 0", ["margin", "0"]),
        ("margin = {auroc = 0.05}", ["margin"]),
        ('margin = "0.05"', ["margin"]),
    ],
)
def test_a_question_that_no_figure_answers_is_refused_in_one_line(content, parts):
    with pytest.raises(InputError) as refused:
        asked(content)
    line = str(refused.value)
    assert "\n" not in line
    assert [part for part in parts if part not in line] == []


def test_the_figure_that_is_named_decides_at_its_threshold():
    result = asked('metric = "f1"\npolicy = "youden"\n')
    assert result.answer.primary == ("f1", "youden")
    assert result.answer.policy == "youden"
    assert {claim.metric for claim in result.answer.claims if claim.family == "answer"} == {"f1"}
    by_auroc = asked("")
    assert by_auroc.answer.primary == ("auroc", "")


def of_gap(gap, count=150, seed=3):
    """Labels, patients of two images, and scores of a reference and of a system that is worse."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 3 == 0
    first = rng.normal(size=count) + 2 * label
    second = first + 0.3 * rng.normal(size=count) - gap * label
    scores = {"A": 1 / (1 + np.exp(-first)), "B": 1 / (1 + np.exp(-second))}
    return scores, {"truth": label.astype(int), "patients": np.arange(count) // 2}


@pytest.mark.parametrize(
    ("gap", "margin", "decision", "status"),
    [
        (0.0, 0.2, "equivalent", 0),
        (-1.5, 0.01, "not worse", 0),
        (3.0, 0.05, "worse", 1),
        (0.2, 0.05, "cannot tell", 4),
    ],
)
def test_a_margin_is_decided_by_an_interval_and_a_gate_ends_by_it(gap, margin, decision, status):
    scores, truth = of_gap(gap)
    options = {**truth, "replicates": 100, "margin": margin}
    made = cxr_compare.compare(scores, **options, gate=True)
    assert made.answer.margin["decisions"] == {"B": decision}
    assert made.exit_status == status
    low, high = made.answer.margin["intervals"]["B"]
    (row,) = made.tests[made.tests["metric"] == "auroc"].to_dict("records")
    assert low <= row["ci_low"] + 1e-12  # the same end, computed for all pairs at once
    assert high >= row["ci_high"] - 1e-12
    assert high - low > row["ci_high"] - row["ci_low"] + 1e-4
    assert (high < margin) == (decision in ("equivalent", "not worse"))
    assert (low > margin) == (decision == "worse")
    assert f"{margin:g}" in numbers_in(made.headline)
    last = str(made).splitlines()[-1]
    begin = {0: "gate passed", 1: "gate failed. B is worse by", 4: "gate cannot tell. B is"}[status]
    assert last.startswith(begin)
    assert f"{margin:g} " in f"{last} "
    plain = cxr_compare.compare(scores, **options)
    assert plain.exit_status == 0
    assert "gate" not in str(plain)


def test_a_margin_in_another_figure_is_decided_by_the_interval_of_the_table():
    scores, truth = of_gap(0.2)
    options = {"metric": "f1", "policy": "threshold=0.5", "margin": 0.05, "replicates": 100}
    made = cxr_compare.compare(scores, **truth, **options)
    (claim,) = (each for each in made.answer.claims if each.family == "answer")
    ends = made.answer.margin["intervals"]["B"]
    assert ends == [claim.ci_low, claim.ci_high]


def test_the_sentence_of_a_margin_has_the_interval_that_decides_and_no_other():
    scores, truth = of_gap(0.3)
    made = cxr_compare.compare(scores, **truth, replicates=100, margin=0.05)
    (row,) = made.tests[made.tests["metric"] == "auroc"].to_dict("records")
    before, _, said = made.headline.partition("By the stated margin: ")
    low, high = made.answer.margin["intervals"]["B"]
    assert f"{row['ci_high']:.3f}" != f"{high:.3f}"
    assert numbers_in(said) == [f"{low:.3f}", f"{high:.3f}", "0.05"]
    assert f"{row['estimate']:.3f}" in numbers_in(before)
    assert f"{row['ci_high']:.3f}" not in numbers_in(before)


def test_a_gate_joins_all_systems_and_the_one_that_is_worse_decides():
    scores, truth = of_gap(0.0)
    worse, _ = of_gap(3.0)
    options = {**truth, "replicates": 100, "margin": 0.2, "gate": True}
    both = {**scores, "C": worse["B"]}
    assert cxr_compare.compare(both, **options).exit_status == 1
    options["margin"] = 0.9
    assert cxr_compare.compare(both, **options).exit_status == 0
    rare = {**scores, "C": np.random.default_rng(5).random(len(scores["A"]))}
    options["margin"] = float(
        cxr_compare.compare(rare, **options).answer.margin["intervals"]["C"][0]
    )
    assert cxr_compare.compare(rare, **options).exit_status == 4


def test_a_gate_joins_all_findings():
    scores, truth = of_gap(0.0)
    worse, _ = of_gap(3.0)
    ids = [f"i{number}" for number in range(150)]
    labels = pd.DataFrame({"image_id": ids, "patient_id": [f"p{n}" for n in truth["patients"]]})
    labels["mass"] = labels["nodule"] = truth["truth"]
    systems = {name: pd.DataFrame({"image_id": ids}) for name in "AB"}
    options = {"truth": labels, "target": "all", "replicates": 100, "margin": 0.2, "gate": True}
    for name, table in systems.items():
        table["mass"] = table["nodule"] = scores[name]
    found = cxr_compare.compare(systems, **options)
    assert (found.exit_status, found.to_dict()["gate"]) == (0, "pass")
    systems["B"]["nodule"] = worse["B"]
    found = cxr_compare.compare(systems, **options)
    assert (found.exit_status, found.to_dict()["gate"]) == (1, "fail")
    assert "nodule" in found.headline
    assert str(found).splitlines()[-1].startswith("gate failed. nodule: B is worse by")


def test_the_same_output_is_equivalent_although_its_difference_has_no_interval():
    scores, truth = of_gap(0.0)
    same = {"A": scores["A"], "B": scores["A"].copy()}
    made = cxr_compare.compare(same, **truth, replicates=100, margin=0.01, gate=True)
    assert made.answer.margin["decisions"] == {"B": "equivalent"}
    assert made.exit_status == 0
    perfect = {name: truth["truth"] * 0.5 + 0.1 * of for name, of in scores.items()}
    made = cxr_compare.compare(perfect, **truth, replicates=100, margin=0.01, gate=True)
    assert made.exit_status == 4  # both are right on these images, and not the same


@pytest.mark.parametrize(
    ("systems", "options", "part"),
    [
        ("A", {"margin": 0.05}, "margin"),
        ("AB", {"margin": 0}, "margin"),
        ("AB", {"margin": 1}, "margin"),
        ("AB", {"margin": 5}, "margin"),
        ("AB", {"margin": "0.05"}, "margin"),
        ("AB", {"margin": {"auroc": 0.05}}, "margin"),
        ("AB", {"gate": True}, "gate"),
        ("AB", {"metric": "aurok"}, "metric"),
        ("AB", {"metric": "recall"}, "metric"),
        ("AB", {"metric": "ap50"}, "A"),
    ],
)
def test_a_margin_or_a_metric_that_cannot_decide_is_refused_in_one_line(systems, options, part):
    given = {name: SYSTEMS[name] for name in systems}
    with pytest.raises(InputError, match=f"^{part}(: |=)") as refused:
        cxr_compare.compare(given, truth=ASKED_TRUTH, replicates=100, **options)
    assert "\n" not in str(refused.value)


def test_a_metric_of_the_command_decides():
    systems = {name: SYSTEMS[name] for name in "AB"}
    call = {"truth": ASKED_TRUTH, "replicates": 100}
    answer = cxr_compare.compare(systems, **call, metric="f1", policy="youden").answer
    assert answer.primary == ("f1", "youden")
    assert answer.provenance.options["metric"] == "f1"
    assert cxr_compare.compare(systems, **call, metric="f1").answer.primary == ("f1", "max_f1")


def test_ranks_are_those_that_the_shown_differences_leave():
    rng = np.random.default_rng(2)
    label = np.arange(300) % 3 == 0
    skills = {"A": 3.0, "B": 2.9, "C": 1.0, "D": 0.0}
    scores = {
        name: 1 / (1 + np.exp(-rng.normal(size=300) - of * label)) for name, of in skills.items()
    }
    made = cxr_compare.compare(scores, truth=label.astype(int), replicates=100)
    assert made.answer.ranks == {"A": (1, 2), "B": (1, 2), "C": (3, 3), "D": (4, 4)}
    assert made.to_dict()["ranks"]["C"] == [3, 3]
    assert made.table["Rank"][list("ABCD")].tolist() == ["1 to 2", "1 to 2", "3", "4"]
    two = cxr_compare.compare({n: scores[n] for n in "AB"}, truth=label.astype(int), replicates=100)
    assert two.answer.ranks == {}
    assert "Rank" not in two.table


@pytest.mark.parametrize(
    ("content", "part"),
    [('metric = "ap50"', "ap50"), ('metric = "pointing_accuracy"', "pointing_accuracy")],
)
def test_a_figure_that_a_system_cannot_have_is_refused(content, part):
    with pytest.raises(InputError) as refused:
        asked(content)
    assert str(refused.value).startswith("A: ")
    assert part in str(refused.value)


def test_a_threshold_that_validation_does_not_give_is_refused():
    one_class = ASKED_TRUTH.assign(label=np.where(ASKED_TRUTH["role"] == "val", 0, ASKED_LABEL))
    with pytest.raises(InputError, match="max_f1"):
        cxr_compare.compare(SYSTEMS, truth=one_class, metric="f1", replicates=100)


def test_a_question_is_answered_by_patient_too():
    result = asked('metric = "auroc"', unit="patient")
    assert result.answer.unit == "patient"
    assert str(N_ASKED // 2) in result.headline
