"""Python work: functions of a program run in the pool, as jobs or in workers that are jobs."""

from __future__ import annotations

from roost.work.access import Access
from roost.work.bundle import bundle
from roost.work.tasks import JobExecutor
from roost.work.workers import Workers

__all__ = ["Access", "JobExecutor", "Workers", "bundle"]
