"""What a verb shows where stderr is no terminal."""

import pytest

from scripts import console


@pytest.fixture
def lines(monkeypatch, capsys):
    """The lines of a block of 10 steps, each of which takes so many seconds, the first more."""

    def run(seconds, total=10, steps=10, start=10.0):
        now = [0.0]
        monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
        with console.progress("Predicting with A", total) as advance:
            now[0] = start
            for _ in range(steps):
                now[0] += seconds
                advance()
        return capsys.readouterr().err.splitlines()

    return run


def test_a_short_block_says_its_end_once(lines):
    assert lines(0.5, start=0.0) == ["Predicting with A: 10 of 10"]


def test_no_half_minute_of_a_long_block_passes_without_a_line_that_says_how_long_it_takes(lines):
    told = lines(24)
    assert len(told) == 9  # of the first step nothing follows
    assert told[0] == "Predicting with A: 2 of 10, about 3 minutes left"
    assert told[-2:] == [
        "Predicting with A: 9 of 10, about 20 seconds left", "Predicting with A: 10 of 10"
    ]  # fmt: skip


def test_a_block_of_unknown_length_says_how_far_it_is(lines):
    assert lines(15, total=None, steps=4) == [
        "Predicting with A", "Predicting with A: 2 so far", "Predicting with A: 4 so far"
    ]  # fmt: skip


def test_what_a_resumed_block_has_done_before_makes_it_no_faster(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("Training, batches", 1000) as advance:
        advance(900)
        for _ in range(3):
            now[0] += 60
            advance(1)
    assert "903 of 1000, about 1.6 hours left" in capsys.readouterr().err
