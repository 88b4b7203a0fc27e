"""Quantisation: calibrated on training images alone; and no library reports to its maker."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import pandas as pd
import pytest
import torch

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.serving.export_graph import calibration_images, quantise, write_graph
from cxr_compare.serving.export_spec import FACTS_SECTION
from cxr_compare.serving.exported_model import open_session
from tests.plain_info import export_spec

SIZE = 32
IDS = [f"i{number}" for number in range(40)]
ROLES = ["train"] * 20 + ["val"] * 10 + ["test"] * 10


def data_set(roles: list[str]) -> Any:
    table = pd.DataFrame({"image_id": IDS, "role": roles})
    images = table[["image_id"]]
    return SimpleNamespace(folder=Path("data"), images=images, split=lambda name: table)


SEEN = pd.DataFrame({"image_id": IDS, "patient_id": IDS, "role": ROLES})[:30]


def test_only_training_images_calibrate_and_the_choice_repeats() -> None:
    chosen = calibration_images(SEEN, data_set(ROLES), "default", most=12)
    assert len(chosen) == 12
    assert set(chosen) <= set(IDS[:20])
    assert chosen == calibration_images(SEEN, data_set(ROLES), "default", most=12)
    assert chosen != calibration_images(SEEN, data_set(ROLES), "default", most=12, seed=1)
    assert calibration_images(SEEN, data_set(ROLES), "default") == sorted(IDS[:20])


@pytest.mark.parametrize("role", ["val", "test"])
def test_an_image_that_the_split_keeps_for_judging_is_refused(role: str) -> None:
    with pytest.raises(InputError, match=f"image 'i0' .*'{role}' .*'default'"):
        calibration_images(SEEN, data_set([role, *ROLES[1:]]), "default")


def test_a_data_set_without_the_training_images_is_refused() -> None:
    seen = SEEN.assign(image_id="x" + SEEN["image_id"])
    with pytest.raises(InputError, match=r"data: .*training images.*--precision int8"):
        calibration_images(seen, data_set(ROLES), "default")


def noise(image_id: str) -> np.ndarray:
    rng = np.random.default_rng(int(image_id[1:]))
    return rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)


def test_a_quantised_network_is_smaller_answers_nearly_the_same_and_keeps_its_facts(tmp_path):
    torch.manual_seed(0)
    model = build_classifier("small_cnn", image_size=SIZE).eval()
    spec = export_spec(format="openvino", precision="int8", size=SIZE)
    write_graph(model, tmp_path, "openvino", {"size": "32"})
    names = sorted(path.name for path in tmp_path.iterdir())
    before = sum(path.stat().st_size for path in tmp_path.iterdir())
    images = np.stack([noise(name) for name in IDS[20:23]])[:, None]
    exact = open_session(tmp_path, spec).run(images)
    quantise(tmp_path, noise, IDS[:8])
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 0.5 * before
    rounded = open_session(tmp_path, spec).run(images)
    for name, values in exact.items():
        assert rounded[name].shape == values.shape
        assert 0 < np.abs(rounded[name] - values).max() < 0.1 * np.abs(values).max()
    network = openvino.Core().read_model(tmp_path / "model.xml")
    assert network.get_rt_info([FACTS_SECTION, "size"]).astype(str) == "32"


_WATCHED = """
import socket, sys
from pathlib import Path

def refused(*args, **kwargs):
    raise SystemExit(f"the network was asked for {args}")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused
from cxr_compare.serving.exported_model import without_telemetry
without_telemetry()
if "onnxruntime" in sys.argv:
    import onnxruntime
else:
    import openvino
if "nncf" in sys.argv:
    import nncf
    from nncf.telemetry.wrapper import telemetry
    telemetry.send_event("category", "action", "label")
    assert "Mock" in type(telemetry).__name__
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""


@pytest.mark.parametrize(
    "library", ["openvino", "onnxruntime", pytest.param("nncf", marks=pytest.mark.long)]
)
def test_nothing_is_reported_to_the_makers_of_the_runtime(library: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    ours = {"HOME": str(tmp_path), "PYTHONPATH": str(root), "PATH": ""}
    subprocess.run([sys.executable, "-c", _WATCHED, library], env=ours, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []
