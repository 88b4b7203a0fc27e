"""Tables of the scores and maps of a batch. No torch is needed, so all back ends use them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.store.placement import Frame
from cxr_compare.data_prep.store.prediction_writer import Part, image_status


def scores_frames(
    image_ids: Sequence[str],
    scores: np.ndarray,
    maps: np.ndarray,
    method: str,
    findings: Sequence[str],
    frames: Sequence[Frame],
) -> Part:
    """Return the scores and activation maps of a batch as the tables ``scores`` and ``maps``.

    Each table has a row for each image and finding. An image with a score or a map value that is
    not finite is ``failed`` and has no rows.

    Scores before calibration are (B, K) in [0, 1], raw activation maps (B, K, h, w). `frames` are
    the outer edges of each image's maps in px of the original image, as
    `data_prep.store.placement.Placement.frame_to_original` returns them. ``scores`` has the columns
    ``image_id``, ``finding`` and ``score``; ``maps`` has ``image_id``, ``finding``, ``method``,
    ``grid_h``, ``grid_w``, ``values`` (row by row) and the edges ``x1``, ``y1``, ``x2``, ``y2``.

    Example:
        >>> maps = np.zeros((1, 1, 2, 2))
        >>> rows = scores_frames(["a"], np.array([[0.5]]), maps, "cam", ["mass"], [(0, 0, 8, 8)])
        >>> rows.tables["scores"].values.tolist(), len(rows.tables["maps"]["values"][0])
        ([['a', 'mass', 0.5]], 4)
    """
    finite = np.isfinite(scores).all(axis=1) & np.isfinite(maps).all(axis=(1, 2, 3))  # (B,)
    rows_finite = np.flatnonzero(finite)
    n_findings = len(findings)
    ids = pd.array(list(image_ids), dtype=TEXT).take(np.repeat(rows_finite, n_findings))
    finding_rows = np.tile(np.arange(n_findings), len(rows_finite))
    names = pd.array(list(findings), dtype=TEXT).take(finding_rows)
    rows = pd.DataFrame({"image_id": ids, "finding": names})
    grid_h, grid_w = maps.shape[2:]
    all_edges = np.asarray(frames, np.float64).reshape(-1, 4)  # (B, 4)
    edges = np.repeat(all_edges[rows_finite], n_findings, axis=0)
    cells = maps[rows_finite].reshape(len(rows), grid_h * grid_w)
    map_columns = {
        "method": pd.array([method], dtype=TEXT).take(np.zeros(len(rows), int)),
        "grid_h": np.full(len(rows), grid_h),
        "grid_w": np.full(len(rows), grid_w),
        "values": np.fromiter(cells, object, len(rows)),
        **dict(zip(EDGES, edges.T, strict=True)),
    }
    scored = rows.assign(score=scores[rows_finite].ravel().astype(np.float64))
    tables = {"scores": scored, "maps": rows.assign(**map_columns)}
    return Part(image_status(image_ids, finite), tables)
