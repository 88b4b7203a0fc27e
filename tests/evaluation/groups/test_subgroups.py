"""Groups of images that a user names."""

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.groups.subgroups import image_groups


def test_a_subgroup_that_is_not_there_is_refused():
    images = pd.DataFrame({"image_id": list("ab"), "sex": ["F", "M"], "x_many": ["1", "2"]})
    assert set(image_groups(images)) == {"sex"}
    with pytest.raises(InputError, match="'ward'"):
        image_groups(images, ["ward"])
    many = pd.DataFrame({"x_many": [str(n) for n in range(30)]})
    with pytest.raises(InputError, match=r"x_many.*\b30\b"):
        image_groups(many, ["x_many"])


def test_two_columns_name_groups_together():
    images = pd.DataFrame({"sex": ["F", "M", "F", None], "view": ["AP", "AP", "PA", "PA"]})
    assert image_groups(images, ["sex*view"])["sex*view"].tolist() == [
        "F, AP",
        "M, AP",
        "F, PA",
        "",
    ]
    with pytest.raises(InputError, match="'ward'"):
        image_groups(images, ["sex*ward"])
    with pytest.raises(InputError, match=r"'sex\*view\*sex'"):
        image_groups(images, ["sex*view*sex"])
