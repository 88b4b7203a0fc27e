"""A Ray cluster writes the same bytes as processes of this machine, whatever dies meanwhile."""

import hashlib
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.prepare import prepare
from cxr_compare.data_prep.sources.source_tables import ReadOptions
from cxr_compare.data_prep.store import decode
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.work import ray_cluster
from cxr_compare.data_prep.work.map_images import map_images
from cxr_compare.data_prep.work.ray_cluster import RayCluster, open_cluster
from cxr_compare.scripts import console
from cxr_compare.serving import predict_folder
from cxr_compare.serving.exported_model import ExportedModel
from cxr_compare.serving.trained_model import TrainedModel
from tests.scripts.launched import contents, hooked_path, workers_below
from tests.scripts.small_sets import cxr, drawn_images
from tests.scripts.untrained import untrained_run

SIZE, POISON = 32, "poison.png"
# As a fault in a decoder's C code does.
POISONED = f"path.name == {POISON!r} and os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.fixture(scope="module")
def ray(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[RayCluster]:
    """One Ray for all tests: starting it takes longer than any of them."""
    if find_spec("ray") is None:  # importing it would be too early for its settings
        pytest.skip("Ray is not installed: the extra cluster")
    path = hooked_path(tmp_path_factory.mktemp("hook"), POISONED)
    workers = 1 if request.config.getoption("-m") == "not long" else 2  # each imports torch
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        with open_cluster(workers=workers) as cluster:
            yield cluster


@pytest.mark.release
def test_order_is_kept_and_few_rows_are_under_way(ray):
    taken = []

    def rows() -> Iterator[partial]:
        for number in range(60):
            taken.append(number)
            yield partial(time.sleep, 0.01) if number == 0 else partial(abs, -number)

    answers = map_images(operator.call, rows(), ray, on_crash=lambda row: -1)
    assert next(answers) is None
    assert len(taken) <= 3 * 2 + 1
    assert list(answers) == list(range(1, 60))


def test_a_programming_error_in_a_worker_keeps_its_type_and_names_its_row(ray):
    with pytest.raises(ValueError, match="invalid literal") as failed:
        list(map_images(int, ["1", "x", "3"], ray, on_crash=lambda row: -1, together=2))
    assert type(failed.value) is ValueError
    assert any("'x'" in note for note in failed.value.__notes__)


@pytest.mark.long
def test_workers_killed_at_random_lose_and_double_nothing(ray):
    chance, ended, killed, kills = np.random.default_rng(20), threading.Event(), list[int](), 20

    def hashed(number: int) -> partial:
        return partial(hashlib.pbkdf2_hmac, "sha256", b"", number.to_bytes(4), 2000)

    def kill() -> None:
        while len(killed) < kills and not ended.wait(chance.uniform(0.05, 0.4)):
            if victims := workers_below(os.getpid()):
                killed.append(int(chance.choice(victims)))
                with suppress(ProcessLookupError):
                    os.kill(killed[-1], signal.SIGKILL)

    def rows() -> Iterator[partial]:
        for number in count():
            if len(killed) >= kills and number >= 300:
                return
            yield hashed(number)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        answers = list(map_images(operator.call, rows(), ray, on_crash=lambda row: b"lost"))
    finally:
        ended.set()
        killer.join()
    assert len(killed) == kills
    assert answers == [hashed(number)() for number in range(len(answers))]


def write_source(folder: Path, n_images: int = 12) -> Path:
    """Images of noise, one of which ends the process that decodes it and one of which is none."""
    rng, folder = np.random.default_rng(0), folder / "source"
    folder.mkdir()
    names = [*(f"i{n:03d}.png" for n in range(n_images)), POISON, "torn.png"]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(folder / name)
    (folder / "torn.png").write_bytes(b"no image")
    ids = [name[:-4] for name in names]
    states = [n % 3 == 0 for n in range(len(ids))]
    table = pd.DataFrame({"path": names, "patient_id": ids, "finding": "mass", "state": states})
    table.to_csv(folder / "labels.csv", index=False)
    return folder


def test_prepare_gives_the_same_bytes_and_lists_the_poisoned_image(ray, tmp_path, monkeypatch):
    write_source(tmp_path)
    read_image = decode.read_image

    def read(path: Path, **options: Any) -> Any:  # what the local pool says of a lost row
        if path.name == POISON:
            raise InputError(f"{path}: {decode.DECODER_CRASHED}")
        return read_image(path, **options)

    monkeypatch.setattr(decode, "read_image", read)
    for name, workers in (("local", 1), ("ray", ray)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)  # paths are relative, as they are typed
        read = ReadOptions(labels=(Path("../source/labels.csv"),))
        prepare("../source", "set", PrepareOptions("table", read, sizes=(SIZE,), workers=workers))
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    excluded = pd.read_parquet(tmp_path / "ray/set/excluded.parquet").set_index("path")
    assert sorted(excluded.index) == [POISON, "torn.png"]
    assert "crashed" in excluded.loc[POISON, "reason"]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_images(tmp_path_factory.mktemp("phantom"), 23, 64, [SIZE])


@pytest.mark.release
@pytest.mark.parametrize("kind", ["detector", pytest.param("classifier", marks=pytest.mark.long)])
@pytest.mark.usefixtures("one_thread")
def test_predict_gives_the_same_bytes(ray, phantom, tmp_path, monkeypatch, kind):
    model = TrainedModel.open(untrained_run(kind, phantom, tmp_path / "run"))
    assert_same_predictions(model, DataSet.open(phantom), tmp_path, ray, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("back_end", ["onnx", "openvino"])
@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_an_export_predicts_the_same_bytes(ray, phantom, tmp_path, monkeypatch, kind, back_end):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = untrained_run(kind, phantom, tmp_path / "run")
    assert cxr("export", run, tmp_path / "export", "--format", back_end) == 0
    model = ExportedModel.open(tmp_path / "export")
    assert_same_predictions(model, DataSet.open(phantom), tmp_path, ray, monkeypatch)


def assert_same_predictions(
    model: Any, dataset: DataSet, folder: Path, ray: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_folder, "PART_SIZE", 4)
    ids = dataset.images["image_id"].tolist()[:23]  # batches of 3: parts of 6, the last of 5
    for name, cluster in (("local", None), ("ray", ray)):
        with console.silent():
            predict_folder.predict_data_set(
                model, dataset, folder / name, "default", console,
                batch_size=3, image_ids=ids, cluster=cluster,
            )  # fmt: skip
    local = contents(folder / "local")
    assert len([name for name in local if "predicted_images.parquet/" in name]) == 4
    assert contents(folder / "ray") == local


def test_predictions_taken_over_are_taken_over_once_by_a_call_that_goes_on(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TrainedModel.open(untrained_run("classifier", phantom, tmp_path / "run"))
    dataset = DataSet.open(phantom)
    ids = dataset.images["image_id"].tolist()[:6]

    def predict(folder: str, image_ids: list[str], before: Predictions | None) -> Predictions:
        with console.silent():
            return predict_folder.predict_data_set(
                model, dataset, tmp_path / folder, "default", console,
                image_ids=image_ids, made_before=before,
            )  # fmt: skip

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = predict("before", ids[:3], None)
    with monkeypatch.context() as patch:
        patch.setattr(predict_folder, "write_parts", stop)
        with pytest.raises(KeyboardInterrupt):
            predict("resumed", ids, before)
    assert sorted(predict("resumed", ids, before).images["image_id"]) == sorted(ids)


def test_a_part_that_no_worker_survives_stops_predict_with_one_line():
    with pytest.raises(InputError, match="images 'a' to 'b' ended whenever it was tried"):
        predict_folder._refuse(pd.DataFrame({"image_id": ["a", "b"]}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"software": (("code of cxr-compare", "another"),)}, "has code of cxr-compare"),
        ({"software": (("numpy", "0.1"),)}, "has numpy .*, where the command runs it is 0.1"),
        ({"software": (("warp", "1.0"),)}, "has warp not installed, where .* it is 1.0"),
        ({"reads": ("/no/such/place",)}, "cannot read /no/such/place; put it where all machines"),
    ],
)
def test_a_machine_that_is_not_as_the_driver_s_is_named(changed, said, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as a worker does, for good
    machine = ray_cluster.describe_machine([Path.cwd()])
    ray_cluster.prepare_machine(machine)
    with pytest.raises(
        InputError, match=f"^CXR_ENGINE=ray: the machine {os.uname().nodename} {said}"
    ):
        ray_cluster.prepare_machine(machine._replace(**changed))


def test_what_is_wrong_with_the_options_is_said_in_one_line(phantom, tmp_path, monkeypatch, capsys):
    source = write_source(tmp_path)
    prepare = ["prepare", str(source / "labels.csv"), str(source), str(tmp_path / "set")]
    monkeypatch.setenv("CXR_ADDRESS", "auto")
    assert cxr(*prepare) == 2
    assert "CXR_ADDRESS=auto: is for a Ray cluster" in capsys.readouterr().err
    monkeypatch.delenv("CXR_ADDRESS")
    monkeypatch.setenv("CXR_ENGINE", "dask")
    assert cxr(*prepare) == 2
    assert "CXR_ENGINE=dask: is none of local, ray" in capsys.readouterr().err
    monkeypatch.setenv("CXR_ENGINE", "ray")
    assert cxr("predict", "run", "--data", phantom, "--out", "x", "--device", "cuda") == 2
    assert "--device cuda: CXR_ENGINE=ray predicts" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    for command in (prepare, ["check", str(phantom)]):
        assert cxr(*command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("cxr: CXR_ENGINE=ray: ray is not installed; run: pip install ")
        assert "[cluster]" in line
    assert not (tmp_path / "set").exists()
