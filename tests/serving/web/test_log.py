"""The log of answers of `cxr predict` and `cxr serve`: each image in it, and nobody's name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.hospital.answers.answer_log import AnswerLog
from cxr_compare.hospital.answers.answer_log_reader import read_log
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.server import build_app
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
    radiographs: list[Path], exports: list[Path], served: list[Run], client_of: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    assert cxr("predict", *exports, radiographs[0].parent, "--no-overlay", "--log", folder) == 1
    log = AnswerLog(folder, print)
    with client_of(build_app(served, ServeSettings(allowed_hosts=("testserver",), log=log))) as web:
        for radiograph in radiographs:
            web.post("/v1/analyze", files={"file": (radiograph.name, radiograph.read_bytes())})

    content = b"".join(path.read_bytes() for path in folder.iterdir()).decode(errors="replace")
    uids = [f"1.2.826.0.1.4711.3.{number}" for number in range(4)]
    paths = [
        part for radiograph in radiographs for part in (radiograph.stem, radiograph.parent.name)
    ]
    parts = [part for name in NAMES.values() for part in name.split("^")]
    for name in (*parts, *uids, *paths, "quartz", "083y"):
        assert name.lower() not in content.lower()

    rows = read_log(folder)
    assert len(rows) == 2 * 2 * 4  # ways, systems, images
    assert rows["status"].value_counts().to_dict() == {"ok": 8, "refused": 4, "failed": 4}
    answered = rows[rows["status"] != "failed"]
    assert (answered["patient"].nunique(), answered["image"].nunique()) == (1, 3)
    groups = answered[["sex", "age_band", "maker"]].drop_duplicates().to_numpy().tolist()
    assert groups == [["F", "80+", "other"]]
    assert answered[["score", "guard_distance", "seconds", "threshold"]].notna().all(axis=None)
    assert (rows["decision"].notna() == (rows["status"] == "ok")).all()
    by_image = answered.groupby(["image", "system"])["score"]
    assert by_image.nunique().eq(1).all()  # both ways say the same


def test_an_upload_that_is_no_image_failed_and_one_that_is_too_much_is_not_ours(
    served: list[Run], client_of: Any, png: Callable[[int], bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    log = AnswerLog(tmp_path / "log", print)
    app = build_app(served, ServeSettings(strict=True, allowed_hosts=("testserver",), log=log))
    with client_of(app) as web:

        def states(content: bytes) -> list[str]:
            before = len(log_rows())
            web.post("/v1/analyze", files={"file": ("a.png", content)})
            return log_rows()["status"].tolist()[before:]

        def log_rows() -> Any:
            return read_log(tmp_path / "log") if any(path.stat().st_size for path in days) else []

        days = list((tmp_path / "log").glob("answers-*"))
        web.post("/v1/analyze", files={"file": ("a.png", png(1))})
        assert states(png(2)) == ["ok", "ok"]
        assert states(b"no image") == ["failed", "failed"]
        monkeypatch.setattr(Run, "answer", lambda *_: [InputError("a.png: is not finite")])
        assert states(png(4)) == ["failed", "failed"]


@pytest.mark.parametrize("command", ["predict", "serve", "pacs"])
def test_a_log_that_cannot_be_written_stops_the_start(
    command: str, exports: list[Path], radiographs: list[Path], tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "log").write_text("a file")
    rest: Any = {
        "predict": [radiographs[0]], "serve": ["--port", "0"],
        "pacs": ["--dicomweb", "http://127.0.0.1:9/x"],
    }[command]  # fmt: skip
    assert cxr(command, exports[0], *rest, "--log", tmp_path / "log") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "log: " in line
    assert "(File exists)" in line
