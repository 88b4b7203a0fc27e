"""One function is the command, the Python call and the record; what it shows without a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from cyclopts import App, CycloptsError

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.scripts import console
from cxr_compare.scripts.cli import cyclopts_command, help_text, run_command
from cxr_compare.scripts.command_list import all_commands, command_function
from cxr_compare.scripts.options import DataFolder, Settings
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, parameters_of
from cxr_compare.scripts.runner import command

CALLS: list[dict[str, Any]] = []


def read_pairs(value: Any) -> dict[str, str]:
    """Texts KEY=VALUE, or a mapping."""
    return dict(value) if isinstance(value, Mapping) else dict(text.split("=") for text in value)


@command
def probe(
    *sources: AnyPath,
    out: AnyPath | None = None,
    unit: Literal["image", "patient"] = "image",
    replicates: Annotated[int, Argument(minimum=100, maximum=900)] = 200,
    policy: list[str] | None = None,
    size: list[int] | None = None,
    pairs: Annotated[Mapping[str, str] | None, Argument(read=read_pairs)] = None,
    set_: Settings = None,
    fast: bool = False,
    overlay: bool = True,
    source_text: Annotated[str, Argument(option="--from", help="A shared option.")] = "a",
) -> Outcome:
    """Say what was asked.

    More than one line.

    Args:
        *sources: Where it
            comes from.
        out: Where it goes.
        unit: What is counted.
        replicates: How often.
        policy: Which.
        size: How large.
        pairs: By name.
        set_: Keys.
        fast: Quickly.
        overlay: Drawn.

    Returns:
        What was asked.

    Example:
        cxr probe a b --out c
    """
    CALLS.append(dict(locals()))
    console.say("working")
    facts = {"command": provenance()["command"]}
    return Outcome(f"unit {unit}", facts, next_steps=("cxr show c",), exit_status=int(fast))


@pytest.fixture(autouse=True)
def calls() -> list[dict[str, Any]]:
    CALLS.clear()
    return CALLS


def invoke(*arguments: str) -> Any:
    """Call the command as the command line does; its exit status."""
    app = App(
        default_command=cyclopts_command(probe),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    return app(arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a", "b"], {"sources": ("a", "b")}),
        (["a", "--out", "c", "--no-overlay"], {"out": "c", "overlay": False}),
        (["a", "--unit", "patient", "--replicates", "100"], {"unit": "patient", "replicates": 100}),
        (["a", "--policy", "p", "--policy", "q"], {"policy": ["p", "q"]}),
        (["a", "--size", "64", "--size", "96"], {"size": [64, 96]}),
        (["a", "--pairs", "a=1", "--pairs", "b=2"], {"pairs": {"a": "1", "b": "2"}}),
        (["a", "--from", "z"], {"source_text": "z"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_and_function_ask_the_same(arguments: list[str], expected: Any, calls: Any) -> None:
    assert invoke(*arguments) == 0
    probe(*expected.pop("sources", ("a",)), **expected)
    assert calls[0] == calls[1]


def test_python_hands_over_texts_objects_and_values(calls: Any) -> None:
    class InFolder:
        folder = Path("run")

    probe("a", InFolder(), policy="p", pairs={"a": "1"}, set_={"training": {"epochs": 2}})
    assert calls[0]["sources"] == (Path("a"), Path("run"))
    assert calls[0]["policy"] == ["p"]
    assert calls[0]["set_"] == {"training.epochs": 2}


@pytest.mark.parametrize("sizes", [64, [64]])
def test_python_takes_one_number_where_the_option_may_be_repeated(sizes: Any, calls: Any) -> None:
    made = probe("a", size=sizes)
    assert list(calls[0]["size"]) == [64]
    assert made.to_dict()["command"] == "cxr probe a --size 64"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "study"}, "unit=.study.: .*image, patient$"),
        ({"replicates": 99}, "replicates=99: .*100$"),
        ({"replicates": 901}, "replicates=901: .*900$"),
    ],
    ids=["choice", "least", "most"],
)
def test_python_is_refused_as_the_command_line_is(options: Any, message: str, calls: Any) -> None:
    with pytest.raises(InputError, match=message):
        probe(**options)
    arguments = [
        argument for key, value in options.items() for argument in (f"--{key}", str(value))
    ]
    with pytest.raises((InputError, CycloptsError)):
        invoke("a", *arguments)
    assert calls == []


def test_call_is_recorded_as_a_command_also_from_python() -> None:
    made = probe("a b", unit="patient", fast=True, set_={"training": {"epochs": 2}})
    assert (
        made.to_dict()["command"] == "cxr probe 'a b' --unit patient --set training.epochs=2 --fast"
    )
    assert probe().to_dict()["command"] == "cxr probe"


def test_python_is_silent_and_the_command_line_shows_the_result(capsys: Any) -> None:
    assert str(probe()) == "unit image"
    assert capsys.readouterr() == ("", "")
    assert run_command(probe, fast=True, as_json=True) == 1
    shown = capsys.readouterr()
    assert shown.err == "working\nunit image\nNext: cxr show c\n"
    assert '"command": "cxr probe --fast"' in shown.out


def test_help_is_the_docstring(capsys: Any) -> None:
    invoke("--help")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for texts in ("Where it comes from.", "How often. [at least 100] [at most 900]",
                  "Which. May be repeated.", "A shared option."):  # fmt: skip
        assert texts in text
    described = help_text(probe)
    assert described.startswith("Say what was asked.\n\nMore than one line.\n\n")
    assert described.endswith("Example: cxr probe a b --out c")


def test_wrong_folder_is_named_before_the_command_starts(tmp_path: Path) -> None:
    @command
    def evaluate(*, data: DataFolder) -> None:
        """Never entered."""
        raise AssertionError

    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"is a run.*cxr prepare"):
        evaluate(data=tmp_path)


def test_every_argument_of_a_command_is_described() -> None:
    undescribed = [
        f"{name} {parameter.name}"
        for name in all_commands()
        for parameter in parameters_of(command_function(name))
        if not parameter.help
    ]
    assert undescribed == []


@pytest.fixture
def lines(monkeypatch, capsys):
    """The lines of a block of 10 steps, each of which takes so many seconds, the first more."""

    def run(seconds, total=10, steps=10, start=10.0):
        now = [0.0]
        monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
        with console.track("Predicting with A", total) as advance:
            now[0] = start
            for _ in range(steps):
                now[0] += seconds
                advance()
        return capsys.readouterr().err.splitlines()

    return run


def test_short_block_reports_its_end_once(lines):
    assert lines(0.5, start=0.0) == ["Predicting with A: 10 of 10"]


def test_long_block_reports_its_remaining_time_every_half_minute(lines):
    reported = lines(24)
    assert len(reported) == 9  # of the first step nothing follows
    assert reported[0] == "Predicting with A: 2 of 10, about 3 minutes left"
    assert reported[-2:] == [
        "Predicting with A: 9 of 10, about 20 seconds left", "Predicting with A: 10 of 10"
    ]  # fmt: skip


def test_block_of_unknown_length_reports_its_progress(lines):
    assert lines(15, total=None, steps=4) == [
        "Predicting with A", "Predicting with A: 2 so far", "Predicting with A: 4 so far"
    ]  # fmt: skip


def test_what_a_resumed_block_has_done_before_makes_it_no_faster(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.track("Training, batches", 1000) as advance:
        advance(900)
        for _ in range(3):
            now[0] += 60
            advance(1)
    assert "903 of 1000, about 1.6 hours left" in capsys.readouterr().err
