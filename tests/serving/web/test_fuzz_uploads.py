"""Damaged uploads through the whole server: a right answer, or one line with a 4xx.

    scripts/test -m long tests/serving/web/test_fuzz_uploads.py -s

sends 10,000 of them; without ``-m long`` it is a small part of that, made of drawn images alone.
"""

import io
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import examples

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.serving.run import Run
from tests.data_prep.images.test_fuzz_images import mutate
from tests.small_dicom import image_file

REFUSALS = {400, 413, 415, 422}
AT_ONCE = 8
LEAK_BYTES = 96 << 20
SEED = 19


def cases(sources: dict[str, bytes], seed: int) -> Iterator[tuple[str, bytes]]:
    """Damaged files without end, of each source in turn."""
    number = 0
    while True:
        for name, content in sources.items():
            rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
            yield f"{number} of {name}", mutate(content, rng)
            number += 1


class Uploads:
    """Sends uploads and holds each answer against the file itself."""

    def __init__(self, client: Any, served: list[Run], folder: Path) -> None:
        self.client, self.served, self.path = client, served, folder / "case"
        self.statuses: Counter[int] = Counter()
        self.every = 1  # of so many answers one is held against the file

    def send(self, some: list[tuple[str, bytes]], path: str = "/v1/analyze") -> None:
        requests = [{"files": {"file": ("x", content)}} for _, content in some]
        for (name, content), answer in zip(
            some, self.client.post_together(path, requests), strict=True
        ):
            self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                if self.statuses[200] % self.every:
                    continue
                self._require_right(name, content, answer)
            else:
                require_reason(name, answer)

    def _require_right(self, name: str, content: bytes, answer: httpx.Response) -> None:
        self.path.write_bytes(content)
        image = read_image(self.path)
        got = answer.json()
        assert [got["image"]["height"], got["image"]["width"]] == list(image.pixels.shape), name
        for run, served_answer in zip(self.served, got["systems"], strict=True):
            (expected,) = run.answer([(str(self.path), image)])
            assert not isinstance(expected, InputError)
            assert served_answer["score"] == pytest.approx(expected.score, abs=1e-5), name
            assert set(expected.warnings) <= set(got["warnings"]), name


def require_reason(name: str, answer: httpx.Response) -> None:
    """A refusal with its reason: one line, without a path."""
    assert answer.status_code in REFUSALS, (name, answer.status_code, answer.text)
    error = answer.json()["error"]
    assert error["code"], name
    assert 0 < len(error["message"]) < 500, name
    assert "\n" not in error["message"]
    assert "/proc" not in error["message"]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture
def uploads(client: Any, served: list[Run], tmp_path: Path) -> Uploads:
    return Uploads(client, served, tmp_path)


def test_damaged_uploads_get_a_right_answer_or_a_reason(uploads, png):
    pixels = np.asarray(Image.open(io.BytesIO(png(1))))
    slice_ = io.BytesIO()
    pydicom.dcmwrite(slice_, examples.ct)
    sources = {
        "grey.png": png(1),
        "deep.png": image_file(pixels.astype(np.uint16) * 200, "PNG"),
        "grey.jpg": image_file(pixels, "JPEG"),
        "grey.tif": image_file(pixels, "TIFF", compression="tiff_lzw"),
        "slice.dcm": slice_.getvalue(),
    }
    uploads.send(list(sources.items()))
    assert uploads.statuses == {200: len(sources)}
    some = cases(sources, SEED)
    while sum(uploads.statuses.values()) < 40:
        uploads.send(list(islice(some, AT_ONCE)))
    assert uploads.statuses[200] > 8
    assert uploads.statuses[422] > 8


def test_odd_dicom_files_get_a_right_answer_or_a_reason(
    uploads: Uploads, shared_data: Path
) -> None:
    files = sorted((shared_data / "dicom_odd").iterdir())
    for start in range(0, len(files), AT_ONCE):
        uploads.send([(path.name, path.read_bytes()) for path in files[start : start + AT_ONCE]])
    assert uploads.statuses == {200: 36, 415: 3, 422: 17}


def test_odd_dicom_files_have_pixels_or_a_reason(client: Any, shared_data: Path) -> None:
    files = sorted((shared_data / "dicom_odd").iterdir())
    for path in files:
        answer = client.post("/v1/pixels", files={"file": (path.name, path.read_bytes())})
        if answer.status_code == 200:
            deep = read_image(path, deep=True).deep
            assert deep is not None
            assert answer.content == deep.values.tobytes()
        else:
            require_reason(path.name, answer)


@pytest.mark.long
def test_ten_thousand_damaged_uploads_of_real_images(uploads, shared_data):
    files = [
        *sorted((shared_data / "rsna").rglob("*.dcm"))[:2],
        *sorted((shared_data / "nih").rglob("*.png"))[:2],
        *sorted((shared_data / "kermany_224").rglob("*.jpeg"))[:8:2],
        *sorted((shared_data / "dicom_odd").glob("*.dcm")),
    ]
    sources = {path.name: path.read_bytes() for path in files}
    for path in sorted((shared_data / "kermany_224").rglob("*.jpeg"))[1:8:2]:
        grey = np.asarray(Image.open(path).convert("L"))
        sources[f"{path.stem}.tif"] = image_file(grey, "TIFF", compression="tiff_lzw")
        sources[f"{path.stem}.png"] = image_file(grey, "PNG")
    memory = [0, 0]
    uploads.every = 4
    some = cases(sources, SEED)
    for sent in range(0, 10_000, AT_ONCE):
        uploads.send(list(islice(some, AT_ONCE)))
        if sent == 2_000:
            memory[0] = resident()
        if sent % 1_000 == 0:
            sys.stdout.write(f"{sent}: {dict(sorted(uploads.statuses.items()))}\n")
            sys.stdout.flush()
    memory[1] = resident()
    sys.stdout.write(
        f"{dict(sorted(uploads.statuses.items()))}, "
        f"memory {memory[0] >> 20} MiB after 2,000 and {memory[1] >> 20} MiB after all\n"
    )
    assert sum(uploads.statuses.values()) == 10_000
    assert set(uploads.statuses) <= {200, *REFUSALS}
    assert uploads.statuses[200] > 1_000
    assert memory[1] - memory[0] < LEAK_BYTES
