"""What is wrong with a pool, and what to do: facts are collected first, then judged."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from roost._run import Completed
from roost.ads import ask, sentence
from roost.engines.base import Engine, EngineInfo
from roost.errors import EngineError, RoostError
from roost.observe.snapshot import SlotView, Snapshot, running, snapshot
from roost.plan import Observed, ObservedNode
from roost_node.vocab import EXECUTE_DIR, LOG_DIR, NODE_CERT, SPOOL_DIR, STATE_DIR

Severity = Literal["error", "warning", "note"]

#: Seconds that clocks may differ: beyond, certificates and leases begin to look wrong.
CLOCK_TOLERANCE: Final = 5.0
#: Free space below which a node is warned about, in bytes and as a share of the disk.
DISK_LOW: Final = (2**30, 0.05)
CERTIFICATE_DAYS: Final = 1.5

# Standard library and cryptography are in every node's image.
_PROBE: Final = """
import json, os, shutil, sys, time
sys.path.append("/usr/lib/roost")
paths, cert, who = sys.argv[1].split(","), sys.argv[2], sys.argv[3]
said = {"clock": time.time(), "disks": {}}
for path in paths:
    if os.path.isdir(path):
        said["disks"][path] = shutil.disk_usage(path)[::2]
try:
    from cryptography import x509
    end = x509.load_pem_x509_certificate(open(cert, "rb").read()).not_valid_after_utc
    said["certificate_ends"] = end.timestamp()
except (OSError, ValueError, ImportError, AttributeError):
    pass
try:
    said["masters"] = open(who).read().splitlines()[2].split(",")
except (OSError, IndexError):
    pass
v2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
said["cgroup"] = os.access("/sys/fs/cgroup" if v2 else "/sys/fs/cgroup/memory", os.W_OK)
try:
    from roost_node import kills
    said["killed"] = kills.count()
except ImportError:
    pass
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    severity: Severity
    what: str
    where: str
    """The node's name, or `engine`, or `queue`."""
    advice: str = ""


@dataclass(frozen=True)
class NodeProbe:
    """What one node says of itself."""

    unhealthy: str = ""
    """Why it is not healthy, in its own sentence; empty if it is."""
    last_log: str = ""
    """Its last log line, where it does not run; why it ended last, where it was started again."""
    clock_off: float | None = None
    """Seconds that its clock is ahead of this machine's."""
    disks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Directory → bytes in all and bytes free."""
    certificate_days: float | None = None
    """Days until its certificate ends."""
    cgroup: bool | None = None
    """Whether HTCondor can put jobs into cgroups of their own."""
    killed: int = 0
    """Processes that the kernel killed because the container's memory was used up."""
    masters: tuple[str, ...] = ()
    """The masters that it knows of, by name; a master itself among them."""
    stands_by: bool = False
    """It is the one of two masters that waits to take the other's place."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `examine` judges."""

    pool: str
    engine: EngineInfo | None
    engine_error: str = ""
    """Why the engine does not answer."""
    observed: Observed | None = None
    missing_images: tuple[str, ...] = ()
    probes: Mapping[str, NodeProbe] = field(default_factory=dict)
    """By node."""
    snapshot: Snapshot | None = None
    held: Mapping[str, int] = field(default_factory=dict)
    """A reason → how many jobs are held for one of its kind."""


def examine(facts: Diagnosis) -> tuple[Finding, ...]:
    """What is wrong, the gravest first; empty if nothing is."""
    if facts.engine is None:
        return (Finding("error", facts.engine_error or "it does not answer", "engine",
                        "start it, or choose another with --engine"),)  # fmt: skip
    if not facts.observed or not facts.observed.nodes:
        what = f"there is no pool {facts.pool!r} on it"
        advice = "run `roost up`, or choose another with --name; `roost ls` lists them"
        return (Finding("error", what, "engine", advice),)
    findings = [*_engine(facts), *_answers(facts), *_masters(facts), *_held(facts)]
    # what does not run comes first: the others' complaints may follow from it
    for node in sorted(facts.observed.nodes, key=lambda node: node.state == "running"):
        findings += _node(node, facts.probes.get(node.name, NodeProbe()), facts.snapshot)
    rank: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(findings, key=lambda finding: rank[finding.severity]))


