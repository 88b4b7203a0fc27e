"""Pairs of close fingerprints."""

import numpy as np
import pytest
from cxr_compare.data_prep.duplicates.fingerprint_pairs import (
    CERTAIN_DISTANCE,
    close_pairs,
    inverted_words,
)


def random_hashes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8)


def flipped_bits(one: np.ndarray, places: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(one)
    bits[places] ^= 1
    return np.packbits(bits)


def test_every_pair_within_the_certain_distance_is_found_in_every_turn():
    rng = np.random.default_rng(5)
    hashes = random_hashes(2000)
    for row in range(1000):  # each of the first thousand has a turned and damaged copy
        damaged = flipped_bits(hashes[row], rng.choice(256, CERTAIN_DISTANCE, replace=False))
        words = np.unpackbits(damaged).reshape(4, 64) ^ inverted_words()[row % 8][:, None]
        hashes[1000 + row] = np.packbits(words.ravel())
    found = close_pairs(hashes, 40)
    assert found.first.tolist() == list(range(1000))
    assert found.second.tolist() == list(range(1000, 2000))
    assert set(found.distance.tolist()) == {CERTAIN_DISTANCE}
    assert found.turn.tolist() == [row % 8 for row in range(1000)]
    assert found.complete


def test_the_worst_place_for_damage_is_covered_too():
    """Two wrong bits in each band but one, which has one: the pigeonhole's last hole."""
    hashes = random_hashes(2, seed=9)
    seen = flipped_bits(
        hashes[0], np.array([0, 64, *(band for b in range(1, 8) for band in (b, 64 + b))][1:])
    )
    hashes[1] = seen
    assert close_pairs(hashes, 40).distance.tolist() == [CERTAIN_DISTANCE]


def test_pairs_beyond_the_distance_asked_are_left_out():
    hashes = random_hashes(2, seed=9)
    hashes[1] = flipped_bits(hashes[0], np.arange(12))
    assert close_pairs(hashes, 11).first.size == 0
    assert close_pairs(hashes, 12).first.size == 1


def test_a_search_of_very_many_similar_fingerprints_is_cut_short_and_says_so(monkeypatch):
    monkeypatch.setattr("cxr_compare.data_prep.duplicates.fingerprint_pairs._PAIRS_AT_LEAST", 100)
    hashes = np.repeat(random_hashes(1), 200, axis=0)
    hashes[:, 31] = np.arange(200)
    assert not close_pairs(hashes, 40).complete


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_has_no_pairs(n):
    assert close_pairs(random_hashes(n), 40).first.size == 0
