"""Fuzz of every image reader: one clear line or an 8-bit image, whatever is in the file.

Decoders are written in C and can end or hold up their process. So the cases run in processes of
their own, which are this very file run as a script; where one dies, the case is counted and the
next process goes on after it.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from PIL import Image
from pydicom.dataset import Dataset

from cxr_compare.data_prep.images.image import read_image

CASES_PER_FILE = 270
SECONDS_PER_CASE = 20  # far beyond any: only to tell an endless loop from a slow machine
LEAK_BYTES = 64 << 20
PEAK_KIB = 1536 << 10  # a damaged header may state up to 100 megapixels, four bytes each
NAME = "Quibble^Zelda"


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One random damage: cut, flip, overwrite, extremes, move, or noise behind a valid start."""
    damaged, size = bytearray(content), len(content)
    ends = (0, min(size, 1200)) if rng.random() < 0.5 else (0, size)  # headers matter more
    places = rng.integers(*ends, int(rng.integers(1, 9)))
    kind = int(rng.integers(7))
    if kind == 0:
        return content[: int(rng.integers(0, size))]
    if kind == 1:
        for place in places:
            damaged[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        for place in places:
            damaged[place] = int(rng.integers(256))
    elif kind == 3:
        width = int(rng.choice([1, 2, 4]))
        fill = int(rng.choice([0x00, 0x01, 0x7F, 0x80, 0xFF]))
        damaged[places[0] : places[0] + width] = bytes([fill]) * width
    elif kind == 4:
        start, stop = sorted(int(p) for p in rng.integers(*ends, 2))
        del damaged[start:stop]
    elif kind == 5:
        start, stop = sorted(int(p) for p in rng.integers(*ends, 2))
        damaged[places[0] : places[0]] = damaged[start:stop]
    else:
        kept = int(rng.choice([4, 12, 132, 400]))
        damaged[kept:] = rng.bytes(int(rng.integers(0, 2000)))
    return bytes(damaged)


def evaluate(path: Path) -> str:
    """Read a file; says what came of it, or raises what must not come."""
    try:
        image = read_image(path)
    except InputError as error:
        message = str(error)
        assert message.startswith(f"{path}: "), message
        assert "\n" not in message, message
        assert len(message) - len(str(path)) < 400 - 60, message
        found, outcome = message, "refused"
    else:
        assert image.pixels.dtype == np.uint8
        assert image.pixels.ndim == 2
        assert image.pixels.size
        found, outcome = str((image.record, image.header)), "read"
    for part in NAME.lower().split("^"):
        assert part not in found.lower(), found
    return outcome


def run_cases(folder: Path, first: int, step: int, start: int) -> None:
    """Do every ``step``-th case from number ``start`` on; prints the outcomes as JSON."""
    warnings.simplefilter("error")
    files = sorted((folder / "whole").iterdir())
    whole = [path.read_bytes() for path in files]
    path = folder / f"case-{first}"
    outcomes: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    before, pages = 0, Path("/proc/self/statm")
    with (folder / f"progress-{first}").open("w+b", buffering=0) as progress:
        for number in range(start, len(files) * CASES_PER_FILE, step):
            seed = files[number % len(files)].name
            os.pwrite(progress.fileno(), f"{number:8d}".encode(), 0)
            rng = np.random.default_rng([zlib.crc32(seed.encode()), number])
            path.write_bytes(mutate(whole[number % len(files)], rng))
            signal.alarm(SECONDS_PER_CASE)
            try:
                outcomes[evaluate(path)] += 1
            except Exception as error:
                raise AssertionError(f"case {number} of {seed}: {error!r}") from error
            signal.alarm(0)
            if number < start + step * len(files):  # every reader has loaded what it needs
                before = int(pages.read_text().split()[1])
    leaked = (int(pages.read_text().split()[1]) - before) * resource.getpagesize()
    # Not getrusage's: that begins with what the process that started this one had.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0])
    sys.stdout.write(json.dumps({**outcomes, "leaked": leaked, "peak_kib": peak}))


def run_process(folder: Path, first: int, step: int) -> Counter[str]:
    """Run one share of the cases, going on after those that end the process."""
    total: Counter[str] = Counter()
    files = sorted((folder / "whole").iterdir())
    start = first
    while True:
        command = [sys.executable, __file__, str(folder), str(first), str(step), str(start)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            total.update(json.loads(done.stdout))
            return total
        if done.returncode > 0:
            raise AssertionError(done.stderr.splitlines()[-1])
        number = int((folder / f"progress-{first}").read_text())
        ended_by = signal.Signals(-done.returncode).name
        total[f"{ended_by}: case {number}, {files[number % len(files)].name}"] += 1
        start = number + step


@pytest.fixture(scope="module")
def folder(
    coded_files: dict[str, Path],
    write_dicom: Callable[..., Path],
    ramp: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """One small valid file of every kind that is read."""
    base = tmp_path_factory.mktemp("fuzz")
    whole = base / "whole"
    whole.mkdir()
    for syntax, path in coded_files.items():
        (whole / f"{syntax}.dcm").write_bytes(path.read_bytes())
    write_rich_dicoms(whole, write_dicom, ramp)
    write_images(whole, ramp)
    for path in whole.iterdir():
        assert evaluate(path) == "read", path
    return base


def write_rich_dicoms(whole: Path, write: Callable[..., Path], ramp: np.ndarray) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [64, 0, 12])
    table.add_new("LUTData", "US", list(range(0, 4096, 64)))
    secrets = {"PatientName": NAME, "PatientID": NAME, "InstitutionName": NAME, "StudyID": "Zelda"}
    write(
        whole / "tables.dcm", ramp, bits_stored=12, **secrets, ModalityLUTSequence=[table],
        VOILUTSequence=[table], PresentationLUTSequence=[table], PixelPaddingValue=0,
        PhotometricInterpretation="MONOCHROME1", PixelSpacing=[0.1, 0.2],
    )  # fmt: skip
    write(
        whole / "windows.dcm", ramp.astype(np.int16), bits_stored=13, **secrets,
        WindowCenter=[100, 2], WindowWidth=[200, 3], RescaleSlope=2, RescaleIntercept=-3,
        VOILUTFunction="SIGMOID", PixelPaddingValue=-4, PixelPaddingRangeLimit=-2,
        ViewPosition="PA", PatientAge="045Y", PatientSex="F", PatientOrientation=["L", "F"],
    )  # fmt: skip
    colour = np.stack([ramp >> 4, ramp >> 5, ramp >> 6], axis=-1).astype(np.uint8)
    write(whole / "colour.dcm", colour, **secrets, PhotometricInterpretation="YBR_FULL")
    write(whole / "frames.dcm", ramp, NumberOfFrames=3, content=ramp.tobytes() * 3, **secrets)
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 8]), ("Data", bytes(range(256))))
    }
    indices = (ramp >> 4).astype(np.uint8)
    kind = {"PhotometricInterpretation": "PALETTE COLOR"}
    write(whole / "palette.dcm", indices, **secrets, **kind, **palette)


