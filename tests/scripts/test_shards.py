"""Shards of `cxr prepare` and `cxr predict`, joined, give the folder that one call gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store import build_pixel_store
from cxr_compare.data_prep.synth.phantom import write_phantom
from cxr_compare.data_prep.work import shards
from cxr_compare.data_prep.work.shards import Shard, read_shard
from cxr_compare.serving import predict_folder
from tests.plain_sets import prepare_plain
from tests.scripts.launched import contents
from tests.scripts.small_sets import cxr, refusal, write_source
from tests.scripts.untrained import untrained_run

HOW = ("--format", "rsna", "--size", "64", "--workers", "0")
COUNT = 3
SLURM = ("ID", "MIN", "MAX", "COUNT")


@pytest.fixture(autouse=True)
def no_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CXR_SHARD", *(f"SLURM_ARRAY_TASK_{name}" for name in SLURM)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, one of which is none, and one whose box leaves it."""
    folder = tmp_path_factory.mktemp("shards") / "source"
    write_phantom(folder, n_images=30, size=64, seed=4, prevalence=0.5)
    images = sorted((folder / "stage_2_train_images").glob("*.dcm"))
    images[2].write_bytes(b"no image")
    labels = pd.read_csv(folder / "stage_2_train_labels.csv", dtype={"Target": "Int64"})
    with_box = labels["x"].notna()
    labels.loc[labels.index[with_box][0], "x"] = 600.0
    labels.to_csv(folder / "stage_2_train_labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def whole(source: Path) -> Path:
    """The data set that one call makes."""
    assert cxr("prepare", source, source.parent / "one/set", *HOW) == 0
    return source.parent / "one/set"


@pytest.fixture(scope="module")
def made_shards(source: Path) -> list[Path]:
    """The shards of the same data set, which tests must not change."""
    return make_shards(source.parent / "several/set", "prepare", source, HOW)


def make_shards(out: Path, command: str, first: Path, options: tuple[Any, ...]) -> list[Path]:
    for number in range(1, COUNT + 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_SHARD", f"{number}/{COUNT}")
            assert cxr(command, first, *options, "--out", out) == 0
    assert not out.exists()
    return [Shard(number, COUNT).folder(out) for number in range(1, COUNT + 1)]


def test_joined_shards_are_the_data_set_of_one_call(source, whole, made_shards, tmp_path):
    joined = tmp_path / "set"
    assert cxr("prepare", source, joined, *HOW, "--join", *made_shards[::-1]) == 0
    assert contents(joined) == contents(whole)
    stages = pd.read_parquet(joined / "excluded.parquet")["stage"]
    assert sorted(stages) == ["decode", "labels"]


def test_an_image_that_is_not_of_its_stated_size_keeps_its_row(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    ids = [f"i{number}" for number in range(7)]
    facts = {
        "path": [f"{name}.png" for name in ids],
        "height": 40,
        "width": [50] * 4 + [60, 50, 50],
    }
    source = write_source(tmp_path / "source", ids, {"mass": ["absent"] * 7}, **facts)
    for name in facts["path"]:
        Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(source / name)
    prepare_plain(source, tmp_path / "one/set", size=[64])
    out = tmp_path / "several/set"
    for number in range(1, COUNT + 1):
        monkeypatch.setenv("CXR_SHARD", f"{number}/{COUNT}")
        prepare_plain(source, out, size=[64])
    monkeypatch.delenv("CXR_SHARD")
    prepare_plain(source, out, size=[64], join=sorted(out.parent.iterdir()))
    assert len(np.load(out / "pixels/64.npy")) == len(ids)
    assert pd.read_parquet(out / "excluded.parquet")["stage"].tolist() == ["size"]
    assert contents(out) == contents(tmp_path / "one/set")


def test_join_decodes_no_image_again(source, made_shards, tmp_path, monkeypatch):
    tasks = []
    decode = build_pixel_store.decode_row
    monkeypatch.setattr(
        build_pixel_store, "decode_row", lambda task: tasks.append(task) or decode(task)
    )
    assert cxr("prepare", source, tmp_path / "set", *HOW, "--join", *made_shards) == 0
    assert len(tasks) == 1  # the file that is no image


def interrupt_after(n_images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come when some images were decoded."""
    left = iter(range(n_images))
    decode = build_pixel_store.decode_row

    def stopped(task: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return decode(task)

    monkeypatch.setattr(build_pixel_store, "decode_row", stopped)


def test_an_interrupted_shard_and_an_interrupted_join_go_on(
    source, whole, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setenv("CXR_SHARD", f"2/{COUNT}")
        interrupt_after(2, patch)
        assert cxr("prepare", source, out, *HOW) == 130
    unfinished = Shard(2, COUNT).folder(out)
    capsys.readouterr()
    line = refusal(capsys, "prepare", source, out, *HOW, "--join", unfinished)
    assert f"CXR_SHARD=2/{COUNT}" in line
    made = make_shards(out, "prepare", source, HOW)
    with monkeypatch.context() as patch:
        interrupt_after(0, patch)  # at the file that is no image, after all were taken over
        assert cxr("prepare", source, out, *HOW, "--join", *made) == 130
    assert cxr("prepare", source, out, *HOW, "--join", *made) == 0
    assert contents(out) == contents(whole)


def test_only_all_shards_of_the_same_call_are_joined(
    source, made_shards, tmp_path, monkeypatch, capsys
):
    first, second, third = made_shards
    out = tmp_path / "set"

    def join(*folders: Path, how: tuple[str, ...] = HOW, images: Path = source) -> str:
        capsys.readouterr()
        line = refusal(capsys, "prepare", images, out, *how, "--join", *folders)
        assert not out.exists()
        return line

    assert "2/3" in join(first, third)
    assert str(second) in join(first, second, second, third)
    assert str(tmp_path) in join(first, second, tmp_path)
    other_share = (*HOW, "--val", "0.3")
    assert "val=0.15" in join(*made_shards, how=other_share)
    assert "size=[64]" in join(*made_shards, how=("--format", "rsna", "--size", "32"))
    of_two = made_shards[0].with_name("set-2-of-2")
    with monkeypatch.context() as patch:
        patch.setenv("CXR_SHARD", "2/2")
        assert cxr("prepare", source, made_shards[0].with_name("set"), *HOW) == 0
    assert "2/2" in join(first, of_two)
    shutil.copytree(source, tmp_path / "fewer")
    labels = pd.read_csv(source / "stage_2_train_labels.csv")
    labels[labels["patientId"] != labels["patientId"].iloc[-1]].to_csv(
        tmp_path / "fewer/stage_2_train_labels.csv", index=False
    )
    assert str(first) in join(*made_shards, images=tmp_path / "fewer")
    versions = shards.software_versions() | {"pillow": "0.1"}
    monkeypatch.setattr(shards, "software_versions", lambda: versions)
    assert "pillow" in join(*made_shards)


def test_a_shard_is_no_data_set_and_no_other_shard(source, made_shards, capsys, monkeypatch):
    shard = made_shards[0]
    pattern = f"{shard.with_name('set')}-*-of-{COUNT}"
    for command in (
        ("train", "chexnet_small", "--data", shard, "--out", shard.with_name("run")),
        ("split", shard, "--name", "other"),
        ("check", shard),
        ("compare", "A=a", "B=b", "--data", shard, "--out", shard.with_name("report")),
        ("prepare", shard, made_shards[1], "--out", shard.with_name("both")),
    ):
        line = refusal(capsys, *command)
        assert f"cxr prepare {source} " in line
        assert line.endswith(f"--join {pattern}")
    assert str(shard) in refusal(capsys, "prepare", source, shard, *HOW)
    monkeypatch.setenv("CXR_SHARD", f"1/{COUNT}")
    assert str(shard) in refusal(
        capsys, "prepare", source, shard.with_name("set"), *HOW, "--test", "0.3"
    )


def test_variables_of_slurm_alone_change_nothing(source, whole, tmp_path, monkeypatch):
    for name, value in zip(SLURM, "2132", strict=True):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert read_shard(join=False) is None
    assert cxr("prepare", source, tmp_path / "set", *HOW) == 0
    assert contents(tmp_path / "set") == contents(whole)


@pytest.mark.parametrize(
    ("variables", "shard"),
    [
        ((2, 1, 3, 3), Shard(2, 3)),
        ((0, 0, 63, 64), Shard(1, 64)),
        ((7, 7, 7, 1), None),  # one task that is repeated alone
        ((4, 3, 5, 3), None),  # some of them
        ((5, 1, 5, 2), None),  # an array with gaps
        (("", "", "", ""), None),
    ],
)
def test_shard_of_a_slurm_array(variables, shard, monkeypatch):
    monkeypatch.setenv("CXR_SHARD", "slurm")
    for name, value in zip(SLURM, variables, strict=True):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    if shard is None:
        with pytest.raises(InputError):
            read_shard(join=False)
    else:
        assert read_shard(join=False) == shard


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/x", "SLURM"])
def test_a_wrong_variable_is_refused(text, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXR_SHARD", text)
    assert text in refusal(capsys, "prepare", source, tmp_path / "set", *HOW)


def test_calls_that_have_no_shards_are_refused(source, whole, made_shards, monkeypatch, capsys):
    monkeypatch.setenv("CXR_SHARD", "1/3")
    image = next((source / "stage_2_train_images").iterdir())
    for command in (
        ("prepare", source, whole, *HOW, "--add"),
        ("prepare", whole, whole, "--out", whole.with_name("both")),
        ("prepare", source, whole, *HOW, "--join", *made_shards),
        ("predict", "run", image),
    ):
        assert "CXR_SHARD=1/3" in refusal(capsys, *command)


@pytest.mark.parametrize(
    "kind", ["classifier", pytest.param("detector", marks=pytest.mark.release)]
)
@pytest.mark.usefixtures("one_thread")
def test_joined_predictions_are_those_of_one_call(kind, whole, tmp_path, monkeypatch, capsys):
    run = untrained_run(kind, whole, tmp_path / "run")
    monkeypatch.setattr(predict_folder, "PART_SIZE", 4)
    how = ("--data", whole, "--batch-size", "2", "--device", "cpu")
    assert cxr("predict", run, *how, "--out", tmp_path / "one/made") == 0
    out = tmp_path / "several/made"
    made = make_shards(out, "predict", run, how)
    evaluated = DataSet.open(whole).split("default")["role"].isin(["val", "test"]).sum()
    assert evaluated > 2 * COUNT  # more than one batch in a shard
    for command in ("tune", "compare"):
        given = [made[0]] if command == "tune" else [f"A={made[0]}", f"B={made[1]}"]
        capsys.readouterr()
        more = [] if command == "tune" else ["--out", tmp_path / "report"]
        line = refusal(capsys, command, *given, "--data", whole, *more)
        assert f"cxr predict {run} " in line
        assert line.endswith(f"--join {out}-*-of-{COUNT}")
    assert cxr("show", made[0]) == 0
    assert f"--join {out}-*-of-{COUNT}" in capsys.readouterr().err
    join = ("predict", run, "--data", whole, "--device", "cpu", "--out", out)
    assert "batch_size=2" in refusal(capsys, *join, "--batch-size", "3", "--join", *made)
    assert "1/3" in refusal(capsys, *join, "--batch-size", "2", "--join", *made[1:])
    assert cxr(*join, "--batch-size", "2", "--join", *made) == 0
    assert contents(out) == contents(tmp_path / "one/made")


def test_an_interrupted_shard_of_predictions_goes_on(whole, tmp_path, monkeypatch):
    run = untrained_run("classifier", whole, tmp_path / "run")
    monkeypatch.setattr(predict_folder, "PART_SIZE", 1)
    how = ("--data", whole, "--batch-size", "1", "--device", "cpu")
    out = tmp_path / "made"

    def stop_at(n_parts: int) -> Callable[..., None]:
        def stopped(writer: Any, batches: Any, *_: Any) -> None:
            for number, part in enumerate(batches):
                if number == n_parts:
                    raise KeyboardInterrupt
                writer.add(part.images, **part.tables)

        return stopped

    with monkeypatch.context() as patch:
        patch.setenv("CXR_SHARD", f"1/{COUNT}")
        patch.setattr(predict_folder, "write_parts", stop_at(1))
        assert cxr("predict", run, *how, "--out", out) == 130
    made = make_shards(out, "predict", run, how)
    with monkeypatch.context() as patch:
        patch.setattr(predict_folder, "write_parts", stop_at(2))
        assert cxr("predict", run, *how, "--out", out, "--join", *made) == 130
    assert cxr("predict", run, *how, "--out", out, "--join", *made) == 0
    split = DataSet.open(whole).split("default")
    evaluated = sorted(split.loc[split["role"].isin(["val", "test"]), "image_id"])
    parts = sorted((out / "predicted_images.parquet").iterdir())
    assert [pd.read_parquet(part)["image_id"][0] for part in parts] == evaluated
