"""The log of answers of `cxr log`: each image in it, and nobody's name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_compare import predict
from cxr_compare.hospital.answers.answer_log_reader import read_log
from tests.scripts.small_sets import cxr
from tests.serving.radiographs import radiograph
from tests.small_dicom import as_file, chest

NAMES = {
    "PatientName": "Quartz^Julia", "PatientID": "PID-77123", "IssuerOfPatientID": "WARD-9X",
    "PatientBirthDate": "19410203", "AccessionNumber": "ACC-55501", "StudyID": "ST-4410",
    "StudyInstanceUID": "1.2.826.0.1.4711.1", "SeriesInstanceUID": "1.2.826.0.1.4711.2",
    "StudyDate": "20240229", "StudyTime": "101112", "ReferringPhysicianName": "Amber^Otto",
    "InstitutionName": "Saint Basalt", "StationName": "BUCKY-7", "Manufacturer": "ACME XR-9000",
    "DeviceSerialNumber": "SN-90210",
}  # fmt: skip


@pytest.fixture
def radiographs(tmp_path: Path) -> list[Path]:
    """Two of one patient, one without contrast, one cut short."""
    folder = tmp_path / "julia-quartz"
    folder.mkdir()
    paths = [folder / f"film-of-quartz-{number}.dcm" for number in range(4)]
    for number, path in enumerate(paths):
        pixels = np.full((160, 160), 9, np.uint8) if number == 2 else chest(number)
        names = {**NAMES, "SOPInstanceUID": f"1.2.826.0.1.4711.3.{number}"}
        content = as_file(radiograph(pixels, PatientSex="F", PatientAge="083Y", **names))
        path.write_bytes(content[:-9000] if number == 3 else content)
    return paths


def test_log_names_nobody_and_contains_every_image(
    radiographs: list[Path], systems: Any, tmp_path: Path
) -> None:
    exports = [export for export, _ in systems.values()]
    folder = tmp_path / "log"
    for _ in range(2):  # the second call appends
        assert cxr("log", *exports, radiographs[0].parent, "--log", folder) == 1

    content = b"".join(path.read_bytes() for path in folder.iterdir()).decode(errors="replace")
    uids = [f"1.2.826.0.1.4711.3.{number}" for number in range(4)]
    paths = [
        part for radiograph in radiographs for part in (radiograph.stem, radiograph.parent.name)
    ]
    parts = [part for name in NAMES.values() for part in name.split("^")]
    for name in (*parts, *uids, *paths, "quartz", "083y"):
        assert name.lower() not in content.lower()

    rows = read_log(folder)
    assert len(rows) == 2 * 2 * 4  # calls, systems, images
    assert rows["status"].value_counts().to_dict() == {"ok": 8, "refused": 4, "failed": 4}
    answered = rows[rows["status"] != "failed"]
    assert (answered["patient"].nunique(), answered["image"].nunique()) == (1, 3)
    groups = answered[["sex", "age_band", "maker"]].drop_duplicates().to_numpy().tolist()
    assert groups == [["F", "80+", "other"]]
    assert answered[["score", "guard_distance", "seconds", "threshold"]].notna().all(axis=None)
    assert (rows["decision"].notna() == (rows["status"] == "ok")).all()
    answers = predict([str(export) for export in exports], str(radiographs[0]), device="cpu")
    scores = rows[rows["image"] == rows["image"].iloc[0]].groupby("system")["score"].unique()
    assert {name: list(each) for name, each in scores.items()} == {
        answer.system: [answer.score] for answer in answers
    }


@pytest.mark.parametrize("command", ["log", "pacs"])
def test_a_log_that_cannot_be_written_stops_the_start(
    command: str, systems: Any, radiographs: list[Path], tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "log").write_text("a file")
    rest: Any = {
        "log": [radiographs[0]], "pacs": ["--dicomweb", "http://127.0.0.1:9/x"],
    }[command]  # fmt: skip
    export, _ = next(iter(systems.values()))
    assert cxr(command, export, *rest, "--log", tmp_path / "log") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "log: " in line
    assert "(File exists)" in line
