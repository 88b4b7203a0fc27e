"""Exchanges of whole patients between two groups of images."""

import numpy as np

from cxr_compare.evaluation.statistics.patient_exchange import ExchangedPatients


def test_exchanged_patients_leave_both_groups_the_images_of_each_class_that_they_have():
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(60), rng.integers(1, 3, 60))
    truth = rng.random(len(patients)) < 0.4
    inside = patients < 12
    both = patients >= 50  # with three images, one of them inside
    patients = np.r_[patients[~both], np.repeat(np.arange(50, 60), 3)]
    truth = np.r_[truth[~both], np.tile([True, True, False], 10)]
    inside = np.r_[inside[~both], np.tile([True, False, False], 10)]
    both = patients >= 50
    drawn = ExchangedPatients(inside, truth, patients).draw(200, rng)
    for images in (truth, ~truth, both & truth, both & ~truth):
        assert (drawn[:, images].sum(axis=1) == inside[images].sum()).all()
    assert (drawn != inside).any(axis=0)[~both].mean() > 0.9
    whole = [patients == patient for patient in range(50)]
    assert all((drawn[:, images] == drawn[:, images][:, :1]).all() for images in whole)
