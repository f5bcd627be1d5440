"""A pool that runs: the only place where the parts are wired together.

What exists is read from the engine's labels and from HTCondor.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from roost import engines, inside, kept, logs, ready, specfile, tell
from roost._run import Completed
from roost.apply import apply
from roost.change import Change
from roost.drain import Drainer
from roost.engines.base import Engine
from roost.errors import BadInput, PoolNotFound, PoolNotReady, RoostError
from roost.fit import as_observed, many
from roost.members import Members
from roost.observe.doctor import Finding, collect, examine
from roost.observe.network import NetworkReport
from roost.observe.reach import examine_network
from roost.observe.snapshot import Snapshot, snapshot
from roost.placing import master_address, submit_port
from roost.plan import Observed, ObservedNode, Ref, everything, leaving, with_jobs
from roost.progress import Progress, Stage, quiet
from roost.queue import JobResult, Queue, Submitted
from roost.security import PoolKeys, Secret
from roost.spec import PoolSpec, check_user, parse_duration, parse_size
from roost.specfile import Overrides
from roost.tokens import Tokens
from roost.users import Bundle, Users
from roost_node import files
from roost_node.errors import BadInput as NodeBadInput
from roost_node.vocab import DEFAULT_POOL

if TYPE_CHECKING:
    from roost.work import JobExecutor, Workers

T = TypeVar("T")
#: What a worker asks for where nothing is said, in MiB.
WORKER_MEMORY: Final = 512


@dataclass(frozen=True)
class Drained:
    """What `Pool.drain` did."""

    pool: str
    nodes: tuple[str, ...]
    """The executors that are gone."""
    vacated: tuple[str, ...]
    """The jobs that were sent back to the queue when the limit was over."""


@dataclass(frozen=True)
class Submitter:
    """A user of a pool; times are Unix time."""

    name: str
    account: bool
    """Whether the access point has an account of that name."""
    id: str = ""
    """Of the certificate that was issued last; empty if there is none."""
    issued: float | None = None
    expires: float | None = None
    revoked: float | None = None


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
        url: str | None = None,
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
            release, network, url,
        )  # fmt: skip
        if isinstance(source, PoolSpec):
            if given != Overrides():
                raise BadInput("a PoolSpec is complete", advice="change it with model_copy(update)")
            spec = source
        else:
            chosen = name or os.environ.get("ROOST_POOL") or DEFAULT_POOL
            path = kept.last(chosen) if source is None else Path(source)
            spec = specfile.load(path, environ=os.environ, overrides=given)
        pool = cls(spec, on or _engine_for(spec))
        pool._change(spec, progress, limit=limit, force=force)
        return pool

    @classmethod
    def attach(cls, name: str = DEFAULT_POOL, *, engine: str | Engine | None = None) -> Pool:
        """The pool of that name that exists already. Raises PoolNotFound."""
        stored = kept.stored(kept.checked(name))
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
        spools = with_jobs(observed) if keep_spool else ()
        count = sum(load.jobs for load in ready.work(self.engine, observed, timeout=5).values())
        if count:
            said = "run again with the kept queue" if spools else "end with the pool"
            progress(Stage(f"{many(count, 'job')} still run: they {said}"))
        for event in apply(everything(observed, keep=spools), self.engine, rollback=False):
            progress(event)
        if not spools:
            PoolKeys(self.name).forget()

    def at_stake(self) -> str:
        """What `down` would delete beyond recall, in words: the jobs in the queue, or nothing."""
        observed = self.engine.observe(self.name)
        if not with_jobs(observed):
            return ""
        asked = ("condor_q", "-allusers", "-af", "ClusterId")
        said = ready.tool(self.engine, observed, *asked, timeout=5)
        if said is None:
            return "a job queue that does not answer now"
        count = len(said.split())
        return f"{many(count, 'job')} in its queue" if count else ""

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
        kept.require_keys(self.name)
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
        self._change(wanted, progress, limit=limit, force=force)

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
        if kept.last(self.name) is not None:
            self._remember(self.spec)
        executors = sum(node.role == "execute" for node in self.observe().nodes)
        tell.size(self.engine, self.name, executors, before)
        return Drained(self.name, tuple(names), tuple(drainer.vacated))

    def _change(
        self, wanted: PoolSpec, progress: Progress, *, limit: float | str | None, force: bool
    ) -> None:
        change = Change(self.engine, wanted, progress)
        self.spec = change.make(limit=_seconds(limit), force=force)
        self._store_tokens(progress)

    def _store_tokens(self, progress: Progress) -> None:
        """Store the tokens whose files the pool file names, for its first user, if none is there.

        What fails is said and no more: the pool is up, and a login can be tried again.
        """
        files_of = {name: file for name in self.spec.data if (file := self.token_file(name))}
        if not files_of:
            return
        tokens = self.tokens()
        missing = {item.name for item in tokens.list() if item.token and not item.stored}
        for name, file in files_of.items():
            if name not in missing:
                continue
            try:
                tokens.login(name, Secret(files.read(file, "the token's file")))
                progress(Stage(f"stored {tokens.user}'s token for {name}"))
            except (RoostError, NodeBadInput) as error:
                said = f"{tokens.user} has no token for {name} yet: {error}"
                progress(Stage(f"{said}; then run `roost data login {name}`"))

    # --- jobs -------------------------------------------------------------------------------

    @property
    def queue(self) -> Queue:
        """The access point's job queue."""
        return Queue(self.engine, self.name, self.access_point, self.spec.submit.users)

    def submit(self, file: str | os.PathLike[str], *, user: str | None = None) -> Submission:
        """Submit what a submit file describes; `user` is the pool's first by default."""
        queue = self.queue
        return Submission(queue, queue.submit(Path(file), user=user))

    def executor(
        self,
        *,
        workers: int | None = None,
        packages: Iterable[str] = (),
        cpus: int | None = None,
        memory: str | int | None = None,
        submit: Mapping[str, object] | None = None,
        user: str | None = None,
    ) -> JobExecutor | Workers:
        """A `concurrent.futures.Executor` whose tasks run in the pool, with this program's Python.

        Without `workers` each task is a job of its own. With it, so many jobs take all tasks, by
        Dask (`pip install 'roost[dask]'`): for tasks shorter than a minute. `packages` are those
        that the tasks need beside the standard library, named as `pip` or `import` does. A job asks
        for `cpus` and `memory`, and for what `submit` says in the words of submit files.
        """
        if workers is not None and workers < 1:
            raise BadInput(f"{workers} workers can do nothing", advice="ask for one or more")
        asked = dict(submit or {})
        try:
            needed = None if memory is None else parse_size(memory) // 2**20
        except ValueError as error:
            raise BadInput(f"the memory {error}") from None
        from roost.work import Access, JobExecutor, Workers, bundle

        access = Access(self.engine, self._running(self.access_point.name), self._known(user))
        if workers is not None:
            taken = bundle([*packages, "distributed"])
            return Workers(
                access, taken, workers, asked, threads=cpus or 1, memory=needed or WORKER_MEMORY
            )
        asked |= {} if cpus is None else {"request_cpus": cpus}
        asked |= {} if needed is None else {"request_memory": needed}
        return JobExecutor(access, bundle([*packages, "cloudpickle"]), asked)

    def map(
        self,
        function: Callable[[Any], T],
        items: Iterable[Any],
        *,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> list[T]:
        """What `function` gives for each of the items, in their order, computed in the pool.

        `options` are those of `executor`. The first exception of a task is raised here, with its
        traceback as the cause; the other tasks are taken away then. `progress` is told how many
        are done, of how many.
        """
        with self.executor(**options) as executor:
            return executor.map_all(function, items, progress)

    def _known(self, user: str | None) -> str:
        """One of the pool's users, the first by default."""
        who = user or self.spec.submit.users[0]
        if who not in self.spec.submit.users:
            known = ", ".join(self.spec.submit.users)
            raise BadInput(f"the pool {self.name!r} has no user {who!r}", advice=f"users: {known}")
        return who

    def tokens(self, user: str | None = None) -> Tokens:
        """What its jobs may mount, and a user's tokens for it; the pool's first user by default."""
        return Tokens(self.engine, self.access_point, self._known(user))

    def token_file(self, entry: str) -> Path | None:
        """Where its pool file says that the token of this data is, on this machine."""
        token = self.spec.data[entry].token if entry in self.spec.data else None
        return Path(token.file).expanduser() if token is not None and token.file else None

    # --- who belongs to it ------------------------------------------------------------------

    @property
    def members(self) -> Members:
        """Those who join it, and those who ask to."""
        return Members(
            self.engine, self.name, self.observe().nodes, PoolKeys(self.name),
            address=master_address(self.spec),
        )  # fmt: skip

    @property
    def users(self) -> Users:
        """Those who may submit, and what they need for it."""
        return Users(self.engine, self.observe(), PoolKeys(self.name), port=submit_port(self.spec))

    def submitters(self) -> tuple[Submitter, ...]:
        """Who may submit, or might once, by name."""
        there = set(self.users.accounts())
        known = {each.name: each for each in self.members.credentials() if each.role == "user"}
        return tuple(
            Submitter(name, name in there, *(
                (mine.id, mine.issued, mine.expires, mine.revoked)
                if (mine := known.get(name)) else ()
            ))
            for name in sorted(there | set(known))
        )  # fmt: skip

    def add_user(
        self,
        name: str,
        *,
        bundle: str | os.PathLike[str] | None = None,
        expires: float | str | None = None,
    ) -> Bundle | None:
        """Let a user submit: an account on the access point, which goes on meanwhile.

        With `bundle` all that the user needs elsewhere is written to that new file, with a key that
        is nowhere else and a certificate that is good for `expires` (seconds, or text such as
        `90d`; 30 days by default).
        """
        check_user(name)
        kept.require_keys(self.name)
        seconds = _seconds(expires, "the certificate's life")
        users = self.users
        users.check(name, None if bundle is None else Path(bundle), seconds)
        tell.users(self.engine, self.name, [name])
        if name not in self.spec.submit.users:
            self._remember_users(*self.spec.submit.users, name)
        return None if bundle is None else users.bundle(name, Path(bundle), seconds)

    def remove_user(self, name: str, *, purge: bool = False) -> None:
        """Refuse a user from now on: certificate, account and jobs go; `purge`: the files, too.

        A no-op for somebody who is not there.
        """
        check_user(name)
        kept.require_keys(self.name)
        others = tuple(user for user in self.spec.submit.users if user != name)
        if not others:
            raise BadInput(
                f"{name!r} is the only user of the pool {self.name!r}",
                advice="add another first: roost user add NAME",
            )
        access = self._running(self.access_point.name)
        if name in {each.name for each in self.submitters()}:
            # With an account alone, too: a container that is started again may make that anew.
            self.members.refuse_identities([name])
        flags = ["--purge"] if purge else []
        inside.ask(self.engine, access, "user", "rm", *flags, name, timeout=180)
        PoolKeys(self.name).drop_user(name)
        if others != self.spec.submit.users:
            self._remember_users(*others)

    def _remember_users(self, *names: str) -> None:
        submit = self.spec.submit.model_copy(update={"users": names})
        self._remember(self.spec.model_copy(update={"submit": submit}))

    def _remember(self, spec: PoolSpec) -> None:
        self.spec = kept.remember(spec, self.observe())

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
        return ready.access_point(self.name, self.observe())

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
        who = self._known(user)
        kept.require_keys(self.name)
        return {"CONDOR_CONFIG": str(self.users.configured(who))}

    @staticmethod
    def diagnose(
        name: str = DEFAULT_POOL, *, engine: str | Engine | None = None
    ) -> tuple[Finding, ...]:
        """What is wrong with a pool, or with the engine, the gravest first, each with advice."""
        return examine(collect(_holder(kept.checked(name), engine), name))

    @staticmethod
    def diagnose_network(
        name: str = DEFAULT_POOL, *, engine: str | Engine | None = None
    ) -> NetworkReport:
        """How its nodes reach each other, pair by pair, and what is wrong with that.

        Raises PoolNotFound.
        """
        return examine_network(_holder(kept.checked(name), engine), name)

    @staticmethod
    def forget(name: str) -> None:
        """Remove what this machine keeps of a pool that is gone; a no-op if there is nothing."""
        PoolKeys(kept.checked(name)).forget()


# --- the edges: engines, files ------------------------------------------------------------------


def _engine(name: str | None, spec: PoolSpec | None) -> Engine:
    return engines.by_name(name, spec) if name else engines.detect()


def _engine_for(spec: PoolSpec) -> Engine:
    """The engine on which the pool becomes `spec`: with the hosts that it leaves, too.

    Raises BadInput where that would leave the jobs behind.
    """
    before = kept.stored(spec.name)
    if before is not None and _head(before) != _head(spec):
        raise BadInput(
            f"the pool {spec.name!r} runs on {_head(before) or 'one engine'}, and its queue cannot "
            f"follow it to {_head(spec) or 'one engine'}",
            advice="name the same first host, or take it down first with `roost down`",
        )
    if not spec.hosts:
        return _engine(spec.engine, spec)
    left = before.hosts if before is not None else ()
    return engines.of_hosts([*spec.hosts, *(host for host in left if host.name not in
                             {each.name for each in spec.hosts})])  # fmt: skip


def _head(spec: PoolSpec) -> str:
    """Where master and access point are, of several hosts."""
    return spec.hosts[0].name if spec.hosts else ""


def _holder(name: str, engine: str | Engine | None) -> Engine:
    """The engine that is meant, else the one that the pool was made on, else the first there is."""
    if engine is not None and not isinstance(engine, str):
        return engine
    stored = kept.stored(name)
    if stored is not None and stored.hosts:
        return engines.of_hosts(stored.hosts)
    return _engine(engine or (stored.engine if stored else None), stored)


def _seconds(limit: float | str | None, what: str = "the limit") -> float | None:
    """A limit as seconds; None if there is none. Raises BadInput."""
    try:
        seconds = parse_duration(limit) if isinstance(limit, str) else limit
    except ValueError as error:
        raise BadInput(f"{what} {error}") from None
    if seconds is not None and not seconds >= 0:
        raise BadInput(f"{what} is {seconds}, less than nothing; write it as 60s, 5min or 1h")
    return seconds
