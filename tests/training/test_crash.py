"""Interrupted and damaged work: it goes on to the same bytes, or says which file is damaged."""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback

import cxr_compare
from cxr_compare import InputError
from tests.adapters import folders, serving
from tests.adapters.training import Constant, albumentations
from tests.data_prep.test_prepare import prepare, write_source
from tests.killed import killed_at
from tests.trainings import contents, train

# --- a flipped bit --------------------------------------------------------------------------------

# Pages, pictures and tables for people, which the program does not read again.
UNREAD = {".html", ".png", ".svg", ".pdf", ".tex", ".md", ".csv", ".txt", ".toml", ".lock"}


def outcome(folder, path, whole):
    """Outcome of reading a folder in which a file is damaged."""
    try:
        return "harmless" if folders.content(folder) == whole else "silent"
    except InputError as error:
        line = str(error)
        above = [path.name, *(p.name for p in path.parents if p.is_relative_to(folder))]
        assert "\n" not in line
        assert any(name in line for name in above), line
        return "refused"


def flip_bits(folder, count, seed):
    """Flip a bit in each of `count` drawn files, one at a time; count the outcomes."""
    draw = np.random.default_rng(seed)
    whole = folders.content(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in UNREAD)
    files = [path for path in files if path.stat().st_size]
    outcomes = Counter()
    for number in range(count):
        path = files[number % len(files)]
        before = path.read_bytes()
        changed = bytearray(before)
        changed[draw.integers(len(changed))] ^= 1 << int(draw.integers(8))
        path.write_bytes(changed)
        outcomes[outcome(folder, path, whole)] += 1
        path.write_bytes(before)
    return outcomes


OF_PART = {
    "data": lambda world: world.data,
    "predictions": lambda world: world.predictions("detector"),
    "report": lambda world: world.report,
    "export": lambda world: world.export("classifier"),
    "run": lambda world: world.run("classifier"),
}


@pytest.mark.parametrize(
    ("part", "count"),
    [("run", 10), *(pytest.param(part, 30, marks=pytest.mark.release) for part in OF_PART)],
)
def test_a_flipped_bit_is_refused_or_without_effect(world, part, count, tmp_path):
    folder = Path(shutil.copytree(OF_PART[part](world), tmp_path / part))
    if part in ("export", "run"):
        folders.add_guard(folder)
    outcomes = flip_bits(folder, count, seed=31)
    assert outcomes["silent"] == 0
    assert outcomes["refused"] > count // 3


def change_value(content, draw):
    """Change one text, number or truth value anywhere in a JSON value."""
    places = [
        (content, key) for key in (content if isinstance(content, dict) else range(len(content)))
    ]
    leaves = []
    while places:
        holder, key = places.pop()
        value = holder[key]
        if isinstance(value, dict | list):
            keys = value if isinstance(value, dict) else range(len(value))
            places += [(value, inner) for inner in keys]
        else:
            leaves.append((holder, key))
    holder, key = leaves[draw.integers(len(leaves))]
    value = holder[key]
    if isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, int | float):
        holder[key] = value + 1
    else:
        holder[key] = f"{value}a"


@pytest.mark.parametrize("part", OF_PART)
def test_a_changed_value_of_any_record_is_refused_by_its_name(world, part, tmp_path):
    draw = np.random.default_rng(5)
    folder = Path(shutil.copytree(OF_PART[part](world), tmp_path / part))
    records = sorted(folder.rglob("*.json"))
    assert records
    for path in [*records, *records]:
        before = path.read_text()
        content = json.loads(before)
        change_value(content, draw)
        path.write_text(json.dumps(content))
        above = [path.name, *(p.name for p in path.parents if p.is_relative_to(folder))]
        with pytest.raises(InputError) as refused:
            folders.content(folder)
        assert any(name in str(refused.value) for name in above)
        path.write_text(before)


