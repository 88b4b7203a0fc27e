"""`cxr predict` for images: what is wrong with the paths is said before anything is loaded."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.commands.predict import predict


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run (by its files' names), images and other folders."""
    monkeypatch.chdir(tmp_path)
    for name in ("run/run.json", "run/config.toml", "begun/config.toml", "set/dataset.json",
                 "old/predictions.json", "notes.txt"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "film.png")
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["run", "nowhere.png"], "^nowhere.png: "),
        (["R=nowhere", "film.png"], "^nowhere: "),
        (["run", "empty"], "^empty: "),
        (["run"], "^predict: .*--data$"),
        (["film.png"], "^predict: .*cxr train"),
        (["begun", "film.png"], "^begun: .*cxr train "),
        (["set", "run", "film.png"], "^set: .*--data"),
        (["old", "film.png"], "^old: "),
        ([".", "film.png"], r"\.: .*run"),
        (["A=film.png", "run"], "film.png: .*NAME=PATH"),
        (["run", "notes.txt"], "^notes.txt: "),
        (["run", "notes.txt", "set/dataset.json"], "2 files .*: notes.txt: "),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_wrong_paths_are_named_before_a_model_is_loaded(folders, monkeypatch, paths, message):
    monkeypatch.setattr(
        "cxr_compare.scripts.commands.predict.open_runs", lambda *_: pytest.fail("loaded")
    )
    with pytest.raises(InputError, match=message):
        predict(*paths)


@pytest.mark.parametrize("option", [{"tta": "flip"}, {"maps": "layercam"}, {"finding": ["a=b"]}])
def test_options_that_change_what_the_operating_point_is_of_are_refused(folders, option):
    with pytest.raises(InputError, match=f"^predict: {next(iter(option))}=.*data="):
        predict("run", "film.png", **option)  # type: ignore[arg-type]


def test_a_data_set_needs_one_run_and_a_folder(folders: Path) -> None:
    for paths, out in ((["run", "run"], Path("x")), (["run"], None)):
        with pytest.raises(InputError, match=r"^predict data=.*out="):
            predict(*paths, out=out, data="set")
