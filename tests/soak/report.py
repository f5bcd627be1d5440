"""A verdict, for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from soak.oracle import Judged, Outage, Struck, Verdict
from soak.schedule import Schedule


def figures(verdict: Verdict) -> dict[str, int]:
    """The counts, in the order in which they are told."""
    return {
        "submitted": len(verdict.jobs),
        "completed": verdict.completed,
        "run more than once": verdict.run_again,
        "lost": verdict.lost,
        "otherwise wrong": len(verdict.bad) - sum(each.lost for each in verdict.bad),
        "submissions refused": verdict.refused,
        "there though refused": verdict.unasked,
        "twice in the history": verdict.told_twice,
    }


def table(verdict: Verdict) -> list[str]:
    """One line for each kind of fault: what it cost at worst."""
    rows = [("fault", "times", "longest outage", "healthy again", "run again", "after",
             "refused")]  # fmt: skip
    for name, outages in _by_fault(verdict.outages).items():
        ready = [each.struck.ready for each in outages if each.struck.ready is not None]
        reruns = [seconds for each in outages for seconds in each.reruns]
        rows.append((
            name,
            str(len(outages)),
            f"{max(each.seconds for each in outages):.0f} s",
            f"{median(ready):.0f} s, {max(ready):.0f} s" if ready else "-",
            str(len(reruns)),
            f"{max(reruns):.0f} s" if reruns else "-",
            str(sum(each.refused for each in outages)),
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _by_fault(outages: Sequence[Outage]) -> dict[str, list[Outage]]:
    found: dict[str, list[Outage]] = {}
    for each in sorted(outages, key=_label):
        found.setdefault(_label(each), []).append(each)
    return found


def _label(outage: Outage) -> str:
    strike = outage.struck.strike
    role = strike.node.split("-")[0]
    return f"{strike.kind} {role}/{strike.daemon}" if strike.daemon else f"{strike.kind} {role}"


def complaint(judged: Judged) -> str:
    """What is wrong with one job, in a line."""
    ran = ", ".join(host for _, host in judged.starts) or "nowhere"
    return (
        f"{judged.job.id} ({judged.id}, {judged.job.user}): {'; '.join(judged.problems)};"
        f" ran on {ran}"
    )


def as_json(plan: Schedule, verdict: Verdict, struck: Sequence[Struck]) -> dict[str, Any]:
    """All of it."""
    return {
        "seed": plan.seed,
        "seconds": plan.seconds,
        **{name.replace(" ", "_"): count for name, count in figures(verdict).items()},
        "bad": [
            {"job": each.job.id, "id": each.id, "problems": each.problems, "lost": each.lost}
            for each in verdict.bad
        ],
        "faults": [
            {
                "number": each.struck.strike.number,
                "kind": each.struck.strike.kind,
                "victim": each.struck.strike.victim,
                "seconds": each.struck.strike.seconds,
                "outage": each.seconds,
                "healthy_after": each.struck.ready,
                "run_again_after": each.reruns,
                "refused": each.refused,
            }
            for each in verdict.outages
        ],
        "missed": [
            {"number": each.strike.number, "fault": str(each.strike), "why": each.missed}
            for each in struck
            if each.missed
        ],
    }
