"""Whatever is killed: no mount, no process and no sandbox is left, and the remote data is there.

Every case is a job of its own with the same share mounted, writable: on one executor all at once,
and one on each executor that is hit as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from mount_bench import Bench, Cast, Survey, bench
from node_bench import docker, eventually

pytestmark = pytest.mark.engine

#: They end by themselves.
SHORT = ("normal", "seven", "segv", "leaves-evil")
#: What is done to each, with its processes.
KILLS: dict[str, tuple[str, ...]] = {
    "kill-job": ("job",),
    "kill-wrapper": ("wrapper",),
    "kill-keeper": ("keeper",),
    "kill-server": ("server",),
    "rm": (),
    "hold": (),
    "vacate": (),
    "kill-starter": ("starter",),
    "kill-starter-shadow": ("starter", "shadow"),
    "evil-rm": (),
    "stopped-rm": ("stop",),
    "stopped-starter": ("stop", "starter"),
}
#: What happens to a whole node.
NODES = ("kill-startd", "kill-condor", "kill-node")

JOB = """\
[ "$(cat data/$1/sentinel)" = precious ] || exit 99
evil() { setsid sh -c 'trap "" TERM HUP INT; exec 3<data/'$1'/sentinel; sleep 300; sleep 300' & }
case $1 in
  normal) echo written > data/normal/out; exit 0 ;;
  seven) exit 7 ;;
  segv) kill -SEGV $$ ;;
  leaves-evil) evil $1; sleep 1; exit 0 ;;
  evil-rm) trap '' TERM HUP INT; evil $1; while :; do sleep 300; done ;;
esac
sleep 300
exit 98
"""


@dataclass(frozen=True)
class Outcome:
    """The matrix after its run."""

    bench: Bench
    seen: dict[str, tuple[bool, bool]]
    """Whether the job saw its mount, and whether the node's first process or a starter did."""
    ads: dict[str, dict[str, Any]]
    left: dict[str, str]
    sentinels: list[str]
    """The cases whose remote data is as it was."""


