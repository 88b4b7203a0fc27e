"""Images are worked on in processes, in order and in spite of crashes, or by a Ray cluster."""

import hashlib
import json
import operator
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import cxr_compare
from cxr_compare import InputError
from tests.adapters import serving
from tests.adapters.workers import crashed, decoded, in_thread, map_images
from tests.small_dicom import chest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
print('started', flush=True)
import multiprocessing
multiprocessing.get_all_start_methods = lambda: [{method!r}]
from tests.adapters.workers import crashed, map_images
print(list(map_images(abs, [-2, -1], 2, on_crash=crashed)))
"""


def below(process):
    """Processes that a process started, and those that they did."""
    children = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                children += [child, *below(child)]
    return children


@pytest.mark.parametrize("together", [1, 3])
def test_order_is_kept_and_few_rows_are_under_way(together):
    drawn = []

    def rows():
        for number in range(100):
            drawn.append(number)
            yield -number

    results = map_images(abs, rows(), 2, on_crash=crashed, together=together)
    assert next(results) == 0
    assert len(drawn) <= (2 * 2 + 1) * together
    assert list(results) == list(range(1, 100))


@pytest.mark.parametrize("together", [1, 7])
def test_a_row_that_ends_its_process_costs_that_row_only(together):
    # The rows themselves say what to do, as workers cannot import a test module; leaving the
    # process at once is what a crash in a decoder written in C does.
    ends = (5, 60)
    rows = [partial(int, n) if n not in ends else partial(os._exit, 1) for n in range(100)]
    results = map_images(operator.call, rows, 2, on_crash=crashed, together=together)
    assert list(results) == [-1 if n in ends else n for n in range(100)]


def test_a_killed_worker_costs_no_row():
    killed = []

    def rows():
        for number in range(40):
            if number == 20:
                workers = {pid for server in below(os.getpid()) for pid in below(server)}
                killed.append(max(workers))
                os.kill(killed[0], signal.SIGKILL)
            yield partial(int, number)

    assert list(map_images(operator.call, rows(), 2, on_crash=crashed)) == list(range(40))
    assert killed


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_keeps_its_type_and_names_its_row(workers):
    with pytest.raises(ValueError, match="invalid literal") as raised:
        list(map_images(int, ["1", "x", "3"], workers, on_crash=crashed, together=2))
    assert any("'x'" in note for note in raised.value.__notes__)


def test_a_thread_works_on_a_row_while_the_next_is_made():
    begun, made = threading.Event(), threading.Event()

    def rows():
        yield 0
        assert begun.wait(60)  # the thread has the first row already
        made.set()
        yield from (1, 2)

    def work(row):
        begun.set()
        return row, made.wait(60)

    with ThreadPoolExecutor(1) as pool:
        assert list(in_thread(pool, work, rows())) == [(row, True) for row in range(3)]


@pytest.mark.release
@pytest.mark.parametrize("method", ["forkserver", pytest.param("spawn", marks=pytest.mark.release)])
def test_a_script_without_a_main_guard_is_run_once_and_not_by_its_workers(tmp_path, method):
    script = tmp_path / "analysis.py"
    script.write_text(SCRIPT.format(method=method))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout == "started\n[2, 1]\n", result.stderr


def test_the_number_of_workers_changes_no_byte(tmp_path):
    for number in range(12):
        Image.fromarray(chest(number, 50 + number, 60)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    paths = sorted(tmp_path.iterdir())
    one = decoded(paths, 1, on_crash=crashed)
    assert decoded(paths, 2, on_crash=crashed) == one
    assert [image_id for image_id, error, _ in one if error] == ["3"]


def test_images_whose_folder_is_gone_end_the_work_and_are_not_left_out(tmp_path):
    with pytest.raises(InputError, match="gone"):
        decoded([tmp_path / "gone/1.png"], 1, on_crash=crashed)


# Another engine: a Ray cluster


VARYING = {"created", "command", "cost", "sha256"}


def contents(folder):
    """Digest of each file of a folder; of JSON the values, without those of one call."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[path.relative_to(folder)] = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.suffix == ".json":
            stored = json.loads(path.read_text())
            found[path.relative_to(folder)] = {k: v for k, v in stored.items() if k not in VARYING}
    return found


@pytest.mark.release
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: the extra cluster")
@pytest.mark.usefixtures("one_thread")
def test_a_cluster_of_two_workers_prepares_and_predicts_the_same_bytes(world, tmp_path):
    source = tmp_path / "xrays"
    cxr_compare.synth(source, images=30, size=96, seed=5)
    (source / "stage_2_train_images" / "torn.dcm").write_bytes(b"no image")
    options = {"format": "rsna", "size": [96], "name": "set"}
    runs = {kind: world.run(kind) for kind in ("detector", "classifier")}
    runs["export"] = world.export("classifier")
    with serving.cluster(workers=2):
        for engine in ("local", "ray"):
            folder = tmp_path / engine
            folder.mkdir()
            cxr_compare.prepare(source, folder / "set", engine=engine, **options)
            for kind, run in runs.items():
                out = folder / kind
                cxr_compare.predict(run, data=world.data, out=out, engine=engine, device="cpu")
    for name in ("set", *runs):
        local = contents(tmp_path / "local" / name)
        assert len(local) > 2
        assert contents(tmp_path / "ray" / name) == local
