"""Every error that roost raises, drawn as one tree.

::

    RoostError                  something failed; the message says what, where and what to do
    ├── BadInput                the user's input is wrong (exit status 2)
    │   ├── PoolFileError       pool.yaml: all problems at once
    │   └── PoolNotFound        no pool of that name on this engine
    ├── CommandFailed           a command ended with a non-zero status
    ├── EngineError             the container engine refused or failed
    │   ├── EngineUnavailable   not installed, not running or not permitted
    │   ├── ImageMissing        the image is neither here nor can it be pulled
    │   ├── NameTaken           a container, network or volume of that name is not this pool's
    │   ├── PortTaken           a host port is in use
    │   └── DiskFull            no space left where the engine keeps its data
    ├── ImageBuildFailed        a build step failed
    ├── PoolNotReady            the pool did not become ready in time, or a node gave up
    └── JobError                a job could not be submitted, found, removed or finished
"""

from __future__ import annotations

from collections.abc import Sequence


class RoostError(Exception):
    """The root of the tree.

    `message` is one sentence that says what is wrong and where; `advice`, when there is any, says
    what to do. `str()` gives both.
    """

    exit_status = 1

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}; {self.advice}" if self.advice else self.message


class BadInput(RoostError):
    """The user's input is wrong: nothing was done."""

    exit_status = 2


class PoolFileError(BadInput):
    """A pool file with one or more problems; each has its place and advice."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(f"{source}: " + "; ".join(self.problems))


class PoolNotFound(BadInput):
    """No pool of that name exists on this engine."""


class CommandFailed(RoostError):
    """A command ended with a status that is not zero."""

    def __init__(self, argv: Sequence[str], status: int, stderr: str) -> None:
        self.argv = tuple(argv)
        self.status = status
        self.stderr = stderr
        last = stderr.strip().splitlines()[-1] if stderr.strip() else "it said nothing"
        super().__init__(f"{argv[0]} ended with status {status}: {last}")


class EngineError(RoostError):
    """The container engine refused or failed."""


class EngineUnavailable(EngineError):
    """The engine is not installed, not running or not permitted."""


class ImageMissing(EngineError):
    """The image is neither here nor can it be pulled."""


class NameTaken(EngineError):
    """A container, network or volume of that name exists and is not this pool's."""


class PortTaken(EngineError):
    """A host port that the pool asked for is in use."""


class DiskFull(EngineError):
    """No space is left where the engine keeps its data."""


class ImageBuildFailed(RoostError):
    """A step of an image build failed."""


class PoolNotReady(RoostError):
    """The pool did not become ready in time, or one of its nodes gave up."""


class JobError(RoostError):
    """A job could not be submitted, found, removed or finished."""
