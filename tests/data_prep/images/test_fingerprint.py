"""The fingerprint survives what copies go through, and tells different images apart."""

from itertools import combinations

import cv2
import numpy as np
import pytest
from cxr_compare.data_prep.duplicates.fingerprint_pairs import turned_distances
from cxr_compare.data_prep.duplicates.near_duplicates import turn_image

from cxr_compare.data_prep.images.fingerprint import TURNS, perceptual_hash
from cxr_compare.data_prep.images.image import read_image

N_IMAGES = 25


@pytest.fixture(scope="module")
def images(shared_data) -> list[np.ndarray]:
    paths = sorted((shared_data / "rsna" / "stage_2_train_images").glob("*.dcm"))
    return [read_image(path).pixels for path in paths[:: len(paths) // N_IMAGES][:N_IMAGES]]


def stretched(pixels: np.ndarray) -> np.ndarray:
    low, high = np.percentile(pixels, (1, 99))
    return np.clip((pixels - low) * 255.0 / (high - low), 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


COPIES = {
    "stretched": stretched,
    "gamma": lambda pixels: (255 * (pixels / 255.0) ** 0.6).astype(np.uint8),
    "equalised": cv2.equalizeHist,
    "jpeg": lambda pixels: jpeg(pixels, 50),
    "224 px": lambda pixels: resized(pixels, 224, 224),
    "squashed": lambda pixels: resized(pixels, 224, 300),
    "all at once": lambda pixels: jpeg(resized(stretched(pixels), 224, 224), 75),
}


def hash_distance(one: str, other: str) -> tuple[int, str]:
    """Bits by which two fingerprints differ, and in which turn."""
    first, second = (np.frombuffer(bytes.fromhex(text), np.uint64) for text in (one, other))
    distance, turn = turned_distances((first ^ second)[None])
    return int(distance[0]), list(TURNS)[turn[0]]


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_of_a_real_image_stays_close(images, change):
    distances = [
        hash_distance(perceptual_hash(pixels), perceptual_hash(COPIES[change](pixels)))
        for pixels in images
    ]
    assert {turn for _, turn in distances} == {"as it is"}
    assert max(distance for distance, _ in distances) <= 20
    assert np.median([distance for distance, _ in distances]) <= 10


def test_different_images_are_far_apart(images):
    hashes = [perceptual_hash(pixels) for pixels in images]
    assert min(hash_distance(a, b)[0] for a, b in combinations(hashes, 2)) > 42


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_copy_is_known_with_its_turn(images, turn):
    for pixels in images[:5]:
        distance, found = hash_distance(
            perceptual_hash(pixels), perceptual_hash(turn_image(pixels, turn))
        )
        assert (found, distance <= 4) == (turn, True)


def test_an_image_of_one_grey_has_no_fingerprint():
    assert perceptual_hash(np.full((100, 80), 128, np.uint8)) is None
    assert perceptual_hash(np.full((100, 80), 128, np.uint8)) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (63, 65), (3000, 10)])
def test_odd_shapes_have_fingerprints_of_64_digits(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = perceptual_hash(pixels)
    assert found is None if pixels.size == 1 else len(found) == 64
