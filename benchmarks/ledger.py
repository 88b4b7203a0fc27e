# annex studies
"""The effect of each choice of a protocol: the same boxes, evaluated by the rules of others.

    python -m benchmarks.ledger DATA PATTERN... [--draws 200] [--seed 0] [--out ledger]

PATTERN names the predictions of a system by fold, such as ``RetinaNet=p/retinanet-{}``, for the
splits ``fold-0`` to ``fold-4`` of DATA. The program writes OUT.csv and OUT.png: for each protocol
the mean over folds, and its difference from COCO's AP50 with a 95 % interval. The interval is 1.96
standard deviations of resamples, in which patients are drawn with replacement within each fold.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import norm

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.studies.explain.protocols import KNOWN_PROTOCOLS, ProtocolEvaluator

_FOLDS = 5
PROTOCOLS: dict[str, dict[str, str]] = {
    "COCO AP50, all images": {"floor": "0.001", "most": "100"},
    "COCO AP[.5:.95]": {"floor": "0.001", "most": "100", "iou": "0.5:0.95"},
    "VOC from 2010": KNOWN_PROTOCOLS["Pascal VOC from 2010"],
    "VOC 2007, 11 points": KNOWN_PROTOCOLS["Pascal VOC 2007"],
    "Ultralytics before April 2026": KNOWN_PROTOCOLS["Ultralytics mAP50 before April 2026, YOLOv5"],
    "area under the raw curve": KNOWN_PROTOCOLS["area under the raw curve"],
    "IoU 0.4": {"floor": "0.001", "most": "100", "iou": "0.4"},
    "IoU 0.1": {"floor": "0.001", "most": "100", "iou": "0.1"},
    "positive images only": {"floor": "0.001", "most": "100", "images": "positive"},
    "positive images only, IoU 0.1 to 0.5": {
        "floor": "0.001",
        "most": "100",
        "images": "positive",
        "iou": "0.1:0.5",
    },
    "boxes from score 0.5": {"floor": "0.5", "most": "100"},
    "RSNA 2018 score, boxes from 0.3": {"area": "rsna", "floor": "0.3", "iou": "0.4:0.75"},
}
"""By name; the first is what the others are held against."""


def main() -> None:
    """Evaluate every system by every protocol; write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("systems", nargs="+")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("ledger"))
    chosen = parser.parse_args()
    dataset = DataSet.open(chosen.data)
    tables = []
    for system in chosen.systems:
        name, _, pattern = system.partition("=")
        folds = [Path(pattern.format(fold)) for fold in range(_FOLDS)]
        tables.append(_ledger(dataset, folds, chosen.draws, chosen.seed).assign(system=name))
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(chosen.out.with_suffix(".csv"), index=False, float_format="%.4f")
    _draw(table, chosen.out.with_suffix(".png"))


def _ledger(dataset: DataSet, folds: list[Path], draws: int, seed: int) -> pd.DataFrame:
    """Return one row for each protocol: the figure, and its difference from the first protocol."""
    figures = np.mean(
        [list(_of_fold(dataset, folder, fold, draws, seed)) for fold, folder in enumerate(folds)], 0
    )
    apart = figures - figures[:, :1]
    # Standard deviations are used instead of quantiles, because copies of an image have equal
    # scores, which shifts the figures of all resamples a little.
    half = norm.ppf(0.975) * apart[1:].std(axis=0, ddof=1)
    columns = {"protocol": [*PROTOCOLS], "value": figures[0], "difference": apart[0]}
    return pd.DataFrame({**columns, "low": apart[0] - half, "high": apart[0] + half})


def _of_fold(dataset: DataSet, folder: Path, fold: int, draws: int, seed: int) -> Iterator[Floats]:
    """Yield the figures of all protocols on a fold's test images, then on its resamples."""
    predictions = Predictions.open(folder)
    ids = dataset.image_ids("test", f"fold-{fold}").intersection(predictions.images_run)
    patients = dataset.images.set_index("image_id").loc[ids, "patient_id"].to_numpy()
    yield figures_by_protocol(predictions.boxes, dataset.boxes, pd.Series(ids))
    of_patient = pd.Series(ids).groupby(patients).apply(list)
    rng = np.random.default_rng([seed, fold])
    for _ in range(draws):
        drawn = of_patient.iloc[rng.integers(len(of_patient), size=len(of_patient))]
        yield figures_by_protocol(
            predictions.boxes, dataset.boxes, pd.Series(np.concatenate([*drawn]))
        )


def figures_by_protocol(boxes: pd.DataFrame, truth: pd.DataFrame, images: pd.Series) -> Floats:
    """Compute the figure of each of `PROTOCOLS`, in their order; ids of images may be repeated."""
    copies = images.rename("image_id").rename_axis("copy").reset_index()
    copies["copy"] = copies["copy"].astype(str)
    marks, lesions = (
        copies.merge(table, on="image_id")
        .drop(columns="image_id")
        .rename(columns={"copy": "image_id"})
        for table in (boxes, truth)
    )
    evaluator = ProtocolEvaluator(marks, lesions, pd.Index(copies["copy"]))
    return np.array([evaluator.value(evaluator.complete(rules)) for rules in PROTOCOLS.values()])


def _draw(table: pd.DataFrame, path: Path) -> None:
    """Draw the difference in AP points of each protocol, with one colour for each system."""
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    systems = table["system"].unique()
    for at, system in enumerate(systems):
        rows = table[table["system"] == system].iloc[1:]
        y = -np.arange(len(rows)) + 0.24 * ((len(systems) - 1) / 2 - at)
        ends = 100 * np.abs(rows[["low", "high"]].to_numpy().T - rows["difference"].to_numpy())
        axes.errorbar(100 * rows["difference"], y, xerr=ends, fmt="o", ms=4, lw=1.2, label=system)
    axes.set_yticks(-np.arange(len(PROTOCOLS) - 1), [*PROTOCOLS][1:])
    axes.axvline(0, color="0.6", lw=1)
    axes.set_xlabel("AP points above COCO's AP50 of all images, 95 % by patient")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
# end of annex studies
