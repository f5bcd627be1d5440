"""The queue of one access point."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from glob import glob
from pathlib import Path
from typing import Final, TypeVar

from roost._run import Completed
from roost.ads import Ad, ask, read, sentence
from roost.engines.base import Engine
from roost.errors import BadInput, EngineError, JobError, PoolNotReady, RoostError
from roost.plan import Ref
from roost.queue import scripts
from roost.queue.explain import (
    DAEMON,
    SLOT,
    WHY,
    Explanation,
    Facts,
    ahead,
    alike,
    conditions,
    explain,
    hold_advice,
    refusing,
    together,
)
from roost.queue.jobs import (
    DIRECTORY,
    FINAL,
    HOST_DIRECTORY,
    IN_SHORT,
    PROJECTION,
    Batch,
    Job,
    JobId,
    JobResult,
    batches,
    in_order,
    quoted,
    shell,
)
from roost.queue.submit import (
    KILLED,
    UNANSWERED,
    Mirror,
    Submitted,
    cargo,
    missing_for_parsing,
    needs,
    pack,
    parsed_with,
    read_ads,
    unpack,
)
from roost.spec import USER_PATTERN
from roost_node.vocab import HOME_DIR, SPOOL_FULL

A = TypeVar("A")

_MOST: Final = 10_000
"""Jobs of one cluster that are looked for among those that ended."""
_DAEMONS: Final = 'MyType == "Negotiator" || MyType == "Accounting" || MyType == "Scheduler"'
OUTAGE: Final = 300.0
"""Seconds for which `wait` waits for an access point that has stopped."""
_HISTORY_LAG: Final = 10.0
"""Seconds within which a job that left the queue is in the history."""


@dataclass(frozen=True)
class Queue:
    """The queue of one access point, seen through an engine."""

    engine: Engine
    pool: str
    access_point: Ref
    users: Sequence[str]
    """Users known to the access point; the first is the default."""

    def submit(self, path: Path, *, user: str | None = None) -> Submitted:
        """Submit the jobs that a submit file describes; the files that it names go along.

        The submit file itself is not changed. Relative names are relative to its directory, as
        for condor_submit. An absolute name means the access point's own file, such as /bin/sleep.
        Raises BadInput for a submit file that HTCondor refuses or that names a missing file, and
        JobError when the schedd does not take it; in both cases nothing is left behind, unless the
        schedd does not answer: it may have the jobs then, and their files stay.
        """
        user = self._user(user)
        submit_file = self._submit_file(path)
        files, matches = _read_by_language(submit_file)
        archive = pack([submit_file, *files], names_only=matches)
        made = self._exec(user, scripts.MAKE, stdin=archive)
        if made.status != 0:
            raise self._refused(user, made)
        mirror = Mirror(submit_file, made.text.strip())
        try:
            return self._submit(mirror, user)
        except BaseException as error:
            # not refused, but interrupted: the schedd may have taken the jobs already
            script = scripts.DISCARD if isinstance(error, BadInput) else scripts.ABANDON
            with suppress(RoostError):
                self._exec(user, script, mirror.root)
            raise

    def _submit(self, mirror: Mirror, user: str) -> Submitted:
        ads = read_ads(self._parse(mirror, user))
        load = cargo(needs(ads), mirror)
        mine = f"+{DIRECTORY} = {quoted(mirror.root)}"
        here = f"+{HOST_DIRECTORY} = {quoted(str(mirror.submit_file.parent))}"
        done = self._exec(
            user, scripts.SUBMIT, mirror.root, mirror.directory, mirror.submit_file.name,
            mine, here,
            *(named.path for named in load.elsewhere),
            stdin=pack(load.paths, directories=load.directories),
        )  # fmt: skip
        if done.text.startswith("absent:"):
            absent = done.text.splitlines()[0].removeprefix("absent:")
            named = next(named for named in load.elsewhere if named.path == absent)
            raise BadInput(
                f"{mirror.place(named.attribute, named.name)}: {absent} is not on the access point",
                advice="an absolute name is taken there; name your own file relative to "
                f"{mirror.submit_file.name}",
            )
        ids = re.match(r"(\d+)\.\d+ - \d+\.(\d+)$", done.text.strip())
        if done.status != 0 or ids is None:
            raise self._ended(mirror) if done.status > KILLED else self._not_taken(mirror, done)
        return Submitted(
            int(ids[1]), int(ids[2]) + 1, mirror.root, _warnings(done.stderr), load.stays
        )

    def _ended(self, mirror: Mirror) -> JobError:
        return JobError(
            f"{self.access_point.name} ended while it took {mirror.submit_file.name}, so it is not "
            "known whether it has the jobs",
            advice="`roost q` shows them once it is back",
        )

    def _not_taken(self, mirror: Mirror, done: Completed) -> RoostError:
        """Why condor_submit did not submit: the file's fault, or the access point's."""
        said = mirror.complaint(done.stderr or done.text)
        if full := self._full(done):
            return full
        if SPOOL_FULL in " ".join(done.stderr.split()):
            return JobError(SPOOL_FULL, advice="see `roost doctor`")
        if not UNANSWERED.search(said) and not said.endswith(": "):
            return BadInput(said)
        said = f"{said}it did not say why" if said.endswith(": ") else said
        # the node knows better than condor_submit why its schedd does not answer
        with suppress(EngineError):
            health = self.engine.exec(self.access_point, ["roost-node", "health"], timeout=20)
            if health.status == 1:
                said = sentence(health.text + health.stderr)
        return JobError(
            f"{self.access_point.name} did not take the jobs: {said}",
            advice="see `roost doctor`",
        )

    def _full(self, done: Completed) -> JobError | None:
        """What to say if the users' homes have no room."""
        if not re.search(r"no space left on device|disk quota exceeded", done.stderr, re.I):
            return None
        return JobError(
            f"there is no space left for jobs' files in {HOME_DIR} on {self.access_point.name}",
            advice="`roost wait ID` fetches and removes those of jobs that have ended; or free "
            "some where the engine keeps its data",
        )

    def _parse(self, mirror: Mirror, user: str) -> str:
        """The job ads that HTCondor makes of the submit file, as condor_submit -dump writes them.

        Each file that it wants to read meanwhile is sent once.
        """
        sent: set[Path] = set()
        while True:
            done = self._exec(
                user, scripts.PARSE, mirror.root, mirror.directory, mirror.submit_file.name
            )
            if done.status == 0:
                return done.text
            if done.status > KILLED:
                raise self._ended(mirror)
            name = missing_for_parsing(done.stderr)
            if full := self._full(done):
                raise full
            wanted = (mirror.submit_file.parent / name) if name else None
            if wanted is None or wanted in sent or not wanted.is_file():
                raise BadInput(mirror.complaint(done.stderr or done.text))
            sent.add(wanted)
            added = self._exec(user, scripts.ADD, mirror.root, stdin=pack([wanted]))
            if full := self._full(added):
                raise full
            added.check()

    def jobs(self, *, user: str | None = None, most: int | None = None) -> tuple[Job, ...]:
        """The jobs in the queue, of one user or of all, by their ids; no more than `most`."""
        limit = [] if most is None else ["-limit", str(most)]
        return tuple(Job.from_ad(ad) for ad in in_order(self._queue(*_whose(user), *limit)))

    def batches(self, *, user: str | None = None) -> tuple[Batch, ...]:
        """The queue in short, however long it is: what was submitted together, by its cluster."""
        return batches(self._queue(*_whose(user), attributes=IN_SHORT))

    def history(self, *, user: str | None = None, limit: int = 100) -> tuple[Job, ...]:
        """The last jobs that left the queue, by their ids."""
        if user is not None:
            _check_name(user)
        whose = [] if user is None else ["-constraint", f'Owner == "{user}"']
        return tuple(Job.from_ad(ad) for ad in in_order(self._history(*whose, limit=limit)))

    def wait(
        self,
        cluster: int | str,
        *,
        timeout: float | None = None,
        progress: Callable[[tuple[Job, ...]], None] | None = None,
        held_ok: bool = False,
        interrupted: Callable[[str], None] | None = None,
    ) -> tuple[JobResult, ...]:
        """Wait until every job of a cluster is done, and say how each ended.

        `timeout` is in seconds. `progress` is called with the jobs still in the queue, whenever
        one of them changed. Raises JobError when the cluster does not exist, at the deadline, and
        when a job is held, unless `held_ok`: then it waits on until somebody releases the job.
        An access point that does not answer is waited for, for OUTAGE seconds; `interrupted` is
        told why it does not answer.
        """
        number = JobId.parse(str(cluster)).cluster
        deadline = None if timeout is None else time.monotonic() + timeout

        def surely(question: Callable[[], A]) -> A:
            return self._surely(question, number, deadline, interrupted)

        ads = surely(partial(self._queue, str(number)))
        seen: tuple[Job, ...] | None = None
        pause = 0.1
        while True:
            jobs = tuple(Job.from_ad(ad) for ad in in_order(ads))
            changed = [(job.id, job.state, job.host) for job in jobs]
            if progress and changed != [(job.id, job.state, job.host) for job in seen or ()]:
                progress(jobs)
            seen = jobs
            held = [ad for ad, job in zip(in_order(ads), jobs, strict=True) if job.state == "held"]
            if held and not held_ok:
                raise _held(held[0])
            if all(job.state in FINAL for job in jobs):
                return surely(partial(self._results, number, ads))
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                states = ", ".join(sorted({job.state for job in jobs}))
                raise JobError(
                    f"job {number} is not done after {timeout:g} s, but {states}",
                    advice=f"see `roost why {jobs[0].id}`",
                )
            began = time.monotonic()
            slice_ = 1.0 if progress else 5.0
            ads = surely(partial(self._wait_a_little, number, ads, min(slice_, left or slice_)))
            # Without a log of their own, or between the log's last event and the end of the job in
            # the queue, the access point has no event to wait for.
            if time.monotonic() - began < pause:
                time.sleep(pause)
                pause = min(2 * pause, 2.0)

    def _surely(
        self,
        question: Callable[[], A],
        cluster: int,
        deadline: float | None,
        interrupted: Callable[[str], None] | None,
    ) -> A:
        """The answer to a question about the queue, also if the access point must come back first.

        The queue and the jobs' files are on volumes: they come back with it.
        """
        until = min(time.monotonic() + OUTAGE, math.inf if deadline is None else deadline)
        said = ""
        while True:
            try:
                return question()
            except (PoolNotReady, EngineError) as error:
                if time.monotonic() > until:
                    raise PoolNotReady(
                        f"{self.access_point.name} does not answer any more: {error.message}",
                        advice=f"its jobs stay in the queue: `roost up` starts what does not run, "
                        f"then `roost wait {cluster}` waits on",
                    ) from error
                if interrupted and error.message != said:
                    said = error.message
                    interrupted(said)
            time.sleep(1)

    def _wait_a_little(self, cluster: int, ads: Sequence[Ad], seconds: float) -> tuple[Ad, ...]:
        logs = {str(ad.get("UserLog", "")) for ad in ads}
        log = logs.pop() if len(logs) == 1 else ""
        words = (str(cluster), log, max(1, round(seconds)), ",".join(PROJECTION))
        owner = str(ads[0]["Owner"])  # others may not read the log
        done = self._exec(owner if owner in self.users else self.users[0], scripts.WAIT, *words)
        if done.status != 0:
            raise PoolNotReady(
                f"{self.access_point.name} does not answer: {sentence(done.stderr)}",
                advice="see `roost doctor`",
            )
        return read(done.text)

    def _results(self, cluster: int, queued: Sequence[Ad]) -> tuple[JobResult, ...]:
        deadline = time.monotonic() + _HISTORY_LAG
        while True:
            ads = in_order([*self._history(str(cluster)), *queued])
            if not ads:
                raise JobError(f"there is no job {cluster}", advice="see `roost q --all`")
            expected = int(ads[0].get("TotalSubmitProcs") or 1)
            if len(ads) >= expected or time.monotonic() > deadline:
                return tuple(JobResult.from_job(Job.from_ad(ad)) for ad in ads)
            time.sleep(0.2)  # the schedd writes its history without telling anybody

    def fetch(self, cluster: int | str, *, into: Path | None = None) -> tuple[Path, ...]:
        """Bring what a cluster's jobs wrote back beside the submit file, or to `into`.

        These are all files below the submit file's directory that appeared or changed since the
        submission: log, output, error and transferred output. Files of the same names are
        replaced. When no job of the cluster is left in the queue, the directory on the access
        point is removed. Raises JobError if there is nothing to fetch from.
        """
        number = JobId.parse(str(cluster)).cluster
        queued = self._queue(str(number))
        ads = in_order(queued) or in_order(self._history(str(number), limit=1))
        if not ads:
            raise JobError(f"there is no job {number}", advice="see `roost q --all`")
        root, here = str(ads[0].get(DIRECTORY, "")), str(ads[0].get(HOST_DIRECTORY, ""))
        owner = str(ads[0].get("Owner", ""))
        if not root or not here:
            raise JobError(
                f"job {number} was not submitted by roost, so its files are not known here",
                advice=f"they are in its own directory on {self.access_point.name}",
            )
        into = Path(here) if into is None else into
        if not into.is_dir():
            raise JobError(f"there is no directory {into} to bring the outputs to")
        done = self._exec(owner, scripts.OUTPUTS, root, f"{root}{here}")
        if done.status != 0:
            raise JobError(
                f"the directory of job {number} is not on {self.access_point.name} any more",
                advice="its outputs were fetched before",
            )
        written = unpack(done.stdout, into)
        if all(Job.from_ad(ad).state in FINAL for ad in queued):
            self._exec(owner, scripts.DISCARD, root)
        return written

    def remove(self, ids: Sequence[str], *, user: str | None = None) -> tuple[str, ...]:
        """Remove jobs or whole clusters; returns the ids of the jobs.

        `user` asks as that user; without it, each job's owner does. Raises BadInput for something
        that is no job id, and JobError for one that is not in the queue; then none is removed.
        """
        if not ids:
            raise BadInput("no job id was given")
        wanted = [JobId.parse(text) for text in ids]
        ads = in_order(self._queue(*(str(job) for job in wanted)))
        found = {JobId(ad["ClusterId"], ad["ProcId"]): str(ad["Owner"]) for ad in ads}
        for job in wanted:
            if not any(job in (there, JobId(there.cluster)) for there in found):
                raise JobError(f"there is no job {job} in the queue", advice="see `roost q`")
        for owner in sorted({user or owner for owner in found.values()}):
            theirs = [str(job) for job, whose in found.items() if (user or whose) == owner]
            done = self._exec(_check_name(owner), 'exec condor_rm "$@"', *theirs)
            if done.status != 0:
                raise JobError(f"condor_rm refused {owner}: {sentence(done.stderr or done.text)}")
        return tuple(str(job) for job in found)

    def why(self, job_id: str) -> Explanation:
        """Why a job is in its state; of a cluster, its jobs grouped by their reasons.

        Raises BadInput or JobError if there is no such job.
        """
        job = JobId.parse(job_id)
        ads = self._queue(str(job), attributes=WHY)
        missing = max((int(ad.get("TotalSubmitProcs") or 1) for ad in ads), default=_MOST) - len(
            ads
        )
        if not ads or (job.proc is None and missing > 0):
            ads += self._history(str(job), limit=min(missing, _MOST), attributes=WHY)
        if not ads:
            raise JobError(
                f"there is no job {job}, neither in the queue nor among those that ended",
                advice="see `roost q --all`",
            )
        found = [self._explained(group) for group in alike(in_order(ads))]
        return replace(found[0], rest=tuple(found[1:]))

    def _explained(self, ads: Sequence[Ad]) -> Explanation:
        """Why these jobs, which are alike, are in their state: the first stands for all."""
        jobs = [Job.from_ad(ad) for ad in ads]
        facts = self._facts(ads[0]) if jobs[0].state == "idle" else Facts(None)
        reasons = together(ads, explain(ads[0], facts))
        return Explanation(jobs[0].id, jobs[0].state, reasons, tuple(job.id for job in jobs))

    def _facts(self, ad: Ad) -> Facts:
        user = self.users[0]
        try:
            slots = self._status("-attributes", ",".join(SLOT))
            daemons = self._status("-any", "-constraint", _DAEMONS, "-attributes", ",".join(DAEMON))
        except PoolNotReady as error:
            return Facts(None, unreachable=error.message)
        here = self.access_point.name
        daemons = tuple(
            each for each in daemons
            if each.get("MyType") != "Scheduler"
            or str(each.get("Name", "")).partition(".")[0] == here.partition(".")[0]
        )  # fmt: skip
        id = f"{ad['ClusterId']}.{ad['ProcId']}"
        analysis = self.engine.exec(
            self.access_point, ["condor_q", "-better-analyze", id], user=user, timeout=60
        ).text
        queue = self._exec(user, scripts.AHEAD, ad.get("JobPrio") or 0, *id.split("."))
        return Facts(
            slots,
            conditions=conditions(analysis),
            refusing=refusing(analysis),
            daemons=daemons,
            ahead=ahead(queue.text, str(ad.get("Owner", ""))) if queue.status == 0 else (0, 0),
        )

    def _status(self, *words: str) -> tuple[Ad, ...]:
        argv = ["condor_status", "-json", *words]
        return ask(self.engine, self.access_point, argv, user=self.users[0])

    def _queue(self, *which: str, attributes: Sequence[str] = PROJECTION) -> tuple[Ad, ...]:
        argv = ["condor_q", "-json", "-attributes", ",".join(attributes), *which]
        return ask(self.engine, self.access_point, argv, user=self.users[0])

    def _history(
        self, *which: str, limit: int | None = None, attributes: Sequence[str] = PROJECTION
    ) -> tuple[Ad, ...]:
        argv = ["condor_history", "-json", "-attributes", ",".join(attributes), *which]
        argv += [] if limit is None else ["-limit", str(limit)]
        return ask(self.engine, self.access_point, argv, user=self.users[0])

    def _exec(self, user: str, script: str, *words: object, stdin: bytes = b"") -> Completed:
        return self.engine.exec(self.access_point, shell(script, *words), user=user, stdin=stdin)

    def _user(self, user: str | None) -> str:
        return self.users[0] if user is None else _check_name(user)

    def _refused(self, user: str, done: Completed) -> RoostError:
        said = sentence(done.stderr or done.text)
        if (
            "unable to find user" in said
            or "no users found" in said
            or "no matching entries" in said
        ):
            return BadInput(
                f"there is no user {user!r} on {self.access_point.name}",
                advice=f"known from the pool file: {', '.join(self.users)}",
            )
        if full := self._full(done):
            return full
        return JobError(f"cannot make a directory on {self.access_point.name}: {said}")

    @staticmethod
    def _submit_file(path: Path) -> Path:
        if not path.exists():
            raise BadInput(f"the submit file {path} does not exist")
        if not path.is_file():
            raise BadInput(f"{path} is not a file; name a submit file")
        # the directory as the user sees it, links and all, is where its relative names lead from
        return Path(path.parent.absolute().resolve(), path.name)