# --- trainings ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A training of each kind that nothing interrupts, made when it is asked for."""
    made = {}

    def run(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("whole") / kind
            train(kind, world.data, made[kind])
        return made[kind]

    return run


class Die(Callback):
    """Ends its process at once, at a place of an epoch."""

    def __init__(self, place, epoch):
        def die(trainer, *_):
            if trainer.current_epoch == epoch or place == "on_fit_end":
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(self, place, die)


def train_and_die(kind, data, out, place, epoch):
    """Train in a process that ends before the training does."""
    torch.set_num_threads(1)
    train(kind, data, out, callbacks=[Die(place, epoch)])


def killed(kind, data, out, place, epoch):
    """Leave the folder of a training that was killed."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=train_and_die, args=(kind, data, out, place, epoch))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "run.json").exists()


def test_a_killed_training_ends_with_the_same_bytes(world, whole, tmp_path):
    killed("classifier", world.data, tmp_path / "run", "on_train_batch_end", 1)
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    train("classifier", world.data, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole("classifier"))


def test_a_training_that_has_ended_is_left_as_it_is(world, whole):
    run = whole("classifier")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    train("classifier", world.data, run, {"training.workers": 1})
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("keys", "own", "parts"),
    [
        ({"training.learning_rate": 0.1}, {}, ["training.learning_rate", "0.001", "0.1"]),
        ({"training.seed": 1}, {}, ["training.seed", "0", "1"]),
        ({"augmentation.noise": 0.2}, {}, ["augmentation.noise", "0.1", "0.2"]),
        ({"model.dropout": 0.4}, {}, ["model.dropout", "0.3", "0.4"]),
        ({}, {"augmentation": albumentations.HorizontalFlip(p=1)}, ["augmentation", "none"]),
        ({}, {"module": Constant}, ["module", "none"]),
    ],
    ids=["rate", "seed", "noise", "dropout", "own augmentation", "own loss"],
)
def test_another_training_in_the_same_folder_is_refused_with_the_first_difference(
    world, whole, keys, own, parts
):
    run = whole("classifier")
    before = contents(run)
    with pytest.raises(InputError) as error:
        train("classifier", world.data, run, keys, **own)
    line = str(error.value)
    assert str(run) in line
    assert all(part in line for part in parts), line
    assert contents(run) == before


def with_another_bit(content):
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "spoil", [lambda content: content[: len(content) // 2], lambda _: b"", with_another_bit]
)
def test_a_damaged_checkpoint_is_refused_in_one_line(world, whole, tmp_path, spoil):
    run = Path(shutil.copytree(whole("classifier"), tmp_path / "run"))
    (run / "run.json").unlink()
    checkpoint = run / "checkpoints/last.ckpt"
    checkpoint.write_bytes(spoil(checkpoint.read_bytes()))
    with pytest.raises(InputError, match=r"last\.ckpt: ") as error:
        train("classifier", world.data, run)
    assert "\n" not in str(error.value)


# --- preparations ---------------------------------------------------------------------------------


def stored_bytes(folder):
    """Bytes of all files, but the time and the name of the folder."""
    content = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stored = path.read_bytes()
            if path.name == "dataset.json":
                record = json.loads(stored)
                stored = {key: record[key] for key in record.keys() - {"created", "name", "sha256"}}
            elif path.suffix == ".html":
                stored = re.sub(b"Audit of [a-z0-9-]+", b"", stored)
            content[path.relative_to(folder).as_posix()] = stored
    return content


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A source, and the data set of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("prepared")
    source = write_source(folder / "source", 80)
    prepare(source, folder / "whole", size=[32], page=True)
    return source, folder / "whole"


KILLS = {  # a call, its number, and what was half written to the journal
    "an image": ("read", 40, b""),
    "a torn journal": ("read", 70, b'{"image_id": "i0'),
    "a line without its end": ("read", 40, b'{"image_id": "i079"}'),
    "a commit": ("commit", 2, b""),
    "between two tables": ("rename", 4, b""),
    "between two splits": ("rename", 11, b""),
}


@pytest.mark.parametrize(
    ("call", "number", "tail"),
    [
        pytest.param(*kill, id=name, marks=() if name == "an image" else pytest.mark.release)
        for name, kill in KILLS.items()
    ],
)
def test_a_killed_preparation_goes_on_to_the_same_bytes(prepared, tmp_path, call, number, tail):
    source, whole = prepared
    out = tmp_path / whole.name  # its page has the name of the folder
    given = source / "labels.csv", source / "images", out
    killed_at((call, number), "prepare", *given, size=[32], workers=0)
    assert not (out / "dataset.json").exists()
    if tail:
        with (out / "decoded.jsonl").open("ab") as journal:
            journal.write(tail)
    prepare(source, out, size=[32], page=True)
    assert stored_bytes(out) == stored_bytes(whole)
    before = folders.content(out)
    prepare(source, out, size=[32], page=True)
    assert folders.content(out) == before


# --- predictions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["classifier", pytest.param("detector", marks=pytest.mark.release)]
)
def test_killed_predictions_are_refused_and_go_on_to_the_same_rows(world, tmp_path, kind):
    out, words = tmp_path / "killed", ("--data", world.data, "--device", "cpu", "--out")
    assert serving.predict_in_parts(world.run(kind), *words, out, killed_after=2) < 0
    assert (out / "unfinished.json").is_file()
    with pytest.raises(InputError, match="killed"):
        cxr_compare.Predictions.open(out)
    with pytest.raises(InputError, match=str(out)):  # they are of another network
        cxr_compare.predict(world.export(kind), data=world.data, out=out, device="cpu")
    gone_on = cxr_compare.predict(world.run(kind), data=world.data, out=out, device="cpu")
    whole = cxr_compare.Predictions.open(world.predictions(kind))
    assert gone_on.info.inference_id == whole.info.inference_id
    for table in ("images", "boxes" if kind == "detector" else "scores"):
        pd.testing.assert_frame_equal(getattr(gone_on, table), getattr(whole, table))


# --- comparisons ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "last"),
    [
        ([], "answer.json"),
        pytest.param(["edema", "mass"], "report.html", marks=pytest.mark.release),
        pytest.param(["edema", "mass"], "answers.json", marks=pytest.mark.release),
    ],
)
def test_a_comparison_killed_before_its_last_file_goes_on_and_a_finished_one_is_refused(
    tmp_path, targets, last
):
    draw = np.random.default_rng(5)
    ids = [f"i{number}" for number in range(24)]
    labels = {"edema": [0, 0, 1] * 8, "mass": [0, 1] * 12}
    labels = {name: labels[name] for name in targets or ["mass"]}
    truth, out = tmp_path / "truth.csv", tmp_path / "report"
    pd.DataFrame({"image_id": ids} | labels).to_csv(truth, index=False)
    scores = {name: draw.random(24) for name in labels}
    pd.DataFrame({"image_id": ids} | scores).to_csv(tmp_path / "a.csv", index=False)
    with contextlib.chdir(tmp_path):
        options = {"truth": truth, "out": out, "target": targets or None, "replicates": 100}
        killed_at(out / last, "compare", "A=a.csv", **options)
    assert not (out / last).exists()

    def compare(folder):
        return cxr_compare.compare(
            f"A={tmp_path / 'a.csv'}",
            truth=truth,
            out=folder,
            target=targets or None,
            replicates=100,
        )

    gone_on, whole = compare(out), compare(tmp_path / "whole")
    pd.testing.assert_frame_equal(gone_on.to_frame(), whole.to_frame())
    names = [{p.relative_to(each) for p in each.rglob("*")} for each in (out, tmp_path / "whole")]
    assert names[0] == names[1]
    before = (out / last).read_bytes()
    with pytest.raises(InputError, match="report"):
        compare(out)
    assert (out / last).read_bytes() == before
