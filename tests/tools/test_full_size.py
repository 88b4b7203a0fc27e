"""The full-size study: its protocol, refusals, prediction, and a rehearsal that is killed."""

import json
import tomllib
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import tomli_w

from cxr_compare.configs.load import read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.commands.synth import synth
from tests.blank_plots import blank_plots
from tools.full_size import __main__ as program
from tools.full_size.network_cost import NetworkCost, count_cost
from tools.full_size.prediction import (
    DECODED,
    START,
    count_images,
    needed_bytes,
    predict_step,
    prediction_table,
)
from tools.full_size.protocol import Protocol, read_protocol
from tools.full_size.record import EndedStep, add_step, ended_steps
from tools.full_size.rehearsal_folders import write_rehearsal
from tools.full_size.requirements import require_disk, require_gpu, require_images
from tools.full_size.results import (
    CHALLENGE_TITLE,
    LEAK_TITLE,
    LEAKY_FOLDS_TITLE,
    POOLED_TITLE,
    Figure,
    check_goals,
)
from tools.full_size.runner import remaining_seconds, run_here, run_steps
from tools.full_size.steps import Step, study_steps

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "scripts" / "full_size.toml"


def content() -> dict:
    return tomllib.loads(PROTOCOL.read_text())


def written(folder: Path, changed: dict) -> Path:
    path = folder / "study.toml"
    path.write_text(tomli_w.dumps(changed))
    return path


def protocol() -> Protocol:
    return read_protocol(PROTOCOL).protocol


# The protocol


def test_every_system_has_the_same_images_epochs_and_size():
    configs = [protocol().config_of(system) for system in protocol().system]
    assert [config.kind for config in configs] == ["detector", "classifier", "classifier"]
    assert {config.data.image_size for config in configs} == {512}
    trained = configs[:2]
    assert {(c.training.epochs, c.training.patience) for c in trained} == {(15, 0)}


@pytest.mark.parametrize(
    ("section", "key", "value", "named"),
    [
        ("training", "epoch", 3, "training.epochs"),
        ("folds", "nummer", 5, "folds.number"),
        ("folds", "used", 6, "used = 6"),
        ("training", "epochs", "15", "training.epochs"),
        ("leak", "used", 1, "used = 1"),
    ],
)
def test_wrong_key_is_refused_by_its_name(tmp_path, section, key, value, named):
    changed = content()
    changed[section][key] = value
    with pytest.raises(InputError, match=r"study\.toml") as refused:
        read_protocol(written(tmp_path, changed))
    assert named in str(refused.value)


def test_misspelt_key_of_a_system_suggests_a_key_of_systems(tmp_path):
    changed = content()
    changed["system"][1]["confg"] = changed["system"][1].pop("config")
    with pytest.raises(InputError, match=r"system\.1\.confg.*'system\.config'"):
        read_protocol(written(tmp_path, changed))


def test_key_that_the_configuration_of_a_system_lacks_is_refused(tmp_path):
    changed = content()
    changed["system"][0]["set"] = {"training.batch_sise": 4}
    with pytest.raises(InputError, match=r"RetinaNet.*training\.batch_sise"):
        read_protocol(written(tmp_path, changed))


def test_goal_of_a_system_that_is_not_there_is_refused(tmp_path):
    changed = content()
    changed["goal"][0]["systems"] = ["RetinaNet", "ResNet"]
    with pytest.raises(InputError, match="'ResNet'"):
        read_protocol(written(tmp_path, changed))


# The steps


def test_steps_train_each_system_fold_and_seed_once_in_each_arm():
    steps = study_steps(protocol(), Path("out"))
    trained = Counter((step.arm, step.system) for step in steps if step.kind == "train")
    assert trained == {
        ("fold", "RetinaNet"): 15,
        ("fold", "CheXNet"): 15,
        ("fold", "Probe"): 5,
        ("leaky", "RetinaNet"): 15,
        ("leaky", "CheXNet"): 15,
        ("leaky", "Probe"): 5,
        ("challenge", "RetinaNet"): 3,
        ("challenge", "CheXNet"): 3,
        ("challenge", "Probe"): 1,
    }
    assert len({step.name for step in steps}) == len(steps)


