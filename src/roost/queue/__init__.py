"""Jobs: submit, wait, fetch, list, remove, and why one does not run.

Everything is asked of HTCondor's own tools inside the access point, so that no network path from
this machine into the pool is needed, and any engine serves.
"""

from __future__ import annotations

from roost.queue.explain import Explanation, Facts, explain
from roost.queue.jobs import Batch, Job, JobId, JobResult
from roost.queue.queue import Queue
from roost.queue.submit import Submitted

__all__ = [
    "Batch",
    "Explanation",
    "Facts",
    "Job",
    "JobId",
    "JobResult",
    "Queue",
    "Submitted",
    "explain",
]
