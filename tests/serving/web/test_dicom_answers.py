"""DICOM objects over HTTP: those of an upload, in its study, and one line where there are none."""

import base64
import io
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from cxr_compare.serving.web import analysis
from tests.serving.radiographs import radiograph
from tests.small_dicom import as_file

pytest.importorskip("highdicom", reason="needs the extra dicom")


def x_ray(**changes: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120), np.uint8)
    return as_file(radiograph(pixels, **changes))


def analyze(client: Any, content: bytes, *include: str) -> Any:
    return client.post(
        "/v1/analyze", params={"include": list(include)}, files={"file": ("Doe.dcm", content)}
    )


def read(encoded: str) -> Dataset:
    return pydicom.dcmread(io.BytesIO(base64.b64decode(encoded)))


def test_dicom_upload_gets_the_requested_objects(client: Any) -> None:
    answer = analyze(client, x_ray(), "sr", "sc").json()
    report, capture = read(answer["dicom"]["sr"]), read(answer["dicom"]["sc"])
    assert [dataset.Modality for dataset in (report, capture)] == ["SR", "OT"]
    for dataset in (report, capture):
        assert (dataset.StudyInstanceUID, dataset.PatientID) == ("1.2.3", "P1")
        assert "Doe.dcm" not in dataset.to_json()
    text = report.to_json()
    for system in answer["systems"]:
        assert f"model {system['model_id']}" in text
        assert f"{system['score']!r}" in text
    again = analyze(client, x_ray(), "sr").json()["dicom"]
    assert again["sc"] is None
    assert read(again["sr"]).SOPInstanceUID == report.SOPInstanceUID
    assert analyze(client, x_ray()).json()["dicom"] is None


def test_what_has_no_patient_or_study_is_refused_in_one_line(client, png):
    for content, status, code, message in (
        (png(1), 400, "no_dicom", "this is PNG"),
        (x_ray(StudyInstanceUID=""), 422, "no_reference", "StudyInstanceUID is missing"),
    ):
        answer = analyze(client, content, "sr")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert message in answer.json()["error"]["message"]
        assert analyze(client, content).status_code == 200


def test_server_without_highdicom_names_the_installation(client, monkeypatch):
    monkeypatch.setattr(analysis, "find_spec", lambda name: None)
    answer = analyze(client, x_ray(), "sc")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "dicom_not_installed")
    assert "extra dicom" in answer.json()["error"]["message"]
