"""A pool on Marathon: one app for each role and group, one task a node.

The master and the access point are apps of one task, with the pool's names; both are suspended
(`instances: 0`) rather than removed while their volumes are to stay. Executors are the tasks of
their group's app: Marathon places them, and each has the host name that its container gets. So the
names of a plan's executors stand for any; what was made says what it is called.

Nothing secret is delivered. Each new node asks the master to be admitted, and exactly those are
whose key is the one in their own log.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, TypeVar

from roost._run import Completed
from roost.engines.base import EngineInfo, Event, ref_of
from roost.engines.marathon import definitions
from roost.engines.marathon.agents import Agents, Container, Docker
from roost.engines.marathon.client import App, Bell, Client, Locked
from roost.errors import BadInput, EngineError, NameTaken
from roost.plan import Health, Item, Network, Node, Observed, ObservedNode, Plan, Ref, Volume
from roost.spec import Marathon, MarathonVersion
from roost_node.vocab import (
    LABEL_GROUP,
    LABEL_POOL,
    LABEL_ROLE,
    LABEL_SPEC,
    Role,
    identity,
)

#: How long a node may take until it is well, in seconds: its agent may have to pull the image.
WITHIN: Final = 600.0
#: How long an agent may take to be found for a task, in seconds.
PLACED_WITHIN: Final = 120.0
#: Seconds between two looks, if nothing rings before.
_LOOK: Final = 2.0
#: What is worth a look.
_EVENTS: Final = (
    "status_update_event", "health_status_changed_event", "instance_health_changed_event",
    "deployment_success", "deployment_failed",
)  # fmt: skip

Task = Mapping[str, Any]
T = TypeVar("T")


class MarathonEngine:
    """Apps on a Marathon, and their containers on its agents' Docker."""

    name = "marathon"
    delivers: frozenset[Role] = frozenset()

    def __init__(self, settings: Marathon, dockers: Sequence[Docker]) -> None:
        if not settings.url:
            raise BadInput(
                "it is not said where Marathon is",
                advice="give --url, MARATHON_URL or `marathon: {url: http://HOST:8080}`",
            )
        self._asked = settings
        self._client = Client(settings.url)
        self._agents = Agents(dockers)
        self._mine: set[str] = set()
        """The deployments that this engine began: these it may replace by others."""
        self._placing = threading.Lock()
        self._claimed: set[str] = set()

    def __repr__(self) -> str:
        return f"MarathonEngine({self._client.url!r})"

    # --- what there is ----------------------------------------------------------------------

    def info(self) -> EngineInfo:
        """Marathon's version, and its agents' machines as one. Raises EngineUnavailable."""
        version = self._client.version()
        return replace(self._agents.info(), version=version)

    @cached_property
    def _settings(self) -> Marathon:
        """What was asked for, in the words of the Marathon that answers."""
        return self._asked.model_copy(update={"version": words(self._client.version())})

    def check(self, plan: Plan) -> None:
        """Raises BadInput for a plan that cannot be had here."""
        definitions.check(plan, self._settings)

    def check_change(self, plan: Plan, there: Observed) -> None:
        """Raises BadInput where executors would change their image with jobs on them."""
        images = {node.image for node in plan.nodes}
        older = [node for node in there.nodes if node.image not in images]
        if any(node.role == "execute" for node in older):
            raise BadInput(
                "another image makes every executor of an app anew at once, jobs or not",
                advice="scale to 0 first, which drains them, then `roost up`, then scale again",
            )

    def pools(self) -> Sequence[str]:
        """The names of all pools that it holds anything of, sorted."""
        return sorted({app["labels"][LABEL_POOL] for app in self._client.apps(LABEL_POOL)})

    def observe(self, pool: str) -> Observed:
        """What it holds of `pool`, from labels; empty if nothing."""
        apps = [app for app in self._of(pool) if LABEL_ROLE in app["labels"]]
        containers = self._containers() if any(app["tasks"] for app in apps) else {}
        nodes = [node for app in apps for node in observed(app, containers)]
        volumes = [name for app in apps for name in volumes_of(app)]
        return Observed(
            pool, (), tuple(sorted(volumes)), tuple(sorted(nodes, key=lambda node: node.name))
        )

    def has_image(self, image: str) -> bool:  # noqa: ARG002 - an agent pulls what it lacks
        """Always: an agent pulls what it lacks, and only it knows from where it can."""
        return True

    def _of(self, pool: str) -> list[App]:
        return self._client.apps(f"{LABEL_POOL}=={pool}")

    def _containers(self) -> Mapping[str, Container]:
        return self._agents.containers(definitions.LABEL_APP)

    # --- making -----------------------------------------------------------------------------

    def ensure(self, item: Item) -> Iterator[Event]:
        """Have the node's app run it; a no-op (`unchanged`) if it does. Returns once it is well.

        Volumes come with their node. Raises BadInput for a network: Marathon makes none.
        """
        match item:
            case Network():
                raise BadInput(
                    f"Marathon makes no networks, and {item.name} is one",
                    advice="name one that its agents know with `network: {name: …}`",
                )
            case Volume():
                yield Event("unchanged", ref_of(item))
            case Node():
                yield from self._ensure_node(item)

    def _ensure_node(self, node: Node) -> Iterator[Event]:
        app = definitions.app_id(node)
        there = self._client.app(app)
        if there is not None and there["labels"].get(LABEL_POOL) != node.labels[LABEL_POOL]:
            raise NameTaken(
                f"the app {app} exists on Marathon and is not this pool's",
                advice="remove it, or give the pool another name with --name",
            )
        found = self._task_of(node, there)
        if found is not None:  # it waits to be admitted, or to be placed, as it did before
            well = has_been_well(found)
            if not well:
                self._follow(node, lambda: str(found["id"]))
            yield Event("unchanged" if well else "started", Ref("node", node.name))
            return
        yield Event("creating", ref_of(node))
        grown = complete = False
        claimed = ""
        try:
            with self._placing:
                before = {task["id"] for task in (there or {}).get("tasks", ())} | self._claimed
                self._grow(node, app)
                grown = True
                claimed = self._placed(app, before)
                self._claimed.add(claimed)
            ref = self._named(node, claimed)
            for volume in () if there else volumes_of(self._known(app)):
                yield Event("created", Ref("volume", volume))
            yield Event("created", ref)
            self._follow(node, lambda: claimed)
            complete = True
            yield Event("started", ref)
        finally:
            if grown and not complete:
                with suppress(EngineError):
                    self._take_back(app, claimed, there)

    def _task_of(self, node: Node, app: App | None) -> Task | None:
        """The task that is this node already."""
        if app is None:
            return None
        if node.role != "execute":
            return next(iter(app["tasks"]), None)
        containers = self._containers()
        return next((t for t in app["tasks"] if name_of(app, t, containers) == node.name), None)

    def _grow(self, node: Node, app: str) -> None:
        """One task more. Raises Locked where somebody else changes the app."""
        now = self._client.app(app)
        count = 1 if now is None or node.role != "execute" else now["instances"] + 1
        pool = node.labels[LABEL_POOL]
        wanted = definitions.app(pool, node, self._settings, count)
        if now is None:
            self._mine.update(self._client.create(wanted))
            return
        same = now["labels"].get(LABEL_SPEC) == node.labels[LABEL_SPEC]
        if now["instances"] and not same:
            raise EngineError(
                f"{app} still runs nodes that are otherwise than they should be",
                advice="try again when they are gone",
            )
        self._change(app, {"instances": count} if same else wanted)

    def _change(self, app: str, change: Mapping[str, Any]) -> None:
        """Change an app, in place of what this engine changes of it, and of nothing else."""
        try:
            begun = self._client.update(app, change)
        except Locked as lock:
            if not self._mine.issuperset(lock.deployments):
                raise
            begun = self._client.update(app, change, force=True)
        self._mine.update(begun)

    def _placed(self, app: str, before: set[str]) -> str:
        """The task that was not there before. Raises EngineError if no agent takes one."""

        def new() -> str:
            return next(
                (str(t["id"]) for t in self._known(app)["tasks"] if t["id"] not in before), ""
            )

        found = self._until(new, PLACED_WITHIN)
        if not found:
            wants = self._known(app)
            rules = ", ".join(" ".join(rule) for rule in wants.get("constraints") or ())
            raise EngineError(
                f"no agent has taken a task of {app} within {PLACED_WITHIN:g} s: it asks for "
                f"{wants['cpus']:g} CPUs, {wants['mem']:g} MiB" + (rules and f" and {rules}"),
                advice="see Marathon's queue (/v2/queue) for what the agents lack",
            )
        return found

    def _named(self, node: Node, task: str) -> Ref:
        """What the node of a task is called: as planned, or as its container is."""
        if node.role != "execute":
            return Ref("node", node.name)
        return Ref("node", self._container(definitions.app_id(node), task).hostname)

    def _container(self, app: str, task: str) -> Container:
        """A task's container, once there is one. Raises EngineError."""

        def there() -> Container | None:
            now = self._task(app, task)
            found = self._containers().get(task)
            if found is None and now["state"] == "TASK_RUNNING":
                raise EngineError(
                    f"a task of {app} runs on the agent {now['host']}, and its container is on no "
                    "Docker that roost was told of",
                    advice="name that agent's, too, in `marathon: {agents: [ssh://AGENT, …]}`",
                )
            return found

        found = self._until(there, WITHIN)
        if found is None:
            raise EngineError(f"a task of {app} does not start within {WITHIN:g} s")
        return found

    def _follow(self, node: Node, task: Callable[[], str]) -> None:
        """Return once the task is well and nothing of ours changes its app; admit it meanwhile."""
        app = definitions.app_id(node)
        waits = node.role != "master"

        def done() -> bool:
            nonlocal waits
            now = self._task(app, task())
            if now["state"] != "TASK_RUNNING":
                return False
            if waits and (container := self._containers().get(now["id"])):
                waits = not self._admitted(node, container, now)
            return has_been_well(now) and not self._mine & self._client.deployments() & {
                each["id"] for each in self._known(app).get("deployments") or ()
            }

        if not self._until(done, WITHIN):
            raise EngineError(
                f"a node of {app} is not well within {WITHIN:g} s",
                advice="see `roost logs`; `roost up` goes on from here",
            )

    def _admitted(self, node: Node, container: Container, task: Task) -> bool:
        """Let the node in, if it asks and is the one that was started; whether it was."""
        master = self._master(node.labels[LABEL_POOL])
        if master is None:
            return False
        listed = master.docker.exec(
            master.ref, ["roost-node", "approve", "--list", "--json"], timeout=60
        )
        rows = json.loads(listed.text) if listed.status == 0 else []
        if not rows:
            return False
        name = node.name if node.role != "execute" else container.hostname
        log = "\n".join(container.docker.logs(container.ref, tail=200))
        ids = own_requests(rows, identity(node.role, name), address_of(task), log)
        if not ids:
            return False
        argv = ["roost-node", "approve", "--", *ids]
        return master.docker.exec(master.ref, argv, timeout=60).status == 0

    def _master(self, pool: str) -> Container | None:
        containers = self._containers()
        return next(
            (
                containers[task["id"]]
                for app in self._of(pool)
                if app["labels"].get(LABEL_ROLE) == "master"
                for task in app["tasks"]
                if task["id"] in containers
            ),
            None,
        )

    def _take_back(self, app: str, task: str, before: App | None) -> None:
        """Undo what a failed ensure did."""
        now = self._client.app(app)
        if now is None:
            return
        if before is None and now["instances"] <= 1:
            self._client.delete(app)
        elif task and any(each["id"] == task for each in now["tasks"]):
            self._client.kill([task])
        else:
            fewer = {"instances": max(0, now["instances"] - 1)}
            self._client.update(app, fewer, force=True)

    # --- removing ---------------------------------------------------------------------------

    def retire(self, refs: Sequence[Ref]) -> Iterator[Event]:
        """End and remove exactly these; what is already gone is a no-op.

        An app whose volumes stay is suspended. It goes, and its volumes with it, when one of them
        is to go: Marathon removes them only together. The master's stays as long as the access
        point's does, whose identity the master issued.
        """
        apps = {app["id"]: app for app in self._client.apps(LABEL_POOL)}
        containers = self._containers()
        names = {ref.name for ref in refs if ref.kind == "node"}
        ended: dict[str, list[str]] = {}
        gone: list[Ref] = []
        for id, app in apps.items():
            tasks = [t["id"] for t in app["tasks"] if name_of(app, t, containers) in names]
            own = node_names(app, containers) & names
            if own:
                ended[id] = tasks
                gone += [Ref("node", name) for name in sorted(own)]
        for ref in gone:
            yield Event("removing", ref)
        for id, tasks in ended.items():
            self._end(apps[id], tasks)
        self._await_end({task for tasks in ended.values() for task in tasks})
        for ref in gone:
            yield Event("removed", ref)
        yield from self._drop({ref.name for ref in refs if ref.kind == "volume"})

    def _end(self, app: App, tasks: Sequence[str]) -> None:
        if app["labels"].get(LABEL_ROLE) != "execute":
            self._mine.update(self._client.update(app["id"], {"instances": 0}, force=True))
        elif len(tasks) >= max(app["instances"], len(app["tasks"])):
            self._client.delete(app["id"])
        else:
            self._mine.update(self._client.kill(tasks))

    def _drop(self, volumes: set[str]) -> Iterator[Event]:
        apps = [app for app in self._client.apps(LABEL_POOL) if volumes & set(volumes_of(app))]
        going = {app["id"] for app in apps}
        for app in apps:
            pool, role = app["labels"][LABEL_POOL], app["labels"][LABEL_ROLE]
            stays = [each["id"] for each in self._of(pool) if each["id"] not in going]
            if role == "master" and f"/{pool}-submit" in stays:
                continue
            for name in volumes_of(app):
                yield Event("removing", Ref("volume", name))
            begun = set(self._client.delete(app["id"]))
            self._until(lambda begun=begun: not begun & self._client.deployments(), WITHIN)  # type: ignore[misc]
            for name in volumes_of(app):
                yield Event("removed", Ref("volume", name))

    def _await_end(self, tasks: set[str]) -> None:
        """Return once these tasks are gone. Raises EngineError."""

        def there() -> set[str]:
            return tasks & {t["id"] for app in self._client.apps(LABEL_POOL) for t in app["tasks"]}

        if tasks and not self._until(lambda: not there(), WITHIN):
            raise EngineError(
                f"{len(there())} tasks do not end within {WITHIN:g} s",
                advice="look at their agents",
            )

    # --- talking to nodes -------------------------------------------------------------------

    def logs(self, ref: Ref, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """The node's log lines, the oldest first."""
        at = self._inside(ref)
        yield from at.docker.logs(at.ref, follow=follow, tail=tail)

    def exec(
        self,
        ref: Ref,
        argv: Sequence[str],
        *,
        user: str | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,
    ) -> Completed:
        """Run `argv` in a running node, by its agent's Docker."""
        at = self._inside(ref)
        return at.docker.exec(at.ref, argv, user=user, stdin=stdin, timeout=timeout)

    def interactive(
        self, ref: Ref, argv: Sequence[str], *, user: str | None = None, terminal: bool = True
    ) -> list[str]:
        """The command line with which a terminal runs `argv` in the node."""
        at = self._inside(ref)
        return at.docker.interactive(at.ref, argv, user=user, terminal=terminal)

    def endpoint(self, ref: Ref, port: int) -> str:
        """`host:port` on the pool's network, if this machine is on it. Raises EngineError."""
        for app in self._client.apps(LABEL_POOL):
            for node in observed(app, self._containers()):
                if node.name == ref.name and node.address:
                    return f"{node.address}:{port}"
        raise EngineError(f"{ref.name} has no address now", advice="`roost up` starts it")

    def _inside(self, ref: Ref) -> Container:
        """The node's container. Raises EngineError."""
        containers = self._containers()
        there = False
        for app in self._client.apps(LABEL_POOL):
            there = there or ref.name in node_names(app, containers)
            for task in app["tasks"]:
                if name_of(app, task, containers) == ref.name and task["id"] in containers:
                    return containers[task["id"]]
        if there:
            raise EngineError(f"the node {ref.name} is not running", advice="`roost up` starts it")
        raise EngineError(
            f"there is no node {ref.name}", advice="see `roost ls` for those that are"
        )

    # --- waiting ----------------------------------------------------------------------------

    @cached_property
    def _bell(self) -> Bell:
        return Bell(lambda: self._client.events(_EVENTS))

    def _until(self, found: Callable[[], T], seconds: float) -> T:
        """What `found` finds, asked again at each event; its last answer when the time is over."""
        deadline = time.monotonic() + seconds
        bell = self._bell
        while not (answer := found()) and time.monotonic() < deadline:
            bell.wait(_LOOK)
        return answer

    def _known(self, app: str) -> App:
        """An app that is there. Raises EngineError."""
        found = self._client.app(app)
        if found is None:
            raise EngineError(f"the app {app} was removed by somebody else")
        return found

    def _task(self, app: str, task: str) -> Task:
        """A task that is there. Raises EngineError with what became of it."""
        now = self._known(app)
        found: Task | None = next((each for each in now["tasks"] if each["id"] == task), None)
        if found is None:
            last = now.get("lastTaskFailure") or {}
            why = f": {last.get('message')}" if last.get("taskId") == task else ""
            raise EngineError(
                f"a task of {app} ended{why}", advice="`roost logs` and its agent say more"
            )
        return found


# --- values in, values out ----------------------------------------------------------------------


def words(version: str) -> MarathonVersion:
    """Whose words a Marathon of this version understands."""
    numbers = [int(number) for number in re.findall(r"[0-9]+", version)[:2]]
    if numbers < [1, 2]:
        return "1.1"
    return "1.4" if numbers < [1, 5] else "1.5+"


def own_requests(rows: Sequence[Mapping[str, Any]], name: str, address: str, log: str) -> list[str]:
    """The ids of the requests that a node's name, its address and the key in its own log prove."""
    return [
        str(row["id"])
        for row in rows
        if (row["name"], row["address"]) == (name, address) and f"key {row['fingerprint']}" in log
    ]


def name_of(app: App, task: Task, containers: Mapping[str, Container]) -> str:
    """What the node of a task is called."""
    if app["labels"].get(LABEL_ROLE) != "execute":
        return str(app["id"]).strip("/")
    found = containers.get(task["id"])
    return found.hostname if found else str(task["id"])


def node_names(app: App, containers: Mapping[str, Container]) -> set[str]:
    """The names of an app's nodes; one of a kind has its name also where it has no task yet."""
    names = {name_of(app, task, containers) for task in app["tasks"]}
    single = app["labels"].get(LABEL_ROLE) != "execute"
    return names | ({str(app["id"]).strip("/")} if single and app["instances"] else set())


def observed(app: App, containers: Mapping[str, Container]) -> list[ObservedNode]:
    """An app's nodes."""
    nodes = [_node(app, task, name_of(app, task, containers)) for task in app["tasks"]]
    missing = node_names(app, containers) - {node.name for node in nodes}
    return nodes + [_node(app, None, name) for name in sorted(missing)]


def _node(app: App, task: Task | None, name: str) -> ObservedNode:
    labels = app["labels"]
    role: Role = labels[LABEL_ROLE]
    # What has never been well waits for its admission: `roost up` has it go on.
    runs = task is not None and has_been_well(task)
    return ObservedNode(
        name, role, labels.get(LABEL_GROUP, ""), app["container"]["docker"]["image"],
        labels.get(LABEL_SPEC, ""), "running" if runs else "created",
        _health(task) if task else "none", address=address_of(task) if task else "",
        started=str((task or {}).get("startedAt", "")), networks=(network_of(app),),
    )  # fmt: skip


def _health(task: Task) -> Health:
    results = task.get("healthCheckResults") or []
    if not results:
        return "starting"
    if results[0].get("alive"):
        return "healthy"
    return "unhealthy" if results[0].get("firstSuccess") else "starting"


def has_been_well(task: Task) -> bool:
    """Whether a task runs and was found healthy at least once."""
    results = task.get("healthCheckResults") or []
    return task["state"] == "TASK_RUNNING" and any(
        each.get("alive") or each.get("firstSuccess") for each in results
    )


def address_of(task: Task) -> str:
    """A task's address on the pool's network; empty if it has none."""
    found = task.get("ipAddresses") or []
    return str(found[0].get("ipAddress", "")) if found else ""


def network_of(app: App) -> str:
    """The network of an app, in whichever words."""
    for network in app.get("networks") or ():
        if network.get("name"):
            return str(network["name"])
    named = (app.get("ipAddress") or {}).get("networkName")
    parameters = app["container"]["docker"].get("parameters") or ()
    return str(named or next((p["value"] for p in parameters if p["key"] == "net"), ""))


def volumes_of(app: App) -> list[str]:
    """The pool's volumes that are an app's own, by the names that they have in a plan."""
    pool, role = app["labels"][LABEL_POOL], app["labels"].get(LABEL_ROLE)
    paths = [
        each["containerPath"]
        for each in app["container"].get("volumes") or ()
        if "persistent" in each
    ]
    # The access point's state, its identity, is nobody's but its own.
    return [f"{pool}-{path}" for path in paths if (path == "state") == (role == "master")]
