"""What is no pair of stock and roost: tables of their own, one function each."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import pools
from bench.containers import PREFIX, Engine, cpu_ms, memory, run_in
from roost import Pool, Workers
from roost.spec import IMAGES

#: Slots of each of two executors in the test of short jobs; a job that asks for several has fewer.
SLOTS = 16
#: Seconds for which a pool is left alone, and then watched.
SETTLE, WATCH = 30.0, 30.0
Say = Callable[[str], None]


@dataclass
class Table:
    """A title, what stands above the columns, and the rows."""

    title: str
    head: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Least, median and greatest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{low:.{digits}f} / **{middle:.{digits}f}** / {high:.{digits}f}"


def short(engine: Engine, say: Say, rounds: int, jobs: int) -> Table:
    """Short jobs on 1 to 32 slots, against minicondor: how far slots go, and where CPU ends it."""
    cores = os.cpu_count() or 1
    slots = (1, 2, 4, 8, 16, 32)
    rate: dict[int, list[float]] = {count: [] for count in (0, *slots)}
    cost: dict[int, list[float]] = {count: [] for count in (0, *slots)}
    with pools.minicondor(engine) as mini, pools.roosted(engine, 2, SLOTS) as pool:
        first = pool.roles["execute"][0]
        for _ in range(rounds):
            for count in (0, *slots):
                side = pool if count else mini
                asked = "" if not count else f"request_cpus = {max(1, min(SLOTS, 32 // count))}\n"
                only = f'requirements = Machine == "{first}"\n' if count == 1 else ""
                used = cpu_ms(engine, side.nodes)
                seconds = side.jobs(jobs, pools.SHORT + pools.NO_OUTPUTS + asked + only)
                cost[count].append((cpu_ms(engine, side.nodes) - used) / jobs)
                rate[count].append(jobs / seconds)
                say(f"{count or 'minicondor'}: {rate[count][-1]:.1f}/s, {cost[count][-1]:.0f} ms")
    table = Table(
        f"Short jobs by slots; {jobs} at once, min / **median** / max of {rounds}",
        ("slots", "jobs/s", "CPU of a job, ms", "÷ minicondor", "of the CPU limit"),
        notes=[f"The CPU limit is {cores} cores ÷ the CPU of a job, if nothing else wants them."],
    )
    stock = statistics.median(rate[0])
    for count in (0, *slots):
        middle, each = statistics.median(rate[count]), statistics.median(cost[count])
        table.rows.append((
            str(count) if count else f"minicondor, {cores}", spread(rate[count]),
            spread(cost[count], 1), f"{middle / stock:.2f}", f"{middle * each / cores / 10:.0f} %",
        ))  # fmt: skip
    return table


def python(engine: Engine, say: Say, rounds: int) -> Table:
    """Functions as jobs of their own, and in two workers."""
    by: dict[str, list[float]] = {"a job for each": [], "workers, each submitted by itself": [],
                                  "workers, `pool.map`": []}  # fmt: skip

    def note(way: str, tasks: int, begun: float) -> None:
        by[way].append(tasks / (time.monotonic() - begun))
        say(f"{way}: {by[way][-1]:.1f} tasks/s")

    with pools.roosted(engine, 2):
        pool = Pool.attach(pools.POOL, engine=engine.program)
        pool.map(abs, [1])  # the Python is there then
        for _ in range(rounds):
            begun = time.monotonic()
            pool.map(abs, range(10))
            note("a job for each", 10, begun)
            with pool.executor(workers=2, memory="300MiB") as workers:
                assert isinstance(workers, Workers)
                workers.client.wait_for_workers(2)
                begun = time.monotonic()
                for future in [workers.submit(abs, item) for item in range(1000)]:
                    future.result()
                note("workers, each submitted by itself", 1000, begun)
                begun = time.monotonic()
                workers.map_all(abs, range(20000))
                note("workers, `pool.map`", 20000, begun)
    table = Table(
        f"Python functions on 2 slots, min / **median** / max of {rounds}",
        ("way", "tasks/s", "÷ a job for each"),
    )
    floor = statistics.median(by["a job for each"])
    for way, values in by.items():
        table.rows.append((way, spread(values), f"{statistics.median(values) / floor:.0f}"))
    return table


def wide(engine: Engine, say: Say, sizes: Sequence[int]) -> Table:
    """What an executor costs as they become many, and how long it takes; then all but five go."""
    table = Table(
        "Many executors, one run",
        ("executors", "up, s", "CPU of its containers until then, s", "idle CPU, cores",
         "own memory of each, MiB"),
    )  # fmt: skip
    for size in sizes:
        begun = time.monotonic()
        with pools.roosted(engine, size) as pool:
            up = time.monotonic() - begun
            spent = cpu_ms(engine, pool.nodes) / 1000
            seen = run_in(engine, pool.roles["submit"][0], "condor_status -af Machine", "root")
            assert len(set(seen.split())) == size
            say(f"{size} executors: up in {up:.0f} s, {spent / size:.2f} s of CPU for each")
            time.sleep(SETTLE)
            before = cpu_ms(engine, pool.nodes)
            time.sleep(WATCH)
            idle = (cpu_ms(engine, pool.nodes) - before) / 1000 / WATCH
            own = statistics.mean(memory(engine, node).own for node in pool.roles["execute"])
            table.rows.append((str(size), f"{up:.1f}", f"{spent:.1f}", f"{idle:.3f}", f"{own:.1f}"))
            say(f"{size} executors: {idle:.3f} cores idle, {own:.1f} MiB each")
            if size == max(sizes) and size > 5:
                begun = time.monotonic()
                pool.grow(5 - size)
                table.notes.append(
                    f"`roost scale {size}` → `roost scale 5`, with draining: "
                    f"{time.monotonic() - begun:.1f} s."
                )
    return table


def image(engine: Engine, say: Say, rounds: int) -> Table:
    """Size against Debian's packages on the same base; CPU time of the entrypoint's Python."""
    ours = f"{IMAGES}:trixie"
    sizes = {name: int(engine("image", "inspect", "--format", "{{.Size}}", name)) / 1e6
             for name in (ours, pools.IMAGE)}  # fmt: skip
    name = f"{PREFIX}-entry"
    engine.remove([name])
    engine("run", "--detach", "--name", name, "--entrypoint", "sleep", ours, "3600")
    try:
        # It reads everything that it needs to become a node, then finds one option wrong.
        script = "TIMEFORMAT='%U %S'; time roost-node -e somebody --cpus nonsense >/dev/null"
        taken = []
        for _ in range(rounds):
            said = engine("exec", name, "bash", "-c", f"{{ {script}; }} 2>&1; :")
            found = re.findall(r"^(\S+) (\S+)$", said.strip(), re.M)[-1]
            taken.append(1000 * sum(map(float, found)))
    finally:
        engine.remove([name])
    say(f"image: {sizes[ours]:.0f} MB, stock {sizes[pools.IMAGE]:.0f} MB")
    table = Table("The image", ("", "stock", "roost", "", "goal"))
    table.rows.append((
        "size, MB", f"{sizes[pools.IMAGE]:.0f}", f"{sizes[ours]:.0f}",
        f"{sizes[ours] / sizes[pools.IMAGE]:.2f}", "≤ 0.7",
    ))  # fmt: skip
    table.rows.append(("entrypoint, CPU until it knows what to become, ms", "", spread(taken, 0),
                       "", "≤ 150"))  # fmt: skip
    return table