def _engine(facts: Diagnosis) -> Iterator[Finding]:
    assert facts.observed is not None
    for image in facts.missing_images:
        yield Finding(
            "warning", f"the image {image} is gone: its nodes could not be made anew", "engine",
            "run `roost image build`",
        )  # fmt: skip
    if facts.engine is not None and facts.engine.rootless and facts.engine.cgroup == "1":
        yield Finding(
            "warning",
            "it runs without root on cgroup v1, where no limit of CPU, memory or processes holds: "
            "a job may use up the machine",
            "engine", "run the engine as root, or on a machine with cgroup v2",
        )  # fmt: skip
    without = [
        node.name
        for node in facts.observed.nodes
        if node.role == "execute" and facts.probes.get(node.name, NodeProbe()).cgroup is False
    ]
    if without:
        yield Finding(
            "note",
            "HTCondor cannot write cgroups here, so a job that uses more memory than it asked for "
            "is noticed by looking, within about 20 s, and held; what uses the container's own "
            f"limit up before that is killed, and held too ({len(without)} executors)",
            "engine",
        )


def _answers(facts: Diagnosis) -> Iterator[Finding]:
    if facts.snapshot is None or facts.observed is None:
        return
    by_role = {node.role: node for node in reversed(facts.observed.nodes)}
    asked: tuple[tuple[Literal["master", "submit"], str, object], ...] = (
        ("master", facts.snapshot.no_slots, facts.snapshot.slots),
        ("submit", facts.snapshot.no_jobs, facts.snapshot.jobs),
    )
    for role, reason, answer in asked:
        node = by_role.get(role)
        if node is None:
            yield Finding("error", f"the pool has no {role} node", "engine", "run `roost up`")
        elif answer is None and node.state == "running":
            yield Finding("error", reason, node.name, f"see `roost logs {node.name}`")


def _masters(facts: Diagnosis) -> Iterator[Finding]:
    """Of two masters, which one is active, and whether one is missing."""
    assert facts.observed is not None
    running = [node for node in facts.observed.nodes if node.role == "master"
               and node.state == "running"]  # fmt: skip
    known = {name for node in running for name in facts.probes.get(node.name, NodeProbe()).masters}
    there = {node.name for node in facts.observed.nodes}
    for name in sorted(known - there) if len(known) > 1 else ():
        yield Finding(
            "warning", "this master is missing: the other has nobody to take its place", name,
            "`roost up` makes it anew",
        )  # fmt: skip
    if len(known) > 1:
        for node in running:
            probe = facts.probes.get(node.name, NodeProbe())
            if not probe.unhealthy and not probe.stands_by:
                yield Finding("note", "it is the active one of two masters", node.name)


def _held(facts: Diagnosis) -> Iterator[Finding]:
    for reason, count in sorted(facts.held.items(), key=lambda item: -item[1]):
        jobs = "1 job is" if count == 1 else f"{count} jobs are"
        yield Finding("warning", f"{jobs} held: {reason}", "queue", "see `roost q`, `roost why ID`")