def _read_by_language(submit_file: Path) -> tuple[list[Path], list[Path]]:
    """Files that are read while parsing, and those that `queue … matching` must see by name."""
    try:
        files, patterns = parsed_with(submit_file.read_text())
    except UnicodeDecodeError as error:
        raise BadInput(f"{submit_file} is not text: {error.reason}") from error
    except OSError as error:
        raise BadInput(f"cannot read {submit_file}: {error.strerror}") from error
    folder = submit_file.parent
    # not Path.glob, which raises for patterns that HTCondor takes
    matches = [
        folder / name
        for pattern in patterns
        if not pattern.startswith("/")
        for name in sorted(glob(pattern, root_dir=folder))  # noqa: PTH207
    ]
    named = [folder / name for name in files if not name.startswith("/")]
    return [path for path in named if path.is_file()], matches


def _warnings(stderr: str) -> tuple[str, ...]:
    blocks = re.split(r"\n\s*\n|\n(?=WARNING)", stderr)
    return tuple(
        " ".join(block.split()).removeprefix("WARNING: ").removeprefix("Warning: ")
        for block in blocks
        if block.strip().upper().startswith("WARNING")
    )


def _held(ad: Ad) -> JobError:
    job = Job.from_ad(ad)
    said = f"job {job.id} is held: {job.hold_reason or 'no reason given'}"
    return JobError(said, advice=hold_advice(ad))


def _whose(user: str | None) -> list[str]:
    """One user's or all: without -allusers a constraint is one on the asking user's own jobs."""
    return ["-allusers"] + (
        [] if user is None else ["-constraint", f'Owner == "{_check_name(user)}"']
    )


def _check_name(user: str) -> str:
    if not re.fullmatch(USER_PATTERN, user):
        raise BadInput(f"{user!r} is not a user's name")
    return user
