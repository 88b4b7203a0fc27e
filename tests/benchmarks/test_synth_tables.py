"""Tables of any size: they keep every rule of a data set, and look like the public ones."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.synth_tables import FINDINGS, synth_tables
from cxr_compare.data_prep.audit.audit import audit
from cxr_compare.data_prep.audit.split_checks import find_leaks
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.duplicates.fingerprint_pairs import turned_distances
from cxr_compare.data_prep.duplicates.near_duplicates import find_near_duplicates, hashes_to_bytes
from cxr_compare.data_prep.formats.source import empty_roles
from cxr_compare.data_prep.splits.add_split import SplitRule
from cxr_compare.data_prep.splits.draw_split import draw_split, image_links
from cxr_compare.data_prep.store.dataset import DataSet

pytestmark = pytest.mark.release

N_IMAGES = 20_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> DataSet:
    return synth_tables(tmp_path_factory.mktemp("tables") / "set", N_IMAGES, seed=3)


@pytest.fixture(scope="module")
def decode(dataset) -> pd.DataFrame:
    return read_table(dataset.folder / "decode.parquet", "decode")


def test_the_folder_is_a_complete_data_set_without_pixels(dataset):
    again = DataSet.open(dataset.folder)
    assert len(again.images) == N_IMAGES
    assert not again.has_pixels
    assert sorted(again.targets) == sorted(FINDINGS)
    assert set(again.split()["image_id"]) == set(again.images["image_id"])
    assert again.ids["split_ids"].keys() == {"default"}


def test_patients_have_as_many_images_as_in_the_public_sets(dataset):
    assert 3.1 < N_IMAGES / dataset.images["patient_id"].nunique() < 3.5


def test_prevalence_is_as_requested_and_depends_on_the_view(dataset):
    labels = dataset.labels(dataset.target("lung_opacity"))
    assert 0.18 < labels.mean() < 0.23
    assert 0.01 < labels.isna().mean() < 0.05, "unknown and uncertain are there and are rare"
    by_view = labels.groupby(dataset.images["view"].to_numpy()).mean()
    assert by_view["AP"] > 2 * by_view["PA"]


def test_boxes_lie_in_their_images_and_stand_on_all_positives(dataset):
    boxes = dataset.boxes.merge(dataset.images[["image_id", "width"]], on="image_id")
    assert (boxes["x2"] <= boxes["width"]).all()
    target = dataset.target("lung_opacity")
    labels = dataset.labels(target)
    assert set(boxes["image_id"]) == set(labels.index[labels == 1])
    assert set(dataset.boxes_trusted(target)) == set(labels.index[labels.notna()])


def test_some_images_have_equal_and_near_copies(decode):
    assert 0 < decode["pixel_sha256"].duplicated().sum() < 0.005 * N_IMAGES
    prints = decode["perceptual_hash"]
    assert prints.str.len().eq(64).all()
    pairs = np.random.default_rng(0).choice(len(prints), (300, 2))
    words64 = hashes_to_bytes(pd.Index(prints)).view(np.uint64)
    first, second = pairs[pairs[:, 0] != pairs[:, 1]].T
    distances = turned_distances(words64[first] ^ words64[second])[0]
    assert 90 < np.mean(distances) < 124, "unlike images differ as chests do"
    bits = np.array([list(bytes.fromhex(p)) for p in prints.iloc[:5000]], dtype=np.uint8)
    beside = np.bitwise_count(bits[1:] ^ bits[:-1]).sum(axis=1, dtype=int)
    assert ((beside > 0) & (beside <= 8)).any(), "an edited copy stands beside its original"


def test_the_audit_finds_what_stands_twice_in_twenty_thousand_images(dataset):
    problems = {problem.check: problem for problem in audit(dataset).problems}
    assert problems["image_repeated"].count + problems["image_patients"].count > 10
    assert problems["near_repeated"].count + problems["near_patients"].count > 10
    assert "box_outside" not in problems
    assert "patient_leak" not in problems


@pytest.mark.long
def test_a_split_of_twenty_thousand_images_takes_no_patient_or_image_apart(dataset, decode):
    linked = image_links(decode, find_near_duplicates(decode))
    split, _ = draw_split(
        dataset.images, dataset.findings, empty_roles(), SplitRule(seed=1), linked
    )
    assert find_leaks(dataset.images, split).empty
    roles = split.merge(decode[["image_id", "pixel_sha256"]], on="image_id")
    assert roles.groupby("pixel_sha256")["role"].nunique().max() == 1
    assert split["role"].value_counts(normalize=True)["test"] == pytest.approx(0.2, abs=0.01)


def test_the_same_seed_gives_the_same_tables(tmp_path):
    ids = [
        synth_tables(tmp_path / name, 300, seed=seed).ids
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert ids[0] == ids[1]
    assert ids[0]["content_id"] != ids[2]["content_id"]


@pytest.mark.parametrize("n_images", [1, 2, 7])
def test_very_small_sets_are_sets_too(tmp_path, n_images):
    assert len(synth_tables(tmp_path / "set", n_images).images) == n_images


def test_bad_arguments_write_nothing(tmp_path):
    with pytest.raises(InputError, match="n_images=0"):
        synth_tables(tmp_path / "set", 0)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="not empty"):
        synth_tables(tmp_path, 5)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