def _node(node: ObservedNode, probe: NodeProbe, seen: Snapshot | None) -> Iterator[Finding]:
    if node.state == "paused":
        yield Finding("error", "it is paused", node.name, "`roost up` has it go on")
        return
    if node.state != "running":
        code = "" if node.exit_code is None else f" with code {node.exit_code}"
        last = f"; its last words: {probe.last_log}" if probe.last_log else ""
        yield Finding(
            "error", f"it does not run: {node.state}{code}{last}", node.name,
            f"see `roost logs {node.name}`; `roost up` starts it again",
        )  # fmt: skip
        return
    slots = None if seen is None else seen.slots
    if probe.unhealthy:
        yield Finding("error", probe.unhealthy, node.name, f"see `roost logs {node.name}`")
    elif node.role == "execute" and slots is not None and not _advertises(node, slots):
        yield Finding(
            "error", "it runs, but the collector has no slot of it", node.name,
            f"see `roost logs {node.name}`; its certificate may have been refused",
        )  # fmt: skip
    yield from _restarted(node, probe)
    own = [slot for slot in slots or () if _is_of(slot, node)]
    yield from _sick(node, own)
    if unmounted := next((slot.unmounted for slot in own if slot.unmounted), ""):
        yield Finding(
            "warning", f"jobs cannot mount all data there: {unmounted}", node.name,
            "jobs that ask for it wait for another executor; `roost up` makes one anew that is to "
            "have another image or other rights",
        )  # fmt: skip
    if probe.clock_off is not None and abs(probe.clock_off) > CLOCK_TOLERANCE:
        way = "ahead of" if probe.clock_off > 0 else "behind"
        yield Finding(
            "warning", f"its clock is {abs(probe.clock_off):.0f} s {way} this machine's", node.name,
            "synchronise the hosts' clocks: certificates and leases depend on them",
        )  # fmt: skip
    # directories of one disk have the same figures; one of them is enough
    disks = {figures: path for path, figures in reversed(list(probe.disks.items()))}
    for (total, free), path in disks.items():
        if free < DISK_LOW[0] or free < total * DISK_LOW[1]:
            yield Finding(
                "warning", f"only {free / 2**20:.0f} MiB of disk are free in {path}", node.name,
                "free some space where the engine keeps its data",
            )  # fmt: skip
    if probe.killed:
        processes = "a process" if probe.killed == 1 else f"{probe.killed} processes"
        yield Finding(
            "warning",
            f"its memory was used up, and the kernel killed {processes} there since it started",
            node.name, "jobs must ask for what they use: raise their request_memory",
        )  # fmt: skip
    if probe.certificate_days is not None and probe.certificate_days < CERTIFICATE_DAYS:
        left = probe.certificate_days
        yield Finding(
            "error" if left <= 0 else "warning",
            "its certificate has expired" if left <= 0 else
            f"its certificate expires in {left * 24:.0f} hours, and has not been renewed",
            node.name, "`roost down --keep-spool`, then `roost up`, gives every node a new one",
        )  # fmt: skip


def _restarted(node: ObservedNode, probe: NodeProbe) -> Iterator[Finding]:
    """A node that ended by itself, and that the engine started again."""
    if not node.restarts:
        return
    times = "once" if node.restarts == 1 else f"{node.restarts} times"
    last = f"; before the last time it said: {probe.last_log}" if probe.last_log else ""
    when = f", the last time at {node.started[:16]}" if node.started else ""
    yield Finding(
        "warning", f"it ended and was started again {times}{when}{last}", node.name,
        f"see `roost logs {node.name}` for why",
    )  # fmt: skip


def _is_of(slot: SlotView, node: ObservedNode) -> bool:
    return slot.node.partition(".")[0] == node.name.partition(".")[0]


def _sick(node: ObservedNode, own: list[SlotView]) -> Iterator[Finding]:
    """Findings about what becomes of the node's jobs."""
    sick = max(own, key=lambda slot: (slot.sick_since, bool(slot.sick)), default=None)
    if sick is not None and sick.sick:
        since = time.strftime("%H:%M", time.localtime(sick.sick_since))
        yield Finding(
            "error", f"it is sick and takes no more jobs since {since}: {sick.sick}", node.name,
            f"see `roost logs {node.name}`; restart its container when the cause is gone, which "
            "makes it take jobs again",
        )  # fmt: skip
    elif failing := max((slot.failing for slot in own), default=0):
        yield Finding(
            "note", f"its last {failing} jobs all failed within seconds, and no other executor "
            "shows that it is the node and not the jobs", node.name,
            "see the jobs' own output, and `roost q --all`",
        )  # fmt: skip


def _advertises(node: ObservedNode, slots: tuple[Any, ...]) -> bool:
    return any(_is_of(slot, node) for slot in slots)


