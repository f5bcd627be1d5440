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

from bench import pools, report, tables
from bench.containers import Engine
from bench.figures import IDLE, JOBS, MEMORY, START, TABLES, Bench
from roost.errors import RoostError

SHORT, PYTHON, WIDE, IMAGE = "short", "python", "wide", "image"
PARTS = (*TABLES, SHORT, PYTHON, WIDE, IMAGE)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each figure (default: 5)")
    parser.add_argument("--jobs", type=int, default=300, help="short jobs at once (default: 300)")
    parser.add_argument(
        "--only",
        metavar="A,B",
        help=f"these tables, of {', '.join(PARTS)}; README.md stays",
    )
    parser.add_argument(
        "--executors", metavar="N,N", default="10,50,200",
        help="how many in the table `wide` (default: 10,50,200)",
    )  # fmt: skip
    given = parser.parse_args()
    if min(given.rounds, given.jobs) < 1:
        parser.error("--rounds and --jobs count from 1")
    given.only = given.only.split(",") if given.only else []
    if unknown := set(given.only) - set(PARTS):
        parser.error(f"{unknown.pop()!r} is no table: there are {', '.join(PARTS)}")
    if not all(number.isdecimal() and int(number) for number in given.executors.split(",")):
        parser.error("--executors takes numbers from 1, with commas between them")
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
        wanted = given.only or PARTS
        further: list[tables.Table] = []
        if IMAGE in wanted:
            further.append(tables.image(engine, say, given.rounds))
        if PYTHON in wanted:
            further.append(tables.python(engine, say, given.rounds))
        if SHORT in wanted:
            further.append(tables.short(engine, say, given.rounds, given.jobs))
        if WIDE in wanted:
            sizes = [int(number) for number in given.executors.split(",")]
            further.append(tables.wide(engine, say, sizes))
        for round_ in range(given.rounds if set(wanted) & set(TABLES) else 0):
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
    text = f"{lines}\n\n{report.tables(bench.rows.values())}\n{report.free(further)}"
    print(text)
    if not given.only:
        report.write(text)
        values = {key: dataclasses.asdict(row) for key, row in bench.rows.items()}
        results = Path(__file__).parent / "results" / f"{begun:%Y-%m-%d}.json"
        results.parent.mkdir(exist_ok=True)
        tables_ = [dataclasses.asdict(table) for table in further]
        said = {"about": about, "figures": values, "tables": tables_}
        results.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
