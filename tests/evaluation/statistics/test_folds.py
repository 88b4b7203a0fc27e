"""Folds of patients for cross-validation."""

import numpy as np

from cxr_compare.evaluation.statistics.folds import patient_folds


def test_a_patient_has_one_fold_and_keeps_it():
    few, many = patient_folds(np.array(["p", "q"])), patient_folds(np.array(["q", "x", "p", "q"]))
    assert (few[0], few[1]) == (many[2], many[0])
    counts = np.bincount(patient_folds(np.array([f"p{n}" for n in range(5000)])))
    assert counts.min() > 900
