"""Predictions folders are written in resumable parts and complete only at the end."""

from pathlib import Path

import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.prediction_info import MadeOn, PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import (
    PredictionWriter,
)
from cxr_compare.data_prep.store.predictions import Predictions

INFO = PredictionsInfo(
    system="X",
    kind="scores",
    inference_id="i1",
    data_set=MadeOn(name="set", content_id="c"),
)


def images(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": ids, "status": "ok", "reason": None})


def scores(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": ids, "finding": "f", "score": 0.5})


def write_and_stop(folder: Path) -> None:
    with PredictionWriter(folder, INFO) as writer:
        writer.add(images("a"), scores=scores("a"))
        raise KeyboardInterrupt


def test_interrupted_predictions_are_continued(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(tmp_path)
    with pytest.raises(InputError, match="cxr predict"):
        Predictions.open(tmp_path)
    with PredictionWriter(tmp_path, INFO) as writer:
        assert writer.done == {"a"}
        writer.add(images("b"), scores=scores("b"))
    predictions = Predictions.open(tmp_path)
    assert predictions.images["image_id"].tolist() == ["a", "b"]
    assert predictions.scores["image_id"].tolist() == ["a", "b"]
    assert predictions.boxes.empty
    assert not (tmp_path / ".lock").exists()


def test_half_written_part_is_written_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(tmp_path)
    # As if killed between the scores and the images of the second part.
    part = tmp_path / "scores.parquet" / "part-00000.parquet"
    (tmp_path / "scores.parquet" / "part-00001.parquet").write_bytes(part.read_bytes())
    with PredictionWriter(tmp_path, INFO) as writer:
        writer.add(images("b"), scores=scores("b"))
    assert Predictions.open(tmp_path).scores["image_id"].tolist() == ["a", "b"]


def complete_and_killed(folder: Path) -> list[str]:
    """Complete predictions as a kill leaves them at the last moment; names of the good files."""
    with PredictionWriter(folder, INFO) as writer:
        writer.add(images("a"), scores=scores("a"))
    names = sorted(path.name for path in folder.iterdir())
    (folder / ".lock").touch()
    (folder / "unfinished.json").write_text("{}")
    return names


def test_a_writer_that_refuses_complete_predictions_removes_what_a_kill_left(tmp_path):
    names = complete_and_killed(tmp_path)
    with pytest.raises(InputError), PredictionWriter(tmp_path, INFO):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_other_system_complete_folder_and_strange_folder_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(tmp_path / "unfinished")
    with (
        pytest.raises(InputError, match=r"unfinished: .*\bmodel\b"),
        PredictionWriter(tmp_path / "unfinished", INFO.with_values(inference_id="i2")),
    ):
        pass
    with PredictionWriter(tmp_path / "done", INFO) as writer:
        writer.add(images("a"), scores=scores("a"))
    with (
        pytest.raises(InputError, match=str(tmp_path / "done")),
        PredictionWriter(tmp_path / "done", INFO),
    ):
        pass
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.docx").write_text("")
    with (
        pytest.raises(InputError, match=r"'thesis\.docx'"),
        PredictionWriter(tmp_path / "strange", INFO),
    ):
        pass
