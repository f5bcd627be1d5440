"""A pool that runs: the only place where the parts are wired together.

What exists is read from the engine's labels and from HTCondor. What was asked for last stands in
`pool.json`, beside the pool's keys: without those nothing can be added to a pool, so the two belong
in one place, and a label could not be changed without making its container anew.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from roost import client, engines, logs, ready, specfile
from roost._run import Completed
from roost.apply import apply
from roost.drain import Drainer
from roost.engines.base import Engine, Event
from roost.errors import (
    BadInput,
    ImageMissing,
    PoolNotFound,
    PoolNotReady,
    RoostError,
)
from roost.fit import IDLE, as_observed, made_anew, many, staying
from roost.members import Members
from roost.observe.doctor import Finding, collect, examine
from roost.observe.snapshot import Snapshot, snapshot
from roost.plan import (
    Keys,
    Observed,
    ObservedNode,
    Plan,
    Ref,
    Retire,
    Step,
    diff,
    everything,
    leaving,
    plan,
    with_jobs,
)
from roost.queue import JobResult, Queue, Submitted
from roost.rolling import census, headline, mended, moves, stages
from roost.security import PoolKeys, Secret
from roost.spec import NAME_PATTERN, PoolSpec, parse_duration
from roost.specfile import Overrides
from roost_node import files, pace
from roost_node.vocab import CONDOR_PORT, DEFAULT_POOL, Role, second_master


@dataclass(frozen=True)
class Stage:
    """A part of the work begins."""

    text: str


@dataclass(frozen=True)
class Detail:
    """Something that a part of the work says, for whoever watches closely."""

    text: str


Happened = Event | Stage | Detail
Progress = Callable[[Happened], None]


def quiet(_happened: Happened) -> None:
    """Progress that nobody watches."""


class _Keyless:
    """Stands in for the keys where a plan is only compared: credentials are no part of that."""

    def node_files(self, role: Role, node: str) -> Mapping[str, Secret]:  # noqa: ARG002
        return {}


@dataclass(frozen=True)
class _Sparing:
    """Issues credentials only for the nodes that are to be made: the others have theirs."""

    keys: Keys
    nodes: frozenset[str]

    def node_files(self, role: Role, node: str) -> Mapping[str, Secret]:
        return self.keys.node_files(role, node) if node in self.nodes else {}


@dataclass(frozen=True)
class Drained:
    """What `Pool.drain` did."""

    pool: str
    nodes: tuple[str, ...]
    """The executors that are gone."""
    vacated: tuple[str, ...]
    """The jobs that were sent back to the queue when the limit was over."""


class Submission:
    """What `Pool.submit` put into the queue: one job, or the several of a cluster."""

    def __init__(self, queue: Queue, submitted: Submitted) -> None:
        self._queue = queue
        self.submitted = submitted
        self.results: tuple[JobResult, ...] = ()
        """How each job ended; empty before `wait`."""

    @property
    def id(self) -> str:
        """The cluster."""
        return str(self.submitted.cluster)

    def wait(self, *, timeout: float | None = None) -> Submission:
        """Wait for every job to end and bring the outputs back beside the submit file.

        `timeout` is in seconds. Raises JobError at the deadline, and when a job is held.
        """
        self.results = self._queue.wait(self.id, timeout=timeout)
        self._queue.fetch(self.id)
        return self

    @property
    def exit_code(self) -> int | None:
        """0 if all jobs ended with 0, else the first other; None before `wait` or for a signal."""
        codes = [result.exit_code for result in self.results]
        return next((code for code in codes if code != 0), 0) if codes else None


class Pool:
    """A pool on an engine. Make one with `Pool.up` or `Pool.attach`.

    As a context manager it takes the pool down at the end.
    """

    def __init__(self, spec: PoolSpec, engine: Engine) -> None:
        self.spec = spec
        self.engine = engine

    @property
    def name(self) -> str:
        """The pool's name."""
        return self.spec.name

    def __repr__(self) -> str:
        return f"Pool({self.name!r} on {self.engine.name})"

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # --- making and taking down -------------------------------------------------------------

    @classmethod
    def up(
        cls,
        source: PoolSpec | str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        executors: int | None = None,
        cpus: float | None = None,
        memory: str | int | None = None,
        engine: str | Engine | None = None,
        release: str | None = None,
        network: str | None = None,
        limit: float | str | None = None,
        force: bool = False,
        progress: Progress = quiet,
    ) -> Pool:
        """Make the pool that `source` describes, or make what runs fit it; a no-op if it does.

        `source` is a PoolSpec or the path of a pool file; without it the pool is as it was asked
        for last, at first one executor. The arguments that follow win over it. Returns after a
        real job ran in what was made. On failure it removes what it made and raises RoostError;
        only what it made anew of a pool that is as it was asked for stays.
        Executors that must go are drained: their jobs finish, or run again elsewhere after `limit`
        (seconds, or text such as `30m`), or with `force` at once. Another release goes from node to
        node; a failure then leaves those that have it.
        """
        on = None if engine is None or isinstance(engine, str) else engine
        given = Overrides(
            name, executors, cpus, memory, engine if isinstance(engine, str) else None,
            release, network,
        )  # fmt: skip
        if isinstance(source, PoolSpec):
            if given != Overrides():
                raise BadInput("a PoolSpec is complete", advice="change it with model_copy(update)")
            spec = source
        else:
            chosen = name or os.environ.get("ROOST_POOL") or DEFAULT_POOL
            path = last(chosen) if source is None else Path(source)
            spec = specfile.load(path, environ=os.environ, overrides=given)
        pool = cls(spec, on or _engine(spec.engine))
        pool._fit(spec, progress, limit=_seconds(limit), force=force)
        return pool

    @classmethod
    def attach(cls, name: str = DEFAULT_POOL, *, engine: str | Engine | None = None) -> Pool:
        """The pool of that name that exists already. Raises PoolNotFound."""
        stored = _stored(checked(name))
        holder = _holder(name, engine)
        observed = holder.observe(name)
        if not observed:
            there = ", ".join(holder.pools()) or "none"
            raise PoolNotFound(
                f"there is no pool {name!r} on {holder.name}",
                advice=f"pools there: {there}; `roost up --name {name}` makes it",
            )
        return cls(as_observed(stored, observed) if stored else PoolSpec(name=name), holder)

    def down(self, *, keep_spool: bool = False, progress: Progress = quiet) -> None:
        """Remove the pool: nodes, volumes, network, keys.

        `keep_spool` keeps the job queue and the users' homes, where the jobs' files are, and the
        keys too, so that all of it stays the same users' own.
        A no-op if the pool is gone already.
        """
        observed = self.engine.observe(self.name)
        kept = with_jobs(observed) if keep_spool else ()
        count = sum(load.jobs for load in ready.work(self.engine, observed, timeout=5).values())
        if count:
            said = "run again with the kept queue" if kept else "end with the pool"
            progress(Stage(f"{many(count, 'job')} still run: they {said}"))
        for event in apply(everything(observed, keep=kept), self.engine, rollback=False):
            progress(event)
        if not kept:
            PoolKeys(self.name).forget()

    def scale(
        self,
        counts: int | Mapping[str, int],
        *,
        limit: float | str | None = None,
        force: bool = False,
        progress: Progress = quiet,
    ) -> None:
        """Have so many executors, by group; a number alone means the only group.

        Those that go are drained: idle ones first, then those with the fewest and youngest jobs.
        Their jobs finish, or run again elsewhere after `limit` (seconds, or text such as `30m`), or
        with `force` at once.
        """
        _require_keys(self.name)
        current = as_observed(self.spec, self.engine.observe(self.name))
        names = [group.name for group in current.execute]
        if isinstance(counts, int):
            if len(names) != 1:
                raise BadInput(
                    f"the pool {self.name!r} has {len(names)} groups",
                    advice=f"say which: {'=N, '.join(names)}=N",
                )
            counts = {names[0]: counts}
        try:
            wanted = current.scaled(counts)
        except KeyError as error:
            raise BadInput(
                f"the pool {self.name!r} has no group {error.args[0]!r}",
                advice=f"its groups: {', '.join(names)}",
            ) from None
        self._fit(wanted, progress, limit=_seconds(limit), force=force)

    def drain(
        self,
        nodes: str | Sequence[str],
        *,
        limit: float | str | None = None,
        progress: Progress = quiet,
    ) -> Drained:
        """Take these executors away once their jobs have finished; they get no new ones.

        After `limit` (seconds, or text such as `30m`) the jobs that still run go back to the queue.
        Whatever ends this before lets the executors take jobs again.
        """
        seconds = _seconds(limit)
        found = {self.node(name) for name in ([nodes] if isinstance(nodes, str) else nodes)}
        going = sorted(found, key=lambda node: node.name)
        for node in going:
            if node.role != "execute":
                raise BadInput(
                    f"{node.name} runs no jobs: it is the pool's {node.role} node",
                    advice="only executors are drained",
                )
            self._running(node.name)
        before = self.engine.observe(self.name)
        drainer = Drainer(self.engine, self.name, limit=seconds)
        names = [node.name for node in going]
        progress(Stage(f"draining {', '.join(names)}"))
        with closing(
            apply(leaving(going, "is drained"), self.engine, drainer=drainer, rollback=False)
        ) as events:
            for event in events:
                progress(event)
        if last(self.name) is not None:
            self._remember()
        left = self.engine.observe(self.name).nodes
        self._set_pace(sum(node.role == "execute" for node in left), before)
        return Drained(self.name, tuple(names), tuple(drainer.vacated))

    # --- fitting what runs to what is wanted ------------------------------------------------

    def _fit(
        self, wanted: PoolSpec, progress: Progress, *, limit: float | None, force: bool
    ) -> None:
        """Change exactly what differs from `wanted`; undo that if the pool does not get ready.

        Another release comes in stages, and the stages that were done stay.
        """
        self.engine.info()
        before = self.engine.observe(self.name)
        does = ready.work(self.engine, before) if before.nodes else {}
        keep = staying(wanted, before.nodes, does)
        todo = stages(plan(wanted, _Keyless(), standing=keep), before)
        fresh = made_anew(chain(*todo))
        if todo:
            self._require_image(wanted)
        previous = _stored(self.name)
        keys = PoolKeys(self.name, node_days=wanted.security.certificates / 86400)
        target = plan(wanted, _Sparing(keys, fresh), standing=keep)
        drainer = Drainer(self.engine, self.name, limit=limit)
        forgotten = [Ref("node", node) for node in keep - fresh if does.get(node, IDLE).draining]
        made: list[Ref] = []
        stage: Sequence[Step] = ()
        moved = False
        try:
            for event in drainer.cancel(sorted(forgotten, key=lambda ref: ref.name)):
                progress(event)
            for stage in stages(target, before):
                moved = moved or moves(stage, before)
                progress(Stage(headline(stage, before)))
                # Closed at once when it is left, so that it removes what it had begun.
                with closing(
                    apply(stage, self.engine, drainer=None if force else drainer)
                ) as events:
                    for event in events:
                        if event.kind == "created":
                            made.append(event.ref)
                        progress(event)
                self._tell_masters(target, before, stage)
                progress(Stage(f"waiting until {many(len(target.nodes), 'node')} answer"))
                self._await_ready(target, before, fresh)
            if not todo:
                self._await_ready(target, before, fresh)
            self._set_pace(wanted.executors, before, fresh)
            stage = ()
            if fresh and wanted.executors and not self._full_of_work():
                progress(Stage("running a first job"))
                ready.first_job(self.queue)
            self.spec = wanted
            self._remember()
        except BaseException as error:
            if not moved:
                # What heals a pool that is as it was asked for stays: without it nothing would be
                # better, and what failed may be another node that has just died.
                if not before.nodes or previous != wanted:
                    self._undo(made, before, previous, progress)
                raise
            doubted = made_anew(stage) if isinstance(error, RoostError) else frozenset()
            said = self._mend(target, before, previous, doubted, progress)
            progress(Stage(said))
            if not isinstance(error, RoostError):
                raise
            raise PoolNotReady(
                f"the change of the release stopped half-way: {error.message}; {said}",
                advice="the pool works as it is; the same command goes on, `roost up` goes back",
            ) from error

    def _await_ready(self, target: Plan, before: Observed, fresh: Collection[str]) -> None:
        # Those that were made or started by hand are counted from nothing.
        restarts = {node.name: node.restarts for node in before.nodes if node.name not in fresh}
        wanted = {node.name: node.role for node in target.nodes}
        ready.await_ready(self.engine, self.name, wanted, restarts)

    def _require_image(self, wanted: PoolSpec) -> None:
        """Raises ImageMissing, before anything is touched."""
        image = wanted.htcondor.image_name
        if self.engine.has_image(image):
            return
        own, release = wanted.htcondor.image, wanted.htcondor.release
        advice = (
            f"`{self.engine.name} pull {own}` gets it, if it is in a registry"
            if own
            else f"`roost image build --release {release}` builds it"
        )
        raise ImageMissing(f"the image {image} is not here", advice=advice)

    def _remember(self) -> None:
        """Store what the pool is now: somebody else may have changed its counts meanwhile."""
        self.spec = as_observed(self.spec, self.engine.observe(self.name))
        _store(self.spec)

    def _full_of_work(self) -> bool:
        """Whether every executor runs a job: then a first one would only wait for their ends."""
        observed = self.engine.observe(self.name)
        executors = {node.name for node in observed.nodes if node.role == "execute"}
        does = ready.work(self.engine, observed)
        return executors <= {name for name, load in does.items() if load.jobs}

    def _tell_masters(self, target: Plan, before: Observed, steps: Sequence[Step]) -> None:
        """Tell the nodes that stay what the pool's masters are, where that has changed."""
        gone = {ref.name for step in steps if isinstance(step, Retire) for ref in step.refs}
        if second_master(self.name) not in made_anew(steps) | gone:
            return
        masters = ",".join(node.name for node in target.nodes if node.role == "master")
        stayed = {node.name for node in before.nodes} - gone
        for node in target.nodes:
            if node.role != "master" and node.name in stayed:
                argv = ["roost-node", "masters", masters]
                self.engine.exec(Ref("node", node.name), argv, timeout=60).check()

    def _set_pace(self, executors: int, before: Observed, fresh: Collection[str] = ()) -> None:
        """Tell the masters how large the pool is, where that changes how fast they should match.

        The second of two, if it is `fresh`, knows nothing; the first keeps it on its volume.
        """
        had = sum(node.role == "execute" for node in before.nodes)
        for node in self.engine.observe(self.name).nodes:
            knows = 0 if node.name == second_master(self.name) and node.name in fresh else had
            if node.role == "master" and pace.pace(executors) != pace.pace(knows):
                argv = ["roost-node", "pace", str(executors)]
                self.engine.exec(node.ref, argv, timeout=60).check()

    def _undo(
        self, made: Sequence[Ref], before: Observed, previous: PoolSpec | None, progress: Progress
    ) -> None:
        """Remove what was made; put back what was replaced, if it is known what that was."""
        progress(Stage("undoing what was done"))
        with suppress(RoostError):
            for event in self.engine.retire(tuple(reversed(made))):
                progress(event)
            keys = PoolKeys(self.name, node_days=self.spec.security.certificates / 86400)
            if not before:
                keys.forget()
            elif previous is not None:
                stood = frozenset(node.name for node in before.nodes)
                old = plan(as_observed(previous, before), keys, standing=stood)
                for event in apply(diff(old, self.engine.observe(self.name)), self.engine):
                    progress(event)

    def _mend(
        self,
        target: Plan,
        before: Observed,
        previous: PoolSpec | None,
        doubted: Collection[str],
        progress: Progress,
    ) -> str:
        """Make what an upgrade that stopped has left out as it was; says which node has what."""
        progress(Stage("mending what was left half-done"))
        with suppress(RoostError):
            if previous is not None:
                now = self.engine.observe(self.name)
                stood = frozenset(node.name for node in before.nodes)
                old = as_observed(previous, before)
                goal = mended(target, plan(old, _Keyless(), standing=stood), now, doubted)
                days = self.spec.security.certificates / 86400
                keys = _Sparing(PoolKeys(self.name, node_days=days), made_anew(diff(goal, now)))
                goal = mended(target, plan(old, keys, standing=stood), now, doubted)
                for event in apply(diff(goal, now), self.engine, rollback=False):
                    progress(event)
        return f"the nodes' images are: {census(self.engine.observe(self.name))}"

    # --- jobs -------------------------------------------------------------------------------

    @property
    def queue(self) -> Queue:
        """The access point's job queue."""
        return Queue(self.engine, self.name, self.access_point, self.spec.submit.users)

    def submit(self, file: str | os.PathLike[str], *, user: str | None = None) -> Submission:
        """Submit what a submit file describes; `user` is the pool's first by default."""
        queue = self.queue
        return Submission(queue, queue.submit(Path(file), user=user))

    # --- who belongs to it ------------------------------------------------------------------

    @property
    def members(self) -> Members:
        """Those who join it, and those who ask to."""
        return Members(self.engine, self.name, self.observe().nodes, PoolKeys(self.name))

    # --- what is in it ----------------------------------------------------------------------

    def observe(self) -> Observed:
        """What the engine holds of it now."""
        return self.engine.observe(self.name)

    def status(self) -> Snapshot:
        """Its nodes, slots and jobs now; what does not answer says why."""
        return snapshot(self.engine, self.name)

    def node(self, name: str) -> ObservedNode:
        """A node by its name, or by what follows the pool's name in it: `submit`, `execute-1`.

        Raises BadInput with what there is.
        """
        nodes = {node.name: node for node in self.observe().nodes}
        found = nodes.get(name) or nodes.get(f"{self.name}-{name}")
        if found is None:
            known = [*nodes, *(node.removeprefix(f"{self.name}-") for node in nodes)]
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"its nodes: {', '.join(nodes)}"
            raise BadInput(f"the pool {self.name!r} has no node {name!r}", advice=advice)
        return found

    @property
    def access_point(self) -> Ref:
        """The node where jobs are submitted. Raises PoolNotReady if there is none."""
        for node in self.observe().nodes:
            if node.role == "submit":
                return node.ref
        raise PoolNotReady(
            f"the pool {self.name!r} has no access point", advice="`roost up` makes it anew"
        )

    def logs(
        self,
        node: str | None = None,
        *,
        follow: bool = False,
        daemon: str | None = None,
        tail: int | None = None,
    ) -> Iterator[tuple[str, str]]:
        """Log lines, each with its node: of one node, or of all in the order of their times."""
        nodes = [self.node(node)] if node else self.observe().nodes

        def lines(ref: Ref) -> Iterator[str]:
            said = self.engine.logs(ref, follow=follow, tail=tail)
            return logs.of_daemon(said, daemon) if daemon else said

        if not follow:
            return logs.merged({each.name: lines(each.ref) for each in nodes})
        return logs.live({each.name: functools.partial(lines, each.ref) for each in nodes})

    def exec(
        self, node: str, argv: Sequence[str], *, user: str | None = None, stdin: bytes = b""
    ) -> Completed:
        """Run `argv` in a node, as its own user or `user`; the status is in the result."""
        return self.engine.exec(self._running(node), argv, user=user, stdin=stdin)

    def interactive(self, node: str, argv: Sequence[str], *, user: str | None = None) -> list[str]:
        """The command line with which a terminal runs `argv` in a node."""
        return self.engine.interactive(self._running(node), argv, user=user)

    def _running(self, name: str) -> Ref:
        node = self.node(name)
        if node.state != "running":
            raise PoolNotReady(
                f"{node.name} does not run: it is {node.state}",
                advice="`roost up` starts it again, `roost logs` says why it ended",
            )
        return node.ref

    def env(self, user: str | None = None) -> dict[str, str]:
        """The environment with which this machine's own HTCondor tools and bindings reach the pool.

        Issues a certificate for `user` (the pool's first by default) and writes the configuration.
        """
        who = user or self.spec.submit.users[0]
        if who not in self.spec.submit.users:
            known = ", ".join(self.spec.submit.users)
            raise BadInput(f"the pool {self.name!r} has no user {who!r}", advice=f"users: {known}")
        _require_keys(self.name)
        masters = [node for node in self.observe().nodes if node.role == "master"]
        if not masters:
            raise PoolNotReady(f"the pool {self.name!r} has no master", advice="run `roost up`")
        user_files = PoolKeys(self.name).write_user(who)
        config, schedd = (user_files.key.with_suffix(end) for end in (".conf", ".schedd"))
        access = self.access_point
        there = sorted(masters, key=lambda node: (node.state != "running", node.started))
        there = [node for node in there if node.state == "running"] or there[:1]
        text = client.configuration(
            self.name,
            collectors=[
                client.sinful(self.engine.endpoint(master.ref, CONDOR_PORT), master.name)
                for master in there
            ],
            schedd_file=schedd,
            ca=user_files.ca,
            cert=user_files.certificate,
            key=user_files.key,
        )
        address = client.sinful(
            self.engine.endpoint(access, CONDOR_PORT), access.name, sock="schedd"
        )
        # The bindings want to know the version of what they talk to; it stands in the same file.
        version = self.engine.exec(self._running(access.name), ["condor_version"]).check().text
        files.write(schedd, f"{address}\n{version}".encode())
        files.write(config, text.encode())
        return {"CONDOR_CONFIG": str(config)}

    @staticmethod
    def diagnose(
        name: str = DEFAULT_POOL, *, engine: str | Engine | None = None
    ) -> tuple[Finding, ...]:
        """What is wrong with a pool, or with the engine, the gravest first, each with advice."""
        return examine(collect(_holder(checked(name), engine), name))

    @staticmethod
    def forget(name: str) -> None:
        """Remove what this machine keeps of a pool that is gone; a no-op if there is nothing."""
        PoolKeys(checked(name)).forget()


