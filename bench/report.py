"""Figures → a table in Markdown, which also stands in bench/README.md."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.containers import Engine
from bench.figures import TABLES, Figure
from bench.pools import IMAGE
from bench.tables import Table
from roost.spec import IMAGES

README = Path(__file__).parent / "README.md"
_BEGIN, _END = "<!-- figures: written by bench/run -->", "<!-- end of figures -->"
_TITLES = {
    "start": "From nothing to the first job",
    "idle": "One job on an idle pool, against minicondor",
    "jobs": "Many short jobs, against minicondor",
    "memory": "Idle memory, against bare condor_master with the same role",
}


def machine(engine: Engine) -> dict[str, str]:
    """Where the figures come from."""
    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    versions = {
        "HTCondor, stock": engine("run", "--rm", IMAGE, "condor_version"),
        "HTCondor, roost": engine(
            "run", "--rm", "--entrypoint", "condor_version", f"{IMAGES}:trixie"
        ),
    }
    return {
        "CPU": f"{os.cpu_count()} × {cpu[1] if cpu else platform.machine()}",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "kernel": platform.release(),
        "engine": engine("--version").strip(),
        "Python": platform.python_version(),
        **{what: _version(said) for what, said in versions.items()},
    }


def _version(said: str) -> str:
    found = re.search(r"CondorVersion: (\S+)", said)
    return found[1] if found else said.strip()


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{low:.{digits}f} / **{middle:.{digits}f}** / {high:.{digits}f}"


def _row(figure: Figure) -> str:
    digits = 2 if figure.unit in ("s", "jobs/s") else 1
    goal = "" if figure.goal is None else f"{'≥' if figure.more else '≤'} {figure.goal:g}"
    verdict = {None: "", True: "reached", False: "missed"}[figure.reached]
    cells = (
        f"{figure.name}, {figure.unit}",
        _spread(figure.stock, digits),
        _spread(figure.roost, digits),
        _spread(figure.ratios, 2),
        goal,
        verdict,
    )
    return f"| {' | '.join(cells)} |"


def tables(figures: Iterable[Figure]) -> str:
    """The tables of what was measured, and what bounds each figure that missed its goal."""
    measured = [figure for figure in figures if figure.stock and figure.roost]
    parts = []
    for table in TABLES:
        rows = [figure for figure in measured if figure.table == table]
        if not rows:
            continue
        parts += [
            f"### {_TITLES[table]}", "",
            f"| min / **median** / max of {len(rows[0].stock)} | stock | roost | roost ÷ stock "
            "| goal | |",
            "|---|---|---|---|---|---|",
            *map(_row, rows), "",
            *(
                f"Missed: {figure.name}; bounded by {figure.bound}.\n"
                for figure in rows if figure.reached is False
            ),
        ]  # fmt: skip
    return "\n".join(parts).rstrip() + "\n"


def free(tables: Iterable[Table]) -> str:
    """The tables that are no pairs."""
    parts: list[str] = []
    for table in tables:
        parts += [
            f"### {table.title}", "",
            f"| {' | '.join(table.head)} |", "|---" * len(table.head) + "|",
            *(f"| {' | '.join(row)} |" for row in table.rows), "",
            *(f"{note}\n" for note in table.notes),
        ]  # fmt: skip
    return "\n".join(parts).rstrip() + "\n"


def write(text: str) -> None:
    """Put the tables into bench/README.md, between its two marks."""
    page = README.read_text()
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    README.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}")
