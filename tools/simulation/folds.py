"""Equal ways of training over five folds, as `cxr folds` evaluates them: wrong claims, coverage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from cxr_compare.evaluation.report.folds import summarise_folds
from cxr_compare.evaluation.statistics.holm import holm
from tools.simulation.claims import Found, Question, sample_auroc
from tools.simulation.draw import Floats, Sample

_FOLDS = 5
_LEARNERS = 9
_SIGNAL = 2.2  # spread of the true log-odds
_BASE = -1.3  # mean of the true log-odds


def _auroc(truth: np.ndarray, scores: Floats) -> float:
    return sample_auroc(Sample(truth, scores[None], np.arange(len(truth))))


def _patients(rng: np.random.Generator, count: int, features: int) -> tuple[Floats, np.ndarray]:
    """Draw features of patients, all of equal weight, and who is ill: about 30 %."""
    table = rng.standard_normal((count, features))
    odds = _BASE + _SIGNAL / np.sqrt(features) * table.sum(axis=1)
    return table, rng.random(count) < expit(odds)


def _learned(
    rng: np.random.Generator, table: Floats, ill: np.ndarray, learner: int, noisy: bool
) -> Callable[[Floats], Floats]:
    """Fit a ridge regression that sees one half of the features, chosen by `learner`.

    All features have the same distribution, so that the learners are equally good; the first two
    share no feature. If `noisy` is True, each learner fits to a random seven tenths of the
    patients.
    """
    shuffled = np.random.default_rng(learner // 2).permutation(table.shape[1])
    seen = shuffled.reshape(2, -1)[learner % 2]
    rows = rng.permutation(len(ill))[: round(0.7 * len(ill))] if noisy else slice(None)
    model = LogisticRegression(solver="newton-cholesky").fit(table[rows][:, seen], ill[rows])
    return lambda other: np.asarray(model.decision_function(other[:, seen]))


def _measure(patients: int, features: int, *, noisy: bool) -> Callable[..., Found]:
    """Return a simulation of nine equal learners over five folds of a data set."""
    rng = np.random.default_rng([patients, features, noisy])
    features *= 2
    pairs = list(combinations(range(_LEARNERS), 2))
    seen = []
    for _ in range(400):
        table, ill = _patients(rng, patients * (_FOLDS - 1) // _FOLDS, features)
        test, ill_test = _patients(rng, 20_000, features)
        seen.append(_auroc(ill_test, _learned(rng, table, ill, 0, noisy)(test)))
    truth = float(np.mean(seen))

    def measure(rng: np.random.Generator) -> Found:
        table, ill = _patients(rng, patients, features)
        order = rng.permutation(patients)
        order = order[np.argsort(ill[order], kind="stable")]  # dealt out class by class
        fold_of = np.empty(patients, dtype=int)
        fold_of[order] = np.arange(patients) % _FOLDS
        rows = []
        for fold in range(_FOLDS):
            test = fold_of == fold
            found = [
                _auroc(ill[test], _learned(rng, table[~test], ill[~test], at, noisy)(table[test]))
                for at in range(_LEARNERS)
            ]
            values = {("A", ""): found[0]}
            values |= {(f"{a}", f"{b}"): found[a] - found[b] for a, b in pairs}
            rows += [
                {"first": first, "second": second, "fold": fold, "estimate": value}
                for (first, second), value in values.items()
            ]
        frame = pd.DataFrame(rows).assign(
            target="t", unit="image", subgroup="all", policy="", metric="auroc"
        )
        folds = summarise_folds(frame).set_index(["first", "second"])
        gap, own = folds.xs(("0", "1")), folds.xs(("A", ""))
        adjusted = holm([*folds.loc[[(f"{a}", f"{b}") for a, b in pairs], "p"]])
        return {
            "folds differ": float(gap["ci_low"] > 0 or gap["ci_high"] < 0),
            "any of 36 folds": float(any(p < 0.05 for p in adjusted if p is not None)),
            "misses folds": float(not own["ci_low"] <= truth <= own["ci_high"]),
        }

    return measure


DESIGNS = {
    f"folds, {patients} patients, {features} features" + (", noisy training" if noisy else ""): (
        partial(_measure, patients, features, noisy=noisy)
    )
    for patients, features, noisy in (
        (645, 30, False),
        (645, 30, True),
        (200, 30, False),
        (200, 10, False),
        (2000, 30, False),
    )
}
QUESTIONS = {
    "folds differ": Question("one of two equal ways of training is higher over folds", "at most 5"),
    "any of 36 folds": Question("any of 36 pairs of equal ways of training (Holm)", "at most 5"),
    "misses folds": Question("interval over folds misses the AUROC of the way of training", "5"),
}
