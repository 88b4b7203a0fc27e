"""A sweep finds the best of its trials on validation, loses none, and trains none twice."""

from __future__ import annotations

import csv
import filecmp
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from cxr_compare.configs.load import read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.identify_folder import WrongFolderError, require_kind
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.scripts import child_processes
from cxr_compare.scripts.child_processes import share_gpus
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.show import describe_folder
from cxr_compare.scripts.commands.sweep import sweep
from cxr_compare.scripts.commands.train import train
from cxr_compare.scripts.next_steps import next_steps
from cxr_compare.training.run_folder import RunFolder
from tests.scripts.launched import ended, environment, start, wait_until
from tests.scripts.small_sets import tiny_training, trials_of

pytest.importorskip("optuna")

ROOT = Path(__file__).resolve().parents[2]
LR = "training.learning_rate"
OVER = [f"{LR}=1e-4..1e-2", "training.optimiser=adamw,sgd"]
Figure = Callable[[dict[str, Any]], float | int | str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_training(tmp_path_factory.mktemp("sweep"), epochs=1, batch_size=8)


def _sweep(data: Path, out: Path, over: list[str] = OVER, trials: int = 4, **more: Any) -> None:
    config = data.parent / "tiny.toml"
    run_command(sweep, config, data=data, out=out, over=over, trials=trials, **more)


class _Ended:
    """A process that has ended."""

    def __init__(self, status: int) -> None:
        self.status = status

    def poll(self) -> int | None:
        return self.status

    def wait(self, timeout: float | None = None) -> int:
        return self.status

    def kill(self) -> None:
        pass

    def send_signal(self, number: int) -> None:
        pass


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A sweep of two real trainings in this process, and the images that were read."""
    read: set[str] = set()
    image = PixelStore.image

    def note(store: PixelStore, image_id: str) -> Any:
        read.add(image_id)
        return image(store, image_id)

    def here(arguments: list[str], environment: dict[str, str], log: IO[bytes]) -> _Ended:
        train(arguments[1], data=arguments[3], out=arguments[5], device="cpu")
        return _Ended(0)

    out = tmp_path_factory.mktemp("trained") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelStore, "image", note)
        patch.setattr(child_processes, "start", here)
        patch.setattr(child_processes, "_POLL", 0.0)
        _sweep(data, out, trials=2)
    return out, read


def test_best_trial_is_stored_as_an_ordinary_run(trained: tuple[Path, set[str]]) -> None:
    out, _ = trained
    record = json.loads((out / "sweep.json").read_text())
    values = [trial["value"] for trial in record["trials"]]
    runs = [RunFolder.open(out / trial["run"]) for trial in record["trials"]]
    assert values == [run.info["best_value"] for run in runs]
    assert record["best"]["value"] == max(values)
    best, trial_folder = out / "best", out / record["best"]["run"]
    names = [path.name for path in trial_folder.iterdir() if path.is_file()]
    assert "model.safetensors" in names
    assert filecmp.cmpfiles(trial_folder, best, names, shallow=False)[0] == names
    assert not (best / "checkpoints").exists()
    assert RunFolder.open(best).info["name"] == f"Tiny, trial {record['best']['number']}"


def test_trials_have_what_was_proposed_and_the_first_is_the_configuration_itself(trained):
    out, _ = trained
    for number, trial in enumerate(trials_of(out)):
        config = read_config(out / trial["run"] / "config.toml")
        assert float(trial["settings"][LR]) == config.training.learning_rate
        assert trial["settings"]["training.optimiser"] == config.training.optimiser
        assert 1e-4 <= config.training.learning_rate <= 1e-2
        assert (config.training.learning_rate == 1e-3) == (number == 0)


def test_no_test_image_is_read(data: Path, trained: tuple[Path, set[str]]) -> None:
    dataset = DataSet.open(data)
    by_role = {role: set(dataset.image_ids(role)) for role in ("train", "val", "test")}
    _, read = trained
    assert by_role["test"]
    assert by_role["train"] | by_role["val"] == read


def test_sweep_warns_of_its_optimistic_figure_and_names_the_next_step(data, trained):
    out, _ = trained
    facts = describe_folder(out)
    assert facts["kind"] == "sweep, complete"
    assert "best of 2 " in facts["is"]
    assert (out / "sweep.html").read_text().count("is optimistic") == 1
    best = json.loads((out / "sweep.json").read_text())["best"]["number"]
    steps = next_steps(out, data)
    assert steps[-1] == f"cxr predict {out}/best IMAGE"
    rival = f"cxr compare {out}/best {out}/trials/000 --data {data} --out {out.parent}/report"
    assert steps[:-1] == ([rival] if best else [])
    with pytest.raises(WrongFolderError, match=r"is a sweep.*sweep/best$"):
        require_kind(out, "run")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Trainings]:
    """Trainings that take no time; their figure follows from their settings."""
    trainings = _Trainings()
    monkeypatch.setattr(child_processes, "start", trainings.start)
    monkeypatch.setattr(child_processes, "_POLL", 0.0)
    monkeypatch.setattr(
        "cxr_compare.evaluation.studies.sweep_page.write_page", lambda sweep, folder: folder
    )
    return trainings


class _Trainings:
    """In place of `cxr train`: notes what is trained, and writes what a sweep reads of a run."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.figure: Figure = lambda settings: 1 - abs(math.log10(settings["learning_rate"]) + 3)

    def start(self, arguments: list[str], environment: dict[str, str], log: IO[bytes]) -> _Ended:
        run = Path(arguments[5])
        self.started.append(run.name)
        settings = read_config(Path(arguments[1])).training.model_dump()
        figure = self.figure(settings)
        if isinstance(figure, str):
            log.write(f"epoch 1 of 1\ncxr: {figure}\n\n".encode())
            return _Ended(2)
        if isinstance(figure, int):
            return _Ended(figure)
        run.mkdir(exist_ok=True)
        info = {"contract": "run", "schema_version": 1, "monitor": settings["monitor"],
                "best_value": figure, "best_epoch": 1, "epochs": 1, "seconds": 1.0,
                "best_figures": {"auroc": figure}}  # fmt: skip
        (run / "run.json").write_text(json.dumps(info))
        return _Ended(0)


def test_a_sweep_interrupted_anywhere_ends_as_one_that_was_not(data, tmp_path, pretended):
    _sweep(data, tmp_path / "whole", trials=14)  # beyond the random ones
    whole = trials_of(tmp_path / "whole")
    assert [trial["state"] for trial in whole] == ["complete"] * 14
    assert len({trial["settings"][LR] for trial in whole}) == 14

    original_figure, pretended.started = pretended.figure, []
    for stop_at in (1, 4, 5, 13):

        def figure(settings: dict[str, Any], stop_at: int = stop_at) -> float | int | str:
            return 130 if int(pretended.started[-1]) == stop_at else original_figure(settings)

        pretended.figure = figure
        with pytest.raises(KeyboardInterrupt):
            _sweep(data, tmp_path / "parts", trials=14)
    pretended.figure = original_figure
    _sweep(data, tmp_path / "parts", trials=14)
    assert trials_of(tmp_path / "parts") == whole
    once = [f"{n:03d}" for n in range(14) if n not in (1, 4, 5, 13)]
    assert [name for name in pretended.started if name in once] == once
    pretended.started = []
    _sweep(data, tmp_path / "parts", trials=14)
    assert pretended.started == []


def test_half_a_line_and_a_lock_that_a_kill_left_are_cleared_away(data, tmp_path, pretended):
    _sweep(data, tmp_path / "whole", trials=5)
    _sweep(data, tmp_path / "killed", trials=3)
    journal = tmp_path / "killed" / "study.journal"
    lines, more = (
        (tmp_path / name / "study.journal").read_bytes().splitlines(keepends=True)
        for name in ("killed", "whole")
    )
    # In the midst of proposing trial 3: it has one of its settings.
    starts = [position for position, line in enumerate(more) if b'"op_code":5' in line][6]
    journal.write_bytes(b"".join([*lines, *more[len(lines) : starts + 1], b'{"op_code":5,"wor']))
    journal.with_name("study.journal.lock").touch()
    _sweep(data, tmp_path / "killed", trials=5)
    states = [trial["state"] for trial in trials_of(tmp_path / "killed")]
    assert states == ["complete"] * 5
    assert trials_of(tmp_path / "killed")[:3] == trials_of(tmp_path / "whole")[:3]


def test_a_sweep_killed_between_the_best_run_and_its_record_ends(data, tmp_path, pretended):
    _sweep(data, tmp_path, trials=2)
    before = json.loads((tmp_path / "sweep.json").read_text())["best"]
    (tmp_path / "sweep.json").unlink()
    (tmp_path / "best" / ".lock").touch()
    _sweep(data, tmp_path, trials=2)
    assert json.loads((tmp_path / "sweep.json").read_text())["best"] == before
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["run.json"]


def test_the_lock_of_a_trial_that_was_killed_is_removed(data, tmp_path, pretended, monkeypatch):
    pretended.figure = lambda settings: -9 if pretended.started[-1] == "001" else 0.5
    real = pretended.start

    def start(arguments: list[str], environment: dict[str, str], log: IO[bytes]) -> _Ended:
        run = Path(arguments[5])
        run.mkdir()
        (run / ".lock").touch()
        return real(arguments, environment, log)

    monkeypatch.setattr(child_processes, "start", start)
    _sweep(data, tmp_path, trials=3)
    assert [trial["state"] for trial in trials_of(tmp_path)] == ["complete", "failed", "complete"]
    assert list((tmp_path / "trials").rglob(".lock")) == []


def test_more_trials_continue_a_sweep_and_a_better_one_becomes_best(data, tmp_path, pretended):
    pretended.figure = lambda settings: 0.01 * len(pretended.started)
    _sweep(data, tmp_path, trials=2)
    assert json.loads((tmp_path / "sweep.json").read_text())["best"]["number"] == 1
    (tmp_path / "best" / "mine.txt").write_text("kept while the run is the same")
    _sweep(data, tmp_path, trials=2)
    assert (tmp_path / "best" / "mine.txt").exists()
    _sweep(data, tmp_path, trials=4)
    assert pretended.started == ["000", "001", "002", "003"]
    assert json.loads((tmp_path / "sweep.json").read_text())["best"]["number"] == 3
    assert not (tmp_path / "best" / "mine.txt").exists()


def test_a_trial_that_fails_is_listed_with_its_reason_and_not_tried_again(
    data, tmp_path, pretended, capsys
):
    fates: dict[str, float | int | str] = {
        "000": 0.5, "001": "epoch 1: the training has diverged", "002": -9, "003": math.nan,
        "004": 0.6,
    }  # fmt: skip
    pretended.figure = lambda settings: fates[pretended.started[-1]]
    real = pretended.start

    def start(arguments: list[str], environment: dict[str, str], log: IO[bytes]) -> _Ended:
        ended = real(arguments, environment, log)
        path = Path(arguments[5]) / "run.json"  # what is undefined is null in a real one
        if path.is_file():
            path.write_text(path.read_text().replace("NaN", "null"))
        return ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child_processes, "start", start)
        _sweep(data, tmp_path, trials=5)
        _sweep(data, tmp_path, trials=5)
    assert pretended.started == list(fates)
    made = trials_of(tmp_path)
    assert [trial["state"] for trial in made] == ["complete", *["failed"] * 3, "complete"]
    assert [trial["reason"] for trial in made[1:4]] == [
        "epoch 1: the training has diverged",
        "ended by SIGKILL, perhaps for want of memory",
        "auroc is undefined on the validation images",
    ]
    assert "trial 1 (" in (output := capsys.readouterr().err)
    assert "failed: epoch 1: the training has diverged; best 0.5000 (trial 0)" in output


