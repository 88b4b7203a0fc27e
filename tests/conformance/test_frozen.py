"""Bytes that may not change: tables of public sets, roles, squares, outputs of networks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cxr_compare
from tests.kept import frozen

HERE = Path(frozen.__file__).parent
SETS = json.loads((HERE / "sets.json").read_text(encoding="utf-8"))
NETWORKS = json.loads((HERE / "networks.json").read_text(encoding="utf-8"))
SCRIPT = HERE.parents[1] / "scripts" / "quickstart"


@pytest.mark.release
@pytest.mark.parametrize("name", frozen.SETS)
def test_tables_and_roles_of_a_public_set_stay(name, shared_data, tmp_path):
    assert frozen.set_digests(frozen.prepare_set(name, shared_data, tmp_path)) == SETS[name]


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return frozen.draw_squares(tmp_path_factory.mktemp("squares"))


def test_squares_of_drawn_images_stay(squares):
    assert frozen.square_digests(squares) == NETWORKS["squares"]
    assert all(len(of_side) == 20 for of_side in squares.values())


@pytest.mark.release
@pytest.mark.parametrize("name", sorted(frozen.SIDES))
def test_names_weights_and_outputs_of_a_network_stay(name, squares, one_thread):
    expected = dict(NETWORKS[name])
    found, outputs = frozen.network_outputs(name, squares)
    for key in ("tensors", "names", "weights", "suppression"):
        assert found.get(key) == expected.get(key), key
    if "scores" in expected:
        np.testing.assert_allclose(outputs, expected["scores"], rtol=0, atol=1e-4)
    else:
        for boxes, rows in zip(expected["boxes"], outputs, strict=True):
            require_boxes(np.array(boxes), rows)
        overlaps = [largest_overlap(rows[:, :4].astype(float)) for rows in outputs]
        assert 0.59 < max(overlaps) < expected["suppression"] + 1e-4
    # The last bits are those of one kind of processor and one version of torch; torchvision decodes
    # boxes with other last bits than the program that they were stored from.
    if frozen.processor() == NETWORKS["processor"]:
        assert found.get("counts") == expected.get("counts")
        if "scores" in expected:
            assert found["outputs"] == expected["outputs"]


def require_boxes(expected, rows):
    """Each stored box is there, by 0.05 px and a score within 1e-4; ranks may differ."""
    np.testing.assert_allclose(rows[: len(expected), 4], expected[:, 4], rtol=0, atol=1e-4)
    off = np.abs(expected[:, None, :4] - rows[None, :, :4]).max(axis=2)
    off = np.where(np.abs(expected[:, None, 4] - rows[None, :, 4]) <= 1e-4, off, np.inf)
    # One that is no better than the last may be beyond it on another processor.
    inner = expected[:, 4] > rows[-1, 4] + 1e-4
    assert (off.min(axis=1)[inner] <= 0.05).all()
    assert inner.any()


def largest_overlap(boxes):
    """The largest IoU of two boxes."""
    corner = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner
    shared = sides.clip(0).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    iou = shared / (areas[:, None] + areas - shared)
    return iou[~np.eye(len(boxes), dtype=bool)].max()


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "out"
    cxr_compare.synth(out / "xrays", images=1200, size=256, seed=1)
    cxr_compare.prepare(
        out / "xrays",
        out / "data",
        format="rsna",
        size=[128],
        name="Synthetic chest X-rays",
        val=0.125,
        test=0.38,
    )
    return out


@pytest.mark.release
class TestQuickstart:
    """The quickstart's images, roles and weights; its training takes six minutes."""

    def test_tables_and_roles_stay(self, quickstart):
        assert frozen.set_digests(quickstart / "data") == SETS["quickstart"]

    def test_weights_stay_in_every_byte(self, quickstart):
        expected = SETS["quickstart weights"]
        if expected and expected["processor"] != frozen.processor():
            pytest.skip(f"the weights are those of {expected['processor']}")
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"CXR_SKIP_INSTALL": "1", "OMP_NUM_THREADS": "1"}
        subprocess.run([SCRIPT, quickstart], env=environment | {"PATH": programs}, check=True)
        assert frozen.weights(quickstart) == expected
