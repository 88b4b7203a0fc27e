"""An archive's images are answered for once each, whatever ends in between."""

import dataclasses
import errno
import gc
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset

pytest.importorskip("dicomweb_client", reason="needs the extra pacs")
pytest.importorskip("highdicom", reason="needs the extra pacs")
pytest.importorskip("pynetdicom", reason="needs the extra pacs")

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.duplicates.seen_images import SeenImage
from cxr_compare.hospital.answers.answer_log import AnswerLog
from cxr_compare.hospital.answers.answer_log_reader import read_log
from cxr_compare.hospital.dicom_objects.result_identity import SOFTWARE
from cxr_compare.hospital.pacs.connections import Connections, check_connections
from cxr_compare.hospital.pacs.dicomweb import (
    ArchivedImage,
    Credentials,
    DicomWebArchive,
    LeftOutImage,
)
from cxr_compare.hospital.pacs.dimse import Address, Inbox, StorePeer, Tls, listening
from cxr_compare.hospital.pacs.journal import Journal, digest
from cxr_compare.hospital.pacs.patience import OutageError, Patience, RefusedError, UnreachableError
from cxr_compare.hospital.pacs.station_settings import StationSettings
from cxr_compare.hospital.pacs.worker import Worker
from cxr_compare.serving.answer import Answer
from cxr_compare.serving.guard import Warned
from cxr_compare.serving.known_limits import seen_caution
from tests.scripts.launched import free_port
from tests.scripts.small_sets import cxr, refusal
from tests.serving import radiographs
from tests.small_dicom import as_file


def radiograph(uid: str = "1.2.3.1", study: str = "1.2.3", **changed: Any) -> Dataset:
    """A small CR image of a chest."""
    pixels = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    uids = {"SOPInstanceUID": uid, "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.7"}
    elements = {"PatientID": "4711", "ViewPosition": "PA", **uids}
    made = radiographs.radiograph(pixels, **{**elements, **changed})
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = uid
    return made


class System:
    """Answers as a run does, without a network."""

    name, policy, threshold = "CheXNet", "max_f1", None
    target = SimpleNamespace(name="opacity")

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.warned: tuple[Warned, ...] = ()
        self.seen: SeenImage | None = None
        self.model = SimpleNamespace(
            batch_size=2, backend="onnx", precision="fp32", inference_id=lambda: "0123"
        )

    def answer(self, images: list[tuple[str, Any]], file_warnings: None) -> list[Answer]:
        self.asked += [Path(called).stem for called, _ in images]
        boxes = pd.DataFrame(columns=["finding", "x1", "y1", "x2", "y2", "score"])
        return [
            Answer(
                image=called,
                system=self.name,
                kind="scores",
                finding="Lung opacity",
                score=0.75,
                probability=0.5,
                policy=self.policy,
                threshold=0.25,
                computed_decision=True,
                boxes=boxes,
                warnings=self.warned,
                pixels=image.pixels,
                seen=self.seen,
            )
            for called, image in images
        ]


class Shelf:
    """An archive in memory, by the methods of `DicomWebArchive`."""

    shown = "shelf"

    def __init__(self, *images: Dataset) -> None:
        self.held = {str(image.SOPInstanceUID): image for image in images}
        self.stored: list[str] = []
        self.fetched: list[str] = []
        self.listed: list[str] = []
        self.error: BaseException | None = None
        self.error_after: BaseException | None = None

    def echo(self, *search: object, waits: bool = False) -> None:
        """It answers."""

    def studies(self, modalities: list[str], since: str | None) -> dict[str, int | None]:
        studies = [str(image.StudyInstanceUID) for image in self.held.values()]
        images = [dataset for dataset in self.held.values() if dataset.Modality not in ("SR", "OT")]
        return {
            str(dataset.StudyInstanceUID): studies.count(dataset.StudyInstanceUID)
            for dataset in images
        }

    def images(self, study: str, modalities: list[str]) -> Iterator[Any]:
        self.listed.append(study)
        for uid, image in list(self.held.items()):
            if image.StudyInstanceUID == study:
                yield ArchivedImage(study, str(image.SeriesInstanceUID), uid)

    def fetch(self, image: ArchivedImage) -> Dataset:
        self.fetched.append(image.uid)
        return self.held[image.uid]

    def store(self, results: list[Dataset]) -> None:
        if self.error:
            raise self.error
        for result in results:
            self.stored.append(str(result.SOPInstanceUID))
            self.held[str(result.SOPInstanceUID)] = result
        if self.error_after:
            raise self.error_after


