"""Draws depend on the seed and the epoch alone, and processes share them without overlap."""

import numpy as np
import pytest

from cxr_compare.training.sampling import SeededSampler, balancing_weights


def _epoch(sampler: SeededSampler, epoch: int) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_epoch_repeats_exactly_whatever_was_drawn_before():
    first, second = SeededSampler(50, seed=7), SeededSampler(50, seed=7)
    for epoch in range(3):
        _epoch(first, epoch)
    assert _epoch(first, 3) == _epoch(second, 3)


def test_epochs_and_seeds_differ_in_order_and_in_augmentation():
    sampler = SeededSampler(50, seed=7)
    rows, seeds = zip(*_epoch(sampler, 0), strict=True)
    rows_next, seeds_next = zip(*_epoch(sampler, 1), strict=True)
    assert sorted(rows) == sorted(rows_next) == list(range(50))
    assert rows != rows_next
    assert not set(seeds) & set(seeds_next)
    assert _epoch(sampler, 0) != _epoch(SeededSampler(50, seed=8), 0)


def test_a_row_drawn_twice_is_augmented_differently():
    weights = np.array([1.0, 0.0, 0.0, 0.0])
    pairs = list(SeededSampler(4, seed=0, weights=weights))
    assert {row for row, _ in pairs} == {0}
    assert len({seed for _, seed in pairs}) == 4


def _batches(sampler: SeededSampler, size: int) -> list[list[tuple[int, int]]]:
    pairs = _epoch(sampler, 2)
    assert len(pairs) == len(sampler)
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


@pytest.mark.parametrize("n_rows", [24, 25, 26, 27, 29, 11, 2])
@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_processes_share_the_batches_of_one_process_and_draw_nothing_twice(n_rows, world_size):
    size = 6
    whole = _batches(SeededSampler(n_rows, seed=1), size)
    shares = []
    for rank in range(world_size):
        sampler = SeededSampler(
            n_rows, seed=1, rank=rank, world_size=world_size, share=size // world_size
        )
        shares_of_batch = _batches(sampler, size // world_size)
        if sampler.ends_with_spare():
            assert shares_of_batch.pop() == [whole[-1][-1]]  # of the batch, and counts for nothing
            shares_of_batch.append([])
        shares.append(shares_of_batch)
    assert {len(shares_of_batch) for shares_of_batch in shares} == {
        len(whole)
    }  # all take each step
    together = [
        sorted(pair for share in batch for pair in share) for batch in zip(*shares, strict=True)
    ]
    assert together == [sorted(batch) for batch in whole]


def test_balancing_draws_the_wanted_share_of_positives():
    positive = np.arange(2000) < 200
    sampler = SeededSampler(2000, seed=0, weights=balancing_weights(positive, 0.5))
    share = np.mean([positive[row] for row, _ in sampler])
    assert share == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_balancing_one_kind_alone_draws_all_alike(positive):
    assert balancing_weights(np.array(positive), 0.5).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "Expected 2 weights but got shape"),
        ([0.0, 0.0], "one above 0"),
        ([-1.0, 2.0], "at least 0"),
        ([np.nan, 1.0], "finite"),
    ],
)
def test_weights_that_do_not_fit_and_no_rows_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        SeededSampler(2, seed=0, weights=np.array(weights))
    with pytest.raises(ValueError, match="at least one row"):
        SeededSampler(0, seed=0)


def test_draws_of_a_configuration_and_seed_stay_what_they_were():
    # Runs of before must be repeatable: these figures may not change.
    weighted = SeededSampler(6, seed=3, weights=balancing_weights(np.arange(6) < 2, 0.5))
    assert next(iter(weighted)) == (0, 4418468347491149041)
    assert [row for row, _ in _epoch(weighted, 1)] == [1, 1, 1, 1, 2, 5]
    plain = list(SeededSampler(4, seed=3))
    assert [row for row, _ in plain] == [3, 2, 1, 0]
    assert plain[0][1] == 7390452496230446619
