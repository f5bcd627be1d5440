"""What a pool is doing, and what is wrong with it."""

from __future__ import annotations

from roost.observe.doctor import Diagnosis, Finding, NodeProbe, collect, examine
from roost.observe.network import NetworkReport, Pair
from roost.observe.reach import examine_network
from roost.observe.snapshot import JobTotals, NodeView, SlotView, Snapshot, snapshot

__all__ = [
    "Diagnosis",
    "Finding",
    "JobTotals",
    "NetworkReport",
    "NodeProbe",
    "NodeView",
    "Pair",
    "SlotView",
    "Snapshot",
    "collect",
    "examine",
    "examine_network",
    "snapshot",
]
