"""One small world for all tests: images, a data set, runs, predictions, an export, tables, reports.

Each part is made once in a session, by the first worker that asks for it and under a lock; a test
that changes a part copies its folder.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image

import cxr_compare

SMALL = ["data.image_size=96", "training.epochs=1", "training.workers=0"]
NETWORKS = {
    "detector": (
        "retinanet_quickstart",
        ["model.fpn_channels=16", "model.head_convs=1"],
    ),
    "classifier": ("chexnet_quickstart", ["model.backbone=small_cnn"]),
}
EDGES = ["x1", "y1", "x2", "y2"]


class World:
    """Folders of the parts, each made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        folder, done = self.root / name, self.root / f"{name}.done"
        with FileLock(self.root / f"{name}.lock"):
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    @property
    def xrays(self) -> Path:
        """60 drawn images of 96 px in RSNA's layout, some patients with several."""
        return self._made("xrays", lambda out: cxr_compare.synth(out, images=60, size=96, seed=3))

    @property
    def data(self) -> Path:
        """Their data set, with squares of 96 px."""
        return self._made(
            "data",
            lambda out: cxr_compare.prepare(
                self.xrays, out, format="rsna", size=[96], val=0.3, test=0.3, workers=0
            ),
        )

    def run(self, kind: str) -> Path:
        """A run of one epoch: a small RetinaNet ("detector") or a small CNN ("classifier")."""
        config, network = NETWORKS[kind]
        return self._made(
            kind,
            lambda out: cxr_compare.train(config, data=self.data, out=out, set_=[*SMALL, *network]),
        )

    def predictions(self, kind: str) -> Path:
        """The predictions of a run on the data set."""
        return self._made(
            f"{kind}-predictions",
            lambda out: cxr_compare.predict(self.run(kind), data=self.data, out=out),
        )

    def export(self, kind: str) -> Path:
        """The export of a run."""
        return self._made(
            f"{kind}-export",
            lambda out: cxr_compare.export(self.run(kind), out, format="onnx"),
        )

    @property
    def report(self) -> Path:
        """The comparison of both runs' predictions, with pictures."""
        systems = {"RetinaNet": "detector", "CheXNet": "classifier"}
        return self._made(
            "report",
            lambda out: cxr_compare.compare(
                {name: self.predictions(kind) for name, kind in systems.items()},
                data=self.data,
                out=out,
                replicates=100,
            ),
        )

    @property
    def zoo(self) -> Path:
        """A folder of both runs."""

        def copy(out: Path) -> None:
            for kind in NETWORKS:
                shutil.copytree(self.run(kind), out / kind)

        return self._made("zoo", copy)

    @property
    def zoo_report(self) -> Path:
        """The comparison of these runs and of both together, which predicts them."""
        return self._made(
            "zoo-report",
            lambda out: cxr_compare.compare(
                self.zoo, data=self.data, both=True, out=out, replicates=100
            ),
        )

    @property
    def tables(self) -> Path:
        """Files of 240 drawn images: truth, two score tables, boxes, patients, COCO."""
        return self._made("tables", write_tables)

    @property
    def pictures(self) -> Path:
        """Grey images of 480 px of their test images."""

        def write(out: Path) -> None:
            out.mkdir()
            truth = pd.read_csv(self.tables / "truth.csv")
            slope = np.tile(np.linspace(0, 255, 480).astype(np.uint8), (480, 1))
            for image in truth.loc[truth["role"] == "test", "image_id"]:
                Image.fromarray(slope).save(out / f"{image}.png")

        return self._made("pictures", write)

    @property
    def tables_report(self) -> Path:
        """The comparison of a detector, a classifier and both together from these files."""
        return self._made(
            "tables-report",
            lambda out: cxr_compare.compare(
                {"Boxes": self.tables / "boxes.csv", "Scores": self.tables / "a.csv"},
                truth=self.tables / "truth.csv",
                boxes=self.tables / "true_boxes.csv",
                images=str(self.pictures),
                both=True,
                out=out,
                replicates=100,
            ),
        )


def write_tables(folder: Path) -> None:
    """Write truth, scores and boxes of 240 images of 96 patients as users have them."""
    rng = np.random.default_rng(7)
    folder.mkdir()
    patient = rng.integers(0, 96, 240)
    label = (rng.random(96) < 0.35)[patient].astype(int)
    ids = [f"image{n:03d}" for n in range(240)]
    truth = pd.DataFrame(
        {
            "image_id": ids,
            "label": label,
            "patient_id": [f"p{p:02d}" for p in patient],
            "role": np.where(patient % 2 == 0, "val", "test"),
        }
    )
    truth.to_csv(folder / "truth.csv", index=False)
    truth[["image_id", "patient_id"]].to_csv(folder / "patients.csv", index=False)
    for name, effect in (("a", 1.6), ("b", 1.0)):
        logit = effect * label + rng.normal(0, 1, 240)
        scores = np.round(1 / (1 + np.exp(-logit)), 3)
        pd.DataFrame({"image_id": ids, "score": scores}).to_csv(folder / f"{name}.csv", index=False)
    positive = truth.loc[truth["label"] == 1, "image_id"]
    corner = rng.integers(20, 300, (len(positive), 2))
    side = rng.integers(40, 120, (len(positive), 2))
    true = pd.DataFrame(np.hstack([corner, corner + side]), columns=EDGES)
    true.insert(0, "image_id", positive.to_numpy())
    true.to_csv(folder / "true_boxes.csv", index=False)
    found = true[rng.random(len(true)) < 0.8].copy()
    found[EDGES] += rng.integers(-8, 8, (len(found), 4))
    false = pd.DataFrame({"image_id": rng.choice(ids, 160)})
    false[EDGES[:2]] = rng.integers(0, 300, (160, 2))
    false[EDGES[2:]] = false[EDGES[:2]].to_numpy() + rng.integers(30, 90, (160, 2))
    boxes = pd.concat([found, false], ignore_index=True)
    boxes["score"] = np.round(
        np.concatenate([rng.beta(4, 2, len(found)), rng.beta(2, 5, len(false))]), 3
    )
    boxes.to_csv(folder / "boxes.csv", index=False)
    numbers = {name: number for number, name in enumerate(ids, start=1)}
    size = {"width": 480, "height": 480}
    coco = {
        "images": [{"id": n, "file_name": f"{name}.png", **size} for name, n in numbers.items()],
        "categories": [{"id": 1, "name": "opacity"}],
        "annotations": [
            {
                "id": number,
                "image_id": numbers[row.image_id],
                "category_id": 1,
                "bbox": [int(row.x1), int(row.y1), int(row.x2 - row.x1), int(row.y2 - row.y1)],
            }
            for number, row in enumerate(true.itertuples(), start=1)
        ],
    }
    (folder / "coco.json").write_text(json.dumps(coco))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The parts, shared by all workers of this session."""
    base = tmp_path_factory.getbasetemp()
    return World((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "world")
