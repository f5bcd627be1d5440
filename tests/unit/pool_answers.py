"""What HTCondor's tools would say inside the nodes of a FakeEngine's pool."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from roost._run import Completed
from roost.engines.fake import FakeEngine


class Answers:
    """A pool in which every node is known, and every job ends well the moment it is submitted."""

    def __init__(self) -> None:
        self.engine = FakeEngine(self)
        self.jobs = 0
        self.busy: set[str] = set()
        """Executors that the collector knows to run a job."""
        self.running: set[str] = set()
        """Executors where a job runs that the schedd alone knows of yet."""
        self.ages: dict[str, int] = {}
        """How long, in seconds, an executor's job has run; else 5."""
        self.draining: set[str] = set()
        self.ends_after: int | None = None
        """A job on an executor that drains ends after so many looks; never if None."""
        self.looks = 0
        self.old: set[str] = set()
        """Executors whose image knows no drain."""
        self.exit_code = 0
        self.asked: list[tuple[str, list[str]]] = []
        """Every tool that was run: where, and its words."""
        self.queued = 0
        """Jobs that the schedd has, however far they are."""
        self.silent = False
        """The schedd does not answer."""
        self.deaf: set[str] = set()
        """Nodes whose daemons the collector does not know."""

    def __call__(self, node: str, argv: Sequence[str]) -> Completed:
        self.asked.append((node, list(argv)))
        if argv[:2] == ["roost-node", "drain"] and node in self.old:
            return Completed(tuple(argv), 2, b"", "roost-node: 'drain' is unknown\n")
        text = self._text(node, list(argv))
        return Completed(tuple(argv), 0 if text is not None else 1, (text or "").encode(), "")

    def _text(self, node: str, argv: list[str]) -> str | None:
        match argv:
            case ["condor_status", "-any", *_]:
                return self._ads()
            case ["condor_status", "-const", *_]:
                rows = [f"{name}|7.0|{self.ages.get(name, 5)}|false\n" for name in self.busy]
                return "".join(rows + [f"{name}|undefined|0|true\n" for name in self.draining])
            case ["condor_q", "-allusers", "-const", *_]:
                return "".join(f"slot1_1@{name}|8.0|5|false\n" for name in sorted(self.running))
            case ["condor_q", "-allusers", "-af", "ClusterId"]:
                return None if self.silent else "1\n" * self.queued
            case ["roost-node", "drain", "--cancel"]:
                self.draining.discard(node)
                return ""
            case ["roost-node", "drain", "--json", *limit]:
                return self._drain(node, vacate=bool(limit))
            case ["condor_q", "-totals"] | ["condor_version"]:
                return ""
            case ["sh", "-c", script, *_] if "mktemp" in script:
                return "/home/user/roost/x"
            case ["sh", "-c", script, *_] if "-dump" in script:
                return 'ClusterId=1\nCmd="/bin/true"\nTransferExecutable=false\nIwd="/"\n'
            case ["sh", "-c", script, *_] if "exec condor_submit" in script:
                self.jobs += 1
                return f"{self.jobs}.0 - {self.jobs}.0"
            case ["sh", "-c", script, *_] if "condor_wait" in script:
                return "[]"
            case ["sh", "-c", script, *_] if "-cnewer" in script:
                return "\0" * 10240  # an archive of nothing
            case ["condor_history", *_]:
                return json.dumps([self._job(number) for number in range(1, self.jobs + 1)])
            case ["condor_q" | "condor_status", *_] if "-json" in argv:
                return "[]"
            case ["python3", "-c", *_]:
                return json.dumps({"clock": time.time(), "disks": {}, "cgroup": True})
            case ["false", *_]:
                return None
            case _:
                return ""

    def _drain(self, node: str, *, vacate: bool) -> str:
        self.draining.add(node)
        self.looks += 1
        jobs = [
            {"id": "7.0", "owner": "john", "seconds": self.ages.get(node, 5)}
            for _ in {node} & (self.busy | self.running)
        ]
        if vacate or (self.ends_after is not None and self.looks > self.ends_after):
            self.busy.discard(node)
            self.running.discard(node)
        return json.dumps({"drained": not jobs, "jobs": jobs})

    def _job(self, number: int) -> dict[str, Any]:
        return {
            "ClusterId": number, "ProcId": 0, "Owner": "user", "JobStatus": 4, "Cmd": "/bin/true",
            "ExitCode": self.exit_code, "ExitBySignal": False, "TotalSubmitProcs": 1,
            "RoostDirectory": "/home/user/roost/x", "RoostHostDirectory": "/tmp",
        }  # fmt: skip

    def _ads(self) -> str:
        lines = []
        for pool in self.engine.pools():
            for node in self.engine.observe(pool).nodes:
                ad = {
                    "master": f"Negotiator {node.name}\nDaemonMaster {node.name}",
                    "submit": f"Scheduler {node.name}",
                    "execute": f"Machine slot1@{node.name}",
                }[node.role]
                if node.name not in self.deaf and node.state == "running":
                    lines.append(ad)
        return "\n".join(lines)