def test_study_without_challenge_and_leak_has_neither():
    small = protocol()
    small = small.model_copy(
        update={
            "data": small.data.model_copy(update={"challenge": ""}),
            "leak": small.leak.model_copy(update={"used": 0}),
        }
    )
    steps = study_steps(small, Path("out"))
    assert {step.arm for step in steps} == {"fold", ""}


# The prediction


COSTS = {
    "RetinaNet": NetworkCost(100e9, 300e9, 30_000_000, 0.001),
    "CheXNet": NetworkCost(30e9, 90e9, 7_000_000, 0.2),
    "Probe": NetworkCost(30e9, 0.0, 7_000_000, 0.0),
}


def step_of(kind: str, system: str) -> Step:
    steps = study_steps(protocol(), Path("out"))
    return next(step for step in steps if (step.kind, step.system) == (kind, system))


def predicted(kind: str, system: str = ""):
    study = protocol()
    return predict_step(
        study,
        step_of(kind, system),
        COSTS,
        lambda arm: count_images(study, arm, 26_684, 3_000),
        0.4,
    )


def test_predicted_training_is_operations_by_the_share_of_the_peak():
    # 18,785 training and 2,562 validation images, 15 epochs, 989 and 67 TFLOP/s
    learned = 15 * (18_785 * 300e9 + 2_562 * 100e9) / (989e12 * 0.4)
    chosen = 2_562 * 100e9 / (67e12 * 0.4)
    time = predicted("train", "RetinaNet")
    assert time.compute == pytest.approx(learned + chosen)
    assert time.reading == pytest.approx(15 * 18_785 * 0.001 / 16)
    assert time.seconds == pytest.approx(time.compute + START)


def test_slow_reading_bounds_a_training():
    time = predicted("train", "CheXNet")
    assert time.seconds == pytest.approx(15 * 18_785 * 0.2 / 16 + START)


def test_probe_reads_each_image_once():
    images = 18_785 + 2_562 + 2_562
    assert predicted("train", "Probe").compute == pytest.approx(images * 30e9 / (67e12 * 0.4))


def test_prepared_images_are_bounded_by_decoding():
    assert predicted("prepare").seconds == pytest.approx(26_684 / DECODED / 16 + START)


def test_table_adds_up_and_disk_covers_the_pixels():
    table = prediction_table(protocol(), COSTS)
    rows = [row.split("|") for row in table.splitlines() if row.startswith("|")][2:]
    *parts, total = [int(row[2]) for row in rows]
    assert sum(parts) == total == len(study_steps(protocol(), Path("out")))
    pixels = (2 * 26_684 + 29_684) * 512**2
    study = protocol()
    needed = needed_bytes(
        study,
        study_steps(study, Path("out")),
        COSTS,
        lambda arm: count_images(study, arm, 26_684, 3_000),
    )
    assert needed > pixels


def test_operations_are_counted_forward_and_backward():
    keys = {"data.image_size": 64}
    trained = count_cost(read_config(ROOT / "configs/small_cnn.toml", keys))
    # Backward computes twice what forward does, but for the first layer, whose input is fixed.
    assert 2 * trained.forward < trained.step < 3 * trained.forward
    probe = count_cost(read_config(ROOT / "configs/probe.toml", {"data.image_size": 64}))
    assert probe.step == 0 < probe.forward


def test_remaining_time_follows_steps_of_the_same_kind_and_system():
    steps = [
        Step("a0", "train", ("cxr",), "A"),
        Step("b0", "train", ("cxr",), "B"),
        Step("a1", "train", ("cxr",), "A"),
        Step("b1", "train", ("cxr",), "B"),
        Step("c", "compare", ("cxr",)),
    ]
    expected = dict.fromkeys(("a0", "b0", "a1", "b1", "c"), 10.0)
    ended = {"a0": EndedStep("a0", 20.0, ""), "b0": EndedStep("b0", 5.0, "")}
    assert remaining_seconds(steps, expected, {}) is None
    assert remaining_seconds(steps, expected, ended) == pytest.approx(20 + 5 + 12.5)


