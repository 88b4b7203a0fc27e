"""Hard negatives: shares are kept, epochs decide, and a checkpoint holds all that is needed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from training.sampling import HardNegatives, balancing_weights

IDS = pd.Index([f"i{n:02d}" for n in range(20)])
NEGATIVE = np.arange(20) >= 10  # ten of each


def hard(share: float = 0.5) -> HardNegatives:
    return HardNegatives(IDS, NEGATIVE, balancing_weights(~NEGATIVE, 0.4), share)


def test_the_most_mistaken_fifth_gets_its_share_and_positives_keep_theirs() -> None:
    known = hard(share=0.25)
    known.see(list(IDS[10:]), torch.linspace(0.0, 0.9, 10))
    known.settle()
    weights = known.weights()
    assert weights.sum() == pytest.approx(1.0)
    assert weights[:10].sum() == pytest.approx(0.4)
    n_hard = round(0.2 * 10)
    assert weights[-n_hard:].sum() == pytest.approx(0.6 * (0.25 + 0.75 * n_hard / 10))
    assert len(set(weights[10 : 20 - n_hard].round(12))) == 1


def test_nothing_changes_before_an_epoch_has_ended() -> None:
    known = hard()
    before = known.weights()
    known.see(["i15"], torch.tensor([0.9]))
    np.testing.assert_array_equal(known.weights(), before)
    known.settle()
    assert known.weights().argmax() == 15


def test_of_several_draws_the_worst_counts_and_a_newer_epoch_replaces_it() -> None:
    known = hard()
    known.see(["i12", "i13", "i12"], torch.tensor([0.9, 0.5, 0.1]))
    known.settle()
    assert known.weights().argmax() == 12
    known.see(["i12"], torch.tensor([0.2]))
    known.settle()
    assert known.weights().argmax() == 13, "which was not drawn again and keeps its score"


def test_a_score_that_is_not_finite_is_left_aside() -> None:
    known = hard()
    known.see(["i12"], torch.tensor([float("nan")]))
    known.settle()
    np.testing.assert_array_equal(known.weights(), hard().weights())


def test_a_resumed_training_draws_what_it_would_have_drawn() -> None:
    known, resumed = hard(), hard()
    known.see(list(IDS[10:]), torch.rand(10, generator=torch.Generator().manual_seed(0)))
    known.settle()
    resumed.load_state_dict(known.state_dict())
    np.testing.assert_array_equal(resumed.weights(), known.weights())
