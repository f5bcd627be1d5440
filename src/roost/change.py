"""Making a pool what is wanted: what differs is changed, and a failure leaves a pool that works."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain

from roost import kept, ready, tell
from roost.apply import apply
from roost.drain import Drainer
from roost.engines.base import Engine, Scheduler
from roost.errors import ImageMissing, PoolNotReady, RoostError
from roost.fit import IDLE, as_observed, made_anew, many, named, staying
from roost.image.recipe import build_command
from roost.plan import Keyless, Keys, Observed, Plan, Ref, Step, diff, plan
from roost.progress import Progress, Stage
from roost.queue import Queue
from roost.rolling import census, headline, mended, moves, stages
from roost.security import PoolKeys, Secret
from roost.spec import PoolSpec
from roost_node.vocab import Role


@dataclass(frozen=True)
class _Sparing:
    """Issues credentials only for nodes that are to be made and delivered them.

    Others have theirs, or make their own.
    """

    keys: Keys
    roles: frozenset[Role]
    nodes: frozenset[str] | None = None
    """All if None."""

    def node_files(self, role: Role, node: str) -> Mapping[str, Secret]:
        wanted = self.nodes is None or node in self.nodes
        return self.keys.node_files(role, node) if wanted and role in self.roles else {}


class Change:
    """One change of the pool that `wanted` describes, on an engine."""

    def __init__(self, engine: Engine, wanted: PoolSpec, progress: Progress) -> None:
        self.engine = engine
        self.wanted = wanted
        self.name = wanted.name
        self._progress = progress

    def make(self, *, limit: float | None, force: bool) -> PoolSpec:
        """Change exactly what differs from what is wanted; undo that if the pool does not get
        ready. Returns what the pool then is.

        Another release comes in stages, and the stages that were done stay.
        """
        wanted = self.wanted
        self.engine.info()
        before = self.engine.observe(self.name)
        does = ready.work(self.engine, before) if before.nodes else {}
        keep = staying(wanted, before.nodes, does)
        bare = self._plan(wanted, Keyless(), keep, before)
        self._check(bare, before)
        todo = stages(bare, before)
        fresh = made_anew(chain(*todo))
        if todo:
            self._require_image()
        previous = kept.stored(self.name)
        target = self._plan(wanted, self._issuer(fresh), keep, before)
        drainer = Drainer(self.engine, self.name, limit=limit)
        forgotten = [Ref("node", node) for node in keep - fresh if does.get(node, IDLE).draining]
        made: list[Ref] = []
        stage: Sequence[Step] = ()
        moved = False
        try:
            for event in drainer.cancel(sorted(forgotten, key=lambda ref: ref.name)):
                self._progress(event)
            for stage in stages(target, before):
                moved = moved or moves(stage, before)
                self._progress(Stage(headline(stage, before)))
                # Closed at once when it is left, so that it removes what it had begun.
                with closing(
                    apply(stage, self.engine, drainer=None if force else drainer)
                ) as events:
                    for event in events:
                        if event.kind == "created":
                            made.append(event.ref)
                        self._progress(event)
                tell.masters(self.engine, target, before, stage)
                target = self._as_named(target)
                self._progress(Stage(f"waiting until {many(len(target.nodes), 'node')} answer"))
                self._await_ready(target, before, fresh)
            if not todo:
                self._await_ready(target, before, fresh)
            if previous is None or previous.submit.users != wanted.submit.users:
                tell.users(self.engine, self.name, wanted.submit.users, fresh)
            tell.size(self.engine, self.name, wanted.executors, before, fresh)
            stage = ()
            if fresh and wanted.executors:
                self._first_job()
            # Somebody else may have changed the counts meanwhile.
            return kept.remember(wanted, self.engine.observe(self.name))
        except BaseException as error:
            if not moved:
                # What heals a pool that is as it was asked for stays: without it nothing would be
                # better, and what failed may be another node that has just died.
                if not before.nodes or previous != wanted:
                    self._undo(made, before, previous)
                raise
            doubted = made_anew(stage) if isinstance(error, RoostError) else frozenset()
            said = self._mend(target, before, previous, doubted)
            self._progress(Stage(said))
            if not isinstance(error, RoostError):
                raise
            raise PoolNotReady(
                f"the change of the release stopped half-way: {error.message}; {said}",
                advice="the pool works as it is; the same command goes on, `roost up` goes back",
            ) from error

    def _plan(
        self, spec: PoolSpec, keys: Keys, standing: Collection[str], observed: Observed
    ) -> Plan:
        names = named(observed, standing) if isinstance(self.engine, Scheduler) else None
        return plan(spec, keys, standing=standing, named=names)

    def _check(self, target: Plan, before: Observed) -> None:
        """Raises BadInput for what the engine cannot have."""
        self.engine.check(target)
        if isinstance(self.engine, Scheduler):
            self.engine.check_change(target, before)

    def _as_named(self, target: Plan) -> Plan:
        """The plan with the names that the engine gave to the executors."""
        if not isinstance(self.engine, Scheduler):
            return target
        now = self.engine.observe(self.name)
        return self._plan(self.wanted, Keyless(), [node.name for node in now.nodes], now)

    def _keys(self) -> PoolKeys:
        return PoolKeys(self.name, node_days=self.wanted.security.certificates / 86400)

    def _issuer(self, nodes: frozenset[str] | None = None) -> Keys:
        return _Sparing(self._keys(), self.engine.delivers, nodes)

    def _require_image(self) -> None:
        """Raises ImageMissing, before anything is touched."""
        image = self.wanted.image_name
        if self.engine.has_image(image):
            return
        own, release = self.wanted.htcondor.image, self.wanted.htcondor.release
        advice = (
            f"`{self.engine.name} pull {own}` gets it, if it is in a registry"
            if own
            else f"`{build_command(release, self.wanted.extras)}` builds it"
        )
        raise ImageMissing(f"the image {image} is not here", advice=advice)

    def _await_ready(self, target: Plan, before: Observed, fresh: Collection[str]) -> None:
        # Those that were made or started by hand are counted from nothing.
        restarts = {node.name: node.restarts for node in before.nodes if node.name not in fresh}
        roles = {node.name: node.role for node in target.nodes}
        ready.await_ready(self.engine, self.name, roles, restarts)

    def _first_job(self) -> None:
        """Run one, unless every executor runs a job: then it would only wait for their ends."""
        observed = self.engine.observe(self.name)
        executors = {node.name for node in observed.nodes if node.role == "execute"}
        does = ready.work(self.engine, observed)
        if executors <= {name for name, load in does.items() if load.jobs}:
            return
        self._progress(Stage("running a first job"))
        access = ready.access_point(self.name, self.engine.observe(self.name))
        ready.first_job(Queue(self.engine, self.name, access, self.wanted.submit.users))

    def _undo(self, made: Sequence[Ref], before: Observed, previous: PoolSpec | None) -> None:
        """Remove what was made; put back what was replaced, if it is known what that was."""
        self._progress(Stage("undoing what was done"))
        with suppress(RoostError):
            for event in self.engine.retire(tuple(reversed(made))):
                self._progress(event)
            if not before:
                self._keys().forget()
            elif previous is not None:
                stood = frozenset(node.name for node in before.nodes)
                old = self._plan(as_observed(previous, before), self._issuer(), stood, before)
                for event in apply(diff(old, self.engine.observe(self.name)), self.engine):
                    self._progress(event)

    def _mend(
        self, target: Plan, before: Observed, previous: PoolSpec | None, doubted: Collection[str]
    ) -> str:
        """Make what an upgrade that stopped has left out as it was; says which node has what."""
        self._progress(Stage("mending what was left half-done"))
        with suppress(RoostError):
            if previous is not None:
                now = self.engine.observe(self.name)
                stood = frozenset(node.name for node in before.nodes)
                old = as_observed(previous, before)
                goal = mended(target, self._plan(old, Keyless(), stood, before), now, doubted)
                keys = self._issuer(made_anew(diff(goal, now)))
                goal = mended(target, self._plan(old, keys, stood, before), now, doubted)
                for event in apply(diff(goal, now), self.engine, rollback=False):
                    self._progress(event)
        return f"the nodes' images are: {census(self.engine.observe(self.name))}"
