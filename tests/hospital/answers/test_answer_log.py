"""The log of answers: no row is lost, no id can be read in it, what is wrong is said."""

import errno
import gzip
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.pseudonyms import keyed_hash
from cxr_compare.data_prep.images.dicom_header import header_facts
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.hospital.answers.answer_log import AGE_BANDS, LOG_KEY, AnswerLog
from cxr_compare.hospital.answers.answer_log_reader import read_audit
from cxr_compare.hospital.answers.answer_log_reader import read_log as _read_log
from tests.small_dicom import write_dicom

OK = {"system": "CheXNet", "target": "opacity", "policy": "max_f1", "threshold": 0.4,
      "status": "ok", "score": 0.61, "decision": True, "guard_distance": -3.5}  # fmt: skip


def read_log(path: Path, notes: list[str] | None = None) -> pd.DataFrame:
    return _read_log(path, (notes if notes is not None else []).append)


def the_day(folder: Path) -> Path:
    (file,) = folder.glob("answers-*.jsonl")
    return file


def test_a_row_holds_classes_and_keyed_hashes_alone(tmp_path):
    header = {"PatientID": "JANE-77", "IssuerOfPatientID": "WARD9", "SOPInstanceUID": "1.2.3.4",
              "PatientSex": "O", "PatientAge": "083Y", "ViewPosition": "AP",
              "Manufacturer": "FUJIFILM Corporation"}  # fmt: skip
    file = write_dicom(tmp_path / "SMITH.dcm", np.zeros((16, 16), np.uint8), **header)
    log = AnswerLog(tmp_path / "log", print)
    log.add_file(str(file), read_image(file), [OK], 0.25)
    log.close()

    (line,) = the_day(tmp_path / "log").read_text().splitlines()
    key = (tmp_path / "log" / LOG_KEY).read_bytes()
    row = json.loads(line)
    assert row.pop("time").endswith("+00:00")
    assert row == OK | {
        "decision": "positive",
        "patient": keyed_hash(key, "patient:WARD9/JANE-77")[:16],
        "image": keyed_hash(key, "image:1.2.3.4")[:16],
        "seconds": 0.25, "view": "AP", "sex": "other", "age_band": "80+", "maker": "fujifilm",
    }  # fmt: skip
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "log").iterdir()]
    assert modes == [0o600, 0o600]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("manufacturer", "maker"),
    [("GE MEDICAL SYSTEMS", "ge"), ("Image Gear", "other"), ("Siemens Healthineers", "siemens"),
     ("TOSHIBA_MEC", "canon"), ("KONICA MINOLTA", "konica minolta"), ("", None)],
)  # fmt: skip
def test_makers_of_every_spelling(manufacturer, maker):
    header = Dataset()
    header.Manufacturer = manufacturer
    assert header_facts(header)["maker"] == maker


@pytest.mark.parametrize(
    ("years", "band"),
    [(0.0, "0-1"), (1.99, "0-1"), (17.5, "12-17"), (18, "18-39"), (120, "80+"), (121, None),
     (float("nan"), None)],
)  # fmt: skip
def test_the_band_of_an_age(tmp_path, years, band):
    log = AnswerLog(tmp_path / "log", print)
    log.add("a", None, {"age_years": years}, [OK], None)
    assert read_log(tmp_path / "log")["age_band"].isna().item() is (band is None)
    assert band in (None, read_log(tmp_path / "log")["age_band"].item())
    assert list(AGE_BANDS)[-1] == "80+"


def test_an_image_without_a_patient_is_its_own(tmp_path):
    log = AnswerLog(tmp_path / "log", print)
    for name, grey in (("a.png", 5), ("b.png", 5), ("c.png", 9)):
        path = tmp_path / name
        write_dicom(path, np.full((16, 16), grey, np.uint8), PatientID="", SOPInstanceUID=name)
        log.add_file(str(path), read_image(path), [OK], None)
    for lost in ("lost/d.png", "e.png"):
        log.add_file(lost, None, [OK], None)
    rows = read_log(tmp_path / "log")
    codes = rows["patient"].factorize()[0].tolist()
    assert codes == [0, 0, 1, 2, 3]  # the same pixels are one patient
    assert rows["image"].nunique() == 5


