"""Counts of the audit: every image counted once, shares with intervals."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.audit.counts import (
    count_prevalence,
    describe_images,
    expected_image_leak,
)
from tests.rsna_tables import read_rsna_tables


@pytest.fixture
def images() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "patient_id": list("ppqrst"),
            "view": ["AP", "AP", "PA", None, "LL", "PA"],
            "sex": ["F", "F", "M", "M", None, None],
            "age_years": [3.0, 17.9, 18.0, 155.0, np.nan, -1.0],
            "source": "s",
            "width": pd.array([10, 10, 20, 30, None, 10], dtype="Int64"),
            "height": pd.array([10, 10, 20, 30, None, 10], dtype="Int64"),
            "spacing_col_mm": [40.0, None, None, None, None, 30.0],
        }
    )


LABELS = pd.DataFrame({"mass": [1, 0, 1, np.nan, 0, 0]}, index=list("abcdef"))


def rows_of(rows: list[dict], by: str) -> dict[str, tuple]:
    return {
        row["value"]: (row["n_images"], row["n_patients"], row["n_known"], row["n_positive"])
        for row in rows
        if row["by"] == by
    }


def test_every_image_is_counted_once_in_each_group(images):
    split = pd.DataFrame({"image_id": list("abcdef"), "role": ["train"] * 4 + ["test"] * 2})
    rows = count_prevalence(images, LABELS, {"default": split})
    assert rows_of(rows, "all") == {"all images": (6, 5, 5, 2)}
    assert rows_of(rows, "view") == {
        "AP": (2, 1, 2, 1),
        "LL": (1, 1, 1, 0),
        "PA": (2, 2, 2, 1),
        "missing": (1, 1, 0, 0),
    }
    assert list(rows_of(rows, "role in split default")) == ["train", "test"]
    for by in {row["by"] for row in rows}:
        assert sum(counts[0] for counts in rows_of(rows, by).values()) == 6


def test_ages_fall_into_their_bands_in_order(images):
    rows = rows_of(count_prevalence(images, LABELS, {}), "age")
    assert list(rows) == ["0 to 4", "5 to 17", "18 to 39", "impossible", "missing"]
    assert rows["impossible"][0] == 2


def test_a_share_of_nothing_is_missing_and_not_zero(images):
    (row,) = [
        r
        for r in count_prevalence(images, LABELS, {})
        if r["value"] == "missing" and r["by"] == "view"
    ]
    assert (row["prevalence"], row["ci_low"]) == (None, None)


def test_more_than_twenty_values_leave_an_other(images):
    many = pd.concat([images] * 10, ignore_index=True)
    many = many.assign(image_id=[str(n) for n in range(60)], source=[f"s{n}" for n in range(60)])
    labels = pd.DataFrame({"mass": 1.0}, index=many["image_id"])
    rows = rows_of(count_prevalence(many, labels, {}), "source")
    assert (len(rows), rows["other"][0]) == (21, 40)


def test_sizes_and_storage_are_described(images):
    decode = pd.DataFrame({"image_id": list("abcdef"), "bits": [8, 8, 8, 8, 12, 12]})
    facts = describe_images(images, decode)
    assert facts["sizes"]["smallest"] == "10 x 10"
    assert facts["sizes"]["largest"] == "30 x 30"
    assert (facts["sizes"]["different"], facts["sizes"]["commonest"]) == (3, "10 x 10")
    assert facts["field_width_mm"]["n_known"] == 2
    assert facts["files"] == {"bits": {"12": 2, "8": 4}}


def test_a_set_without_sizes_has_none(images):
    unknown = images.assign(width=pd.array([None] * 6, dtype="Int64"))
    assert describe_images(unknown, pd.DataFrame({"image_id": []}))["sizes"] is None


def test_the_oddest_images_are_far_from_the_rest_and_each_of_another_patient():
    ids = [f"i{n}" for n in range(20)]
    images = pd.DataFrame({"image_id": ids, "patient_id": ids, "width": 100, "height": 100})
    decode = pd.DataFrame({"image_id": ids, "mean_grey": 100.0, "border_greys": "40" * 16})
    decode["mean_grey"] += np.arange(20) % 5
    images.loc[3, "width"] = 300
    decode.loc[[5, 6], "border_greys"] = "ff" * 16
    decode.loc[7, "mean_grey"] = 250.0
    images.loc[6, "patient_id"] = "i5"
    examples = describe_images(images, decode)["examples"]
    assert {"i3", "i5", "i7"} < set(examples["oddest"])
    assert len(examples["oddest"]) == len(examples["typical"]) == 4
    assert examples["typical"] == ["i2", "i12", "i17", "i1"]
    assert describe_images(images[:7], decode[:7])["examples"] == {}


@pytest.fixture(scope="module")
def rsna_tables(shared_data):
    return read_rsna_tables(shared_data)


def test_published_leak_of_a_split_by_image_is_reproduced(rsna_tables):
    """SOURCE.md: the ids lie on 11,439 patients; about 70 % of the test images leak."""
    leak = expected_image_leak(rsna_tables[0])
    assert leak["n_patients"] == 11_439
    assert leak["expected_share"] == pytest.approx(0.70, abs=0.01)


def test_expected_leak_is_that_of_random_splits():
    rng = np.random.default_rng(0)
    patient = rng.choice(40, size=100, p=rng.dirichlet(np.ones(40)))
    shares = []
    for _ in range(3000):
        order = rng.permutation(100)
        test, train = patient[order[:20]], patient[order[20:]]
        shares.append(np.isin(test, train).mean())
    leak = expected_image_leak(pd.DataFrame({"patient_id": patient.astype(str)}))
    assert leak["expected_share"] == pytest.approx(np.mean(shares), abs=0.01)


@pytest.mark.parametrize("patients", [["p"] * 5, ["a", "b", "c"]])
def test_leak_of_one_patient_and_of_strangers(patients):
    leak = expected_image_leak(pd.DataFrame({"patient_id": patients}))
    assert leak["expected_share"] == pytest.approx(1.0 if len(set(patients)) == 1 else 0.0)
