"""Why a job is where it is, in plain words: facts in, sentences out."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from roost.ads import Ad, number, sickness
from roost.queue.jobs import PROJECTION, Job
from roost_node.vocab import DRAINING, HOLD_DATA, HOLD_DISK, HOLD_KILLED, HOLD_MEMORY

#: HoldReasonCode → what usually helps.
HOLD_ADVICE: Final = {
    1: "release it with condor_release when you want it to go on",
    3: "its own periodic_hold or on_exit_hold asked for this; release it with condor_release",
    4: "`roost data ls` shows which token is missing, `roost data login` stores it; then release",
    5: "its own policy (periodic_hold, on_exit_remove, …) cannot be evaluated: correct it and "
       "submit it again",
    6: "the executable could not be started: check its first line (#!), its format and the "
       "libraries it needs on the executor",
    7: "its output file cannot be written: check output and error in the submit file",
    8: "its input file cannot be read: check input in the submit file",
    12: "an output could not be brought back: check that the job writes every file in "
        "transfer_output_files, and that the directory it goes to exists",
    13: "an input could not be brought to the executor: check transfer_input_files",
    14: "its initial directory does not exist on the access point",
    15: "it was submitted on hold (hold = true): release it with condor_release",
    16: "its input files are still being sent; if this lasts, `condor_submit -spool` was "
        "interrupted: submit it again",
    19: "a hook on the executor refused it",
    20: "it missed its deferral_time: raise deferral_window, or submit it with a later time",
    21: "the executor's own policy holds such jobs (WANT_HOLD)",
    22: "its log file cannot be written: check log in the submit file",
    23: "the account that it is to run as cannot be used",
    25: "its cron_… settings in the submit file make no time: correct them",
    26: "a policy of the access point holds such jobs (SYSTEM_PERIODIC_HOLD)",
    27: "a policy of the access point cannot be evaluated for it",
    32: "its inputs are larger than max_transfer_input_mb or the access point's limit",
    33: "its outputs are larger than max_transfer_output_mb or the access point's limit",
    34: "it used more memory or disk than it asked for: raise request_memory or request_disk",
    35: "its container image cannot be used: check its name",
    36: "its checkpoint failed",
    43: "its pre script failed",
    44: "its post script failed",
    45: "the executor cannot run containers",
    46: "it took longer than allowed_job_duration: raise it",
    47: "it ran longer than allowed_execute_duration: raise it",
    48: "a hook of the access point refused it",
}  # fmt: skip
_NO_ADVICE: Final = "release it with condor_release when the cause is gone"

#: Seconds without a word after which the negotiator is taken for gone; it speaks every 20 s.
_NEGOTIATOR_GONE: Final = 90
#: So many clauses are told.
_CLAUSES: Final = 6

#: HoldReasonSubCode → the same, for what the pool's own policies hold.
_OWN_ADVICE: Final = {
    HOLD_KILLED: "`roost doctor` says where memory was used up; raise request_memory, then release "
                 "it; if it means to end so, submit it with `+RoostKeepKilled = True`",
    HOLD_DATA: "its data could not be mounted, or not all be written: release it when the cause is "
               "gone",
    HOLD_MEMORY: "raise request_memory (`condor_qedit ID RequestMemory MIB`), then release it",
    HOLD_DISK: "raise request_disk (`condor_qedit ID RequestDisk KIB`), then release it",
}  # fmt: skip


def hold_advice(ad: Ad) -> str:
    """What usually helps a held job; empty if nobody knows."""
    code = ad.get("HoldReasonCode", 0)
    own = _OWN_ADVICE.get(ad.get("HoldReasonSubCode", 0)) if code in (3, 21) else None
    return own or HOLD_ADVICE.get(code, "")


@dataclass(frozen=True)
class Explanation:
    """Why one job is in its state, or several jobs of a cluster for the same reasons."""

    id: str
    state: str
    reasons: tuple[str, ...]
    jobs: tuple[str, ...] = ()
    """Every job that this is true of; `id` is the first."""
    rest: tuple[Explanation, ...] = ()
    """The other jobs of the cluster that was asked about, if they are there for other reasons."""


@dataclass(frozen=True)
class Facts:
    """What is known about the pool when a job is explained."""

    slots: Sequence[Ad] | None
    """The collector's slot ads; None if it did not answer."""
    unreachable: str = ""
    """Why it did not."""
    conditions: Sequence[tuple[int, str]] = ()
    """Clauses of the job's requirements, each with how many slots meet it."""
    refusing: int = 0
    """How many slots would do for the job, but refuse it by their own START."""
    daemons: Sequence[Ad] | None = None
    """Ads of the negotiator, of the schedd and of who uses how much; None if they are not known."""
    ahead: tuple[int, int] = (0, 0)
    """Idle jobs of the same user that come before it, and idle jobs of others."""