# What is refused


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("full-size") / "rsna"
    synth(folder, images=60, size=96, seed=5)
    return folder


def with_data(**keys: object) -> Protocol:
    study = protocol()
    return study.model_copy(update={"data": study.data.model_copy(update=keys)})


def test_missing_and_incomplete_images_are_refused_by_name(images, tmp_path):
    with pytest.raises(InputError, match="none: no such folder"):
        require_images(with_data(training=str(tmp_path / "none")))
    with pytest.raises(InputError, match="has 60 images, 26,684 are needed"):
        require_images(with_data(training=str(images)))
    assert require_images(with_data(training=str(images)), rehearsal=True) == 60
    incomplete = tmp_path / "rsna"
    incomplete.mkdir()
    for path in images.iterdir():
        if path.name != "rsna_to_nih.csv":
            (incomplete / path.name).symlink_to(path)
    with pytest.raises(InputError, match=r"rsna_to_nih\.csv: is missing"):
        require_images(with_data(training=str(incomplete)), rehearsal=True)


def test_incomplete_release_is_refused_by_name(images, tmp_path):
    write_rehearsal(images, tmp_path, 0.2, 0)
    release = tmp_path / "release"
    study = {"training": str(images), "n_training": 60, "challenge": str(release)}
    assert require_images(with_data(**study, n_challenge=12)) == 60
    with pytest.raises(InputError, match="lists 12 images, 3,000 are needed"):
        require_images(with_data(**study))
    mapping = release / "pneumonia-challenge-dataset-mappings_2018.json"
    mapping.unlink()
    with pytest.raises(InputError, match=f"{mapping.name}: is missing"):
        require_images(with_data(**study))


def test_missing_gpu_and_small_disk_are_refused(tmp_path):
    with pytest.raises(InputError, match="no GPU"):
        require_gpu(lambda device: False)
    require_gpu(lambda device: True)
    with pytest.raises(InputError, match="are free"):
        require_disk(tmp_path, 1 << 60, 0.5)
    require_disk(tmp_path, 1 << 60, 1.0)  # all of it is written