# --- the edges: engines, files ------------------------------------------------------------------


def _engine(name: str | None) -> Engine:
    return engines.by_name(name) if name else engines.detect()


def _holder(name: str, engine: str | Engine | None) -> Engine:
    """The engine that is meant, else the one that the pool was made on, else the first there is."""
    if engine is not None and not isinstance(engine, str):
        return engine
    stored = _stored(name)
    return _engine(engine or (stored.engine if stored else None))


def checked(name: str) -> str:
    """A pool's name, if it is one: names become paths. Raises BadInput."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise BadInput(
            f"{name!r} is not a pool's name",
            advice="use a-z, 0-9 and -, a letter first and no - last, at most 32 characters",
        )
    return name


def last(name: str) -> Path | None:
    """Where it stands what was asked for last; None if nothing was."""
    path = PoolKeys(name).directory / "pool.json" if re.fullmatch(NAME_PATTERN, name) else None
    return path if path is not None and path.is_file() else None


def _seconds(limit: float | str | None) -> float | None:
    """A limit as seconds; None if there is none. Raises BadInput."""
    try:
        seconds = parse_duration(limit) if isinstance(limit, str) else limit
    except ValueError as error:
        raise BadInput(f"the limit {error}") from None
    if seconds is not None and not seconds >= 0:
        raise BadInput(f"the limit is {seconds}, less than nothing; write it as 60s, 5min or 1h")
    return seconds


def _stored(name: str) -> PoolSpec | None:
    path = last(name)
    return specfile.load(path, environ={}) if path else None


def _store(spec: PoolSpec) -> None:
    text = spec.model_dump_json(indent=2, exclude_defaults=True)
    files.write(PoolKeys(spec.name).directory / "pool.json", f"{text}\n".encode())


def _require_keys(name: str) -> None:
    if last(name) is None:
        raise BadInput(
            f"the keys of the pool {name!r} are not here: it was made by another user or machine",
            advice="run this where it was made",
        )