class Desk:
    """A worker with all that it needs, begun anew as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.system, self.lines = folder, System(), list[str]()

    def run(
        self, shelf: Shelf, *, strict: bool = False, limit: int | None = None, dry_run: bool = False
    ) -> Worker:
        images = self.folder / "images"
        images.mkdir(exist_ok=True)
        worker = self.worker(shelf, strict=strict, limit=limit, dry_run=dry_run)
        with worker.journal:
            worker.journal.forget_failures()
            worker.pull(shelf, images)  # type: ignore[arg-type]
        assert list(images.iterdir()) == []
        return worker

    def worker(self, shelf: Shelf, **changed: Any) -> Worker:
        settings: dict[str, Any] = {
            **dict.fromkeys(field.name for field in dataclasses.fields(StationSettings)),
            "callers": [], "modalities": ["CR", "DX"], **changed,
            "journal": self.folder / "journal.sqlite",
        }  # fmt: skip
        say, systems = self.lines.append, [self.system]
        return Worker(StationSettings(**settings), systems, shelf, say, say)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def small_overlays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing at full size took most of the time."""
    monkeypatch.setattr("cxr_compare.hospital.dicom_objects.secondary_capture._PANEL", 64)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_log_contains_answers_refusals_and_failures_but_no_skipped_images(desk: Desk) -> None:
    sound, hand = radiograph("1.2.3.1", "1.2.3"), radiograph("1.2.3.2", "1.2.3")
    damaged = radiograph("1.2.3.3", "1.2.3")
    hand.BodyPartExamined, damaged.PixelData = "HAND", b"\0\0"
    log = AnswerLog(desk.folder / "log", desk.lines.append)
    worker = desk.worker(Shelf(sound, hand, damaged), log=log)
    (desk.folder / "images").mkdir()
    with worker.journal:
        worker.pull(Shelf(sound, hand, damaged), desk.folder / "images")  # type: ignore[arg-type]
        desk.system.warned = (Warned("no chest"),)
        other = Shelf(radiograph("1.2.5.1", "1.2.5"))
        worker.pull(other, desk.folder / "images")  # type: ignore[arg-type]
    rows = read_log(desk.folder / "log")
    assert sorted(rows["status"]) == ["failed", "ok", "refused"]
    assert rows.loc[rows["status"] != "failed", "patient"].nunique() == 1


# What is done once


def test_every_image_gets_a_report_and_a_capture_in_its_study_once(desk: Desk) -> None:
    shelf = Shelf(radiograph("1.2.3.1", "1.2.3"), radiograph("1.2.4.1", "1.2.4"))
    first = desk.run(shelf)
    assert first.tally.line("shelf") == "2 images answered; 4 results sent to shelf"
    sent = shelf.held.values()
    assert sorted((str(dataset.StudyInstanceUID), dataset.Modality) for dataset in sent) == [
        ("1.2.3", "CR"), ("1.2.3", "OT"), ("1.2.3", "SR"),
        ("1.2.4", "CR"), ("1.2.4", "OT"), ("1.2.4", "SR"),
    ]  # fmt: skip
    assert {str(dataset.PatientID) for dataset in shelf.held.values()} == {"4711"}
    again = desk.run(shelf)
    assert len(shelf.stored) == 4
    assert (len(again.tally.answered), len(again.tally.done_before)) == (0, 2)
    third = desk.run(shelf)
    assert "2 studies unchanged" in third.tally.line("shelf")
    assert len(desk.system.asked) == 2


def test_what_ends_between_sending_and_noting_it_sends_the_same_instances(desk: Desk) -> None:
    shelf = Shelf(radiograph())
    shelf.error_after = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        desk.run(shelf)
    shelf.error_after = None
    again = desk.run(shelf)
    assert len(again.tally.answered) == 1
    assert len(shelf.stored) == 4
    assert len(set(shelf.stored)) == 2


def test_an_archive_that_goes_away_loses_nothing(desk: Desk) -> None:
    shelf = Shelf(*[radiograph(f"1.2.3.{n}") for n in range(1, 6)])
    shelf.error = UnreachableError("shelf: refuses the connection, for 60 s")
    with pytest.raises(UnreachableError):
        desk.run(shelf)
    shelf.error = None
    assert len(desk.run(shelf).tally.answered) == 5
    assert len(shelf.stored) == len(set(shelf.stored)) == 10


def test_another_system_or_destination_answers_anew(desk: Desk) -> None:
    shelf = Shelf(radiograph())
    desk.run(shelf)
    desk.system.policy = "max_youden"
    assert len(desk.run(shelf).tally.answered) == 1
    shelf.shown = "elsewhere"
    assert len(desk.run(shelf).tally.answered) == 1
    assert len(set(shelf.stored)) == 4


def test_limit_leaves_the_rest_for_later(desk: Desk) -> None:
    shelf = Shelf(*[radiograph(f"1.2.3.{n}") for n in range(1, 5)])
    assert len(desk.run(shelf, limit=3).tally.answered) == 3
    assert len(desk.run(shelf).tally.answered) == 1


