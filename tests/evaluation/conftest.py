"""A small comparison with pixels, made by hand: nothing here was learned or tuned."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.dataset_info import DataSetInfo, SplitInfo, SplitOrigin
from cxr_compare.data_prep.store.prediction_info import MadeOn, PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import Figure, Figures
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.pixels import Pixels
from cxr_compare.evaluation.system_result import SystemResult
from cxr_compare.evaluation.verdict.verdict import state_verdict
from tests.stored_json import bind_tables
from tests.undrawn_figures import leave_figures_out

SIDE = 64
POLICIES = ("max_f1", "sensitivity>=0.95", "specificity>=0.90")
SYSTEMS = ["RetinaNet", "CheXNet"]
# image: label, kind, RetinaNet score, CheXNet score, RetinaNet place, CheXNet place
IMAGES = {
    "p01": (1, "lung_opacity", 0.9, 0.8, True, True),
    "p02": (1, "lung_opacity", 0.7, 0.2, True, None),
    "p03": (1, "lung_opacity", 0.1, 0.9, None, True),
    "p04": (1, "lung_opacity", 0.2, 0.1, None, None),
    "p05": (1, "lung_opacity", 0.8, 0.7, False, True),
    "p06": (1, "lung_opacity", 0.6, 0.6, True, False),
    "n01": (0, "normal", 0.05, 0.1, None, None),
    "n02": (0, "normal", 0.1, 0.2, None, None),
    "n03": (0, "normal", 0.7, 0.1, None, None),
    "n04": (0, "not_normal", 0.2, 0.85, None, None),
    "n05": (0, "not_normal", 0.3, 0.3, None, None),
    "n06": (0, "not_normal", 0.1, 0.2, None, None),
}
LESION = (16.0, 20.0, 32.0, 40.0)


@dataclass
class ImageSet:
    """Labelled images, and pixels that note which of them were read."""

    labelled: LabelledImages
    has_pixels: bool = True
    reads: list[str] = field(default_factory=list)

    @property
    def pixels(self) -> Pixels | None:
        return Pixels(self.read_original) if self.has_pixels else None

    def read_original(self, image_id: str) -> np.ndarray:
        self.reads.append(image_id)
        rows, columns = np.mgrid[:SIDE, :SIDE]
        return ((rows * 2 + columns + len(image_id)) % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def no_chart_files() -> Iterator[None]:
    """No report of the module writes its charts as files, which takes a second a report."""
    with pytest.MonkeyPatch.context() as patch:
        leave_figures_out(patch)
        yield


@pytest.fixture(scope="session")
def hand_made() -> Callable[[], tuple[Comparison, LabelledImages, Pixels | None]]:
    """Makes the comparison and its images anew: for fixtures that many tests share."""

    def make() -> tuple[Comparison, LabelledImages, Pixels | None]:
        images = make_image_set()
        return make_comparison(), images.labelled, images.pixels

    return make


@pytest.fixture
def image_set() -> ImageSet:
    return make_image_set()


def make_image_set() -> ImageSet:
    frame = pd.DataFrame({"image_id": list(IMAGES), "patient_id": list(IMAGES)})
    frame["x_class"] = [row[1] for row in IMAGES.values()]
    names = list(IMAGES)
    roles = ["val" if image_id in ("p01", "n01") else "test" for image_id in names]
    positive = [name for name, row in IMAGES.items() if row[0]]
    boxes = pd.DataFrame([(name, *LESION) for name in positive], columns=["image_id", *EDGES])
    return ImageSet(
        LabelledImages(
            images=frame.assign(view="PA", sex="F", age_years=50.0),
            labels=pd.DataFrame({"opacity": {name: float(row[0]) for name, row in IMAGES.items()}}),
            roles=pd.Series(roles, index=names),
            display_name="Lung opacity",
            findings=("lung_opacity",),
            true_boxes=boxes,
            boxes_trusted=pd.Index(names),
            title="hand-made",
        )
    )


@pytest.fixture
def comparison() -> Comparison:
    return make_comparison()


@pytest.fixture
def make_metrics():
    return metrics_frame


@pytest.fixture
def widen():
    return with_families


@pytest.fixture
def verdict_of():
    def verdict(metrics, *arguments, **options):
        return state_verdict(with_families(Figures.from_table(metrics)), *arguments, **options)

    return verdict


def with_families(figures: Figures) -> Figures:
    """As from a table, with intervals for families: widened as those of a normal figure."""

    def widened(figure: Figure) -> Figure:
        below, above = figure.estimate - figure.ci_low, figure.ci_high - figure.estimate

        def ends(level: float) -> tuple[float, float]:
            reach = norm.isf((1 - level) / 2) / norm.isf(0.025)
            return figure.estimate - reach * below, figure.estimate + reach * above

        return replace(figure, interval_at=ends) if figure.bounded else figure

    rows = {
        pair: {key: widened(figure) if pair[1] else figure for key, figure in each.items()}
        for pair, each in figures.rows.items()
    }
    return replace(figures, rows=rows)


def metrics_frame(rows: list[tuple]) -> pd.DataFrame:
    """Rows ``system, policy, metric, estimate, low, high`` as the tidy table; "A - B" is a pair."""
    names = ["system", "policy", "metric", "estimate", "ci_low", "ci_high"]
    frame = pd.DataFrame(rows, columns=names)
    pairs = frame.pop("system").str.partition(" - ")
    frame.insert(0, "first", pairs[0])
    frame.insert(1, "second", pairs[2])
    frame["kind"] = np.where(frame["second"] == "", "system", "difference")
    return frame.assign(
        target="opacity", unit="image", subgroup="all", ci_method="patient-cluster bootstrap",
        n_images=len(IMAGES), n_patients=len(IMAGES), n_positive=6, note="",
    )  # fmt: skip


def make_comparison() -> Comparison:
    """Two systems on twelve images; intervals are made up, all else follows from the scores."""
    decisions = _decisions()
    return Comparison(
        finding="opacity",
        display_name="Lung opacity",
        findings=("lung_opacity",),
        systems={
            "RetinaNet": _result(
                boxes=_boxes(),
                cost={"parameters": 32_200_000, "flops": 104.1e9, "latency_ms": 196.0,
                      "latency_device": "2 CPU cores", "batch_size": 1},
            ),
            "CheXNet": _result(
                boxes=_boxes().iloc[:0],
                maps=_maps(),
                map_scale=(0.0, 4.0),
                cost={"parameters": 6_954_000, "flops": None, "latency_ms": None},
            ),
        },
        figures=with_families(Figures.from_table(_metrics())),
        decisions=decisions,
        notes=[Note("left_out", "3 test images have no known label for Lung opacity.")],
        provenance={
            "command": "cxr compare a b --data d --out r",
            "versions": {"python": "3.11", "numpy": "2.4"},
            "data_set": {"name": "hand-made", "content_id": "0123456789abcdef",
                         "split": "default", "split_ids": {"default": "51d"}},
            "systems": {name: {"seed": 1, "kind": "boxes"} for name in SYSTEMS},
        },
        records={name: {"seed": 1, "kind": "boxes"} for name in SYSTEMS},
        split="default",
    )  # fmt: skip


def _result(**rest) -> SystemResult:
    return SystemResult(
        seeds=1,
        thresholds=dict.fromkeys(POLICIES, 0.5),
        curve=_curve(),
        confusion={policy: {"tp": 4, "fp": 1, "tn": 5, "fn": 2} for policy in POLICIES},
        **rest,
    )


def _decisions() -> pd.DataFrame:
    rows = []
    for position, system in enumerate(SYSTEMS):
        for image_id, row in IMAGES.items():
            label, kind, score, place = row[0], row[1], row[2 + position], row[4 + position]
            calls = [score >= 0.5] * len(POLICIES)
            rows.append((image_id, system, float(label), score, *calls, place, 24.0, 30.0, kind))
    calls = [f"decision_{policy}" for policy in POLICIES]
    names = ["image_id", "system", "label", "score", *calls]
    names += ["localised", "point_x", "point_y", "x_class"]
    frame = pd.DataFrame(rows, columns=names)
    frame = frame.assign(patient_id=frame["image_id"], probability=np.nan)
    return frame.astype(dict.fromkeys([*calls, "localised"], "boolean"))


def _metrics() -> pd.DataFrame:
    rows = []
    for policy, metric, a, b in (
        ("", "auroc", 0.891, 0.862), ("", "average_precision", 0.81, 0.77),
        ("", "ap50_decided", 0.42, 0.11), ("", "ap", 0.17, 0.03),
        ("", "pointing_accuracy", 0.7, 0.5),
        *((policy, metric, 0.7 + shift, 0.69 - shift)
          for policy in POLICIES
          for shift, metric in enumerate(("recall", "specificity", "precision", "f1", "accuracy"))
          for shift in [shift / 50]),
        *((policy, "localised_sensitivity", 0.61, 0.48) for policy in POLICIES),
    ):  # fmt: skip
        rows.append(("RetinaNet", policy, metric, a, a - 0.04, a + 0.03))
        rows.append(("CheXNet", policy, metric, b, b - 0.05, b + 0.04))
        gap = a - b
        rows.append(("RetinaNet - CheXNet", policy, metric, gap, gap - 0.05, gap + 0.06))
    return metrics_frame(rows)


def _curve() -> dict[str, np.ndarray]:
    x = np.linspace(0, 1, 400)
    return {"fpr": x, "tpr": x**0.3, "recall": x, "precision": 1 - x**3 * 0.5}


def _boxes() -> pd.DataFrame:
    rows = []
    for image_id, row in IMAGES.items():
        shift = 0.0 if row[4] is not False else 20.0
        box = (LESION[0] + shift, LESION[1], LESION[2] + shift, LESION[3])
        rows += [(image_id, *box, row[2]), (image_id, 1.0, 1.0, 9.0, 9.0, 0.04)]
    return pd.DataFrame(rows, columns=["image_id", "x1", "y1", "x2", "y2", "score"])


def _maps() -> pd.DataFrame:
    rows, columns = np.mgrid[:8, :8]
    blob = np.exp(-((rows - 3.5) ** 2 + (columns - 2.5) ** 2) / 3)
    return pd.DataFrame(
        {
            "image_id": list(IMAGES),
            "grid_h": 8,
            "grid_w": 8,
            "values": [list((blob * row[3] * 4).ravel()) for row in IMAGES.values()],
        }
    ).assign(x1=0.0, y1=0.0, x2=float(SIDE), y2=float(SIDE))


@pytest.fixture
def report_folder(tmp_path: Path) -> Path:
    return tmp_path / "report"


SIDE_PX = 100


@pytest.fixture
def evaluation_set(evaluated_folder, tmp_path):
    """A data set folder without pixels: 240 images of 120 patients, a third positive, boxed."""
    return DataSet.open(shutil.copytree(evaluated_folder, tmp_path / "set"))


@pytest.fixture
def target(evaluation_set):
    return evaluation_set.target()


@pytest.fixture
def test_set(evaluation_set, target):
    return LabelledSplit(evaluation_set, target)


@pytest.fixture(scope="session")
def evaluated_folder(tmp_path_factory):
    """What each test's data set is a copy of: writing the tables takes longer than most tests."""
    rng = np.random.default_rng(20)
    ids = [f"i{number:03d}" for number in range(240)]
    patients = [f"set:p{number // 2:03d}" for number in range(240)]
    roles = np.repeat(rng.permutation(["train"] * 20 + ["val"] * 50 + ["test"] * 50), 2)
    positive = rng.random(240) < 1 / 3
    images = pd.DataFrame(
        {"image_id": ids, "patient_id": patients, "patient_id_source": "given", "source": "hand",
         "path": None, "file_sha256": None, "height": SIDE_PX, "width": SIDE_PX}
    )  # fmt: skip
    kinds = np.where(rng.random(240) < 0.5, "normal", "not_normal")
    images["x_class"] = np.where(positive, "lung_opacity", kinds)
    reference = {"finding": "lung_opacity", "reader": "reference"}
    states = np.where(positive, "present", "absent")
    findings = pd.DataFrame({"image_id": ids, "state": states, "origin": "reader", **reference})
    corner = rng.uniform(5, 55, size=(240, 2))
    boxes = pd.DataFrame(
        {"image_id": ids, "x1": corner[:, 0], "y1": corner[:, 1], "x2": corner[:, 0] + 30,
         "y2": corner[:, 1] + 30, **reference}
    )[positive]  # fmt: skip
    coverage = pd.DataFrame({"image_id": ids, "coverage": "all", **reference})[positive]
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "splits").mkdir()
    tables = {"images": images, "findings": findings, "boxes": boxes, "box_coverage": coverage}
    for name, table in tables.items():
        write_table(table, folder / f"{name}.parquet", name)
    split = pd.DataFrame({"image_id": ids, "role": roles, "fold": None})
    write_table(split, folder / "splits" / "default.parquet", "split")
    how = SplitOrigin(method="by hand")
    split_info = SplitInfo(name="default", split_id="s1", how=how, n_images={}, files={})
    split_info.write(folder / "splits" / "default.json")
    labels = DataSet.digests(images, findings, boxes, coverage)
    info = DataSetInfo(
        name="set",
        source_format="table",
        source_root=str(folder),
        targets={"opacity": Target("opacity", ("lung_opacity",), "Lung opacity")},
        ids=labels.with_values(split_ids={"default": "s1"}),
        settings={},
    )
    info.write(folder / "dataset.json")
    bind_tables(folder)
    return folder