def test_a_full_disk_stops_a_sweep_and_counts_for_no_trial(data, tmp_path, pretended):
    figure, pretended.figure = pretended.figure, lambda settings: InputError.status
    with pytest.raises(InputError) as stopped:
        _sweep(data, tmp_path / "filled", trials=3)
    assert stopped.value.full_disk
    assert pretended.started == ["000"]
    pretended.figure = figure
    _sweep(data, tmp_path / "filled", trials=3)
    _sweep(data, tmp_path / "whole", trials=3)
    assert trials_of(tmp_path / "filled") == trials_of(tmp_path / "whole")


def test_a_sweep_stops_where_trials_fail_again_and_again(data, tmp_path, pretended):
    pretended.figure = lambda settings: "no space left on the disk"
    with pytest.raises(InputError, match=r" 5 trials .*: no space left"):
        _sweep(data, tmp_path, trials=30)
    assert len(pretended.started) == 5
    pretended.figure = lambda settings: 0.5 if len(pretended.started) == 6 else "no space left"
    with pytest.raises(InputError, match="trial 10: no space left"):
        _sweep(data, tmp_path, trials=30)
    assert (tmp_path / "best" / "run.json").is_file()


def test_every_combination_of_listed_values_is_tried_once(data, tmp_path, pretended, capsys):
    over = ["training.batch_size=4,8,16", "training.optimiser=adamw,sgd"]
    _sweep(data, tmp_path, over, trials=9)
    made = [tuple(trial["settings"].values()) for trial in trials_of(tmp_path)]
    assert made[0] == ("8", "adamw")  # the configuration as it stands
    assert len(made) == len(set(made)) == 6
    assert "Every combination has been tried" in capsys.readouterr().err


