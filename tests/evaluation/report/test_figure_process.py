"""The process that draws figures beside the rest of a report."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.report.figure_files import save_figure
from cxr_compare.evaluation.report.figure_process import figure_process, prepare_figure_process
from tests.undrawn_figures import draw_figures_in_a_thread


def make_figure() -> Figure:
    figure = Figure(figsize=(2, 2))
    figure.add_subplot(title="A title").plot([0, 1], [0, 1], label="a line")
    return figure


def draw_and_say_where(path: Path) -> int:
    save_figure(make_figure(), path)
    return os.getpid()


def end_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


def raise_full_disk() -> None:
    raise InputError("the disk is full", full_disk=True)


def draw_in_a_daemon(path: Path) -> bool:
    prepare_figure_process()
    with figure_process() as process:
        return process.submit(draw_and_say_where, path).result() == os.getpid()


def test_another_process_draws_the_same_bytes(tmp_path):
    prepare_figure_process()
    with figure_process() as process:
        drawn_by = process.submit(draw_and_say_where, tmp_path / "there").result()
    assert drawn_by != os.getpid()
    draw_and_say_where(tmp_path / "here")
    for kind in ("png", "pdf", "svg"):
        there = (tmp_path / f"there.{kind}").read_bytes()
        assert there == (tmp_path / f"here.{kind}").read_bytes()


def test_an_error_keeps_its_type_and_its_facts():
    with pytest.raises(InputError, match="the disk is full") as raised, figure_process() as process:
        process.submit(raise_full_disk).result()
    assert raised.value.full_disk


def test_a_process_that_was_killed_is_an_error_in_one_line():
    with pytest.raises(InputError, match="was ended"), figure_process() as process:
        process.submit(end_this_process).result()


def test_a_daemon_which_must_start_no_process_draws_too(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(draw_in_a_daemon, [tmp_path / "figure"])
    assert (tmp_path / "figure.pdf").is_file()


def test_a_thread_draws_the_same_bytes(tmp_path, monkeypatch):
    draw_figures_in_a_thread(monkeypatch)
    with figure_process() as process:
        assert process.submit(draw_and_say_where, tmp_path / "thread").result() == os.getpid()
    draw_and_say_where(tmp_path / "here")
    assert (tmp_path / "thread.svg").read_bytes() == (tmp_path / "here.svg").read_bytes()
