"""The command line: one clear line for bad input, exit codes, no traceback."""

import configparser
import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest

from cxr_compare.configs.describe import summaries
from cxr_compare.configs.load import dump_config, find_config, read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.thresholds import ThresholdChoice
from cxr_compare.scripts import cli
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import all_commands, command_groups
from cxr_compare.scripts.commands import show
from cxr_compare.scripts.commands.list_configs import list_configs
from cxr_compare.scripts.next_steps import next_steps
from cxr_compare.scripts.options import read_settings
from cxr_compare.serving.export_spec import Card, Proof
from cxr_compare.training.run_info import RunInfo
from tests.plain_info import export_spec
from tests.scripts.small_sets import cxr, refusal

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-command"], "no-such-command"),
        (["trian"], '"train"?'),
        (["tune"], "PREDICTIONS is missing"),
        (["train", "chexnet", "--data", "set"], "--out is missing"),
        (["train", "chexnet", "--data"], "--data"),
        (["synth", "o", "--images", "many"], "--images"),
        (["serve", "run", "--port", "70000"], "65535"),
        (["show", "no-such-folder"], "no-such-folder"),
        (["show"], "give a folder, or --machine"),
        (["prepare", "nowhere", "out", "--format", "rsna"], "nowhere"),
        (
            ["compare", "a", "--data", "nowhere", "--out", "x", "--unit", "some"],
            '"image", "study", "patient"',
        ),
        (["predict", "nowhere", "--out", "x"], "nowhere: no such file or folder"),
        (["train", "no-such-config", "--data", "set", "--out", "o"], "no-such-config"),
        (["show", "--jsn", "x"], "--json?"),
        (["show", "empty"], "not a cxr folder"),
        (["prepare", "run", "out", "--format", "coco"], "run"),
        (["check", "raw"], "cxr prepare raw OUT"),  # a download
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("set/dataset.json", "run/run.json", "raw/stage_2_train_labels.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    status = cxr(*arguments)
    output = capfd.readouterr().err
    assert status == 2, output
    assert message in output
    assert len(output.strip().splitlines()) == 1, output
    assert "Traceback" not in output


_TRAIN = "train chexnet_small --data set --out o --set"
EXTRA_MODULES = {  # one of its modules, and a command that needs it
    "train": ("torch", "train chexnet_small --data set --out o"),
    "export": ("onnx", "export run --format onnx"),
    "serve": ("uvicorn", "serve run"),
    "cluster": ("ray", "CXR_ENGINE=ray prepare raw out --format coco"),
    "mlflow": ("mlflow", f'{_TRAIN} training.loggers=["mlflow"]'),
    "tensorboard": ("tensorboard", f'{_TRAIN} training.loggers=["tensorboard"]'),
    "wandb": ("wandb", f'{_TRAIN} training.loggers=["wandb"]'),
}
# Of lite, each configuration names its package of weights; detr is named by the detector's builder.
_NO_COMMAND = {"test", "lite", "detr", "docs"}


def test_an_extra_that_is_absent_is_named_before_any_work(tmp_path, monkeypatch, capsys):
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert EXTRA_MODULES.keys() == settings["options.extras_require"].keys() - _NO_COMMAND
    monkeypatch.chdir(tmp_path)
    for name in ("set/dataset.json", "run/run.json", "raw/instances.json", "image.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    for extra, (module, command) in EXTRA_MODULES.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)  # as if it were not installed
            arguments = command.split()
            if "=" in arguments[0]:  # an environment variable, as in a shell
                patch.setenv(*arguments.pop(0).split("="))
            line = refusal(capsys, *arguments)
        requirement = shlex.split(line)[-1]
        assert "run: pip install" in line
        assert requirement.endswith(f"[{extra}]"), line
        # the clone from which this package was installed
        assert (Path(requirement.removesuffix(f"[{extra}]")) / "setup.cfg").is_file()
        assert module in line
    assert sorted(tmp_path.rglob("*")) == before


def exit_code(
    monkeypatch: pytest.MonkeyPatch, folder: Path, describe: Callable[[Path], None]
) -> int:
    """What `cxr show` ends with where it does this in place of its work."""
    monkeypatch.setattr(show, "describe_folder", describe)
    return cxr("show", folder)


def test_ctrl_c_is_one_line_and_exit_code_130(tmp_path, monkeypatch, capsys):
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    assert exit_code(monkeypatch, tmp_path, interrupt) == 130
    assert capsys.readouterr().err == "cxr: interrupted; run the same command again to go on\n"


@pytest.mark.parametrize("error", [ValueError("odd"), EOFError("no data left")])
def test_bug_has_a_distinct_exit_status(tmp_path, monkeypatch, capsys, error):
    """1 means that a command found a problem, such as a change."""

    def break_down(folder: Path) -> None:
        raise error

    assert exit_code(monkeypatch, tmp_path, break_down) == 3
    assert "Traceback" in capsys.readouterr().err


def test_an_end_of_file_while_cleaning_up_hides_no_ctrl_c(tmp_path, monkeypatch, capsys):
    def end(folder: Path) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise EOFError("pipe closed")

    assert exit_code(monkeypatch, tmp_path, end) == 130
    assert "interrupted" in capsys.readouterr().err


def test_sigterm_is_one_line_too_after_all_is_cleaned_up(tmp_path, monkeypatch, capsys):
    cleaned = []

    def terminated(folder: Path) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            cleaned.append(folder)

    before = signal.getsignal(signal.SIGTERM)
    assert exit_code(monkeypatch, tmp_path, terminated) == 143
    assert capsys.readouterr().err == "cxr: ended by SIGTERM; run the same command again to go on\n"
    assert cleaned == [tmp_path]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "failures", [{}, {InputError.variable: "74"}]
)  # by a command that started it
def test_full_disk_met_anywhere_is_one_line(tmp_path, monkeypatch, capsys, failures):
    def fill(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name, status in failures.items():
        monkeypatch.setenv(name, status)
    assert exit_code(monkeypatch, tmp_path, fill) == (74 if failures else 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cxr: {tmp_path}: No space left on device (")


@pytest.mark.parametrize(
    ("left", "name"), [("synth.started.json", "cxr synth"), (".prepare", "cxr prepare")]
)
def test_show_names_the_command_that_completes_a_folder(tmp_path, left, name):
    (tmp_path / left).touch()
    with pytest.raises(InputError, match=f"unfinished .* {name} "):
        show.describe_folder(tmp_path)


def test_show_describes_this_machine(capsys):
    cli.run_command(show.show, machine=True, as_json=True)
    machine = json.loads(capsys.readouterr().out)
    assert machine["usable processors"] == len(os.sched_getaffinity(0))
    assert machine["bf16 instructions"] in ("yes", "no")
    assert machine["torch"] == metadata.version("torch")


def test_show_reports_the_comparison_of_an_export_with_its_run(tmp_path):
    proof = Proof(
        images="8 validation images",
        score_difference=0.25,
        decisions_changed=0.0,
        auroc=(0.9, 0.89),
    )
    card = Card(
        kind="CheXNet as onnx int8",
        run="out/chexnet",
        learned_from="phantom",
        calibrated_on="8 training images",
        runtime="onnxruntime",
        proof=proof,
    )
    card.write(tmp_path / "card.json")
    export_spec().write(tmp_path / "export.json")
    lines = show.describe_folder(tmp_path)
    assert lines["kind"] == "export, complete"
    assert lines["calibrated on"] == "8 training images"
    assert lines["compared with the run"] == proof.summary()
    assert "AUROC 0.9 to 0.89" in proof.summary()


def test_version_names_what_runs_and_imports_no_torch():
    code = (
        "import sys\nfrom cxr_compare.scripts.cli import build_app\n"
        "try: build_app('--version')(['--version'])\n"
        "finally: assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for package in ("cxr-compare", "torch", "torchvision"):
        assert f"{package} {metadata.version(package)}" in done.stdout
    assert f"Python {sys.version.split()[0]}" in done.stdout


def test_every_command_has_help_by_its_short_name_too(capfd):
    for name in map(command_name, all_commands()):
        assert cxr(name, "-h") == 0
        short = capfd.readouterr().out
        assert cxr(name, "--help") == 0
        assert capfd.readouterr().out == short


def test_help_has_three_groups_with_one_line_a_command_and_cxr_alone_is_the_help(capfd):
    assert cxr() == 0
    shown = capfd.readouterr().out
    titles = re.findall(r"╭─ (.*?) ─+╮", shown)
    assert titles == [*command_groups(), "Options"]
    lines = [line.strip("│ ") for line in shown.splitlines() if line.startswith("│ ")]
    commands = [line.split()[0] for line in lines if not line.startswith("-")]
    assert commands == [command_name(name) for name in all_commands()]
    assert cxr("--help") == 0
    assert capfd.readouterr().out == shown


def test_help_of_compare_shows_its_main_options_first(capfd):
    assert cxr("compare", "--help") == 0
    first, _, more = capfd.readouterr().out.partition("─ More ─")
    assert re.findall(r"^│ (--[a-z-]+)", first, re.MULTILINE) == [
        "--data", "--truth", "--boxes", "--patients", "--out"
    ]  # fmt: skip
    assert "SYSTEMS" in first
    others = re.findall(r"^│ (--[a-z-]+)", more, re.MULTILINE)
    assert {"--policy", "--unit", "--json"} <= set(others)


def test_shell_completes_names_of_configurations(capfd):
    assert cxr("__complete", "train", "retinanet_s") == 0
    assert "retinanet_small" in capfd.readouterr().out.split()


def test_a_configuration_shown_is_one_that_train_takes(tmp_path, capsys):
    assert cxr("configs", "retinanet_small", "--set", "training.epochs=7") == 0
    shown = capsys.readouterr()
    assert "Next: cxr train retinanet_small --set training.epochs=7" in shown.err
    (tmp_path / "mine.toml").write_text(shown.out)
    config = read_config(tmp_path / "mine.toml")
    assert config == read_config(find_config("retinanet_small"), ["training.epochs=7"])
    assert cxr("configs", "retinanet_small", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "detector"


def test_next_step_of_changed_keys_can_be_typed():
    changes = {"training": {"epochs": 7, "loggers": ["tensorboard"]}, "model.weights": "none"}
    (step,) = list_configs("retinanet_small", set_=changes).next_steps
    words = shlex.split(step)
    typed = [text for option, text in pairwise(words) if option == "--set"]
    path = find_config("retinanet_small")
    assert read_config(path, typed) == read_config(path, read_settings(changes))


def test_a_run_shows_the_configuration_that_trained_it(tmp_path, capsys):
    (tmp_path / "config.toml").write_text(dump_config(read_config(find_config("chexnet"))))
    assert cxr("configs", tmp_path) == 0
    assert tomllib.loads(capsys.readouterr().out)["name"] == "CheXNet"


def test_list_of_configurations_has_one_a_line(capsys):
    assert cxr("configs") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == ["name", *(e.name for e in summaries())]
    assert cxr("configs", "--json") == 0
    assert {e["name"] for e in json.loads(capsys.readouterr().out)} >= {"chexnet"}
    assert cxr("configs", "--set", "training.epochs=7") == 2


def test_show_lists_the_contents_of_a_parent_folder(tmp_path):
    for name, marker, content in (
        ("a", "run.json", {"name": "RetinaNet"}),
        ("b", "config.toml", {}),
        ("c", "predictions.json", {"system": "Radiologist"}),
        ("notes", "todo.txt", {}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / marker).write_text(json.dumps(content))
    lines = show.describe_folder(tmp_path)
    assert lines.pop("kind") == "folder of folders"
    assert lines == {
        "a": "run RetinaNet",
        "b": "unfinished run; run the same cxr train again",
        "c": "predictions Radiologist",
    }


def test_show_names_weights_and_operating_point_of_a_run(tmp_path, capsys):
    info = RunInfo(name="A", model_kind="detector", seed=0, stopped_early=False)
    info.write(tmp_path / "run.json")
    (tmp_path / "model.safetensors").write_bytes(bytes(1_500_000))
    assert cxr("show", tmp_path) == 0
    shown = capsys.readouterr().err
    assert f"weights  {tmp_path / 'model.safetensors'} (1.5 MB)" in shown
    assert "validation  none; the same cxr train command adds it" in shown
    assert "seed  0" in shown
    assert "stopped_early  no" in shown
    (tmp_path / "validation" / "decisions").mkdir(parents=True)
    predictions = PredictionsInfo(system="A", kind="boxes")
    predictions.write(tmp_path / "validation" / "predictions.json")
    thresholds = {"max_f1": ThresholdChoice("max_f1", 0.25)}
    chosen = Choices(target="opacity", chosen_on={}, thresholds=thresholds)
    chosen.write(tmp_path / "validation" / "decisions" / "opacity.json")
    (tmp_path / "guard.json").write_text("{}")
    facts = show.describe_folder(tmp_path)
    assert facts["validation"] == str(tmp_path / "validation")
    assert facts["decision"] == "opacity (max_f1: positive from score 0.25 on)"
    assert facts["guard"] == str(tmp_path / "guard.json")


def test_what_to_do_next_can_be_pasted_and_parses(tmp_path):
    """Each step of the way, in a folder whose name needs quotes."""
    out = tmp_path / "my out"
    run_info = {"data_set": {"content_id": "c", "split_id": "s"}, "target": "opacity"}
    files: dict[str, dict[str, object]] = {
        "xrays/synth.json": {},
        "retinanet/run.json": {**run_info, "model_kind": "detector"},
        "other/run.json": {**run_info, "target": "effusion", "model_kind": "classifier"},
        "tuned/predictions.json": run_info,
        "tuned/decisions/opacity.json": {},
        "untuned/predictions.json": run_info,
        "loose/predictions.json": {"data_set": None},
        "report/answer.json": {},
        "report/systems/A/predictions.json": run_info,
    }
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(json.dumps(content))
    steps = {name: next_steps(out / name) for name in ("xrays", "retinanet", "tuned", "untuned")}
    assert steps["xrays"] == [f"cxr prepare '{out}/xrays' '{out}/data' --format rsna"]
    # The other run has another target, so there is no rival yet.
    assert steps["retinanet"][0] == f"cxr train chexnet_small --data DATA --out '{out}/chexnet'"
    assert steps["untuned"] == [f"cxr tune '{out}/untuned' --data DATA"]
    assert next_steps(out / "loose") == []
    assert next_steps(out / "report/systems/A") == next_steps(out / "report") != []
    (out / "other" / "run.json").write_text(json.dumps({**run_info, "model_kind": "classifier"}))
    (out / "data").mkdir()
    (out / "data" / "dataset.json").write_text('{"ids": {"content_id": "c"}}')
    compared = next_steps(out / "retinanet")[0]
    assert compared == (
        f"cxr compare '{out}/retinanet' '{out}/other' --data '{out}/data' --out '{out}/report-2'"
    )
    app = cli.build_app()
    for command in [*(step[0] for step in steps.values()), compared]:
        app.parse_args(shlex.split(command)[1:])