@pytest.mark.parametrize(
    ("removed", "added", "answered"),
    [
        (["1.2.3.1"], ["1.2.3.3"], 1),  # a retake: the count stays
        (["1.2.3.2"], [], 0),
        (["1.2.3.1", "1.2.3.2"], [], 0),  # the archive lists the study no more: it has no CR
        (["1.2.3.1", "1.2.3.2"], ["1.2.3.3", "1.2.3.4"], 2),
    ],
)
def test_a_settled_study_that_changes_is_answered_or_named_once(desk, removed, added, answered):
    shelf = Shelf(radiograph("1.2.3.1"), radiograph("1.2.3.2"))
    for _ in range(3):
        desk.run(shelf)
    for uid in removed:
        del shelf.held[uid]
    shelf.held |= {uid: radiograph(uid) for uid in added}
    desk.lines.clear()
    assert len(desk.run(shelf).tally.answered) == answered
    assert len(desk.run(shelf).tally.answered) == 0
    named = [line for line in desk.lines if "its answer stays there" in line]
    assert sorted(named) == sorted(
        f"image {digest(uid)[:12]}: the archive no longer lists it; its answer stays there"
        for uid in removed
    )
    assert len(shelf.stored) == len(set(shelf.stored)) == 2 * (2 + answered)


def test_a_later_first_date_or_other_modalities_name_nothing_as_gone(desk: Desk) -> None:
    shelf = Shelf(radiograph())
    desk.run(shelf)
    shelf.studies = lambda modalities, since: {}  # type: ignore[method-assign]
    for changed in ({"since": "20270101"}, {"modalities": ["MG"]}):
        worker = desk.worker(shelf, **changed)
        with worker.journal:
            worker.pull(shelf, desk.folder)  # type: ignore[arg-type]
    assert "no longer" not in str(desk.lines)


def test_query_lists_changed_studies_and_settled_studies_in_turn(desk, monkeypatch):
    monkeypatch.setattr("cxr_compare.hospital.pacs.worker._UNCHANGED_STUDIES_LISTED", 2)
    shelf = Shelf(*[radiograph(f"1.2.{n}.1", f"1.2.{n}") for n in range(3, 8)])
    desk.run(shelf)
    desk.run(shelf)
    worker, seen = desk.worker(shelf), []
    with worker.journal:
        for number in range(4):
            shelf.listed.clear()
            if number == 1:  # equal in number, and so found in its turn
                del shelf.held["1.2.7.1"]
                shelf.held["1.2.7.2"] = radiograph("1.2.7.2", "1.2.7")
            if number == 2:
                shelf.held["1.2.4.2"] = radiograph("1.2.4.2", "1.2.4")
            worker.pull(shelf, desk.folder)
            seen.append([int(uid[4:]) for uid in sorted(shelf.listed)])
    assert seen == [[3, 4, 5, 6, 7], [3, 4], [4, 5, 6], [3, 4, 7]]
    assert len(worker.tally.answered) == 2


# What is skipped, and what fails


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"Modality": "CT"}, "its modality is CT"),
        ({"BodyPartExamined": "HAND"}, "body part other than the chest"),
        ({"ViewPosition": "LL"}, "a lateral view"),
        ({"Manufacturer": SOFTWARE}, f"a result of {SOFTWARE}"),  # sent by another journal's run
    ],
)
def test_what_is_no_chest_radiograph_is_skipped_once(desk, changed, reason):
    shelf = Shelf(radiograph(**changed))
    (skip_reason,) = desk.run(shelf).tally.skipped.values()
    assert reason in skip_reason
    desk.run(shelf)
    assert (len(shelf.fetched), shelf.stored) == (1, [])


def test_strict_skips_what_a_warning_speaks_against(desk: Desk) -> None:
    desk.system.warned = (Warned("does not look like a chest X-ray"),)
    shelf = Shelf(radiograph())
    assert list(desk.run(shelf, strict=True).tally.skipped.values()) == [desk.system.warned[0]]
    assert shelf.stored == []


@pytest.mark.parametrize("role", ["train", "val", None])
def test_an_image_that_the_training_used_has_a_caution_and_is_still_answered(desk, role):
    desk.system.seen = None if role is None else SeenImage(role, is_near=False)
    shelf = Shelf(radiograph())
    worker = desk.run(shelf)
    cautions = [line for line in desk.lines if "  CAUTION: " in line]
    name = f"image {digest('1.2.3.1')[:12]}"
    sentence = seen_caution(desk.system.seen, "CheXNet")
    assert cautions == ([] if role is None else [f"{name}  CAUTION: {sentence}"])
    assert len(worker.tally.answered) == 1
    assert len(shelf.stored) == 2


def test_failure_is_reported_without_identifiers_and_retried_by_the_next_run(desk: Desk) -> None:
    broken = radiograph("1.2.3.9")
    broken.PixelData = b"\0" * 10
    shelf = Shelf(radiograph(), broken)
    done = desk.run(shelf)
    assert (len(done.tally.answered), len(done.tally.failed)) == (1, 1)
    (line,) = [text for text in desk.lines if "score" not in text]
    assert line.startswith(f"image {digest('1.2.3.9')[:12]}: ")
    assert not any(identifier in line for identifier in ("1.2.3", "4711", "Doe", str(desk.folder)))
    shelf.held["1.2.3.9"] = radiograph("1.2.3.9")
    assert len(desk.run(shelf).tally.answered) == 1


