"""Series are matched by their index, or refused: never taken by accident of their order."""

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError, metrics

RNG = np.random.default_rng(0)
Y = pd.Series(RNG.integers(0, 2, 80))
S = pd.Series(np.clip(0.4 * Y + 0.6 * RNG.random(80), 0, 1))
PATIENTS = pd.Series(np.arange(80) // 2)

OF_ARRAYS = {
    "auroc": lambda y, s, p: metrics.auroc(y, s),
    "average_precision": lambda y, s, p: metrics.average_precision(y, s),
    "classification_metrics": lambda y, s, p: metrics.classification_metrics(y, s, 0.5),
    "confusion_counts": lambda y, s, p: metrics.confusion_counts(y, s, 0.5),
    "auroc_difference": lambda y, s, p: metrics.auroc_difference(y, s, s, p).estimate,
}
OF_IMAGES = {
    "estimate": lambda y, s, p: metrics.estimate("auroc", y, s, patients=p).estimate,
    "compare": lambda y, s, p: (
        cxr_compare.compare({"A": s}, truth=y, patients=p, replicates=100)
        .to_frame()
        .set_index("metric")
        .estimate["auroc"]
    ),
}
FUNCTIONS = OF_ARRAYS | OF_IMAGES


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


@pytest.mark.parametrize("name", OF_IMAGES)
def test_rows_in_another_order_give_the_same_figure(name):
    function = OF_IMAGES[name]
    expected = function(Y, S, PATIENTS)
    assert function(Y, S[::-1], PATIENTS) == expected  # also a RangeIndex
    assert function(Y, S.sample(frac=1, random_state=1), PATIENTS[::-1]) == expected
    ids = [f"image {number}" for number in range(80)]
    y, s, patients = (series.set_axis(ids) for series in (Y, S, PATIENTS))
    assert function(y, s[::-1], patients.sample(frac=1, random_state=2)) == expected


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_functions_of_arrays_refuse_series_in_another_order(name):
    function = OF_ARRAYS[name]
    assert function(Y.set_axis(range(5, 85)), S.set_axis(range(5, 85)), None) is not None
    for scores in (S[::-1], S.sample(frac=1, random_state=1), S.set_axis(range(100, 180))):
        with pytest.raises(InputError):
            function(Y, scores, None)


def test_other_rows_are_refused(function):
    with pytest.raises(InputError):
        function(Y[:40], S[::2], PATIENTS[:40])


def test_a_reversed_series_beside_an_array_is_refused(function):
    assert function(Y.to_numpy(), S, PATIENTS) == function(Y, S, PATIENTS)
    with pytest.raises(InputError):
        function(Y.to_numpy(), S[::-1], PATIENTS)


def test_patients_of_other_rows_are_refused():
    with pytest.raises(InputError, match="patients"):
        cxr_compare.compare({"A": S}, truth=Y, patients=PATIENTS.set_axis(range(100, 180)))


@pytest.mark.parametrize(
    ("name", "scores", "truth"),
    [
        ("truth", S, np.column_stack([Y, 1 - Y])),
        ("truth", S, dict(enumerate(Y))),
        ("truth", S, Y.set_axis(pd.MultiIndex.from_product([range(8), range(10)]))),
        ("A", np.ma.masked_less(S.to_numpy(), 0.1), Y),
        ("A", S.to_numpy() + 1j, Y),
        ("A", S + 1j, Y),
    ],
    ids=["one-hot", "dict", "MultiIndex", "masked", "complex", "complex Series"],
)
def test_truth_or_scores_of_another_kind_are_refused_by_name(name, scores, truth):
    with pytest.raises(InputError, match=f"^{name}: "):
        cxr_compare.compare({"A": scores}, truth=truth)


def test_a_list_of_series_is_refused():
    with pytest.raises(InputError) as refused:
        cxr_compare.compare({"A": [S, S**2, 1 - S]}, truth=Y, replicates=100)
    assert str(refused.value).startswith("A: ")


ORDER = np.random.default_rng(1).permutation(80)
BY_ID = pd.Series(S.to_numpy(), ORDER)  # indexed by image id, which is a number
OF_PATIENTS = pd.Series(PATIENTS.to_numpy(), ORDER)


def truth_with_ids(ids, y=Y):
    return pd.DataFrame({"image_id": ids, "label": y})


def auroc(scores, truth, **options):
    result = cxr_compare.compare({"A": scores}, truth=truth, replicates=100, **options)
    return result.to_frame().set_index("metric").estimate["auroc"]


@pytest.mark.parametrize(
    ("truth", "scores"),
    [
        (truth_with_ids(ORDER), BY_ID),
        (truth_with_ids(ORDER), BY_ID.sort_index()),
        (truth_with_ids(ORDER), S),
        (truth_with_ids(ORDER), BY_ID[:70]),
        (truth_with_ids([str(number) for number in ORDER]), BY_ID),
        (truth_with_ids([f"{number:04d}" for number in ORDER]), BY_ID),
        (truth_with_ids(ORDER.astype(float)), BY_ID),
    ],
    ids=["by id", "sorted", "rows", "some", "texts", "zeros in front", "floats"],
)
def test_an_index_that_may_be_rows_or_image_ids_is_asked_about(truth, scores):
    with pytest.raises(InputError, match=r"^A: "):
        auroc(scores, truth, images="common")


@pytest.mark.parametrize("patients", [OF_PATIENTS, OF_PATIENTS.sort_index(), PATIENTS])
def test_patients_whose_index_may_be_rows_or_image_ids_are_asked_about(patients):
    with pytest.raises(InputError, match=r"^patients: "):
        auroc(S.to_numpy(), truth_with_ids(ORDER), patients=patients)


def test_row_numbers_beside_a_series_of_numbered_images_are_asked_about():
    with pytest.raises(InputError, match=r"^A: "):
        auroc(S, Y.set_axis(ORDER.astype(str)))


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (S.to_numpy(), truth_with_ids(ORDER)),
        (pd.DataFrame({"image_id": ORDER, "score": S}), truth_with_ids(ORDER)),
        (BY_ID.sort_index(), Y.set_axis(ORDER)),
        (S, truth_with_ids(range(80))),  # rows and ids are the same
        (S, truth_with_ids(ORDER + 1)),  # 0 is no id
        (BY_ID.set_axis(ORDER + 1).sort_index(), truth_with_ids(ORDER + 1)),  # 80 is no row
    ],
    ids=["array", "frame", "two Series", "equal", "rows", "ids"],
)
def test_an_index_with_one_meaning_is_not_asked_about(scores, truth):
    assert auroc(scores, truth) == pytest.approx(metrics.auroc(Y, S))


