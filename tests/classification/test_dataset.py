"""Labels stay with their image, and unknown stays unknown."""

import numpy as np
import pytest

from cxr_compare.classification.dataset import ImageLabelDataset, collate
from cxr_compare.data_prep.contracts.errors import InputError


def test_labels_follow_the_order_of_images_and_findings(store, labels):
    dataset = ImageLabelDataset(store, ["high", "unknown", "wide"], labels, ("nodule", "opacity"))
    targets = np.stack([dataset[row].targets for row in range(3)])
    expected = [[1.0, 1.0], [np.nan, np.nan], [np.nan, 0.0]]
    np.testing.assert_array_equal(targets, expected)


def test_a_batch_owns_its_memory(store, labels):
    dataset = ImageLabelDataset(store, store.ids, labels, ("opacity",))
    before = store.image("square").copy()
    batch = collate([dataset[0], dataset[1]])
    assert batch.images.shape == (2, 1, 64, 64)
    assert batch.targets.shape == (2, 1)
    batch.images.zero_()
    assert np.array_equal(store.image("square"), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"opacity": "mass"}), "'opacity'.* mass, nodule"),
        (lambda f: f.assign(opacity=2.0), "image 'square' .*opacity=2\\b"),
    ],
)
def test_bad_labels_are_refused(store, labels, change, message):
    with pytest.raises(InputError, match=message):
        ImageLabelDataset(store, store.ids, change(labels), ("opacity",))


def test_an_image_that_the_store_lacks_is_named(store, labels):
    with pytest.raises(InputError, match="image 'other'"):
        ImageLabelDataset(store, ["other"], labels, ("opacity",))


def test_augmentation_needs_a_seed_and_repeats_with_it(store, labels):
    from cxr_compare.data_prep.augment.augment import build_augmentation

    augmentation = build_augmentation(rotate_degrees=10, brightness=0.2)
    dataset = ImageLabelDataset(store, store.ids, labels, ("opacity",), augmentation)
    assert np.array_equal(dataset[0, 1].pixels, dataset[0, 1].pixels)
    assert not np.array_equal(dataset[0, 1].pixels, dataset[0, 2].pixels)
    assert np.array_equal(dataset[0].pixels, store.image("square"))