@dataclass(frozen=True)
class _Resource:
    request: str
    total: str
    free: str
    show: Callable[[float], str]


def _count(unit: str) -> Callable[[float], str]:
    return lambda amount: f"{amount:g} {unit}{'' if amount == 1 else 's'}"


def _mebibytes(amount: float) -> str:
    return f"{amount / 1024:.1f} GiB of memory" if amount >= 10240 else f"{amount:g} MiB of memory"


_RESOURCES: Final = (
    _Resource("RequestCpus", "TotalSlotCpus", "Cpus", _count("CPU")),
    _Resource("RequestMemory", "TotalSlotMemory", "Memory", _mebibytes),
    _Resource("RequestDisk", "TotalSlotDisk", "Disk", lambda kib: f"{kib / 2**20:.1f} GiB of disk"),
    _Resource("RequestGPUs", "TotalSlotGPUs", "GPUs", _count("GPU")),
)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def explain(ad: Ad, facts: Facts) -> tuple[str, ...]:  # noqa: PLR0911 - one per state
    """Why the job with this ad is in its state; at least one sentence, the cause first."""
    job = Job.from_ad(ad)
    now = float(ad.get("ServerTime") or ad.get("EnteredCurrentStatus") or 0)
    since = duration(now - float(ad.get("EnteredCurrentStatus") or now))
    match job.state:
        case "idle":
            return (*_idle(ad, facts, now), *_earlier(ad))
        case "running":
            return (f"it has been running on {job.host} for {since}", *_earlier(ad, runs=1))
        case "transferring":
            return (f"it ran on {job.host} and its outputs are being brought back",)
        case "suspended":
            return (f"it has been suspended on {job.host} for {since}",)
        case "held":
            said = f"it has been held for {since}: {job.hold_reason or 'no reason given'}"
            return (said, hold_advice(ad) or _NO_ADVICE)
        case "removed":
            return (f"it was removed: {job.remove_reason or 'no reason given'}",)
        case "completed":
            how = (
                f"was killed by signal {job.signal}"
                if job.signal is not None
                else f"ended with exit code {job.exit_code}"
            )
            return (f"it {how} on {job.host} after {duration(job.run_time)}",)
        case _:
            return ("its state is one that roost does not know",)


def _idle(ad: Ad, facts: Facts, now: float) -> tuple[str, ...]:  # noqa: PLR0911, PLR0912 - one per cause
    later = number(ad.get("DeferralTime")) or 0
    if later - (number(ad.get("DeferralPrepTime")) or 300) > now:
        return (f"it asked not to start before {_moment(later)} (deferral_time), "
                f"in {duration(later - now)}",)  # fmt: skip
    if facts.slots is None:
        return (f"nothing can be matched, because the collector does not answer: "
                f"{facts.unreachable or 'no reason given'}",)  # fmt: skip
    # dynamic slots are parts of a partitionable one, and vanish with their job
    machines = [slot for slot in facts.slots if not slot.get("DynamicSlot")]
    if not machines:
        return ("there is no executor in the pool; add one with `roost scale`, or see "
                "`roost doctor` if there should be one",)  # fmt: skip
    if too_large := _too_large(ad, machines):
        return too_large
    if unmounted := _unmounted(ad, machines):
        return (unmounted,)
    if unmet := _unmet(facts.conditions, len(machines)):
        return unmet
    large = [slot for slot in machines if _fits(ad, slot, free=False)]
    willing = [slot for slot in large if not _refuses(slot)]
    if not willing:
        return ("no executor that is large enough takes new jobs now: "
                + "; ".join(sorted({_refuses(slot) for slot in large})[:_CLAUSES]),)  # fmt: skip
    if facts.refusing >= len(willing):
        return ("every executor that is large enough refuses it by its own configuration (START)",)
    if limited := _limited(ad, facts):
        return limited
    free = any(_fits(ad, slot, free=True) for slot in willing)
    if gone := _negotiator_gone(facts, now):
        return (gone,)
    if not free:
        busy = sum(1 for slot in facts.slots if slot.get("State") == "Claimed")
        others = len(large) - len(willing)
        besides = f"; {others} more take no new jobs" if others else ""
        return (f"every executor that is large enough is busy ({busy} slots run jobs{besides}); "
                f"it starts when one of them is done{_queue_before(facts)}",)  # fmt: skip
    rejected = float(ad.get("LastRejMatchTime") or 0)
    if rejected > float(ad.get("LastMatchTime") or 0):
        reason = str(ad.get("LastRejMatchReason", "")).strip() or "no reason given"
        ago = duration(now - rejected)
        return (f"an executor is free, but the negotiator found no match {ago} ago: {reason}; "
                f"it tries again in its next cycle{_queue_before(facts)}",)  # fmt: skip
    if ad.get("LastMatchTime"):
        return ("it is matched and about to start",)
    waited = duration(now - float(ad.get("QDate") or now))
    return (f"the negotiator has not looked at it yet, {waited} after it was submitted"
            f"{_last_cycle(facts, now)}; an executor is free, so the next cycle should start it"
            f"{_queue_before(facts)}",)  # fmt: skip


