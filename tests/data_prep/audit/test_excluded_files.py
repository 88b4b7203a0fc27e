"""Files that were left out."""

import pandas as pd

from cxr_compare.data_prep.audit.excluded_files import check_excluded


def test_a_thousand_reasons_for_leaving_out_stay_a_short_list():
    reasons = [f"cannot be read (code {n})" for n in range(1000)] + ["not an image"] * 7
    paths = [f"{n}.dcm" for n in range(1007)]
    excluded = pd.DataFrame({"path": paths, "stage": "decode", "reason": reasons})
    problems = check_excluded(excluded)
    assert len(problems) == 21
    assert sum(p.count for p in problems) == 1007
    assert any(p.count == 7 for p in problems)
    assert [p for p in check_excluded(excluded.iloc[:0]) if p.count] == []


def test_equal_reasons_of_label_files_are_one_problem_whatever_their_line():
    reasons = [f"label file, line {n % 3}: box of zero size" for n in range(12)]
    excluded = pd.DataFrame({"path": list("abcdefghijkl"), "stage": "labels", "reason": reasons})
    assert [problem.count for problem in check_excluded(excluded) if problem.count] == [12]
