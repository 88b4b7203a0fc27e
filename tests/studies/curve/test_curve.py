"""`cxr curve` from the outside: mostly with trainings that are made up."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MadeOn, PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.studies.curve.curve_trainings import CurvePlan, CurveRun
from tests.plain_sets import prepare_plain
from tests.scripts.small_sets import cxr, write_source
from tests.stored_json import stored_json


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 240 patients without pixels; every third is positive and has a box."""
    ids = [f"i{number:03d}" for number in range(240)]
    roles = np.resize(["train", "train", "val", "test"], 240)
    states = {"nodule": ["present", "absent", "absent"] * 80}
    folder = tmp_path_factory.mktemp("curve") / "source"
    write_source(folder, ids, states, split=roles, width=100, height=100)
    boxes = pd.DataFrame({"image_id": ids[::3], "finding": "nodule", "x1": 20, "y1": 20})
    boxes.assign(x2=50, y2=50).to_csv(folder / "boxes.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a split of those patients; whoever changes it makes a copy."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepare_plain(source, folder)
    return folder


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the data set."""
    return Path(shutil.copytree(prepared, tmp_path / "data"))


class MadeUp:
    """Trainings that take no time, and whose skill grows with the images.

    Attributes:
        trained: What was trained, in order.
        fails: Which trainings fail.
        unanswered: An image that all fail to answer.
    """

    def __init__(self) -> None:
        self.trained: list[CurveRun] = []
        self.fails: Callable[[CurveRun], bool] = lambda run: False
        self.unanswered = ""

    def train_all(self, plan: CurvePlan, machines, options, on_end) -> list[tuple[CurveRun, str]]:
        failed = []
        for run in self._todo(plan):
            plan.config(run)  # is one that can be written
            if self.fails(run):
                failed.append((run, "the disk is full"))
            else:
                decisions = run.folder / "validation" / "decisions"
                decisions.mkdir(parents=True, exist_ok=True)
                (run.folder / "run.json").write_text("{}")
                (decisions / "nodule.json").write_text("{}")
                self.trained.append(run)
            on_end(run, "the disk is full" if self.fails(run) else None)
        return failed

    def _todo(self, plan: CurvePlan) -> Iterator[CurveRun]:
        for arm in ("classifier", "detector", "mixed"):
            yield from (run for run in plan.runs(arm) if not run.has_ended)

    def predict(self, run: CurveRun, dataset: DataSet, device: str) -> Predictions:
        split = dataset.split(run.part)
        ids = split.loc[split["role"].isin(["val", "test"]), "image_id"].to_numpy()
        n = (split["role"].isin(["train", "val"])).sum()
        positive = dataset.labels(dataset.target()).reindex(ids).to_numpy() == 1
        boxed = run.model != "classifier"
        apart = np.log(n) * (0.6 if boxed else 0.4)
        rng = np.random.default_rng([run.seed, int(n), boxed])
        score = 1 / (1 + np.exp(2 - rng.normal(apart * positive, 1)))
        info = PredictionsInfo(
            system=run.model,
            kind="boxes" if boxed else "scores",
            data_set=MadeOn(name=dataset.name, content_id=dataset.ids.content_id),
            inference_id=str(run.folder),
        )
        rows = {"image_id": ids, "finding": "nodule", "score": score}
        tables = {"scores": pd.DataFrame(rows)}
        if boxed:
            tables = {"boxes": pd.DataFrame({**rows, "x1": 20.0, "y1": 20, "x2": 50, "y2": 50})}
        if not (run.predictions / "predictions.json").is_file():
            with PredictionWriter(run.predictions, info) as writer:
                failed = ids == self.unanswered
                done = pd.DataFrame({
                    "image_id": ids, "status": np.where(failed, "failed", "ok"),
                    "reason": np.where(failed, "cannot be read", None),
                })  # fmt: skip
                writer.add(done, **{name: table[~failed] for name, table in tables.items()})
        return Predictions.open(run.predictions)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    """In place of trainings and their predictions."""
    found = MadeUp()
    # Drawn in the tests of the page; here drawing would take half of the time.
    monkeypatch.setattr("cxr_compare.studies.curve.curve_page.save_chart", lambda figure, path: [])
    monkeypatch.setattr("cxr_compare.studies.curve.curve._train_all", found.train_all)
    monkeypatch.setattr("cxr_compare.studies.curve.curve._predict", found.predict)
    # No test here is about the intervals.
    monkeypatch.setattr("cxr_compare.studies.curve.curve._REPLICATES", 100)
    return found


def curve(data: Path, *more: object) -> int:
    """`cxr curve` with small models."""
    models = ["--classifier", "chexnet_small"]
    if "--detector" not in more:
        models += ["--detector", "retinanet_small"]
    out = ["--data", data, "--out", data.parent / "out"]
    return cxr("curve", *models, *out, *more)


def test_every_share_and_seed_is_trained_once_though_another_call_adds_seeds(data, made_up, capsys):
    assert curve(data, "--sizes", "0.25,0.5,1", "--seeds", 1) == 0
    assert curve(data, "--sizes", "0.25,0.5,1", "--seeds", 2) == 0
    assert [run.seed for run in made_up.trained] == [0] * 6 + [1] * 6
    said = capsys.readouterr().err
    assert "11 of 12: detector, 0.5 of default, seed 1; about 10 seconds left" in said
    assert "12 of 12: detector, 1 of default, seed 1\n" in said
    out = data.parent / "out"
    shares = [(run.model, run.share, run.seed) for run in made_up.trained]
    assert len(set(shares)) == len(shares) == 12
    found = stored_json(out / "curve.json")
    assert (out / "curve.html").is_file()
    assert (out / "curve.csv").is_file()
    table = pd.read_csv(out / "curve.csv")
    of_quarter = table[(table["share"] == 0.25) & (table["metric"] == "auroc")]
    assert set(of_quarter["n_images"]) == {45}  # of 180
    assert of_quarter.set_index("model")["n_boxes"].to_dict() == {"detector": 15, "classifier": 0}
    assert found["provenance"]["data_set"]["name"] == "data"
    splits = DataSet.open(data).ids.split_ids
    assert sorted(splits) == [
        "default",
        *(f"default.part-{share}-seed-{seed}" for share in (0.25, 0.5) for seed in (0, 1)),
    ]
    assert curve(data, "--sizes", "0.25,1") == 2
    assert "holds a curve of another --sizes" in capsys.readouterr().err


def test_a_training_that_fails_is_named_and_the_same_command_goes_on(data, made_up, capsys):
    made_up.fails = lambda run: run.model == "detector" and run.share == 1
    assert curve(data, "--sizes", "0.5,1", "--seeds", 1) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "detector, 1 of default, seed 0: the disk is full" in said
    assert not (data.parent / "out" / "curve.html").exists()
    made_up.fails = lambda run: False
    assert curve(data, "--sizes", "0.5,1", "--seeds", 1) == 0
    assert made_up.trained[-1].model == "detector"


def test_a_training_killed_before_its_decision_is_continued(data, made_up):
    assert curve(data, "--sizes", "0.5,1", "--seeds", 1) == 0
    killed = made_up.trained[1]
    # Its weights and its record are there; the decision and what follows from it are not.
    shutil.rmtree(killed.folder / "validation")
    shutil.rmtree(killed.predictions)
    made_up.trained.clear()
    assert curve(data, "--sizes", "0.5,1", "--seeds", 1) == 0
    assert made_up.trained == [killed]


def test_locks_that_a_kill_left_in_finished_folders_are_removed(data, made_up):
    assert curve(data, "--sizes", "0.5,1", "--seeds", 1) == 0
    locks = [data / ".lock", *(run.folder / ".lock" for run in made_up.trained)]
    for lock in locks:
        lock.touch()
    assert curve(data, "--sizes", "0.5,1", "--seeds", 1) == 0
    assert not [lock for lock in locks if lock.exists()]


def test_small_shares_learn_for_as_many_steps_and_the_mixed_arm_adds_boxes_to_all_labels(
    data, made_up, monkeypatch
):
    seen = {}

    def remember(plan: CurvePlan, *rest: object) -> list:
        seen["plan"] = plan
        return MadeUp.train_all(made_up, plan, *rest)

    monkeypatch.setattr("cxr_compare.studies.curve.curve._train_all", remember)
    same = ["--detector-set", "model.backbone=densenet121", "--set", "training.epochs=10"]
    assert curve(data, "--sizes", "0.25,0.5,1", "--seeds", 1, "--mixed", *same) == 0
    plan = seen["plan"]
    mixed = plan.runs("mixed")[0]
    assert mixed.share == 0.25
    whole = next(run for run in plan.runs("classifier") if run.share == 1)
    assert plan.config(mixed).model.weights == str(whole.folder)
    assert plan.config(mixed).training.epochs == 40
    assert plan.config(mixed).training.patience == 4 * plan.detector.training.patience
    assert plan.config(whole).training.epochs == 10
    assert plan.config(mixed).data.split == "default.part-0.25-seed-0"
    points = pd.read_csv(data.parent / "out" / "curve.csv").query("metric == 'auroc'")
    of_mixed = points[points["model"] == "mixed"]
    assert of_mixed["n_images"].tolist() == [180, 180]
    assert of_mixed["n_boxes"].tolist() == [15, 30]
    found = stored_json(data.parent / "out" / "curve.json")
    known = points.set_index(["model", "share"])["estimate"]
    gaps = pd.DataFrame(found["differences"]).query("metric == 'auroc' and first == 'mixed'")
    for second, share in (("classifier", [1.0, 1.0]), ("detector", [0.25, 0.5])):
        of = gaps[gaps["second"] == second]
        assert of["n_images"].tolist() == [45, 90]  # with boxes; all 180 have labels
        expected = known["mixed"].loc[[0.25, 0.5]].to_numpy() - known[second].loc[share].to_numpy()
        assert of["estimate"].to_numpy() == pytest.approx(expected)


def change(source: Path, to: Path, **tables: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """A data set whose source has other tables."""
    shutil.copytree(source, to / "changed")
    for name, edit in tables.items():
        file = to / "changed" / f"{name}.csv"
        edit(pd.read_csv(file)).to_csv(file, index=False)
    prepare_plain(to / "changed", to / "data")
    return to / "data"


def test_images_wholly_boxed_are_counted_and_one_without_an_answer_is_left_out_and_named(
    source, tmp_path, made_up
):
    made_up.unanswered = "i003"
    data = change(source, tmp_path, boxes=lambda boxes: boxes.iloc[::2])
    assert curve(data, "--sizes", "0.5,1", "--seeds", 1) == 0
    points = pd.read_csv(tmp_path / "out" / "curve.csv").query("metric == 'auroc' and share == 1")
    points = points.set_index("model")
    assert points["n_images"].to_dict() == {"classifier": 180, "detector": 160}
    assert points["n_positive"].to_dict() == {"classifier": 60, "detector": 40}
    notes = stored_json(tmp_path / "out" / "curve.json")["notes"]
    assert any("180 labelled images" in note and "160" in note for note in notes)
    assert any("Evaluated on 59 test images" in note for note in notes)
    assert any(note.startswith("default: ") and "1 of 60" in note for note in notes)


def test_a_target_without_boxes_is_refused(source, tmp_path, made_up, capsys):
    data = change(source, tmp_path, boxes=lambda boxes: boxes.iloc[:0])
    assert curve(data) == 2
    assert "has no positive image whose lesions are all boxed" in capsys.readouterr().err


def test_test_images_of_one_class_are_refused(source, tmp_path, made_up, capsys):
    def healthy(labels: pd.DataFrame) -> pd.DataFrame:
        tested = np.resize([False, False, False, True], 240)
        return labels.assign(state=labels["state"].mask(tested, "absent"))

    tested = {f"i{number:03d}" for number in range(3, 240, 4)}
    data = change(
        source, tmp_path, labels=healthy, boxes=lambda each: each[~each["image_id"].isin(tested)]
    )
    assert curve(data) == 2
    assert "split 'default' tests 0 positives and 60 negative images" in capsys.readouterr().err
    assert list(DataSet.open(data).ids.split_ids) == ["default"], "refused before parts are kept"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sizes", "a,1"], "are not numbers"),
        (["--sizes", "0.5,2"], "two shares"),
        (["--sizes", "0.01,1"], "0 positives and 1 negative"),
        (["--detector", "chexnet_small"], "classifier"),
        (["--mixed"], "same network"),
        (["--split", "default", "--split", "default"], "same patients"),
        (["--sizes", "0.5,0.501,1"], "0.5 and 0.501"),
        (
            ["--set", "training.schedule=plateau", "--set", "training.monitor=auroc"],
            "give --equal epochs",
        ),
        (["--split", "none"], "has no split 'none'"),
        (["--set", "data.target=mass"], "has no target 'mass'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(data, made_up, capsys, words, said):
    assert curve(data, *words) == 2
    assert said in capsys.readouterr().err
    assert made_up.trained == []
    assert not (data.parent / "out").exists()