def _append(folder: Path, writer: int) -> None:
    log = AnswerLog(folder, print)
    with ThreadPoolExecutor(2) as threads:
        for number in range(100):
            rows = [OK, OK | {"system": "B"}]
            threads.submit(log.add, f"{writer}-{number}", None, {"view": "PA"}, rows, 1.0)
    log.close()


def test_threads_and_processes_append_whole_rows_under_one_key(tmp_path):
    with ProcessPoolExecutor(3) as processes:
        list(processes.map(_append, [tmp_path / "log"] * 3, range(3)))
    notes: list[str] = []
    rows = read_log(tmp_path / "log", notes)
    assert (len(rows), rows["image"].nunique(), notes) == (600, 300, [])


def test_full_disk_is_reported_once_and_its_cut_line_harms_no_other(tmp_path, monkeypatch):
    said: list[str] = []
    log = AnswerLog(tmp_path / "log", said.append)
    write = os.write

    def cut(file: int, content: bytes) -> int:
        if content == b"\n":
            return write(file, content)
        write(file, content[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log.add("a", None, {}, [OK], 1.0)
    monkeypatch.setattr(os, "write", cut)
    for _ in range(2):
        log.add("a", None, {}, [OK, OK], 1.0)
    monkeypatch.undo()
    log.add("a", None, {}, [OK], 1.0)
    log.close()

    assert log.lost == 4
    assert len(said) == 2
    assert "cannot be written any more (No space left on device)" in said[0]
    assert "4 rows" in said[1]
    notes: list[str] = []
    assert len(read_log(tmp_path / "log", notes)) == 2
    assert [note.partition(" lines")[0] for note in notes] == [f"{the_day(tmp_path / 'log')}: 2"]


def test_a_line_that_a_killed_process_cut_is_ended_by_the_next(tmp_path):
    _append(tmp_path / "log", 0)
    file = the_day(tmp_path / "log")
    file.write_bytes(file.read_bytes()[:-30])
    AnswerLog(tmp_path / "log", print).add("z", None, {}, [OK], 1.0)
    assert len(read_log(tmp_path / "log")) == 200


@pytest.mark.parametrize("place", ["file", "open", "day", "/proc"])
def test_a_log_that_cannot_be_written_is_refused(tmp_path, place):
    folder = Path("/proc/cxr-log") if place == "/proc" else tmp_path / place
    if place == "file":
        folder.write_text("")
    elif place != "/proc":
        AnswerLog(folder, print).close()
        if place == "open":
            folder.chmod(0o750)
        else:
            file = the_day(folder)
            file.unlink()
            file.mkdir()
    with pytest.raises(InputError, match=r"others may read it|File exists|Is a dir|No such file"):
        AnswerLog(folder, print)


def test_a_table_in_place_of_a_log_needs_three_columns(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "time,patient,score,decision\n2026-02-01,p2,0.25,0\n2026-01-31T23:00Z,p1,.5,1\n"
    )
    rows = read_log(path)
    assert rows["patient"].tolist() == ["p1", "p2"]  # by time
    assert rows["decision"].tolist() == [True, False]
    assert rows["score"].tolist() == [0.5, 0.25]
    assert rows["image"].is_unique
    assert rows["status"].tolist() == ["ok", "ok"]
    assert rows[["view", "maker", "seconds"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("time,patient\n2026-02-01,p", "'score'"),
        ("time,patient,score\n2026-02-01,p,high", "line 2: score='high'"),
        ("time,patient,score\n2026-02-01,p,inf", "line 2: score='inf'"),
        ("time,patient,score\nmonday,p,1", "line 2: time='monday'"),
        ("time,patient,score\n2026-02-01,,1", "line 2: patient"),
        ("time,patient,score\n2026-02-01,p,", "line 2: score"),
        ("time,patient,score,view\n2026-02-01,p,1,XX", "line 2: view='XX'.*PA, AP"),
        ("time,patient,score\n", "holds no answer yet"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(tmp_path, content, message):
    path = tmp_path / "log.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_log(path)


def test_a_line_that_is_no_row_is_named(tmp_path):
    _append(tmp_path / "log", 0)
    with the_day(tmp_path / "log").open("a") as file:
        file.write('{"time": "2026-02-01"}\n')
    with pytest.raises(InputError, match="line 201: "):
        read_log(tmp_path / "log")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="answers-"):
        read_log(tmp_path / "empty")


def test_labels_that_come_later_find_their_images(tmp_path):
    log = AnswerLog(tmp_path / "log", print)
    for name in ("1.2.3", "film.png"):
        log.add(name, None, {}, [OK], None)
    hashed = read_log(tmp_path / "log")["image"].tolist()
    audit, key = tmp_path / "audit.csv", tmp_path / "log" / LOG_KEY
    audit.write_text("image_id,label\nfilm.png,0\n1.2.3,Present\nfilm.png,negative\n")
    found = read_audit(audit, key)
    assert dict(zip(found["image"], found["label"], strict=True)) == {
        hashed[1]: False,
        hashed[0]: True,
    }
    audit.write_text(f"image,label\n{hashed[0]},1\n")
    assert read_audit(audit, key)["image"].tolist() == hashed[:1]
    audit.write_text("image_id,label\na,1\n")
    assert read_audit(audit)["image"].tolist() == ["a"]  # a table calls images by their ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image_id,label\na,maybe\n", "line 2: label='maybe'"),
        ("image_id,label\na,1\nb,0\na,0\n", "line 4: "),
        ("image_id,label\n,1\n", "line 2: .*image_id"),
        ("image_id\na\n", "'label'"),
    ],
)
def test_a_label_that_is_none_is_named(tmp_path, content, message):
    path = tmp_path / "audit.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_audit(path)


def write_days(folder: Path, *days: str, system: str = "CheXNet") -> Path:
    """A log of one row a day, as the writer would have written it."""
    AnswerLog(folder, print).add("a", None, {}, [OK], 1.0)
    row = json.loads(the_day(folder).read_text())
    the_day(folder).unlink()
    for day in days:
        line = json.dumps({**row, "time": f"{day}T10:00:00.000+00:00", "system": system})
        (folder / f"answers-{day}.jsonl").write_text(line + "\n")
    return folder


def test_days_that_were_compressed_or_rotated_are_read(tmp_path):
    log = write_days(tmp_path / "log", "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")
    first, second, third = (log / f"answers-2026-01-0{day}.jsonl" for day in (1, 2, 3))
    Path(f"{first}.gz").write_bytes(gzip.compress(first.read_bytes()))
    Path(f"{second}.2.gz").write_bytes(gzip.compress(second.read_bytes()))
    first.unlink()
    second.unlink()
    third.rename(f"{third}.1")
    notes: list[str] = []
    days = read_log(log, notes)["time"].dt.strftime("%Y-%m-%d").tolist()
    assert days == ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    assert notes == []


def test_a_day_beside_its_compressed_copy_counts_once_and_two_halves_of_a_day_count_both(tmp_path):
    log = write_days(tmp_path / "log", "2026-01-01")
    day = log / "answers-2026-01-01.jsonl"
    twice = day.read_text() * 2  # a file may hold the same row twice
    day.write_text(twice)
    Path(f"{day}.gz").write_bytes(gzip.compress(twice.encode()))
    notes: list[str] = []
    assert len(read_log(log, notes)) == 2
    assert "2 rows in both of answers-2026-01-01.jsonl" in notes[0]
    day.write_text(day.read_text().replace("CheXNet", "Other"))
    assert len(read_log(log)) == 4


def test_files_that_begin_like_a_day_and_are_not_read_are_named(tmp_path):
    log = write_days(tmp_path / "log", "2026-01-01")
    for name in ("answers-2026-01-02.jsonl.bz2", "answers-2026-02-31.jsonl", "answers-old.jsonl"):
        (log / name).touch()
    notes: list[str] = []
    assert len(read_log(log, notes)) == 1
    for name in ("answers-2026-01-02.jsonl.bz2", "answers-2026-02-31.jsonl", "answers-old.jsonl"):
        assert name in notes[0]


def test_a_damaged_compressed_day_is_refused(tmp_path):
    log = write_days(tmp_path / "log", "2026-01-01", "2026-01-02")
    day = log / "answers-2026-01-01.jsonl"
    packed = gzip.compress(day.read_bytes() * 100)
    for damaged in (packed[:-20], b"no gzip"):
        Path(f"{day}.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"answers-2026-01-01\.jsonl\.gz: "):
            read_log(log)


def _as_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, _as_link], ids=["pipe", "folder", "link"])
def test_what_is_no_file_in_the_place_of_a_day_is_refused(tmp_path, make: Callable[[Path], None]):
    log = write_days(tmp_path / "log", "2026-01-01")
    make(log / "answers-2026-02-01.jsonl")
    with pytest.raises(InputError, match=r"answers-2026-02-01\.jsonl"):
        read_log(log)


@pytest.mark.parametrize("line", ["[" * 100_000, "9" * 10_000, "x" * 1_000_000], ids=len)
def test_a_line_of_any_depth_or_length_is_passed_over_with_a_note(tmp_path, line):
    log = write_days(tmp_path / "log", "2026-01-01")
    day = log / "answers-2026-01-01.jsonl"
    row = day.read_text()
    day.write_text(f"{row}{line}\n{row}")
    notes: list[str] = []
    assert len(read_log(log, notes)) == 2
    assert [note.partition(" line")[0] for note in notes] == [f"{day}: 1"]


def test_a_value_that_is_a_list_is_no_row(tmp_path):
    log = write_days(tmp_path / "log", "2026-01-01")
    day = log / "answers-2026-01-01.jsonl"
    row = json.loads(day.read_text())
    with day.open("a") as file:
        file.write(json.dumps({**row, "system": ["A"]}) + "\n")
    with pytest.raises(InputError, match="line 2: "):
        read_log(log)


def test_a_row_in_the_file_of_another_day_is_named(tmp_path):
    log = write_days(tmp_path / "log", "2026-01-01", "2026-01-02")
    first, second = (log / f"answers-2026-01-0{day}.jsonl" for day in (1, 2))
    with first.open("a") as file:
        file.write(second.read_text().replace("2026-01-02", "1970-01-01"))
    with pytest.raises(InputError, match=r"answers-2026-01-01\.jsonl: line 2: .*1970-01-01"):
        read_log(log)


@pytest.mark.parametrize("form", ["log", "table"])
def test_a_row_of_the_future_is_named(tmp_path, form):
    path = tmp_path / "log"
    if form == "log":
        write_days(path, "2026-01-01", "9999-12-31")
    else:
        path.write_text("time,patient,score\n2026-01-01,p,0.5\n2026-01-04,q,0.5\n")
    with pytest.raises(InputError, match=r"line [13]: time="):
        _read_log(path, print, now=datetime(2026, 1, 2, 12, tzinfo=UTC))
    if form == "table":  # a clock may be some hours ahead
        assert len(_read_log(path, print, now=datetime(2026, 1, 3, 12, tzinfo=UTC))) == 2


def test_a_lost_key_is_not_made_anew_beside_old_answers(tmp_path):
    log = write_days(tmp_path / "log", "2026-01-01")
    key = log / LOG_KEY
    before = key.read_bytes()
    key.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="'key'"):
        AnswerLog(log, print)
    assert not key.exists()
    (tmp_path / "elsewhere").rename(key)
    AnswerLog(log, print).close()
    assert key.read_bytes() == before


@pytest.mark.parametrize("change", ["open folder", "link"])
def test_a_log_that_others_could_read_or_redirect_gets_no_row(tmp_path, change):
    said: list[str] = []
    folder = tmp_path / "log"
    log = AnswerLog(folder, said.append)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    day = the_day(folder)
    if change == "open folder":
        shutil.rmtree(folder)
        folder.mkdir(mode=0o755)
    else:
        day.unlink()
        day.symlink_to(elsewhere)
    log.add("a", None, {}, [OK], 1.0)
    assert log.lost == 1
    assert len(said) == 1
    assert elsewhere.read_text() == ""
    assert not day.is_file() or day.is_symlink()