def test_a_refused_result_fails_its_image_alone(desk: Desk) -> None:
    shelf = Shelf(radiograph())
    shelf.error = RefusedError("shelf: does not store a result (reason 0xA900)")
    assert len(desk.run(shelf).tally.failed) == 1
    shelf.error = None
    assert len(desk.run(shelf).tally.answered) == 1


def test_a_dry_run_sends_and_notes_nothing(desk: Desk) -> None:
    shelf = Shelf(radiograph())
    worker = desk.run(shelf, dry_run=True)
    assert worker.tally.line("shelf", dry_run=True) == (
        "1 image answered; 2 results made, none sent"
    )
    assert shelf.stored == []
    assert not (desk.folder / "journal.sqlite").exists()


# The journal


def test_journal_contains_no_identifier(desk: Desk) -> None:
    desk.run(Shelf(radiograph("1.2.345678.1", "1.2.345678")))
    path = desk.folder / "journal.sqlite"
    assert path.stat().st_mode & 0o077 == 0
    content = path.read_bytes()
    assert not any(identifier in content for identifier in (b"345678", b"4711", b"Doe", b"Jane"))


def test_journal_survives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from cxr_compare.hospital.pacs.journal import Journal\n"
        "journal = Journal.open(Path(sys.argv[1]), 'job')\n"
        "journal.record('a', 'sent')\njournal.record('b', 'fetched')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "journal.sqlite"
    killed = subprocess.run([sys.executable, "-c", code, path])
    assert killed.returncode == -9
    with Journal.open(path, "job") as journal:
        assert [journal.state(image) for image in "abc"] == ["sent", "fetched", None]
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT image, state FROM images ORDER BY image")
        assert rows.fetchall() == [("a", "sent"), ("b", "fetched")]


