"""A batch's scores and maps keep their image, finding and place."""

import numpy as np
import pandas as pd

from classification.frames import scores_frames
from data_prep.contracts.tables import _validate_table

FINDINGS = ("opacity", "nodule")
IDS = ["a", "b", "c"]
FRAMES = [(0.0, 1.0, 64.0, 65.0), (2.0, 3.0, 4.0, 5.0), (-1.0, -2.0, 9.0, 8.0)]


def test_a_batch_is_its_images_one_by_one_to_the_last_bit():
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=(3, 2)).astype(np.float32)
    maps = rng.normal(size=(3, 2, 2, 5)).astype(np.float32)
    maps[1, 0, 1, 4] = np.nan
    score_rows, map_rows = [], []
    for image in (0, 2):
        for k, finding in enumerate(FINDINGS):
            key = (IDS[image], finding)
            score_rows.append((*key, float(scores[image, k])))
            map_rows.append((*key, "cam", 2, 5, maps[image, k].ravel(), *FRAMES[image]))
    found = scores_frames(IDS, scores, maps, "cam", FINDINGS, FRAMES)
    assert found.images["status"].tolist() == ["ok", "failed", "ok"]
    for table, rows in ((found.scores, score_rows), (found.maps, map_rows)):
        expected = pd.DataFrame(rows, columns=table.columns)
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
    assert found.maps["values"][0].dtype == np.float32
    _validate_table(found.maps, "maps")


def test_a_batch_in_which_all_fails_gives_empty_tables():
    scores, maps = np.full((3, 2), np.nan), np.zeros((3, 2, 2, 2))
    found = scores_frames(IDS, scores, maps, "cam", FINDINGS, FRAMES)
    assert set(found.images["status"]) == {"failed"}
    assert len(found.scores) == len(found.maps) == 0
    assert found.maps["grid_h"].dtype == np.int64
