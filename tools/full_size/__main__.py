"""Run the full-size study from its protocol: ``scripts/full_size.sh`` starts this program."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from tools.full_size.protocol import Protocol, ReadProtocol, read_protocol
from tools.full_size.record import ended_steps, start_record
from tools.full_size.requirements import require_disk, require_gpu, require_images
from tools.full_size.runner import RunCommand, duration, run_here, run_steps, run_words
from tools.full_size.steps import Arm, Step, study_steps

_COSTS = "costs.json"
_INTERRUPTED = 130
_REFUSED = 2


def run_study(
    source: Path,
    out: Path,
    *,
    rehearsal: bool = False,
    data: Path | None = None,
    challenge: Path | None = None,
    run: RunCommand | None = None,
) -> None:
    """Run the study, or what an earlier call has left of it.

    Args:
        source: File of the protocol.
        out: Folder of results.
        rehearsal: True runs the rehearsal.
        data: Folder of the training images; None takes that of the protocol.
        challenge: Folder of RSNA's own release; None takes that of the protocol.
        run: Function that runs a command; None gives each a process of its own, and runs those of a
            rehearsal in this process.

    Raises:
        InputError: Something is missing, or a command failed.
    """
    read = read_protocol(source, rehearsal=rehearsal)
    protocol = _with_folders(read.protocol, data, challenge)
    n_images = require_images(protocol, rehearsal=rehearsal)
    if not rehearsal:
        require_gpu()
    with folder_lock(out):
        start_record(out, source, ReadProtocol(protocol, read.sha256), rehearsal=rehearsal)
        steps = study_steps(protocol, out, rehearsal=rehearsal)
        done = sum(step.name in ended_steps(out) for step in steps) / len(steps)
        predicted = _predicted_seconds(protocol, out, steps, n_images, done, rehearsal=rehearsal)
        total = sum(predicted.values())
        if not rehearsal:
            print(f"{len(steps)} steps; predicted for {protocol.machine.name}: {duration(total)}")
        run = run or (run_here if rehearsal else run_words)
        run_steps(out, steps, predicted, run=run, say=_say)
    print((out / "results.md").read_text(encoding="utf-8"))
    print(f"Open {out / 'results.html'} in a browser")


def _say(line: str) -> None:
    print(line, flush=True)


def _with_folders(protocol: Protocol, data: Path | None, challenge: Path | None) -> Protocol:
    changed = {}
    if data is not None:
        changed["training"] = str(data)
    if challenge is not None:
        changed["challenge"] = str(challenge)
    return protocol.model_copy(update={"data": protocol.data.model_copy(update=changed)})


def _predicted_seconds(
    protocol: Protocol, out: Path, steps: list[Step], n_images: int, done: float, *, rehearsal: bool
) -> dict[str, float]:
    """Return the predicted seconds of each step, and refuse a disk that is too small."""
    from tools.full_size.network_cost import NetworkCost
    from tools.full_size.prediction import count_costs, count_images, needed_bytes, predict_step

    path = out / _COSTS
    if not path.exists():
        print("Counting the operations of each network", flush=True)
        counted = {name: asdict(cost) for name, cost in count_costs(protocol).items()}
        write_text(path, json.dumps(counted, indent=1))
    stored = json.loads(path.read_text(encoding="utf-8"))
    costs = {name: NetworkCost(**cost) for name, cost in stored.items()}
    n_challenge = protocol.data.n_challenge
    if rehearsal:
        n_challenge = round(protocol.rehearsal.challenge_share * n_images)
        n_images -= n_challenge

    def images(arm: Arm):
        return count_images(protocol, arm, n_images, n_challenge)

    require_disk(out, needed_bytes(protocol, steps, costs, images), done)
    share = sum(protocol.machine.share) / 2
    return {step.name: predict_step(protocol, step, costs, images, share).seconds for step in steps}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/full_size.sh",
        description="Run the full-size study from its protocol. If it is interrupted, run it "
        "again: it goes on where it was.",
    )
    parser.add_argument("--out", type=Path, default=Path("full-size-output"),
                        help="folder of results")  # fmt: skip
    parser.add_argument("--protocol", type=Path, default=Path("scripts/full_size.toml"))
    parser.add_argument("--data", type=Path, help="folder of the training images, in the place of "
                        "data.training of the protocol")  # fmt: skip
    parser.add_argument("--challenge", type=Path, help="folder of RSNA's own release, in the place "
                        "of data.challenge of the protocol")  # fmt: skip
    parser.add_argument("--rehearsal", action="store_true",
                        help="run the small values of the protocol, without a GPU")  # fmt: skip
    parser.add_argument("--commands", action="store_true",
                        help="print the commands as a shell script, and run nothing")  # fmt: skip
    parser.add_argument("--predict", action="store_true",
                        help="print the predicted hours and disk, and run nothing")  # fmt: skip
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        protocol = read_protocol(given.protocol, rehearsal=given.rehearsal).protocol
        if given.commands:
            protocol = _with_folders(protocol, given.data, given.challenge)
            for step in study_steps(protocol, given.out, rehearsal=given.rehearsal):
                print(step.line)
        elif given.predict:
            from tools.full_size.prediction import count_costs, prediction_table

            print(prediction_table(protocol, count_costs(protocol)))
        else:
            run_study(
                given.protocol,
                given.out,
                rehearsal=given.rehearsal,
                data=given.data,
                challenge=given.challenge,
            )
    except InputError as error:
        print(f"full_size: {error}", file=sys.stderr)
        raise SystemExit(_REFUSED) from None
    except KeyboardInterrupt:
        print("\nfull_size: interrupted; run it again, and it goes on here", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
