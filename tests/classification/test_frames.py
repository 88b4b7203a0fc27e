"""A batch of which nothing is left keeps its tables, and their types."""

import numpy as np

from cxr_compare.classification.frames import scores_frames

FINDINGS = ("opacity", "nodule")
IDS = ["a", "b", "c"]
FRAMES = [(0.0, 1.0, 64.0, 65.0), (2.0, 3.0, 4.0, 5.0), (-1.0, -2.0, 9.0, 8.0)]


def test_an_image_fails_by_its_score_or_its_map_and_nothing_left_gives_empty_tables():
    scores, maps = np.full((3, 2), 0.5), np.zeros((3, 2, 2, 2))
    scores[::2] = maps[1, 0, 1, 1] = np.nan
    frames = scores_frames(IDS, scores, maps, "cam", FINDINGS, FRAMES)
    assert set(frames.images["status"]) == {"failed"}
    assert [len(table) for table in frames.tables.values()] == [0, 0]
    assert frames.tables["maps"]["grid_h"].dtype == np.int64