@pytest.fixture(scope="module")
def matrix(image_data: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """All cases, carried out."""
    groups = ("[{name: many, count: 1, cpus: 16, memory: 4GiB}, "
              "{name: lone, count: 3, cpus: 1, memory: 512MiB}]")  # fmt: skip
    directory = tmp_path_factory.mktemp("matrix")
    with bench(directory, image_data, groups=groups) as pool:
        cases = [*SHORT, *KILLS, *NODES]
        pool.dav.sh("cd /srv/dav; for c in " + " ".join(cases) + "; do mkdir $c;"
                    " echo precious > $c/sentinel; done")  # fmt: skip
        yield _carried_out(pool)


def _carried_out(pool: Bench) -> Outcome:
    pin = 'requirements = Machine == "{}"\nmax_retries = 0\n+RoostKeepKilled = True'
    mounts = f"{pool.entry}:data:rw"
    many = pool.node("many-1")
    cases = [*SHORT, *KILLS]
    cluster = pool.start("many", JOB, mounts, pin.format(many.name), cases)
    whole = {
        case: (pool.node(f"lone-{number}"),
               pool.start(case, JOB, mounts, pin.format(f"{pool.name}-lone-{number}"), [case]))
        for number, case in enumerate(NODES, 1)
    }  # fmt: skip
    seen = {}
    survey, casts = _all_sleep(many, list(KILLS))
    for case, cast in casts.items():
        seen[case] = _visible(survey, cast)
    _strike(pool, many, cluster, casts)
    for case, (node, _) in whole.items():
        survey, casts = _all_sleep(node, [case])
        seen[case] = _visible(survey, casts[case])
        match case:
            case "kill-startd":
                node.sh(f"kill -9 {node.pid('condor_startd')}")
            case "kill-condor":
                # one stroke; the container ends with them, and the engine starts it again
                node.tried("kill -9 $(pgrep condor_)")
            case "kill-node":
                docker("kill", node.name)
    ids = " ".join(str(number) for _, number in whole.values())
    pool.submit.tried(f"condor_rm {ids}")
    docker("start", whole["kill-node"][0].name)
    left = {"many": _left(many, cases)}
    for case, (node, _) in whole.items():
        left[case] = _left(node, [case])
    left["machine"] = _unless_gone(pool)
    numbers = dict(enumerate(cases))
    ads = {numbers[number]: ad for number, ad in pool.ads(cluster).items()}
    there = pool.dav.sh("cd /srv/dav; grep -lx precious */sentinel").split()
    return Outcome(pool, seen, ads, left, [path.split("/")[0] for path in there])


def _all_sleep(node: Any, cases: list[str]) -> tuple[Survey, dict[str, Cast]]:
    """Once each of these jobs has read its data and sleeps."""

    def asleep() -> tuple[Survey, dict[str, Cast]] | None:
        survey = Survey.of(node)
        casts = {case: cast for case in cases if (cast := survey.cast(case))}
        assert len(casts) == len(cases), f"only {sorted(casts)} of {cases} sleep"
        return survey, casts

    found = eventually(asleep, 240, node)
    assert found
    return found


def _visible(survey: Survey, cast: Cast) -> tuple[bool, bool]:
    outside = survey.mounts[1] + survey.mounts[cast.starter]
    return bool(survey.mounts[cast.job]), bool(outside)


def _strike(pool: Bench, many: Any, cluster: int, casts: dict[str, Cast]) -> None:
    numbers = {case: f"{cluster}.{len(SHORT) + number}" for number, case in enumerate(KILLS)}
    commands = []
    for case, parts in KILLS.items():
        cast = casts[case]
        for part in parts:
            match part:
                case "shadow":
                    pool.submit.sh(f"kill -9 {_shadow(pool, numbers[case])}")
                case "stop":
                    commands.append(f"kill -STOP {cast.servers[0]}")
                case "server":
                    commands.append(f"kill -9 {cast.servers[0]}")
                case _:
                    commands.append(f"kill -9 {getattr(cast, part)}")
    many.sh("; ".join(commands))
    ids = numbers
    pool.submit.sh(f"condor_hold {ids['hold']}; condor_vacate_job -fast {ids['vacate']}; "
                   f"condor_rm {ids['rm']} {ids['evil-rm']} {ids['stopped-rm']}")  # fmt: skip
    eventually(lambda: casts["vacate"].wrapper not in Survey.of(many).pids, 60, many)
    gone = ("vacate", "kill-starter", "kill-starter-shadow", "stopped-starter")
    pool.submit.sh("condor_rm " + " ".join(ids[case] for case in gone))
    eventually(lambda: casts["kill-server"].keeper in Survey.of(many).pids, 10, many)
    many.sh(f"kill -9 {casts['kill-server'].job}")


def _shadow(pool: Bench, job: str) -> str:
    for line in pool.submit.sh("pgrep -a condor_shadow").splitlines():
        if job in line.split():
            return line.split()[0]
    raise AssertionError(f"no shadow of {job}")


def _left(node: Any, cases: list[str]) -> str:
    """What is left on a node after a while."""
    try:
        eventually(lambda: node.running and not Survey.of(node).left_of(cases), 150)
    except AssertionError:
        return Survey.of(node).left_of(cases)
    return ""


def _unless_gone(pool: Bench) -> str:
    try:
        eventually(lambda: not pool.mounted_anywhere(), 30)
    except AssertionError:
        return f"processes {pool.mounted_anywhere()} see it"
    return ""


@pytest.mark.parametrize("case", [*KILLS, *NODES])
def test_the_job_saw_its_mount_and_htcondor_did_not(matrix: Outcome, case: str) -> None:
    assert matrix.seen[case] == (True, False)


def test_nothing_is_left(matrix: Outcome) -> None:
    assert {where: what for where, what in matrix.left.items() if what} == {}


def test_the_remote_data_is_there(matrix: Outcome) -> None:
    assert sorted(matrix.sentinels) == sorted([*SHORT, *KILLS, *NODES])


def test_ends_are_the_jobs_own(matrix: Outcome) -> None:
    assert matrix.ads["normal"]["ExitCode"] == 0
    assert matrix.bench.remote("normal/out") == "written\n"
    assert matrix.ads["leaves-evil"]["ExitCode"] == 0
    assert matrix.ads["seven"]["ExitCode"] == 7
    assert (matrix.ads["segv"]["ExitBySignal"], matrix.ads["segv"]["ExitSignal"]) == (True, 11)
    for case in ("kill-job", "kill-wrapper", "kill-keeper"):
        ad = matrix.ads[case]
        assert (ad["JobStatus"], ad["ExitBySignal"], ad["ExitSignal"]) == (4, True, 9), case


def test_a_server_that_died_holds_a_job_that_may_write(matrix: Outcome) -> None:
    ad = matrix.ads["kill-server"]
    assert ad["JobStatus"] == 5
    assert "may not be there: its server was killed (signal 9)" in ad["HoldReason"]
