"""Plots are written whatever the training looked like."""

import cv2
import numpy as np
import pytest

from cxr_compare.training.plots import draw_batch, draw_curves


def _row(epoch: int, **figures: float) -> dict[str, float]:
    return {"epoch": epoch, "train_loss": 1.0, "val_loss": 0.5, "learning_rate": 0.1, **figures}


@pytest.mark.parametrize(
    "history",
    [
        [_row(1, auroc=0.5)],  # one epoch makes no line
        [_row(1, auroc=0.5), _row(2, auroc=0.6)],
        [_row(1, auroc=float("nan"))],  # a metric that is undefined
        [_row(1)],  # no metric at all
    ],
)
def test_curves_are_drawn(tmp_path, history):
    path = tmp_path / "curves.png"
    draw_curves(history, path, monitor="auroc", best_epoch=1)
    assert cv2.imread(str(path)).shape[0] > 300


@pytest.mark.parametrize("n", [1, 4, 6, 40])
def test_batch_is_drawn_up_to_its_limit(tmp_path, n):
    path = tmp_path / "batch.png"
    draw_batch(np.zeros((n, 32, 32), np.uint8), ["x"] * n, path)
    rows = -(-min(n, 16) // 4)
    assert cv2.imread(str(path)).shape[0] == pytest.approx(366 * rows, abs=2)


def test_box_is_drawn_on_the_edges_that_it_names(tmp_path):
    path = tmp_path / "batch.png"
    boxes = [np.array([[8.0, 16.0, 24.0, 24.0]])]
    draw_batch(np.zeros((1, 32, 32), np.uint8), [""], path, boxes=boxes)
    plot = cv2.imread(str(path)).astype(int)
    rows, columns = np.nonzero(np.abs(plot - [47, 217, 255]).sum(axis=2) < 30)  # BGR
    black_rows, black_columns = np.nonzero(plot.sum(axis=2) < 10)
    scale = (black_columns.max() - black_columns.min() + 1) / 32
    left, top = black_columns.min(), black_rows.min()
    edges = [columns.min() - left, rows.min() - top, columns.max() - left, rows.max() - top]
    assert np.array(edges) / scale == pytest.approx([8, 16, 24, 24], abs=0.4)
