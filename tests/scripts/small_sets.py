"""Small data sets of tables alone, predictions on them, and `cxr` called in this process."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MadeOn, PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.synth.phantom import write_phantom
from cxr_compare.scripts import cli, console
from cxr_compare.scripts.commands.import_predictions import import_predictions
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.commands.synth import synth
from tests.plain_sets import prepare_plain


def write_source(
    source: Path, ids: Sequence[str], states: Mapping[str, Sequence[Any]], **columns: Any
) -> Path:
    """A source in CSV: the states of each finding, and other columns of its images."""
    source.mkdir(parents=True)
    images = pd.DataFrame({"image_id": ids, "patient_id": ids} | columns)
    images.to_csv(source / "images.csv", index=False)
    parts = [
        pd.DataFrame({"image_id": ids, "finding": finding, "state": state})
        for finding, state in states.items()
    ]
    pd.concat(parts).to_csv(source / "labels.csv", index=False)
    return source


def table_set(
    folder: Path, ids: Sequence[str], states: Mapping[str, Sequence[Any]], **columns: Any
) -> Path:
    """A data set without pixels of `write_source`, in ``folder / "data"``."""
    write_source(folder / "source", ids, states, **columns)
    prepare_plain(folder / "source", folder / "data")
    return folder / "data"


def drawn_images(folder: Path, n_images: int, side: int, sizes: list[int], **options: Any) -> Path:
    """A prepared data set of drawn X-rays, with pixel stores, in ``folder / "data"``."""
    write_phantom(folder / "source", n_images=n_images, size=side, **{"seed": 3, **options})
    prepare(folder / "source", folder / "data", format="rsna", size=sizes, workers=0)
    return folder / "data"


def scored_images(folder: Path) -> Path:
    """Folders ``xrays``, ``data`` and ``scores`` by the commands that make them, in a folder."""
    synth(folder / "xrays", images=16, size=64, seed=5)
    prepare(folder / "xrays", folder / "data", format="rsna", size=[64], workers=0)
    images = DataSet.open(folder / "data").images["image_id"]
    pd.DataFrame({"image_id": images, "score": 0.25}).to_csv(folder / "scores.csv", index=False)
    import_predictions(folder / "scores.csv", data=folder / "data", out=folder / "scores", name="S")
    return folder


def tiny_training(folder: Path, epochs: int, batch_size: int) -> Path:
    """`drawn_images` beside ``tiny.toml``, which trains a small classifier in seconds."""
    (folder / "tiny.toml").write_text(f"""
kind = "classifier"
name = "Tiny"
[data]
image_size = 64
[model]
backbone = "small_cnn"
[training]
epochs = {epochs}
batch_size = {batch_size}
learning_rate = 1e-3
warmup_epochs = 0.0
""")
    return drawn_images(folder, 30, 96, [64], prevalence=0.4)


def write_predictions(
    folder: Path, data: Path, ids: Sequence[str], system: str = "Reader", **options: Any
) -> Path:
    """Predictions that succeeded; tables (``scores``, ``boxes``) and facts as keywords."""
    tables = {name: options.pop(name) for name in ("scores", "boxes") if name in options}
    (kind,) = tables
    made_on = MadeOn(name="set", content_id=DataSet.open(data).ids.content_id)
    facts = {"system": system, "kind": kind, "inference_id": folder.name, "data_set": made_on}
    with PredictionWriter(folder, PredictionsInfo(**facts | options)) as writer:
        writer.add(pd.DataFrame({"image_id": ids, "status": "ok", "reason": None}), **tables)
    return folder


def cxr(*arguments: object) -> int:
    """Call `cxr` as its console script does; its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cxr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


@contextmanager
def interrupted_after(epoch: int) -> Iterator[None]:
    """A Ctrl-C as soon as a training says that it ended an epoch."""

    def say(text: str = "") -> None:
        if text.startswith(f"epoch {epoch}"):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "say", say)
        with pytest.raises(KeyboardInterrupt):
            yield


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that `cxr` refuses a command with."""
    assert cxr(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