def collect(engine: Engine, pool: str) -> Diagnosis:
    """Ask the engine and every node; what does not answer is part of the answer."""
    try:
        info = engine.info()
        observed = engine.observe(pool)
    except EngineError as error:
        return Diagnosis(pool, None, str(error))
    images = sorted({node.image for node in observed.nodes})
    with ThreadPoolExecutor(max_workers=8) as workers:
        probes = dict(
            zip(
                [node.name for node in observed.nodes],
                workers.map(lambda node: _probe(engine, node), observed.nodes),
                strict=True,
            )
        )
    return Diagnosis(
        pool,
        info,
        observed=observed,
        missing_images=tuple(image for image in images if not engine.has_image(image)),
        probes=probes,
        snapshot=snapshot(engine, pool),
        held=_held_reasons(engine, observed),
    )


def _probe(engine: Engine, node: ObservedNode) -> NodeProbe:
    try:
        if node.state != "running":
            lines = [line.strip() for line in engine.logs(node.ref, tail=20)]
            return NodeProbe(last_log=next((line for line in reversed(lines) if line), ""))
        ended = _why_ended(engine, node) if node.restarts else ""
        health = engine.exec(node.ref, ["roost-node", "health"], timeout=30)
        paths = ",".join((STATE_DIR, SPOOL_DIR, EXECUTE_DIR, LOG_DIR))
        asked = time.time()
        said = engine.exec(
            node.ref,
            ["python3", "-c", _PROBE, paths, f"{STATE_DIR}/{NODE_CERT}", "/run/roost/who"],
            timeout=30,
        )
        answered = time.time()
    except RoostError as error:
        return NodeProbe(unhealthy=f"it does not answer: {error}")
    return replace(_read_probe(health, said, asked, answered), last_log=ended)


#: Lines in which the reason for a node's last end is looked for.
_LOOK_BACK: Final = 5000
#: roost-node's own words for its end; see supervise.py.
_ENDED: Final = re.compile(r"^roost \| \S+ \S+ (.*(?:condor_master|times in a row).*)$")


def _why_ended(engine: Engine, node: ObservedNode) -> str:
    """What the node said when it ended last; empty if it was killed without a word."""
    found = [match[1] for line in engine.logs(node.ref, tail=_LOOK_BACK)
             if (match := _ENDED.match(line.strip()))]  # fmt: skip
    return found[-1] if found else ""


def _read_probe(health: Completed, said: Completed, asked: float, answered: float) -> NodeProbe:
    """The clock is off by what no delay between the question and the answer explains."""
    unhealthy = sentence(health.text + health.stderr) if health.status else ""
    if said.status:
        return NodeProbe(unhealthy=unhealthy or f"it does not answer: {sentence(said.stderr)}")
    facts = json.loads(said.text)
    clock = facts["clock"]
    ends = facts.get("certificate_ends")
    return NodeProbe(
        unhealthy=unhealthy,
        clock_off=clock - min(max(clock, asked), answered),
        disks={path: (total, free) for path, (total, free) in facts["disks"].items()},
        certificate_days=None if ends is None else (ends - clock) / 86400,
        cgroup=facts["cgroup"],
        killed=facts.get("killed", 0),
        masters=tuple(facts.get("masters", ())),
        stands_by=health.text.strip() == "standby",
    )


def _held_reasons(engine: Engine, observed: Observed) -> Mapping[str, int]:
    argv = ["condor_q", "-allusers", "-hold", "-json", "-attributes", "HoldReason,HoldReasonCode"]
    try:
        ads = ask(engine, running(observed, "submit").ref, argv, timeout=20)
    except RoostError:
        return {}  # the snapshot says why
    # reasons of one kind differ in the names of slots and files; the first stands for its kind
    kinds = Counter(ad.get("HoldReasonCode") for ad in ads)
    first = {ad.get("HoldReasonCode"): str(ad.get("HoldReason", "")) for ad in reversed(ads)}
    return {first[kind] or "no reason given": count for kind, count in kinds.items()}
