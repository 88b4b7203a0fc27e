"""A batch's scores and maps keep their image, finding and place."""

import numpy as np

from classification.frames import scores_frames

FINDINGS = ("opacity", "nodule")
IDS = ["a", "b", "c"]
FRAMES = [(0.0, 1.0, 64.0, 65.0), (2.0, 3.0, 4.0, 5.0), (-1.0, -2.0, 9.0, 8.0)]


def test_a_batch_in_which_all_fails_gives_empty_tables():
    scores, maps = np.full((3, 2), np.nan), np.zeros((3, 2, 2, 2))
    found = scores_frames(IDS, scores, maps, "cam", FINDINGS, FRAMES)
    assert set(found.images["status"]) == {"failed"}
    assert len(found.scores) == len(found.maps) == 0
    assert found.maps["grid_h"].dtype == np.int64