def _earlier(ad: Ad, *, runs: int = 0) -> tuple[str, ...]:
    """A job that ran before says what ended its last run; `runs` of its starts are no news."""
    starts = (ad.get("NumShadowStarts") or 0) - runs
    if starts <= 0:
        return ()
    reason = ad.get("VacateReason") or "the run was lost"
    return (f"it was started {starts} time{'s' if starts > 1 else ''} before; last time: {reason}",)


def _moment(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


def _queue_before(facts: Facts) -> str:
    mine, others = facts.ahead
    parts = [f"{mine} of the same user" if mine else "", f"{others} of others" if others else ""]
    told = " and ".join(part for part in parts if part)
    if not told:
        return ""
    share = ", who get their share by priority (`condor_userprio`)" if others else ""
    return f"; idle jobs that may come before it: {told}{share}"


def _unmounted(ad: Ad, machines: Sequence[Ad]) -> str:
    """The data that it asks for, if no executor can mount all of that."""
    asked = _names(ad.get("RoostMounts"))
    if not asked and "HasDataMounts" not in str(ad.get("Requirements", "")):
        return ""  # it asks for none
    able = [_names(slot.get("DataMountNames")) for slot in machines if slot.get("HasDataMounts")]
    if any(asked <= names for names in able):
        return ""
    nowhere = sorted(asked - set().union(*able))
    what = ", ".join(nowhere) or (f"all of {', '.join(sorted(asked))}" if asked else "data")
    problems = sorted({str(said) for slot in machines if (said := slot.get("DataMountsProblem"))})
    why = f": {'; '.join(problems[:_CLAUSES])}" if problems else ""
    return f"no executor can mount {what}{why}"


def _names(text: Any) -> set[str]:
    return {name.strip() for name in str(text or "").split(",") if name.strip()}


def _unmet(clauses: Sequence[tuple[int, str]], slots: int) -> tuple[str, ...]:
    """Clauses of its requirements that no slot meets; else those that none meets together."""
    texts = [text for _, text in clauses]
    single = [
        text for met, text in clauses
        if met == 0 and not _by_size(text) and not re.search(r"\[\d+\]", text)
    ]  # fmt: skip
    if single:
        return tuple(
            f"no executor meets this part of its requirements: {text}" for text in single[:_CLAUSES]
        )
    for met, text in clauses:
        steps = [int(step) for step in re.findall(r"\[(\d+)\]", text)]
        if met or not steps or max(steps) >= len(texts):
            continue
        parts = [clauses[step] for step in steps]
        if not any(_by_size(part) or "[" in part for _, part in parts):
            told = ", ".join(
                f"{part} (rules out {slots - count} of {slots})" for count, part in parts[:_CLAUSES]
            )
            return (f"no executor meets these parts of its requirements together: {told}",)
    return ()


def _limited(ad: Ad, facts: Facts) -> tuple[str, ...]:
    """A limit of the pool, of its user or of its access point that keeps it waiting."""
    reason = str(ad.get("LastRejMatchReason", "")).strip()
    if float(ad.get("LastRejMatchTime") or 0) <= float(ad.get("LastMatchTime") or 0):
        reason = ""
    if match := re.match(r"concurrency limit (.+) reached", reason):
        return (f"as many jobs as the pool allows use {match[1]} already (concurrency_limits); "
                "it starts when one of them is done",)  # fmt: skip
    ads = facts.daemons or ()
    if group := ad.get("AcctGroup"):
        for account in ads:
            quota = number(account.get("EffectiveQuota"))
            used = number(account.get("WeightedResourcesUsed")) or 0
            if account.get("Name") == group and quota is not None and used >= quota:
                return (f"its accounting group {group} may use {quota:g} CPUs and uses {used:g}; "
                        "it starts when jobs of the group are done, or when an administrator "
                        "raises the group's quota",)  # fmt: skip
    for account in ads:
        ceiling = number(account.get("Ceiling"))
        used = number(account.get("WeightedResourcesUsed")) or 0
        if ceiling is None or ceiling < 0 or used < ceiling:
            continue
        if str(account.get("Name", "")).partition("@")[0] in (
            ad.get("Owner"),
            ad.get("AccountingGroup"),
        ):
            return (f"its user may use {ceiling:g} CPUs at a time (condor_userprio -setceil) and "
                    f"uses {used:g}",)  # fmt: skip
    if reason == "submitter limit exceeded":
        return ("its user has as much of the pool as priorities and quotas give now "
                "(`condor_userprio`); it starts when jobs are done",)  # fmt: skip
    for schedd in ads:
        most = number(schedd.get("MaxJobsRunning"))
        running = number(schedd.get("TotalRunningJobs")) or 0
        if schedd.get("MyType") == "Scheduler" and most is not None and running >= most:
            return (f"its access point runs {running:g} jobs, and may run {most:g} at a time "
                    "(MAX_JOBS_RUNNING)",)  # fmt: skip
    return ()


def _negotiator(facts: Facts) -> Ad | None:
    return next((ad for ad in facts.daemons or () if ad.get("MyType") == "Negotiator"), None)


def _negotiator_gone(facts: Facts, now: float) -> str:
    if facts.daemons is None:
        return ""
    negotiator = _negotiator(facts)
    if negotiator is None:
        return ("nothing is matched, because the collector knows no negotiator; "
                "see `roost doctor` and the master's log")  # fmt: skip
    silent = now - float(negotiator.get("LastHeardFrom") or now)
    if silent < _NEGOTIATOR_GONE:
        return ""
    return (f"nothing is matched, because the negotiator has not been heard of for "
            f"{duration(silent)}; see `roost doctor` and the master's log")  # fmt: skip


def _last_cycle(facts: Facts, now: float) -> str:
    ended = number((_negotiator(facts) or {}).get("LastNegotiationCycleEnd0"))
    return f" (its last cycle that is known ended {duration(now - ended)} ago)" if ended else ""


def _size(slot: Ad, resource: _Resource, *, free: bool) -> float:
    value: Any = slot.get(resource.free if free else resource.total)
    return number(value if value is not None else slot.get(resource.free)) or 0


def _fits(ad: Ad, slot: Ad, *, free: bool) -> bool:
    if free and not slot.get("PartitionableSlot") and slot.get("State") == "Claimed":
        return False
    # a default such as RequestDisk = DiskUsage is an expression; HTCondor's defaults are small
    requests = [(number(ad.get(resource.request)) or 0, resource) for resource in _RESOURCES]
    least = 1 if free and slot.get("PartitionableSlot") else 0
    return _size(slot, _RESOURCES[0], free=free) >= least and all(
        amount <= _size(slot, resource, free=free) for amount, resource in requests
    )


def _too_large(ad: Ad, machines: Sequence[Ad]) -> tuple[str, ...]:
    reasons = []
    for resource in _RESOURCES:
        wanted = number(ad.get(resource.request)) or 0
        largest = max(_size(slot, resource, free=False) for slot in machines)
        if wanted > largest:
            reasons.append(
                f"it asks for {resource.show(wanted)}, "
                f"but the largest executor has {resource.show(largest)}"
            )
    if not reasons and not any(_fits(ad, slot, free=False) for slot in machines):
        asked = ", ".join(
            resource.show(amount)
            for resource in _RESOURCES
            if (amount := number(ad.get(resource.request)))
        )
        reasons.append(f"no single executor has all that it asks for: {asked}")
    return tuple(reasons)


def _refuses(slot: Ad) -> str:
    """Why this slot's node takes no new jobs, in words; empty if it does."""
    node = str(slot.get("Machine", "?")).partition(".")[0]
    if reason := sickness(slot):
        return f"{node} is sick: {reason}"
    if slot.get("RoostPaused"):
        return (f"{node} pauses for some seconds, because its last jobs failed in a row, "
                "and finds out whether it is the cause")  # fmt: skip
    if slot.get(DRAINING) or slot.get("Draining") or slot.get("State") == "Drained":
        return f"{node} is being drained"
    if slot.get("State") == "Owner" or slot.get("Start") is False:
        return f"{node} takes no jobs by its own configuration (START)"
    return ""


def _by_size(condition: str) -> bool:
    """Whether a clause is about an amount that `_too_large` and `_fits` judge already."""
    return re.search(r"\bRequest(Cpus|Memory|Disk|GPUs)\b", condition, re.IGNORECASE) is not None


def conditions(analysis: str) -> tuple[tuple[int, str], ...]:
    """The table in `condor_q -better-analyze`: how many slots meet each clause, in its order.

    A clause may join others by their place in HTCondor's own list, as in `[0] && [9]`; here by the
    place in this one. It has a second column of numbers while some slots are drained.
    """
    found = list(re.finditer(r"^\[(\d+)\] +(\d+)(?: +\d+)?  +(\S.*)$", analysis, re.MULTILINE))
    place = {match[1]: number for number, match in enumerate(found)}
    return tuple(
        (
            int(match[2]),
            re.sub(r"\[(\d+)\]", lambda step: f"[{place.get(step[1], step[1])}]", match[3].strip()),
        )
        for match in found
    )


def refusing(analysis: str) -> int:
    """How many slots refuse the job by their own START, as `condor_q -better-analyze` says."""
    match = re.search(r"^ *(\d+) reject your job because of their own", analysis, re.MULTILINE)
    return int(match[1]) if match else 0


def ahead(answer: str, owner: str) -> tuple[int, int]:
    """Lines of `count owner before`: the idle jobs of `owner` that are before, and of others."""
    mine = others = 0
    for count, whose, before in re.findall(r"^ *(\d+) (\S+) (\w+)$", answer, re.MULTILINE):
        if whose != owner:
            others += int(count)
        elif before == "true":
            mine += int(count)
    return mine, others


#: What `explain` reads of a slot.
SLOT: Final = (
    "Name", "Machine", "State", "Start", "PartitionableSlot", "DynamicSlot", "Draining",
    DRAINING, "RoostSick", "RoostSickReason", "RoostPaused", "HasDataMounts", "DataMountNames",
    "DataMountsProblem",
    *(name for resource in _RESOURCES for name in (resource.total, resource.free)),
)  # fmt: skip
#: What it reads of the negotiator, of the schedd and of who uses how much.
DAEMON: Final = (
    "MyType", "Name", "LastHeardFrom", "LastNegotiationCycleEnd0", "MaxJobsRunning",
    "TotalRunningJobs", "EffectiveQuota", "WeightedResourcesUsed", "Ceiling",
)  # fmt: skip
#: What `explain` and `alike` read of a job.
WHY: Final = (
    *PROJECTION, "HoldReasonSubCode", "VacateReason", "NumShadowStarts", "LastMatchTime",
    "LastRejMatchTime", "LastRejMatchReason", "DeferralTime", "DeferralPrepTime", "AcctGroup",
    "AccountingGroup", "JobPrio", "Requirements", "ConcurrencyLimits",
    "RoostMounts", *(resource.request for resource in _RESOURCES),
)  # fmt: skip


def alike(ads: Sequence[Ad]) -> list[list[Ad]]:
    """The jobs of a cluster in groups that are where they are for the same reasons, as it seems."""
    groups: dict[tuple[Any, ...], list[Ad]] = {}
    for ad in ads:
        job = Job.from_ad(ad)
        key: tuple[Any, ...] = (job.state,)
        match job.state:
            case "held":
                key += (ad.get("HoldReasonCode"), ad.get("HoldReasonSubCode"))
            case "completed":
                key += (job.exit_code, job.signal)
            case "idle":
                key += (
                    *(str(ad.get(resource.request)) for resource in _RESOURCES),
                    *(str(ad.get(name)) for name in ("Requirements", "DeferralTime", "AcctGroup",
                                                     "ConcurrencyLimits", "RoostMounts",
                                                     "LastRejMatchReason")),
                    bool(ad.get("NumShadowStarts")),
                )  # fmt: skip
            case _:
                pass
        groups.setdefault(key, []).append(ad)
    return list(groups.values())


def together(ads: Sequence[Ad], reasons: tuple[str, ...]) -> tuple[str, ...]:
    """What is true of several jobs alike; `reasons` are the first one's."""
    jobs = [Job.from_ad(ad) for ad in ads]
    if len(jobs) == 1:
        return reasons
    if jobs[0].state in ("running", "completed"):
        hosts = Counter(job.host.rpartition("@")[2] for job in jobs)
        where = ", ".join(f"{count} on {host}" for host, count in hosts.most_common(_CLAUSES))
        if jobs[0].state == "running":
            return (f"they run: {where}",)
        how = reasons[0].partition(" on ")[0].removeprefix("it ")
        return (f"they {how}: {where}",)
    return reasons
