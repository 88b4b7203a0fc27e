"""A joint system as one model: what its digest and its thresholds are for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.serving.joint_model import JointModel


def _joint(backend: str, precision: str) -> JointModel:
    member: Any = SimpleNamespace(
        backend=backend, precision=precision, inference_id=lambda: f"{backend} {precision}"
    )
    record = PredictionsInfo(system="Both", kind="both", inference_id="joint")
    return JointModel(Path("both"), record, (member, member))


def test_thresholds_are_for_runs_in_float32_and_for_exports():
    assert _joint("torch", "fp32").chose("joint")
    assert _joint("openvino", "int8").chose("joint")
    assert not _joint("torch", "bf16").chose("joint")


def test_each_number_format_has_a_digest_of_its_own():
    ids = {_joint("torch", "fp32").inference_id(), _joint("torch", "bf16").inference_id()}
    assert len(ids) == 2
    assert "joint" in ids
