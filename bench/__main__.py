"""`bench/run`: measure, print the tables, write them into bench/README.md."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from bench import pools, report
from bench.containers import Engine
from bench.figures import IDLE, JOBS, MEMORY, START, TABLES, Bench
from roost.errors import RoostError


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="of each figure (default: 2)")
    parser.add_argument("--jobs", type=int, default=300, help="short jobs at once (default: 300)")
    parser.add_argument(
        "--only", choices=TABLES, action="append", help="this table; README.md is left as it is"
    )
    given = parser.parse_args()
    if min(given.rounds, given.jobs) < 1:
        parser.error("--rounds and --jobs count from 1")
    return given


def _stop(number: int, _frame: FrameType | None) -> None:
    """Leave through every `finally`: what the bench started goes with it."""
    sys.exit(128 + number)


def main() -> int:
    given = _arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    begun = datetime.now(UTC)

    def say(text: str) -> None:
        print(f"{(datetime.now(UTC) - begun).seconds:5d} s  {text}", file=sys.stderr, flush=True)

    engine = Engine(os.environ.get("ROOST_ENGINE") or "docker")
    try:
        say("building the stock image")
        pools.build(engine)
        bench = Bench(engine, say)
        wanted = given.only or TABLES
        for round_ in range(given.rounds):
            say(f"round {round_ + 1} of {given.rounds}")
            if START in wanted:
                bench.start()
            if MEMORY in wanted:
                bench.memory()
            if IDLE in wanted:
                bench.idle()
            if JOBS in wanted:
                bench.jobs(given.jobs, roost_first=bool(round_ % 2))
        about = {"date": f"{begun:%Y-%m-%d %H:%M} UTC"} | report.machine(engine)
    except RoostError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_status
    about["load"] = (
        f"{os.getloadavg()[2]:.1f} on average in the last 15 minutes, the bench's included"
    )
    about["run"] = f"{given.rounds} rounds, {given.jobs} short jobs"
    lines = "\n".join(f"- {what}: {value}" for what, value in about.items())
    text = f"{lines}\n\n{report.tables(bench.rows.values())}"
    print(text)
    if not given.only:
        report.write(text)
        values = {key: dataclasses.asdict(row) for key, row in bench.rows.items()}
        results = Path(__file__).parent / "results" / f"{begun:%Y-%m-%d}.json"
        results.parent.mkdir(exist_ok=True)
        results.write_text(json.dumps({"about": about, "figures": values}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