def test_settings_of_an_earlier_trial_are_not_trained_again(data, tmp_path, pretended, monkeypatch):
    monkeypatch.setattr("cxr_compare.scripts.commands.sweep._SEED", 1)
    over = ["training.batch_size=4,8,16", "training.optimiser=adamw,sgd,adam"]
    _sweep(data, tmp_path, over, trials=8)
    made = trials_of(tmp_path)
    assert len(made) == 8
    repeated = [trial for trial in made if trial["state"] == "repeated"]
    assert repeated, "eight draws of nine combinations: choose another seed"
    for trial in repeated:
        first = next(one for one in made if one["settings"] == trial["settings"])
        assert (trial["value"], trial["run"]) == (first["value"], first["run"])
        assert f"{trial['number']:03d}" not in pretended.started


def test_parallel_trials_have_separate_folders_and_lose_nothing(
    data, tmp_path, pretended, monkeypatch
):
    running: list[str] = []
    most = [0]
    real = pretended.start

    class Slow(_Ended):
        def __init__(self, name: str, ended: _Ended) -> None:
            super().__init__(ended.status)
            self.name, self.polls = name, 2
            running.append(name)
            most[0] = max(most[0], len(running))

        def poll(self) -> int | None:
            self.polls -= 1
            if self.polls and self.name in running:
                return None
            running.remove(self.name)
            return self.status

    def start(arguments: list[str], environment: dict[str, str], log: IO[bytes]) -> _Ended:
        assert environment == {"OMP_NUM_THREADS": "1"}
        return Slow(Path(arguments[5]).name, real(arguments, environment, log))

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(child_processes, "start", start)
    _sweep(data, tmp_path, trials=7, jobs=3)
    assert most == [3]
    assert sorted(pretended.started) == [f"{n:03d}" for n in range(7)]
    assert [trial["state"] for trial in trials_of(tmp_path)] == ["complete"] * 7