def test_a_flipped_bit_of_a_journal_is_refused_in_one_line_or_does_no_harm(desk: Desk) -> None:
    shelf = Shelf(radiograph("1.2.3.1"), radiograph("1.2.4.1", "1.2.4"))
    for _ in range(2):
        desk.run(shelf)
    path, had, refused = desk.folder / "journal.sqlite", set(shelf.held), 0
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    positions = [*range(0, 110, 10), *generator.integers(110, len(whole), 20)]
    for position in positions:
        content = bytearray(whole)
        content[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(content)
        try:
            desk.run(shelf)
        except InputError:  # and nothing else
            refused += 1
        assert set(shelf.held) == had
    assert 0 < refused < len(positions)
    assert "no longer" not in str(desk.lines)


def test_journal_is_used_by_one_program_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with (
        Journal.open(path, "job"),
        pytest.raises(InputError, match=r"--journal .*journal.sqlite: "),
    ):
        Journal.open(path, "job")
    Journal.open(path, "job").__exit__(None, None, None)


@pytest.mark.parametrize("content", [b"patient,finding\n" * 200, None])
def test_another_file_is_no_journal(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "labels.csv"
    if content:
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE notes (text)")
        connection.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"--journal .*labels.csv: "):
        Journal.open(path, "job")
    assert path.read_bytes() == before


# Patience


class Clock:
    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def patience(seconds: float, clock: Clock, lines: list[str] | None = None) -> Patience:
    say = (lines if lines is not None else []).append
    return Patience(seconds, say=say, sleep=clock.sleep, clock=lambda: clock.now)


def test_waits_double_and_end_with_one_line() -> None:
    clock, lines = Clock(), list[str]()

    def away() -> None:
        raise OutageError("refuses the connection")

    with pytest.raises(UnreachableError, match=r"^pacs: .* 60 s$"):
        patience(60, clock, lines).run(away, "pacs")
    assert clock.waits == [0.5, 1, 2, 4, 8, 16, 16, 12.5]
    assert lines == ["pacs: refuses the connection; trying again for up to 60 s"]


def test_an_archive_may_say_how_long_to_wait() -> None:
    clock, errors = Clock(), iter([OutageError("busy", retry_after=7), None])

    def attempt() -> str:
        if error := next(errors):
            raise error
        return "done"

    assert patience(60, clock).run(attempt, "pacs") == "done"
    assert clock.waits == [7]


def test_an_image_that_breaks_the_archive_does_not_hold_up_the_others() -> None:
    clock = Clock()

    def attempt() -> None:
        raise OutageError("answers 500", is_down=False)

    with pytest.raises(RefusedError, match=r"^pacs: .*500, 3 "):
        patience(60, clock).run(attempt, "pacs")
    assert len(clock.waits) == 2


# DICOMweb


class Service(ThreadingHTTPServer):
    """Answers requests by a list of (status, type, body), the last one again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, str, bytes]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/dicom-web"

    def json(self, *pages: Any, status: int = 200) -> None:
        self.answers += [
            (status, "application/dicom+json", json.dumps(page).encode()) for page in pages
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((f"{self.command} {self.path}", dict(self.headers)))
        answers = self.server.answers
        status, kind, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - likewise

    def log_message(self, *arguments: object) -> None:
        """Keep the terminal quiet."""


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def archive(service: Service) -> Iterator[DicomWebArchive]:
    made = DicomWebArchive(service.url, Credentials("CXR_PACS"), patience(3, Clock()))
    try:
        yield made
    finally:
        made.close()


def entry(**tags: Any) -> dict[str, Any]:
    return {name.removeprefix("t"): {"vr": "UI", "Value": [value]} for name, value in tags.items()}


def test_lists_are_read_page_by_page(service: Service, archive: DicomWebArchive) -> None:
    pages = [[entry(t0020000D="1.2", t00201208=3)], [entry(t0020000D="1.3")], []]
    service.json(*pages)
    assert archive.studies(["CR"], "20260131") == {"1.2": 3, "1.3": None}
    requests = [line for line, _ in service.asked]
    assert "ModalitiesInStudy=CR" in requests[0]
    assert "StudyDate=20260131-" in requests[0]
    assert "offset=1" in requests[1]


def test_list_that_ends_with_a_full_page_is_read_whole(service, archive):
    # Orthanc 1.10 answers a search by modality with nothing from the second page on.
    studies = [entry(t0020000D=f"1.2.{n}") for n in range(230)]
    service.json(studies[:200], [], studies, [])
    assert len(archive.studies(["CR"])) == 230
    assert "limit" not in service.asked[2][0]


def test_archive_without_pages_is_not_queried_forever(service, archive):
    service.json([entry(t0020000D="1.2")])
    assert archive.studies(["CR", "DX"]) == {"1.2": None}
    assert len(service.asked) == 4


def test_lists_omit_series_of_other_modalities_and_results_of_this_program(service, archive):
    service.json(
        [
            entry(t0020000E="1.2.1", t00080060="CR"),
            entry(t0020000E="1.2.2", t00080060="CT"),
            entry(t0020000E="1.2.3", t00080060="CR", t00080070=SOFTWARE),
            entry(t0020000E="1.2.4"),
        ],
        [],
        [entry(t00080018="1.2.1.1"), entry(t00080018="1.2.1.2", t00080070=SOFTWARE)],
        [],
        [],
    )
    assert list(archive.images("1.2", ["CR"])) == [
        ArchivedImage("1.2", "1.2.1", "1.2.1.1"),
        LeftOutImage("1.2.1.2", f"a result of {SOFTWARE}"),
        LeftOutImage("1.2.2", "a series whose modality is CT"),
        LeftOutImage("1.2.3", f"a result of {SOFTWARE}"),
    ]


def test_an_outage_is_waited_for(service: Service, archive: DicomWebArchive) -> None:
    service.answers = [(503, "text/plain", b"starting"), (502, "text/html", b"")]
    service.json([])
    assert archive.studies(["CR"]) == {}
    assert len(service.asked) == 3


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (503, b"", UnreachableError, "503"),
        (500, b"", RefusedError, "500"),
        (401, b"", InputError, "CXR_PACS_TOKEN"),
        (404, b"", InputError, "DICOMweb"),
        (200, b"<html>Log in</html>", InputError, "DICOMweb"),
        (200, b'["text"]', InputError, "DICOMweb"),
    ],
)
def test_what_goes_wrong_is_one_line_without_uids(service, archive, status, body, error, message):
    service.answers = [(status, "application/dicom+json", body)]
    with pytest.raises(InputError) as raised:
        archive.studies(["CR"])
    assert type(raised.value) is error
    assert message in str(raised.value)


def test_a_refused_connection_is_an_outage(tmp_path: Path) -> None:
    server = Service()
    server.server_close()
    archive = DicomWebArchive(server.url, Credentials("CXR_PACS"), patience(1, Clock()))
    with pytest.raises(UnreachableError, match=r"/dicom-web: .* 1 s$"):
        archive.studies(["CR"])
    archive.close()


@pytest.mark.parametrize(("status", "reason"), [(200, None), (202, 0x0111), (409, 0x0111)])
def test_what_the_archive_has_already_counts_as_stored(service, archive, status, reason):
    failed = {"00081197": {"vr": "US", "Value": [reason]}}
    body = {} if reason is None else {"00081198": {"vr": "SQ", "Value": [failed]}}
    service.json(body, status=status)
    archive.store([radiograph()])


@pytest.mark.parametrize("status", [200, 202, 409])
def test_a_result_that_is_not_stored_is_never_taken_for_sent(service, archive, status):
    failed = {"00081197": {"vr": "US", "Value": [0xA700]}}
    service.json({"00081198": {"vr": "SQ", "Value": [failed]}}, status=status)
    with pytest.raises(RefusedError, match="reason 0xA700"):
        archive.store([radiograph()])


def test_image_other_than_requested_is_refused(service, archive):
    content = as_file(radiograph("1.2.3.2"))
    body = b"--part\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--part--"
    service.answers = [(200, "multipart/related; type=application/dicom; boundary=part", body)]
    assert archive.fetch(ArchivedImage("1.2", "1.3", "1.2.3.2")).PatientID == "4711"
    with pytest.raises(RefusedError, match=r"/dicom-web: .*another image"):
        archive.fetch(ArchivedImage("1.2", "1.3", "1.2.3.1"))


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({}, None),
        ({"CXR_PACS_TOKEN": "abc"}, "Bearer abc"),
        ({"CXR_PACS_USER": "a", "CXR_PACS_PASSWORD": "b"}, "Basic YTpi"),
    ],
)
def test_credentials_come_from_the_environment_and_are_not_shown(service, environment, header):
    credentials = Credentials.from_environment(environment, "CXR_PACS")
    archive = DicomWebArchive(service.url, credentials, patience(1, Clock()))
    service.json([])
    archive.studies(["CR"])
    archive.close()
    assert service.asked[0][1].get("Authorization") == header
    assert "abc" not in repr(credentials)


@pytest.mark.parametrize(
    "environment",
    [
        {"P_USER": "a"},
        {"P_PASSWORD": "a"},
        {"P_TOKEN": "a", "P_USER": "b", "P_PASSWORD": "c"},
        {"P_TOKEN": "a\nb"},
    ],
)
def test_half_or_twofold_credentials_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match="P_"):
        Credentials.from_environment(environment, "P")


# DICOM's own network


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "received")


def test_received_images_are_answered_and_results_sent_on(desk: Desk, inbox: Inbox) -> None:
    shelf = Shelf()
    with listening(Address("CXR", "127.0.0.1", free_port()), inbox, []) as address:
        peer = StorePeer(address, "CT1", patience(5, Clock()))
        peer.store([radiograph()])
        assert [path.stem for path in inbox.waiting()] == [digest("1.2.3.1")]
        with desk.worker(shelf).journal:  # killed before it was answered
            pass
        worker = desk.worker(shelf)
        with worker.journal:
            worker.take_received(inbox)
            peer.store([radiograph()])  # the sender's second try
            worker.take_received(inbox)
            worker.take_received(inbox)
    assert len(shelf.stored) == 2
    assert inbox.waiting() == []


def test_other_kinds_of_objects_are_refused_when_the_association_is_made(inbox: Inbox) -> None:
    other = radiograph(SOPClassUID=pydicom.uid.CTImageStorage)
    with listening(Address("CXR", "127.0.0.1", free_port()), inbox, []) as address:
        peer = StorePeer(address, "CT1", patience(0, Clock()))
        with pytest.raises(RefusedError, match="takes"):
            peer.store([other])
    assert inbox.waiting() == []


@pytest.mark.parametrize(("called", "caller"), [("OTHER", "CT1"), ("CXR", "STRANGER")])
def test_strangers_are_rejected(inbox: Inbox, called: str, caller: str) -> None:
    with listening(Address("CXR", "127.0.0.1", free_port()), inbox, ["CT1"]) as listener:
        address = Address(called, listener.host, listener.port)
        peer = StorePeer(address, caller, patience(0, Clock()))
        with pytest.raises(UnreachableError, match=f"^{called}@.*: .* {caller}$"):
            peer.store([radiograph()])


# pynetdicom leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_peer_that_is_away_is_an_outage() -> None:
    peer = StorePeer(Address("PACS", "127.0.0.1", free_port()), "CXR", patience(0, Clock()))
    with pytest.raises(UnreachableError, match=r"^PACS@127.0.0.1:"):
        peer.store([radiograph()])
    nameless = StorePeer(Address("PACS", "no.such.invalid", 104), "CXR", patience(0, Clock()))
    with pytest.raises(UnreachableError, match=r"^PACS@no\.such\.invalid:104: "):
        nameless.store([radiograph()])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_destination_is_tried_once_at_the_start_and_its_absence_is_no_end(inbox: Inbox) -> None:
    lines: list[str] = []
    settings = SimpleNamespace(watch=None)
    terminal = SimpleNamespace(say=lines.append)
    with listening(Address("CXR", "127.0.0.1", free_port()), inbox, []) as here:
        away = Address("PACS", "127.0.0.1", free_port())
        for address in (here, away):
            peer = StorePeer(address, "CXR", patience(60, Clock()))
            check_connections(settings, Connections(None, peer), terminal)  # type: ignore[arg-type]
    (line,) = lines
    assert line.startswith(f"{away.shown}: ")
    assert "nothing is lost" in line


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PEM files: an authority, whom it signed, and a stranger who signed himself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    folder = tmp_path_factory.mktemp("certificates")
    paths = {name: folder / f"{name}.pem" for name in ("authority", "known", "stranger")}
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2"]  # fmt: skip
    host = ["-addext", "subjectAltName=IP:127.0.0.1"]
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key"]
    for name, more in (("ca", []), ("known", [*host, *signed]), ("stranger", host)):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}"]
        subprocess.run([*make, *files, *more], cwd=folder, check=True, capture_output=True)
    paths["authority"].write_bytes((folder / "ca.crt").read_bytes())
    for name in ("known", "stranger"):
        parts = [(folder / f"{name}.{suffix}").read_bytes() for suffix in ("key", "crt")]
        paths[name].write_bytes(b"".join(parts))
    return paths


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_with_tls_both_sides_must_show_a_certificate_of_the_authority(
    inbox, certificates, monkeypatch
):
    monkeypatch.setattr("cxr_compare.hospital.pacs.dimse._HANDSHAKE_SECONDS", 1.0)

    def sockets() -> set[socket.socket]:
        return {
            open_socket
            for open_socket in gc.get_objects()
            if isinstance(open_socket, socket.socket)
        }

    before = sockets()  # a server of another test may be among them
    accepted, stranger = (
        Tls(certificates[name], certificates["authority"]) for name in ("known", "stranger")
    )
    away = patience(0, Clock())
    with listening(Address("CXR", "127.0.0.1", free_port()), inbox, [], accepted) as listener:
        silent = socket.create_connection(
            (listener.host, listener.port)
        )  # holds nobody up for long
        for tls in (None, stranger):
            with pytest.raises(UnreachableError):
                StorePeer(listener, "CT1", away, tls).store([radiograph()])
        assert inbox.waiting() == []
        by_name = Address(
            listener.title, "localhost", listener.port
        )  # the certificate names an address
        with pytest.raises(UnreachableError, match=r"^CXR@localhost:.*certificates"):
            StorePeer(by_name, "CT1", away, accepted).store([radiograph()])
        StorePeer(listener, "CT1", away, accepted).store([radiograph()])
        assert len(inbox.waiting()) == 1
        silent.close()
    with (
        listening(Address("CXR", "127.0.0.1", free_port()), inbox, [], stranger) as listener,
        pytest.raises(UnreachableError),
    ):
        StorePeer(listener, "CT1", away, accepted).store([radiograph()])
    for left in sockets() - before:  # pynetdicom leaves those of refused connections open
        left.close()


def test_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("none")
    for certificate, message in (("a.pem", "a.pem: .*PEM"), ("none", "no such file")):
        with pytest.raises(InputError, match=f"--tls-cert: .*{message}"):
            Tls(tmp_path / certificate, tmp_path / "a.pem").sending()


def test_received_files_survive_a_full_disk(
    desk: Desk, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remember(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connections.append(connect(*arguments, **options))
        return connections[-1]

    monkeypatch.setattr("sqlite3.connect", remember)
    uids = [f"1.2.3.{n}" for n in range(1, 40)]
    for uid in uids:
        inbox.put(uid, as_file(radiograph(uid)))
    shelf = Shelf()
    worker = desk.worker(shelf)
    with worker.journal:
        (connection,) = connections
        connection.execute("PRAGMA max_page_count = 1")  # as many as there are
        for _ in range(2):
            with pytest.raises(UnreachableError, match=r"journal.sqlite: No space left"):
                worker.take_received(inbox)
        assert 0 < len(inbox.waiting()) < len(uids)
        connection.execute("PRAGMA max_page_count = 100000")
        worker.take_received(inbox)
    assert inbox.waiting() == []
    assert set(shelf.held) == set(shelf.stored)
    assert len(set(shelf.stored)) == 2 * len(uids) == len(worker.tally.results)


def test_receiver_without_space_reports_it_and_continues(inbox: Inbox, monkeypatch) -> None:
    lines: list[str] = []
    free = 0
    monkeypatch.setattr(
        "cxr_compare.hospital.pacs.dimse.shutil.disk_usage", lambda path: SimpleNamespace(free=free)
    )
    with listening(Address("CXR", "127.0.0.1", free_port()), inbox, []) as address:
        peer = StorePeer(address, "CT1", patience(0, Clock(), lines))
        with pytest.raises(UnreachableError, match=r"^CXR@.*0xA700"):
            peer.store([radiograph()])
        assert list(inbox.folder.iterdir()) == []
        free = 1 << 20
        peer.store([radiograph()])
    assert len(inbox.waiting()) == 1


def test_image_without_disk_space_ends_the_query_and_is_fetched_by_the_next(desk, monkeypatch):
    shelf = Shelf(radiograph())

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(UnreachableError, match=f"{desk.folder / 'images'}: No space left"):
            desk.run(shelf)
    assert len(desk.run(shelf).tally.answered) == 1


def test_a_half_written_image_is_not_taken_for_one(inbox: Inbox) -> None:
    (inbox.folder / "0123.99.part").write_bytes(b"half")
    assert Inbox(inbox.folder).waiting() == []
    assert list(inbox.folder.iterdir()) == []


def test_what_failed_stays_for_the_next_run(desk: Desk, inbox: Inbox) -> None:
    shelf = Shelf()
    shelf.error = RefusedError("shelf: does not store a result")
    inbox.put("1.2.3.1", as_file(radiograph()))
    for error, left in ((shelf.error, 1), (None, 0)):
        shelf.error = error
        worker = desk.worker(shelf)
        with worker.journal:
            worker.journal.forget_failures()
            worker.take_received(inbox)
            worker.take_received(inbox)
        assert len(inbox.waiting()) == left
    assert len(shelf.stored) == 2


# The command line


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("no-run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--dicomweb"),
        ("--listen CXR:104", "--send-to"),
        ("--listen CXR:104 --send-to A@h:1 --limit 3", "--limit"),
        ("--dicomweb http://h/d --caller A", "--caller"),
        ("--dicomweb http://h/d --watch 5 --dry-run", "--watch"),
        ("--dicomweb http://h/d", "neither"),
        ("--dicomweb ftp://h/d", "give a URL"),
        ("--dicomweb http://user:secret@h/d", "credentials"),
        ("--dicomweb http://h/d --since yesterday", "2026-01-31"),
        ("--dicomweb http://h/d --modality C/R", "--modality C/R"),
        ("--dicomweb http://h/d --send-to ORTHANC:4242", "AE@HOST:PORT"),
        ("--dicomweb http://h/d --ae-title LONGER-THAN-SIXTEEN", "--ae-title"),
        ("--dicomweb http://h/d --tls-ca a.pem", "--tls-"),
        ("--listen CXR --send-to A@h:1", "--listen CXR"),
    ],
)
def test_arguments_are_checked_before_anything_is_opened_and_refused_in_one_line(
    run_folder, capsys, monkeypatch, arguments, message
):
    options = arguments.split()
    if "neither" not in message:
        monkeypatch.setattr("cxr_compare.scripts.runs.is_run_or_export", lambda path: True)
    line = refusal(capsys, "pacs", run_folder, *options)
    assert message in line
    assert "secret" not in line


def test_wrong_url_is_reported_before_models_are_loaded(run_folder, capsys, monkeypatch, service):
    service.answers = [(404, "text/html", b"nothing here")]
    monkeypatch.setattr("cxr_compare.scripts.runs.is_run_or_export", lambda path: True)
    monkeypatch.setattr(
        "cxr_compare.hospital.pacs.pacs.open_runs",
        lambda *arguments: pytest.fail("loads models"),
    )
    for further in ((), ("--watch", "5"), ("--dry-run",)):
        line = refusal(capsys, "pacs", run_folder, "--dicomweb", service.url, *further)
        assert "DICOMweb" in line
        assert service.url in line


@pytest.mark.parametrize(
    "options",
    [
        ("--dicomweb", "https://no.such.invalid/d", "--dry-run"),
        ("--dicomweb", "https://no.such.invalid/d", "--watch", "5"),
        ("--listen", "CXR:11112", "--send-to", "PACS@no.such.invalid:104"),
    ],
)
def test_a_name_that_no_machine_has_ends_at_once(run_folder, capsys, monkeypatch, options):
    monkeypatch.setattr("cxr_compare.scripts.runs.is_run_or_export", lambda path: True)
    monkeypatch.setattr(Patience, "run", lambda *arguments: pytest.fail("asks, and waits"))
    assert cxr("pacs", run_folder, *options) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no.such.invalid" in line
    assert "no machine" in line


def test_open_networks_are_warned_of(run_folder, capsys, monkeypatch):
    def ended(*arguments: object) -> None:
        raise InputError("as far as this test goes")

    monkeypatch.setattr("cxr_compare.scripts.runs.is_run_or_export", lambda path: True)
    monkeypatch.setattr("cxr_compare.hospital.pacs.station.check_connections", ended)
    for options, warnings in (
        (["--dicomweb", "http://pacs.example/d"], 1),
        (["--dicomweb", "http://127.0.0.1:8042/d"], 0),
        (["--dicomweb", "https://pacs.example/d"], 0),
        (["--dicomweb", "https://pacs.example/d", "--send-to", "http://other.example/d"], 1),
        (["--listen", "CXR:11112", "--send-to", "A@127.0.0.1:104"], 0),
        (["--listen", "CXR@0.0.0.0:11112", "--send-to", "A@pacs.example:104"], 2),
    ):
        assert cxr("pacs", run_folder, *options) == 2
        assert capsys.readouterr().err.count("WARNING") == warnings, options
