"""`./test soak`: the arguments, the progress, the end."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from roost import RoostError
from soak import report
from soak.faults import FAULTS
from soak.run import NODES, Outcome, soak
from soak.schedule import Schedule, schedule

#: Lines of a bad job's own log that are shown.
_TAIL = 12


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"soak: {message}\n")


def _minutes(text: str) -> float:
    with suppress(ValueError):
        value = float(text)
        if 0.5 <= value <= 1440:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.5 to 1440")


def _seed(text: str) -> int:
    with suppress(ValueError):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}"
        )
    return names


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; ends with status 2 and one sentence if they are wrong."""
    parser = _Parser(
        prog="./test soak", allow_abbrev=False,
        description="Random faults against a real pool under a stream of jobs; none may be lost.",
    )  # fmt: skip
    add = parser.add_argument
    add("--minutes", metavar="N", type=_minutes, default=5.0,
        help="how long jobs and faults go on, 0.5 to 1440 (5)")  # fmt: skip
    add("--seed", metavar="S", type=_seed,
        help="the same seed makes the same jobs and the same faults (the clock's)")  # fmt: skip
    add("--faults", metavar="A,B", type=_faults, default=tuple(FAULTS),
        help=f"only these, of {', '.join(FAULTS)}")  # fmt: skip
    add("--engine", choices=("docker", "podman"),
        default=os.environ.get("ROOST_ENGINE") or "docker", help="where the pool runs")  # fmt: skip
    add("--json", metavar="FILE", type=Path, help="write the report to this file, too")
    add("--logs", metavar="DIR", type=Path,
        help="keep the logs of nodes and jobs here, also if all is well")  # fmt: skip
    add("--plan", action="store_true", help="print what would happen, and do nothing")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Status 0 if nothing was lost, 1 if something was, 2 for bad arguments, 130 for Ctrl-C."""
    given = arguments(sys.argv[1:] if argv is None else argv)
    seed = int(time.time()) if given.seed is None else given.seed
    plan = schedule(seed, given.minutes, [FAULTS[name].kind for name in given.faults], NODES)
    _say(f"seed {seed}: {len(plan.jobs)} jobs, {len(plan.strikes)} faults, {given.minutes:g} min")
    if given.plan:
        _print_plan(plan)
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    directory = _directory(given.logs)
    name = f"soak-{secrets.token_hex(3)}"
    again = f"./test soak --minutes {given.minutes:g} --seed {seed}"
    if given.faults != tuple(FAULTS):
        again += f" --faults {','.join(given.faults)}"
    try:
        outcome = soak(plan, name, given.engine, directory, _say)
    except KeyboardInterrupt:
        _say(f"interrupted; the pool {name} is gone")
        if given.logs is None:
            shutil.rmtree(directory)
        return 130
    except RoostError as error:
        _say(f"FAILED: {error}\nlogs: {directory}\nagain: {again}")
        return 1
    if given.json:
        shutil.copy(directory / "report.json", given.json)
    _print(outcome, directory)
    if outcome.verdict.bad:
        _say(f"FAILED, seed {seed}; logs: {directory}\nagain: {again}")
        return 1
    if given.logs is None:
        shutil.rmtree(directory)
    return 0


def _directory(wanted: Path | None) -> Path:
    """Where the logs go: a new directory. Ends with status 2 if it cannot be one."""
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="roost-soak-"))
    try:
        wanted.mkdir(parents=True)
    except OSError as error:
        _say(f"soak: argument --logs: {wanted} cannot be made: {error.strerror}")
        sys.exit(2)
    return wanted


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _print_plan(plan: Schedule) -> None:
    lines = [(strike.at, f"fault {strike}") for strike in plan.strikes]
    lines += [
        (batch.at, f"jobs  {batch.name}: {len(batch.jobs)} {batch.kind}, {batch.user}")
        for batch in plan.batches
    ]
    for at, text in sorted(lines):
        _say(f"{at:6.1f} s  {text}")


def _print(outcome: Outcome, directory: Path) -> None:
    found = outcome.verdict
    _say("")
    for line in report.table(found):
        _say(line)
    _say("")
    for name, count in report.figures(found).items():
        _say(f"{count:6}  {name}")
    for judged in found.bad[:20]:
        _say(f"\n{report.complaint(judged)}")
        log = directory / "events" / f"{judged.job.id.rsplit('-', 1)[0]}.log"
        for line in log.read_text().splitlines()[-_TAIL:] if log.exists() else ():
            _say(f"    {line}")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