def test_pruning_stops_a_trial_that_is_behind_the_median(data, tmp_path, pretended, monkeypatch):
    signals: list[int] = []
    real = pretended.start

    class Epochs(_Ended):
        """Writes an epoch's figure at each poll, four in all."""

        def __init__(
            self, arguments: list[str], environment: dict[str, str], log: IO[bytes]
        ) -> None:
            super().__init__(0)
            self.again = lambda: real(arguments, environment, log)
            self.run = Path(arguments[5])
            self.run.mkdir()
            self.figures: list[float] = []
            self.level = 0.9 if len(pretended.started) < 5 else 0.5
            pretended.figure = lambda settings: self.level

        def poll(self) -> int | None:
            if self.status or len(self.figures) == 4:
                return self.status or self.again().status
            # The first trials end before anybody looks at them.
            last = 4 if self.level == 0.9 else len(self.figures) + 1
            self.figures += [self.level + 0.01 * n for n in range(len(self.figures), last)]
            with (self.run / "metrics.csv").open("w") as file:
                table = csv.writer(file)
                table.writerows([("epoch", "auroc"), *enumerate(self.figures, 1)])
            return None if len(self.figures) < 4 else self.again().status

        def send_signal(self, number: int) -> None:
            signals.append(number)
            self.status = 130

    monkeypatch.setattr(child_processes, "start", Epochs)
    _sweep(data, tmp_path, trials=6, pruning=True)
    made = trials_of(tmp_path)
    assert [trial["state"] for trial in made] == ["complete"] * 5 + ["pruned"]
    assert made[5]["reason"] == "epoch 2: auroc 0.510 is behind the median of the others"
    assert (made[5]["value"], made[5]["epochs"]) == (None, 2)
    assert len(signals) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"over": [f"{LR}=1e-4..1e-1", OVER[1]]}, rf"{LR} was 0.0001 to 0.01 on a log scale, is"),
        ({"over": OVER[:1]}, "training.optimiser was adamw, sgd, is now not there"),
        ({"pruning": True}, "--pruning was False, is now True"),
        ({"set_": ["training.epochs=2"]}, "training.epochs was 1, is now 2"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused(data, trained, pretended, change, message):
    with pytest.raises(InputError, match=f"sweep: .*{message}"):
        _sweep(data, trained[0], **{"trials": 9, **change})
    assert pretended.started == []


def test_another_data_set_is_refused(data, trained, tmp_path, pretended):
    started = read_json(trained[0] / "sweep.started.json", "sweep_started")
    started["data_set"]["content_id"] = "of others"
    write_json(tmp_path / "sweep.started.json", "sweep_started", started)
    with pytest.raises(InputError, match=r"content_id .*of others"):
        _sweep(data, tmp_path, trials=9)
    assert pretended.started == []


def test_what_cannot_be_swept_is_refused_before_anything_is_written(data, tmp_path, pretended):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"--over training\.epoch=1,2: .*'training\.epochs'"):
        _sweep(data, out, ["training.epoch=1,2"])
    with pytest.raises(InputError, match=r"target 'lump'.*opacity$"):
        _sweep(data, out, set_=["data.target=lump"])
    with pytest.raises(InputError, match=r"none: .*cxr prepare"):
        sweep("chexnet_small", data=tmp_path / "none", out=out, over=OVER, trials=3)
    assert not out.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(InputError, match=r"holds 'thesis.txt'.*--out"):
        _sweep(data, tmp_path / "other")
    assert pretended.started == []


def test_several_processes_of_a_launcher_are_refused(data, tmp_path, pretended, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0",
                        "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"torchrun .* 2 processes.*--jobs$"):
        _sweep(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match=r"--jobs 2 .*--devices 2 .* 4 GPUs.* 3;"):
        share_gpus(["0", "1", "2"], devices=2, jobs=2)


@pytest.mark.long
def test_a_killed_sweep_takes_its_trials_along_and_goes_on(data: Path, tmp_path: Path) -> None:
    out, surroundings = tmp_path / "out", environment(str(ROOT))
    arguments = ["sweep", data.parent / "tiny.toml", "--data", data, "--out", out, "--trials", "3",
             "--jobs", "2", "--over", OVER[0]]  # fmt: skip
    killed = start(surroundings, *arguments)
    wait_until(lambda: [*out.glob("trials/*/config.toml")], 300)
    killed.kill()
    killed.communicate()
    ended(start(surroundings, *arguments))
    assert [trial["state"] for trial in trials_of(out)] == ["complete"] * 3
    assert len([*out.glob("trials/*/run.json")]) == 3
