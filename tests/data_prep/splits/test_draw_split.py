"""Splits that are drawn for a data set."""

from dataclasses import asdict

import numpy as np
import pandas as pd
from cxr_compare.data_prep.duplicates.near_duplicates import find_near_duplicates
from cxr_compare.data_prep.sources.source_tables import empty_roles
from cxr_compare.data_prep.splits.split import SplitRule
from cxr_compare.data_prep.splits.stored_splits import draw_split, image_links
from cxr_compare.data_prep.store.dataset_info import DrawnBy

from tests.data_prep.splits.small_data_set import make_set


def test_the_split_says_how_it_was_drawn_and_needs_no_decoded_image(tmp_path):
    tables = make_set(tmp_path)
    rule = SplitRule(val=0.25, test=0.25, seed=4)
    split, how = draw_split(tables.images, tables.findings, empty_roles(), rule)
    assert how.rule == DrawnBy(**asdict(rule))
    assert how.balanced == ("class", "view", "present: edema", "present: mass")
    assert split["role"].value_counts().to_dict() == {"train": 60, "val": 30, "test": 30}


def test_roles_of_the_source_are_followed_and_unused_images_stay_unused(tmp_path):
    tables = make_set(tmp_path)
    ids = tables.images["image_id"]
    unused = pd.DataFrame({"image_id": ids[:10], "role": "unused"})
    split, _ = draw_split(tables.images, tables.findings, unused, SplitRule())
    assert set(split["role"][:10]) == {"unused"}
    assert set(split["role"][10:]) == {"train", "val", "test"}
    given = pd.DataFrame({"image_id": ids, "role": ["train"] * 80 + ["test"] * 40})
    split, how = draw_split(tables.images, tables.findings, given, SplitRule())
    assert set(split["role"][80:]) == {"test"}
    assert set(split["role"][:80]) == {"train", "val"}
    assert how.n_images_unused == 0


def test_equal_images_and_near_ones_are_linked():
    rng = np.random.default_rng(3)
    hashes = [rng.bytes(32) for _ in range(4)]
    near = bytes([hashes[0][0] ^ 3, *hashes[0][1:]])  # two bits of 256 differ
    decode = pd.DataFrame(
        {
            "image_id": list("abcde"),
            "pixel_sha256": ["1", "2", "2", "3", "4"],
            "perceptual_hash": [
                h.hex() for h in (hashes[0], hashes[1], hashes[1], near, hashes[3])
            ],
        }
    )
    links = image_links(decode, find_near_duplicates(decode))
    assert links is not None
    assert (links["a"] == links["d"], links["b"] == links["c"]) == (True, True)
    assert links.nunique() == 3
    old = decode.drop(columns="perceptual_hash")
    plain = image_links(old, find_near_duplicates(old))
    assert plain is not None
    assert plain.nunique() == 4