def test_refusal_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = ["--protocol", str(PROTOCOL), "--data", str(tmp_path / "none"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["full_size", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()


def test_failed_command_is_named_with_its_log(tmp_path):
    def fails(words, log):
        log.write_text("a\ncxr: no image\n")
        return 2

    step = Step("train A", "train", ("cxr", "train"), "A")
    with pytest.raises(InputError, match=r"train A: failed with status 2.*no image.*\.log"):
        run_steps(tmp_path, [step], {"train A": 1.0}, run=fails, say=str)
    assert ended_steps(tmp_path) == {}


def test_line_that_a_kill_cut_short_is_no_ended_step(tmp_path):
    add_step(tmp_path, EndedStep("one", 1.0, ""))
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"name": "two", "sec')
    add_step(tmp_path, EndedStep("three", 1.0, ""))
    assert list(ended_steps(tmp_path)) == ["one", "three"]


def test_goal_needs_figure_and_half_width():
    def met(estimate: float, half: float) -> list:
        figure = Figure(
            POOLED_TITLE, "CheXNet", "auroc", estimate, estimate - half, estimate + half, 1
        )
        return [r.met for r in check_goals(protocol(), [figure]) if r.figure]

    assert [met(0.90, 0.009), met(0.899, 0.009), met(0.95, 0.011)] == [[True], [False], [False]]


# A rehearsal


class Kill(BaseException):
    """The end of a process at any moment."""


def small_study(*, detector: bool) -> dict:
    """The protocol with two systems, one seed and a hundred replicates."""
    changed = content()
    stand_ins = changed["rehearsal"]["system"]
    systems = [("Probe", 2 if detector else 1), ("Other", 0 if detector else 1)]
    changed["system"] = [{"name": name, "config": "chexnet", "seeds": [0]} for name, _ in systems]
    changed["question"]["reference"] = "Probe"
    changed["goal"] = [
        {"metric": "auroc", "on": "pooled", "systems": ["Probe"], "at_least": 0.9},
        {"metric": "ap50", "on": "folds", "systems": ["Other"]},
    ]
    changed["rehearsal"] |= {
        "seeds": [0],
        "replicates": 100,
        "challenge_share": 0.2,
        "system": [stand_ins[number] | {"name": name} for name, number in systems],
    }
    if not detector:  # the same small network twice, as two systems
        changed["rehearsal"]["system"][1]["set"] = {"training.learning_rate": 1e-4}
    return changed


def rehearse_with_a_kill(images: Path, tmp_path: Path, changed: dict) -> list[str]:
    """Kill a rehearsal in its first prediction, let it go on, and return all commands that ran."""
    path = written(tmp_path, changed)
    out = tmp_path / "out"
    ran: list[str] = []

    def runs(words, log):
        ran.append(" ".join(words))
        return run_here(words, log)

    def killed(words, log):
        if words[:2] == ("cxr", "predict"):
            raise Kill
        return runs(words, log)

    with pytest.raises(Kill):
        program.run_study(path, out, rehearsal=True, data=images, run=killed)
    assert [name.split()[0] for name in ended_steps(out)][-1] == "train"
    program.run_study(path, out, rehearsal=True, data=images, run=runs)
    assert set(Counter(ran).values()) == {1}  # nothing was run twice
    ended = len(ran)
    program.run_study(path, out, rehearsal=True, data=images, run=runs)
    assert len(ran) == ended  # and nothing again
    assert len(json.loads((out / "record.json").read_text())["calls"]) == 3
    return ran


@pytest.mark.slow
def test_killed_rehearsal_goes_on_and_ends_with_a_table_and_a_page(images, tmp_path):
    changed = small_study(detector=False)
    changed["data"]["challenge"] = ""
    changed["leak"]["used"] = 0
    with blank_plots():
        rehearse_with_a_kill(images, tmp_path, changed)
    out = tmp_path / "out"
    table = pd.read_csv(out / "results.csv")
    pooled = table[(table["on"] == POOLED_TITLE) & (table["metric"] == "auroc")]
    assert {"Probe", "Other"} <= set(pooled["system"])
    truth = pd.read_csv(out / "tables" / "pooled" / "truth.csv")
    assert truth["image_id"].is_unique  # each image was tested in one fold
    assert truth["patient_id"].nunique() < len(truth)
    assert "rehearsal" in (out / "results.html").read_text()
    record = json.loads((out / "record.json").read_text())
    assert record["calls"][0]["versions"]["torch"]
    assert record["seeds"]["trainings"] == {"Probe": [0], "Other": [0]}
    changed["folds"]["seed"] = 1
    with pytest.raises(InputError, match="another protocol"):
        program.run_study(written(tmp_path, changed), out, rehearsal=True, data=images)


@pytest.mark.slow
@pytest.mark.release
def test_rehearsal_has_the_challenge_and_the_price_of_the_leak(images, tmp_path):
    rehearse_with_a_kill(images, tmp_path, small_study(detector=True))
    out = tmp_path / "out"
    table = pd.read_csv(out / "results.csv")
    assert {CHALLENGE_TITLE, LEAK_TITLE, LEAKY_FOLDS_TITLE} <= set(table["on"])
    price = table[(table["on"] == LEAK_TITLE) & (table["metric"] == "auroc")]
    assert set(price["system"]) == {"Probe", "Other"}
    clean, leaky = (pd.read_csv(out / "tables" / name / "truth.csv") for name in ("clean", "leaky"))
    pd.testing.assert_frame_equal(clean, leaky)  # the same images and patients: a paired difference
    assert "have a patient who is also in training" in (out / "results.md").read_text()
