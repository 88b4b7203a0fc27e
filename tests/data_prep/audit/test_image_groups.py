"""Groups of equal images."""

import pandas as pd

from cxr_compare.data_prep.audit.image_groups import find_duplicates


def test_missing_digests_are_no_duplicates():
    images = pd.DataFrame({"image_id": ["a", "b"], "pixel_sha256": [None, None]})
    assert find_duplicates(images).empty
