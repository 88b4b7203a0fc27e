"""Names of views."""

import pandas as pd

from cxr_compare.data_prep.formats.views import normal_views


def test_views_get_one_of_four_names():
    views = normal_views(pd.Series(["pa", " AP ", "Lateral", "oblique", "", None]))
    assert views.tolist()[:4] == ["PA", "AP", "LL", "other"]
    assert views.isna().tolist() == [False] * 4 + [True] * 2