def test_outputs_in_a_series_are_refused():
    outputs = pd.Series([{"boxes": [[1, 1, 9, 9]], "scores": [score]} for score in S], ORDER)
    for options in ({}, {"boxes": outputs}):
        with pytest.raises(InputError):
            auroc(S.to_numpy() if options else outputs, truth_with_ids(ORDER), **options)


def test_equal_values_are_not_asked_about():
    one_patient = pd.Series("p", ORDER)
    assert auroc(pd.Series(0.3, ORDER), truth_with_ids(ORDER), patients=one_patient) == 0.5


@pytest.mark.parametrize("missing", [None, pd.NA])
def test_a_missing_image_id_is_named_by_its_row(missing):
    ids = [f"img{number}" for number in range(80)]
    gap = [*ids[:3], missing, *ids[4:]]
    truth = Y.set_axis(ids)
    boxes = pd.DataFrame({"image_id": gap, "x1": 1, "y1": 1, "x2": 9, "y2": 9})
    for where, scores, labels, options in (
        ("truth", S.to_numpy(), truth_with_ids(gap), {}),
        ("truth", S.to_numpy(), Y.set_axis(gap), {}),
        ("truth", S.to_numpy(), boxes.assign(label=1), {}),
        ("A", S.set_axis(gap), truth, {}),
        ("A", pd.DataFrame({"image_id": gap, "score": S}), truth, {}),
        ("A", boxes.assign(score=0.5), truth, {}),
        ("boxes", S.to_numpy(), truth, {"boxes": boxes}),
        ("patients", S.to_numpy(), truth, {"patients": PATIENTS.set_axis(gap)}),
        ("patients", S.to_numpy(), truth, {"patients": truth_with_ids(gap).set_axis(
            ["image_id", "patient_id"], axis=1)}),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"^{where}: row 3: .*image.id"):
            auroc(scores, labels, **options)