def write_images(whole: Path, ramp: np.ndarray) -> None:
    grey = Image.fromarray((ramp >> 4).astype(np.uint8))
    colour = Image.merge("RGB", [grey, grey.transpose(0), grey])
    layered = Image.merge("RGBA", [*colour.split(), grey.transpose(1)])
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, pillow, options in (
        ("grey.png", grey, {}),
        ("deep.png", Image.fromarray(ramp), {}),
        ("alpha.png", layered, {"exif": exif, "icc_profile": bytes(128)}),
        ("palette.png", colour.quantize(16), {"transparency": 3}),
        ("grey.jpg", grey, {"exif": exif}),
        ("colour.jpg", colour, {"progressive": True}),
        ("cmyk.jpg", colour.convert("CMYK"), {}),
        ("plain.tif", grey, {"exif": exif}),
        ("deep.tif", Image.fromarray(ramp), {"compression": "tiff_lzw"}),
        ("deflate.tif", colour, {"compression": "tiff_adobe_deflate"}),
        ("jpeg.tif", colour, {"compression": "jpeg"}),
        ("fax.tif", grey.convert("1"), {"compression": "group4"}),
        ("pages.tif", grey, {"save_all": True, "append_images": [grey, grey]}),
        ("lossy.webp", colour, {}),
        ("lossless.webp", layered, {"lossless": True}),
        ("frames.gif", grey, {"save_all": True, "append_images": [grey.transpose(0)]}),
        ("grey.bmp", grey, {}),
        ("grey.pgm", grey, {}),
    ):
        pillow.save(whole / name, **options)


@pytest.mark.slow
@pytest.mark.parametrize("share", [4, pytest.param(1, marks=pytest.mark.long)])
def test_damaged_images_give_one_line_or_an_image(folder, share):
    shares = len(os.sched_getaffinity(0))
    step = shares * share
    with ThreadPoolExecutor(shares) as threads:
        parts = list(threads.map(lambda first: run_process(folder, first, step), range(shares)))
    total = sum(parts, Counter())
    ended = {key: n for key, n in total.items() if key.startswith("SIG")}

    assert ended == {}
    assert total["read"] + total["refused"] >= 10_000 // share
    assert total["read"] > 1_000 // share
    assert total["refused"] > 5_000 // share
    assert max(part["leaked"] for part in parts) < LEAK_BYTES
    assert max(part["peak_kib"] for part in parts) < PEAK_KIB


if __name__ == "__main__":
    run_cases(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:5]))
