"""The page of the benchmark: it is what the record gives, and says what got slower."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from benchmarks import report
from benchmarks.bench import Row, Sample
from cxr_compare.data_prep.contracts.errors import InputError

pytestmark = pytest.mark.release

ROOT = Path(__file__).parents[2]


def row_of(group: str, row: Row, *seconds: tuple[float, float], **more: Any) -> dict[str, Any]:
    rounds = [{row.ours: Sample(1.0, a, 0.0), row.peer: Sample(1.0, b, 0.0)} for a, b in seconds]
    made = {"group": group, "created": "2026-01-02T03:04:05+00:00", "revision": "abc"}
    return {**made, **row.measured(rounds, {}, **more)}


def payload_of(*rows: dict[str, Any], processor: str = "EPYC") -> dict[str, Any]:
    hardware = {"processor": processor, "cpus": 2, "memory_gib": 24.0}
    content = {"hardware": hardware, "versions": {"torch": "2.0"}, "quick": False, "seed": 0}
    return {**content, "images": "synthetic chest X-rays", "n_images": 60, "rows": list(rows)}


STEP = Row("training step", "s", "ours", "torchvision", bound=("fp32", 50.0), note="a note")
PAIRS = (1.0, 2.0), (1.0, 2.2), (1.0, 2.1)


@pytest.fixture
def payload() -> dict[str, Any]:
    lost = row_of("data", Row("read", "s", "ours", "pandas"), failed={"pandas": "ended"})
    slow = row_of("training", Row("training step", "s", "ours", "a slower peer"), (1.0, 9.0))
    return payload_of(row_of("training", STEP, *PAIRS, peaks={"fp32": 100.0}), slow, lost)


def test_the_page_in_the_repository_is_what_its_record_gives():
    assert (ROOT / "docs" / "benchmarks.md").read_text() == report.page(report.recorded())


def test_the_page_shows_figures_and_failures(payload):
    page = report.page(payload)
    step = "| 1 | torchvision: 2.1 | **2.1** (2–2.2) |"
    for texts in (
        f"| **training step** |  | s |\n{step}",
        "| **read** |  | s |\n|  | pandas | failed |",
        "`training`: abc, 2026-01-02.",
    ):
        assert texts in page
    assert "a slower peer" not in page, "a table compares with the fastest"


def test_the_picture_shows_ratios(payload, tmp_path):
    report.draw(payload, tmp_path)
    drawn = {path.name: cv2.imread(str(path)) for path in tmp_path.iterdir()}
    assert set(drawn) == {"benchmarks.png"}
    assert all(image.std() > 5 for image in drawn.values())


@pytest.mark.parametrize(
    ("pairs", "slower", "why"),
    [
        (((1.0, 1.5), (1.0, 1.6), (1.0, 1.4)), True, "every round below every recorded one"),
        (((1.0, 1.5), (1.0, 2.05), (1.0, 1.4)), False, "the spread reaches what was recorded"),
        (((1.0, 1.99), (1.0, 1.98), (1.0, 1.97)), False, "less than a tenth"),
        (((1.0, 1.5), (1.0, 1.4)), False, "two rounds are too few"),
        (((1.0, 9.0), (1.0, 9.0), (1.0, 9.0)), False, "faster"),
    ],
)
def test_a_row_is_slower_if_noise_does_not_explain_it(pairs, slower, why):
    before, now = (payload_of(row_of("training", STEP, *p)) for p in (PAIRS, pairs))
    assert bool(report.losses(now, before)) is slower, why
    elsewhere = payload_of(row_of("training", STEP, *pairs), processor="another")
    assert report.losses(elsewhere, before) == []


def test_failures_and_broken_limits_are_losses_too(payload):
    over = row_of("data", Row("open", "s", "ours", limit=1.0), (2.0, 0.0))
    losses = report.losses(payload_of(*payload["rows"], over), {"rows": []})
    assert losses == ["read: ours: failed (pandas: ended)", "open: ours 2 s: over its limit"]


def test_a_record_keeps_other_groups_of_the_same_machine_only(payload, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RECORDED", tmp_path / "recorded.json")
    monkeypatch.setattr(report, "_PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "draw", lambda payload, folder: None)
    empty = {"contract": "bench", "schema_version": 1, "rows": []}
    (tmp_path / "recorded.json").write_text(json.dumps(empty))
    report.record(payload)
    report.record(payload_of(row_of("training", STEP, (1.0, 5.0))))
    groups = [row["group"] for row in report.recorded()["rows"]]
    assert groups == ["training", "data"]
    page = (tmp_path / "benchmarks.md").read_text()
    assert page == report.page(report.recorded())
    assert "**5**" in page
    with pytest.raises(InputError, match="of another machine"):
        report.record(payload_of(row_of("training", STEP, *PAIRS), processor="another"))
    with pytest.raises(InputError, match="--quick says nothing"):
        report.record({**payload, "quick": True})
