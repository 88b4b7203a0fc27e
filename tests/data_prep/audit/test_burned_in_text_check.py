"""Burned-in text as a problem of the audit."""

import pandas as pd

from cxr_compare.data_prep.audit.burned_in_text import check_burned_in_text


def test_burned_in_text_is_flagged_by_the_header_or_by_the_pixels():
    decode = pd.DataFrame(
        {"image_id": list("abcd"), "burned_in_annotation": ["yes", "no", None, None]}
    )
    lines = pd.DataFrame({"image_id": ["c"], "x1": 1.0, "y1": 2.0, "x2": 30.0, "y2": 9.0})
    (problem,) = check_burned_in_text(decode, lines)
    assert problem.images == (("c",), ("a",))
    (stated,) = check_burned_in_text(decode)
    assert stated.examples == ("a",)
    (none,) = check_burned_in_text(decode[["image_id"]])
    assert none.count == 0
