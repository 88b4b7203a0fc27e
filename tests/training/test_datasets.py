"""Boxes and labels stay with their pixels, from the original through augmentation to a batch."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.training.augment import build_augmentation
from cxr_compare.training.datasets import (
    ImageLabelDataset,
    LesionDataset,
    collate_labels,
    collate_lesions,
)
from tests.memory_store import BOXES, LABELLED_ORIGINALS, LABELS, ORIGINALS, MemoryStore

SIZE = 64


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(ORIGINALS, SIZE, brightness=80, boxes=BOXES)


@pytest.fixture
def boxes() -> pd.DataFrame:
    return BOXES.copy()


@pytest.fixture
def originals() -> pd.DataFrame:
    rows = [(image_id, width, height) for image_id, (height, width) in ORIGINALS.items()]
    return pd.DataFrame(rows, columns=["image_id", "width", "height"])


@pytest.fixture
def labelled_store() -> MemoryStore:
    return MemoryStore(LABELLED_ORIGINALS, SIZE)


@pytest.fixture
def labels() -> pd.DataFrame:
    return LABELS.copy()


def test_boxes_return_to_the_original_within_a_thousandth_of_a_pixel(store, boxes, originals):
    dataset = LesionDataset(store, store.ids, boxes, ("opacity",))
    sizes = originals.set_index("image_id")
    for row, image_id in enumerate(store.ids):
        truth = boxes.loc[boxes["image_id"] == image_id, ["x1", "y1", "x2", "y2"]].to_numpy()
        width, height = sizes.loc[image_id]
        back = store.placement(image_id).to_original(dataset[row].boxes, width, height)
        np.testing.assert_allclose(back, truth, atol=1e-3)


def test_a_box_lies_on_its_bright_patch_in_the_store(store, boxes):
    dataset = LesionDataset(store, store.ids, boxes, ("opacity",))
    for sample in (dataset[row] for row in range(len(dataset))):
        for x1, y1, x2, y2 in sample.boxes.round().astype(int):
            assert sample.pixels[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min() > 120


def test_rows_come_in_the_order_of_the_ids_whatever_the_order_of_the_boxes(store, boxes):
    ids = ["high", "empty", "square"]
    shuffled = boxes.sample(frac=1.0, random_state=0)
    dataset = LesionDataset(store, ids, shuffled, ("opacity",))
    assert [dataset[row].image_id for row in range(3)] == ids
    assert [len(dataset[row].boxes) for row in range(3)] == [1, 0, 2]


def test_labels_count_findings_from_one(store, boxes):
    boxes.loc[boxes["image_id"] == "wide", "finding"] = "nodule"
    dataset = LesionDataset(store, store.ids, boxes, ("opacity", "nodule"))
    assert [dataset[row].labels.tolist() for row in range(4)] == [[1, 1], [2], [1], []]


@pytest.mark.parametrize("cut", [lambda t: t[:0].astype(object), lambda t: t])
def test_images_without_boxes_are_negatives_with_the_right_shapes(store, boxes, cut):
    dataset = LesionDataset(store, ["empty"], cut(boxes), ("opacity",))
    batch = collate_lesions([dataset[0], dataset[0]])
    assert batch.images.shape == (2, 1, 64, 64)
    assert [tuple(b.shape) for b in batch.boxes] == [(0, 4), (0, 4)]
    assert [tuple(label.shape) for label in batch.labels] == [(0,), (0,)]


def test_an_image_that_the_store_lacks_is_named(store, boxes):
    with pytest.raises(InputError, match="image 'unknown' \\(1 of 2"):
        LesionDataset(store, ["square", "unknown"], boxes, ("opacity",))


def test_no_sample_shares_memory_with_the_store(store, boxes):
    dataset = LesionDataset(store, store.ids, boxes, ("opacity",))
    before = store.image("square").copy()
    batch = collate_lesions([dataset[0]])
    batch.images.zero_()
    batch.boxes[0].zero_()
    assert np.array_equal(store.image("square"), before)
    assert dataset[0].boxes.sum() > 0


def test_the_same_seed_gives_the_same_image_and_no_seed_the_plain_one(store, boxes):
    augmentation = build_augmentation(rotate_degrees=10, scale=0.1, brightness=0.2)
    dataset = LesionDataset(store, store.ids, boxes, ("opacity",), augmentation)
    first, again, other, plain = dataset[0, 1], dataset[0, 1], dataset[0, 2], dataset[0]
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.pixels, other.pixels)
    assert np.array_equal(plain.pixels, store.image("square"))


def test_a_flip_carries_boxes_and_labels_with_the_pixels(store, boxes):
    boxes.loc[1, "finding"] = "nodule"
    flip = build_augmentation(horizontal_flip=1.0)
    dataset = LesionDataset(store, store.ids, boxes, ("opacity", "nodule"), flip)
    plain, flipped = dataset[0], dataset[0, 7]
    assert np.array_equal(flipped.pixels, plain.pixels[:, ::-1])
    mirrored = plain.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [64, 0, 64, 0]
    np.testing.assert_allclose(flipped.boxes, mirrored, atol=1e-3)
    assert flipped.labels.tolist() == [1, 2]


def test_a_mosaic_depends_on_its_seed_alone_and_keeps_boxes_on_their_patches(store, boxes):
    boxes.loc[1, "finding"] = "nodule"
    findings = ("opacity", "nodule")
    dataset = LesionDataset(store, store.ids, boxes, findings, mosaic=1.0)
    again = LesionDataset(store, store.ids, boxes, findings, mosaic=1.0)
    n_boxes = 0
    for seed in range(20):
        one, two = dataset[2, seed], again[2, seed]
        np.testing.assert_array_equal(one.pixels, two.pixels)
        np.testing.assert_array_equal(one.boxes, two.boxes)
        assert one.image_id == "high"
        assert len(one.labels) == len(one.boxes) == one.dropped.n_boxes - one.dropped.total
        for x1, y1, x2, y2 in one.boxes.round().astype(int):
            assert one.pixels[y1 : y2 + 1, x1 : x2 + 1].max() > 120
        n_boxes += len(one.boxes)
    assert n_boxes > 20
    assert np.array_equal(dataset[2].pixels, store.image("high")), "without a seed: the plain one"


def test_mosaic_has_the_requested_frequency(store, boxes):
    dataset = LesionDataset(store, store.ids, boxes, ("opacity",), mosaic=0.3)
    plain = store.image("square")
    share = np.mean([not np.array_equal(dataset[0, seed].pixels, plain) for seed in range(300)])
    assert share == pytest.approx(0.3, abs=0.08)


def test_a_batch_counts_the_boxes_that_augmentation_dropped(store, boxes):
    far = build_augmentation(shift=0.6)
    dataset = LesionDataset(store, store.ids, boxes, ("opacity",), far)
    batch = collate_lesions([dataset[row, seed] for row in range(4) for seed in range(10)])
    left = sum(len(image) for image in batch.boxes)
    assert batch.dropped.n_boxes == 10 * len(boxes)
    assert 0 < batch.dropped.total == batch.dropped.n_boxes - left
    assert batch.to("cpu").dropped == batch.dropped
    assert collate_lesions([dataset[row] for row in range(4)]).dropped.total == 0


def test_labels_follow_the_order_of_images_and_findings(labelled_store, labels):
    dataset = ImageLabelDataset(
        labelled_store, ["high", "unknown", "wide"], labels, ("nodule", "opacity")
    )
    targets = np.stack([dataset[row].targets for row in range(3)])
    expected = [[1.0, 1.0], [np.nan, np.nan], [np.nan, 0.0]]
    np.testing.assert_array_equal(targets, expected)


def test_a_batch_owns_its_memory(labelled_store, labels):
    dataset = ImageLabelDataset(labelled_store, labelled_store.ids, labels, ("opacity",))
    before = labelled_store.image("square").copy()
    batch = collate_labels([dataset[0], dataset[1]])
    assert batch.images.shape == (2, 1, 64, 64)
    assert batch.targets.shape == (2, 1)
    batch.images.zero_()
    assert np.array_equal(labelled_store.image("square"), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"opacity": "mass"}), "'opacity'.* mass, nodule"),
        (lambda f: f.assign(opacity=2.0), "image 'square' .*opacity=2\\b"),
    ],
)
def test_bad_labels_are_refused(labelled_store, labels, change, message):
    with pytest.raises(InputError, match=message):
        ImageLabelDataset(labelled_store, labelled_store.ids, change(labels), ("opacity",))


def test_a_labelled_image_that_the_store_lacks_is_named(labelled_store, labels):
    with pytest.raises(InputError, match="image 'other'"):
        ImageLabelDataset(labelled_store, ["other"], labels, ("opacity",))


def test_augmentation_needs_a_seed_and_repeats_with_it(labelled_store, labels):
    augmentation = build_augmentation(rotate_degrees=10, brightness=0.2)
    dataset = ImageLabelDataset(
        labelled_store, labelled_store.ids, labels, ("opacity",), augmentation
    )
    assert np.array_equal(dataset[0, 1].pixels, dataset[0, 1].pixels)
    assert not np.array_equal(dataset[0, 1].pixels, dataset[0, 2].pixels)
    assert np.array_equal(dataset[0].pixels, labelled_store.image("square"))
