"""`cxr pacs` against a real Orthanc, both killed in between; run by hand, as CI has no Orthanc.

    python -m pytest -m long tests/hospital/pacs/test_pacs_orthanc.py

``CXR_TEST_EXPORT`` names an export to use; without it a tiny one is trained first.
"""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from PIL import Image

from tests.scripts.launched import free_port, wait_until

pytest.importorskip("dicomweb_client", reason="needs the extra pacs")
pytest.importorskip("highdicom", reason="needs the extra pacs")
pytest.importorskip("pynetdicom", reason="needs the extra pacs")

pytestmark = pytest.mark.long

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGINS = [
    Path(folder) / "libOrthancDicomWeb.so"
    for folder in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")
]
USER, PASSWORD = "reader", "a-password-of-the-test"
N_IMAGES = 50


class Archive:
    """An Orthanc with its DICOMweb plugin, on ports and in a folder of its own."""

    def __init__(self, folder: Path, listener: int) -> None:
        plugin = next((path for path in PLUGINS if path.exists()), None)
        if not Path(ORTHANC).exists() or plugin is None:
            pytest.skip("no Orthanc with its DICOMweb plugin: apt install orthanc orthanc-dicomweb")
        self.folder, self.http, self.dicom = folder, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http}"
        settings = {
            "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "HttpPort": self.http, "DicomPort": self.dicom, "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD}, "Plugins": [str(plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "DicomModalities": {"cxr": ["CXR", "127.0.0.1", listener]},
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen(
                [ORTHANC, self.folder / "orthanc.json"], stdout=log, stderr=log
            )
        wait_until(self.is_up)

    def is_up(self) -> bool:
        try:
            return self.get("/system").status_code == 200
        except requests.ConnectionError:
            return False

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, auth=(USER, PASSWORD), timeout=60)

    def post(self, path: str, content: Any) -> Any:
        reply = requests.post(self.url + path, content, auth=(USER, PASSWORD), timeout=60)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def count(self) -> int:
        return int(self.get("/statistics").json()["CountInstances"])

    def all(self) -> list[pydicom.Dataset]:
        ids = self.get("/instances").json()
        files = (self.get(f"/instances/{instance}/file").content for instance in ids)
        return [pydicom.dcmread(io.BytesIO(content)) for content in files]


def cxr(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "cxr_compare.scripts.cli", *map(str, arguments)]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if export_path := os.environ.get("CXR_TEST_EXPORT"):
        return Path(export_path)
    out = tmp_path_factory.mktemp("system")
    source, data, run = out / "source", out / "data", out / "run"
    for command in (
        cxr("synth", source, "--images", 120, "--size", 128),
        cxr("prepare", source, "--out", data, "--format", "rsna", "--size", 96),
        cxr("train", "chexnet_quickstart", "--data", data, "--out", run, "--set",
            "training.epochs=1", "--despite-audit"),
        cxr("export", run, "--format", "openvino"),
    ):  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return run / "exports" / "openvino-fp32"


@pytest.fixture(scope="module")
def radiographs(shared_data: Path) -> list[bytes]:
    files = sorted((shared_data / "rsna" / "stage_2_train_images").glob("*.dcm"))[:N_IMAGES]
    return [path.read_bytes() for path in files]


@pytest.fixture
def listener() -> int:
    return free_port()


@pytest.fixture
def orthanc(tmp_path: Path, listener: int) -> Iterator[Archive]:
    archive = Archive(tmp_path, listener)
    archive.start()
    try:
        yield archive
    finally:
        archive.kill()


class Pacs:
    """`cxr pacs` as a process, begun as often as wanted, with all that it says."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.command = cxr("pacs", *arguments, "--journal", folder / "journal.sqlite")
        self.said = folder / "said.txt"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.said.open("ab") as log:
            secrets = {"CXR_PACS_USER": USER, "CXR_PACS_PASSWORD": PASSWORD}
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=os.environ | secrets
            )

    def end(self, number: signal.Signals) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait()

    def finish(self) -> int:
        assert self.process
        return self.process.wait(600)

    @property
    def last_line(self) -> str:
        return self.said.read_text().splitlines()[-1]

    def require_no_identifiers(self, images: list[pydicom.Dataset]) -> None:
        shown = self.said.read_bytes() + (self.folder / "journal.sqlite").read_bytes()
        for image in images:
            for value in (image.PatientID, image.SOPInstanceUID, image.StudyInstanceUID, PASSWORD):
                assert str(value).encode() not in shown


def changed(content: bytes, number: int, **values: str) -> bytes:
    """A radiograph as another object, in a study of its own."""
    image = pydicom.dcmread(io.BytesIO(content))
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(image, keyword, f"1.2.3.{number}.{len(keyword)}")
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    for keyword, value in values.items():
        setattr(image, keyword, value)
    buffer = io.BytesIO()
    image.save_as(buffer)
    return buffer.getvalue()


def require_results(archive: Archive, images: list[pydicom.Dataset]) -> None:
    """Each image has one report and one capture in its study, which refer to it."""
    by_study: dict[str, list[pydicom.Dataset]] = {}
    for instance in archive.all():
        by_study.setdefault(str(instance.StudyInstanceUID), []).append(instance)
    for image in images:
        results = [instance for instance in by_study[str(image.StudyInstanceUID)]
                   if instance.get("Manufacturer") == "cxr-compare"]  # fmt: skip
        (report,) = [instance for instance in results if instance.Modality == "SR"]
        (capture,) = [instance for instance in results if instance.Modality != "SR"]
        for result in (report, capture):
            assert str(result.PatientID) == str(image.PatientID)
        (source,) = capture.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == image.SOPInstanceUID
        pixels = capture.pixel_array
        assert pixels.ndim == 3
        assert np.ptp(pixels) > 100
        evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
        (series,) = evidence.ReferencedSeriesSequence
        (referenced,) = series.ReferencedSOPSequence
        assert referenced.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_fifty_images_in_and_their_results_out_by_dicomweb_with_both_sides_killed(
    tmp_path, orthanc, export, radiographs
):
    for content in radiographs:
        orthanc.post("/instances", content)
    orthanc.post("/instances", changed(radiographs[0], 1, Modality="CT"))
    orthanc.post("/instances", changed(radiographs[1], 2, ViewPosition="LL"))
    images = [pydicom.dcmread(io.BytesIO(content)) for content in radiographs]
    assert len({str(image.StudyInstanceUID) for image in images}) == N_IMAGES
    expected_count = N_IMAGES + 2
    pacs = Pacs(tmp_path, export, "--dicomweb", f"{orthanc.url}/dicom-web", "--patience", "120")

    kills = Counter[str]()
    pacs.start()
    for results, killed in ((9, "pacs"), (21, "orthanc"), (40, "pacs"), (61, "orthanc"),
                            (75, "pacs"), (90, "pacs")):  # fmt: skip
        wait_until(lambda n=results: orthanc.count() >= expected_count + n, 600)  # type: ignore[misc]
        if killed == "pacs":
            pacs.end(signal.SIGKILL)
            pacs.start()
        else:
            orthanc.kill()
            time.sleep(1.0)
            orthanc.start()
        kills[killed] += 1
    assert pacs.finish() == 0, pacs.said.read_text()
    assert kills == {"pacs": 4, "orthanc": 2}

    assert orthanc.count() == expected_count + 2 * N_IMAGES
    require_results(orthanc, images)
    pacs.require_no_identifiers(images)
    assert not (tmp_path / "journal.sqlite-images").exists()

    for _ in range(2):  # at first the studies have grown by the results, which are known as such
        pacs.start()
        assert pacs.finish() == 0
        assert pacs.last_line.startswith("0 images answered; 0 results sent")
    assert "studies unchanged" in pacs.last_line
    assert orthanc.count() == expected_count + 2 * N_IMAGES
    if folder := os.environ.get("CXR_TEST_SHOW"):
        captures = [instance for instance in orthanc.all() if "SourceImageSequence" in instance]
        Image.fromarray(captures[0].pixel_array).save(Path(folder) / "capture.png")
        (Path(folder) / "said.txt").write_bytes(pacs.said.read_bytes())


def test_received_images_are_answered_and_sent_back_by_c_store(
    tmp_path, orthanc, listener, export, radiographs
):
    ids = [orthanc.post("/instances", content)["ID"] for content in radiographs[:6]]
    images = [pydicom.dcmread(io.BytesIO(content)) for content in radiographs[:6]]
    peer = f"ORTHANC@127.0.0.1:{orthanc.dicom}"
    pacs = Pacs(tmp_path, export, "--listen", f"CXR:{listener}", "--send-to", peer)

    def listens() -> bool:
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", listener)) == 0

    pacs.start()
    wait_until(listens)
    orthanc.post("/modalities/cxr/store", json.dumps(ids))
    pacs.end(signal.SIGKILL)  # acknowledged, and hardly one is answered
    assert orthanc.count() < 18
    pacs.start()
    wait_until(lambda: orthanc.count() >= 12, 600)
    orthanc.kill()
    orthanc.start()
    wait_until(lambda: orthanc.count() == 18, 600)
    orthanc.post("/modalities/cxr/store", json.dumps(ids[:2]))  # sent once more
    time.sleep(2.0)
    results = [instance for instance in orthanc.get("/instances").json() if instance not in ids]
    captures = []
    for instance in results:
        tags = orthanc.get(f"/instances/{instance}/simplified-tags").json()
        if "SR" not in str(tags.get("Modality")):
            captures.append(instance)
    orthanc.post("/modalities/cxr/store", json.dumps(captures))
    received = tmp_path / "journal.sqlite-images" / "received"
    wait_until(lambda: not any(received.iterdir()))
    assert pacs.end(signal.SIGTERM) == 143
    assert orthanc.count() == 18
    require_results(orthanc, images)
    pacs.require_no_identifiers(images)
