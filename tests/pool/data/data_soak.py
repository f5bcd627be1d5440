"""`./test soak --data`: jobs with mounts are killed at random, in every way, until enough are.

    --kills N     how many (200)
    --seed S      the same kills of the same jobs; without it the clock's

It fails, with status 1, at the first round after which a mount, a process or a sandbox is left, or
what the jobs had mounted is not as it was.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mount_bench import Bench, Survey, bench
from node_bench import Node, eventually

from roost.image.build import build
from roost.image.recipe import ImageSpec

#: Jobs with mounts at a time.
ROUND = 12
#: What is done to a job: a signal to one of its processes, or a command of HTCondor's.
WAYS = (
    "KILL job", "KILL wrapper", "KILL keeper", "KILL server", "KILL starter", "STOP server",
    "TERM wrapper", "condor_rm", "condor_hold", "condor_vacate_job -fast",
)  # fmt: skip
#: In one round of so many, all jobs lose their startd as well.
STARTD_IN = 4
JOB = """\
trap '' HUP
[ "$(cat data/sentinel)" = precious ] || exit 99
setsid sh -c 'exec 3<data/sentinel; sleep 600' &
while :; do sleep 600; done
"""


def main() -> int:
    """Kill, and look; the exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("./test soak --data", None, __doc__, formatter_class=raw)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    print(f"soak --data: {asked.kills} kills, seed {asked.seed}", flush=True)
    dice = random.Random(asked.seed)
    image = build("docker", ImageSpec("trixie", extras=("rclone", "sshfs"))).tag
    done: Counter[str] = Counter()
    groups = f"[{{name: execute, count: 1, cpus: {ROUND}, memory: 4GiB}}]"
    with (
        tempfile.TemporaryDirectory(prefix="roost-") as directory,
        bench(Path(directory), image, groups=groups) as pool,
    ):
        pool.dav.sh("echo precious > /srv/dav/sentinel")
        executor = pool.node("execute-1")
        while done.total() < asked.kills:
            count = min(ROUND, asked.kills - done.total())
            done.update(_round(pool, executor, dice, count))
            print(f"  {done.total()} kills, nothing left", flush=True)
    for way, count in sorted(done.items()):
        print(f"  {count:4} {way}")
    return 0


def _round(pool: Bench, executor: Node, dice: random.Random, count: int) -> list[str]:
    """Start so many jobs, strike each, and see that nothing is left; what was done."""
    cases = [f"case-{number}" for number in range(count)]
    ways = [dice.choice(WAYS) for _ in cases]
    cluster = pool.start("soak", JOB, f"{pool.entry}:data:rw", cases=cases)

    def asleep() -> Survey | None:
        survey = Survey.of(executor)
        return survey if all(survey.cast(case) for case in cases) else None

    survey = eventually(asleep, 300, executor)
    assert survey
    for number, (case, way) in enumerate(zip(cases, ways, strict=True)):
        cast = survey.cast(case)
        assert cast
        assert survey.mounts[cast.job], f"{case} does not see its mount"
        assert not survey.mounts[1], "HTCondor sees a mount"
        word, _, part = way.partition(" ")
        if word in ("KILL", "STOP", "TERM"):
            pid = cast.servers[0] if part == "server" else getattr(cast, part)
            executor.tried(f"kill -{word} {pid}")
        else:
            pool.submit.tried(f"{way} {cluster}.{number}")
    if dice.randrange(STARTD_IN) == 0:
        executor.sh(f"kill -9 {executor.pid('condor_startd')}")
        ways.append("KILL startd")
    pool.submit.tried(f"condor_rm {cluster}")
    eventually(lambda: not Survey.of(executor).left_of(cases) and not pool.mounted_anywhere(),
               240, executor, what=lambda: Survey.of(executor).left_of(cases))  # fmt: skip
    assert pool.remote("sentinel") == "precious\n", "the remote data is lost"
    return ways


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AssertionError as error:
        sys.exit(f"soak --data: {error}")
