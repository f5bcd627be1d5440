"""A real HTCondor pool in containers, run for you.

::

    from roost import Pool

    with Pool.up(executors=4) as pool:            # down() on exit
        job = pool.submit("sleep.sub")
        job.wait()
        print(job.exit_code)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from roost.engines.fake import FakeEngine
    from roost.errors import (
        BadInput,
        CommandFailed,
        DiskFull,
        EngineError,
        EngineUnavailable,
        ImageBuildFailed,
        ImageMissing,
        JobError,
        NameTaken,
        PoolFileError,
        PoolNotFound,
        PoolNotReady,
        PortTaken,
        RoostError,
    )
    from roost.pool import Pool
    from roost.spec import Execute, HTCondor, Master, Network, PoolSpec, Submit
    from roost.work import JobExecutor, Workers

__all__ = [
    "BadInput",
    "CommandFailed",
    "DiskFull",
    "EngineError",
    "EngineUnavailable",
    "Execute",
    "FakeEngine",
    "HTCondor",
    "ImageBuildFailed",
    "ImageMissing",
    "JobError",
    "JobExecutor",
    "Master",
    "NameTaken",
    "Network",
    "Pool",
    "PoolFileError",
    "PoolNotFound",
    "PoolNotReady",
    "PoolSpec",
    "PortTaken",
    "RoostError",
    "Submit",
    "Workers",
]

_ELSEWHERE: Final = {
    "Pool": "pool",
    "FakeEngine": "engines.fake",
    "JobExecutor": "work",
    "Workers": "work",
} | dict.fromkeys(("Execute", "HTCondor", "Master", "Network", "PoolSpec", "Submit"), "spec")


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: the command starts quickly."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"roost.{_ELSEWHERE.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