@pytest.fixture
def predict(predicted_folder, tmp_path):
    """Write a made-up system's predictions: ``predict(name, kind, seed, skill, ...)``."""

    def copy(name, kind="scores", seed=0, skill=1.5, roles=("val", "test"), maps=False, skip=()):
        folder = predicted_folder(name, kind, seed, skill, tuple(roles), maps, tuple(skip))
        return Predictions.open(shutil.copytree(folder, tmp_path / name))

    return copy


@pytest.fixture(scope="session")
def predicted_folder(evaluated_folder, tmp_path_factory):
    """Each made-up system's predictions, written once; whoever changes them makes a copy."""
    evaluation_set = DataSet.open(evaluated_folder)

    @cache
    def write(name, kind="scores", seed=0, skill=1.5, roles=("val", "test"), maps=False, skip=()):
        rng = np.random.default_rng(seed)
        split = evaluation_set.split()
        ids = split.loc[split["role"].isin(roles) & ~split["image_id"].isin(skip), "image_id"]
        truth = evaluation_set.boxes.set_index("image_id").reindex(ids)
        positive = truth["x1"].notna().to_numpy()
        evidence = 1 / (1 + np.exp(-rng.normal(skill * positive - 1.0, 1.0)))
        keys = {"image_id": ids.to_numpy(), "finding": "lung_opacity"}
        images = pd.DataFrame({"image_id": keys["image_id"], "status": "ok", "reason": None})
        made_on = MadeOn(name="set", content_id=evaluation_set.ids.content_id)
        info = PredictionsInfo(
            system=name, kind=kind, seed=1, inference_id=f"{name}-{seed}", data_set=made_on
        )
        tables = {}
        if kind == "scores":
            tables["scores"] = pd.DataFrame({**keys, "score": evidence})
            if maps:
                grids = rng.normal(0, 0.5, size=(len(ids), 5, 5))
                cells = ((truth[["y1", "x1"]] + 15) // 20).fillna(0).to_numpy(int)
                grids[np.arange(len(ids)), cells[:, 0], cells[:, 1]] += 6 * evidence
                frame = {"x1": 0.0, "y1": 0.0, "x2": SIDE_PX, "y2": SIDE_PX}
                shape = {"method": "cam", "grid_h": 5, "grid_w": 5}
                values = {"values": [list(grid.ravel()) for grid in grids]}
                tables["maps"] = pd.DataFrame({**keys, **shape, **values, **frame})
        else:
            jitter = rng.normal(0, 5, size=(len(ids), 2))
            corner = truth[["x1", "y1"]].fillna(30.0).to_numpy() + jitter
            corner = np.clip(corner, 0, 60)
            boxes = pd.DataFrame(
                {**keys, "x1": corner[:, 0], "y1": corner[:, 1], "score": evidence}
            )
            boxes = boxes.assign(x2=boxes["x1"] + 30, y2=boxes["y1"] + 30, score=evidence)
            faint = boxes.assign(score=boxes["score"] / 3, x1=1.0, x2=20.0, y1=1.0, y2=20.0)
            silent = rng.random(len(ids)) < 0.1
            tables["boxes"] = pd.concat([boxes[~silent], faint[~silent]])
        folder = tmp_path_factory.mktemp("predictions") / name
        with PredictionWriter(folder, info) as writer:
            writer.add(images, **tables)
        return folder

    return write
