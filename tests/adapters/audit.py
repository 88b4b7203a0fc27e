"""Findings of the audit of a data set, as plain values."""

import cxr_compare


def problems(data):
    """Return the ids of images and patients by the check that found them, and if none is an error.

    ``data`` is a data set or its folder.
    """
    audit = cxr_compare.check(data)
    found = {}
    for problem in audit.problems:
        found.setdefault(problem.check, set()).update(problem.images)
    return found, audit.passed
