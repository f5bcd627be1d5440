"""Apps, their tasks and the deployments between: what the emulator does, without its HTTP."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from marathon_emulator import containers
from marathon_emulator.definitions import VERSIONS, App, Generation, accepted, fits

#: An agent by its attributes, of which `hostname` is one.
Agent = Mapping[str, str]
AGENTS: Final[tuple[Agent, ...]] = (
    {"hostname": "agent-1", "rack": "rack-1"},
    {"hostname": "agent-2", "rack": "rack-1"},
    {"hostname": "agent-3", "rack": "rack-2"},
)


class Refused(Exception):
    """What a request gets instead of what it asked for: a status and a body."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(body)
        self.status = status
        self.body = body


def now() -> str:
    """As Marathon writes times."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Task:
    """One instance of an app, and its container."""

    id: str
    app: App
    agent: Agent
    slot: int
    """Which of the app's persistent volumes it has."""
    container: str = field(default_factory=lambda: f"mesos-{uuid.uuid4()}")
    state: str = "TASK_STAGING"
    staged: str = field(default_factory=now)
    started: str = ""
    address: str = ""
    health: dict[str, Any] | None = None
    doomed: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    """Its container is gone, or will be in a moment."""

    @property
    def well(self) -> bool:
        """Running and, if it has a health check, healthy: what a deployment waits for."""
        return self.state == "TASK_RUNNING" and (
            not self.app["healthChecks"] or bool(self.health and self.health["alive"])
        )

    @property
    def addresses(self) -> list[dict[str, str]]:
        """As the API shows them."""
        return [{"ipAddress": self.address, "protocol": "IPv4"}] if self.address else []

    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "id": self.id, "appId": self.app["id"], "host": self.agent["hostname"],
            "slaveId": f"{self.agent['hostname']}-S0", "ports": [], "servicePorts": [],
            "state": self.state, "stagedAt": self.staged, "version": self.app["version"],
            **({"startedAt": self.started} if self.started else {}),
            "ipAddresses": self.addresses,
            **({"healthCheckResults": [self.health]} if self.health else {}),
        }  # fmt: skip


class Emulator:
    """As much of a Marathon as roost has to do with.

    `pace` shortens the intervals of health checks, and the time before a failed task is started
    again; `most` is how many deployments may run at once.
    """

    def __init__(
        self,
        generation: Generation = "1.5",
        *,
        agents: Sequence[Agent] = AGENTS,
        domain: str = "marathon.mesos",
        pace: float = 1.0,
        most: int = 100,
    ) -> None:
        self.generation: Generation = generation
        self.version = VERSIONS[generation]
        self.owner = uuid.uuid4().hex[:12]
        self._agents, self._domain, self._pace, self._most = agents, domain, pace, most
        self._changed = threading.Condition(threading.RLock())
        self._apps: dict[str, App] = {}
        self._tasks: list[Task] = []
        self._deployments: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, dict[str, Any]] = {}
        self._again: dict[str, float] = {}
        self._listeners: list[queue.SimpleQueue[dict[str, Any] | None]] = []
        self._closed = self._launched = False
        self._loop = threading.Thread(target=self._keep_up, daemon=True)
        self._loop.start()

    def close(self) -> None:
        """End, and leave nothing on the engine."""
        with self._changed:
            self._closed = True
            for task in self._tasks:
                task.over.set()
            for listener in self._listeners:
                listener.put(None)
            self._changed.notify_all()
        self._loop.join()
        if self._launched:
            containers.remove_all(self.owner)

    # --- what is asked for ------------------------------------------------------------------

    def shown(self, id: str, *, tasks: bool = True) -> dict[str, Any]:
        """An app as the API shows it. Raises Refused."""
        with self._changed:
            app = self._app(id)
            own = [task for task in self._tasks if task.app["id"] == app["id"]]
            return {
                **app,
                "tasksStaged": sum(task.state == "TASK_STAGING" for task in own),
                "tasksRunning": sum(task.state == "TASK_RUNNING" for task in own),
                "tasksHealthy": sum(bool(task.health and task.health["alive"]) for task in own),
                "tasksUnhealthy": sum(
                    bool(task.health and not task.health["alive"]) for task in own
                ),
                "deployments": [{"id": each} for each in self._locks(app["id"])],
                **({"tasks": [task.shown() for task in own]} if tasks else {}),
                **({"lastTaskFailure": self._failures[app["id"]]}
                   if app["id"] in self._failures else {}),
            }  # fmt: skip

    def listed(self, label: str = "") -> list[dict[str, Any]]:
        """All apps, or those with a label `key==value` or `key`."""
        key, equals, value = label.partition("==")
        with self._changed:
            return [
                self.shown(id)
                for id, app in self._apps.items()
                if not label
                or (key in app["labels"] and (not equals or app["labels"][key] == value))
            ]

    def containers(self) -> dict[str, str]:
        """Task → its container: what only the agents know."""
        with self._changed:
            return {task.id: task.container for task in self._tasks}

    def volumes(self) -> list[str]:
        """The Docker volumes that persistent ones are."""
        mine = f"label={containers.LABEL}={self.owner}"
        return containers.docker("volume", "ls", "--quiet", "--filter", mine).stdout.split()

    def running(self) -> list[dict[str, Any]]:
        """The deployments that go on."""
        with self._changed:
            return [dict(each) for each in self._deployments.values()]

    def create(self, app: App, *, force: bool = False) -> dict[str, Any]:
        """A new app. Raises Refused, Invalid."""
        taken = accepted(app, self.generation)
        with self._changed:
            if taken["id"] in self._apps:
                raise Refused(409, {"message": f"An app with id [{taken['id']}] already exists."})
            self._begin(taken["id"], force=force)
            self._apps[taken["id"]] = {**taken, "version": now()}
            self._changed.notify_all()
            return self.shown(taken["id"])

    def update(self, id: str, change: App, *, force: bool = False) -> dict[str, Any]:
        """A changed app, or a new one. Raises Refused, Invalid."""
        with self._changed:
            old = self._apps.get(id, {"id": id})
            whole = {**old, **change, "id": id}
            whole.pop("version", None)
            taken = accepted(whole, self.generation)
            deployment = self._begin(id, force=force)
            same = {**taken, "instances": 0} == {**old, "instances": 0, "version": None} or all(
                taken.get(key) == old.get(key) for key in taken if key != "instances"
            )
            # A change of the number alone starts nobody anew.
            version = old["version"] if same and "version" in old else now()
            self._apps[id] = {**taken, "version": version}
            self._changed.notify_all()
            return {"version": now(), "deploymentId": deployment}

    def delete(self, id: str, *, force: bool = True) -> dict[str, Any]:
        """The app goes, and its volumes with it. Raises Refused."""
        with self._changed:
            self._app(id)
            deployment = self._begin(id, force=force)
            del self._apps[id]
            self._failures.pop(id, None)
            self._changed.notify_all()
            return {"version": now(), "deploymentId": deployment}

    def kill(self, ids: Sequence[str], *, scale: bool, force: bool = False) -> dict[str, Any]:
        """Exactly these tasks end; with `scale` the apps become smaller by them. Raises Refused."""
        with self._changed:
            found = [task for task in self._tasks if task.id in ids and not task.doomed]
            answer: dict[str, Any] = {"tasks": [task.shown() for task in found]}
            if scale and found:
                for id in {task.app["id"] for task in found}:
                    mine = [task for task in found if task.app["id"] == id]
                    app = self._app(id)
                    answer = {"version": now(), "deploymentId": self._begin(id, force=force)}
                    self._apps[id] = {**app, "instances": max(0, app["instances"] - len(mine))}
            for task in found:
                self._doom(task)
            self._changed.notify_all()
            return answer

    def cancel(self, deployment: str) -> None:
        """Forget a deployment; what it reached stays. Raises Refused."""
        with self._changed:
            if deployment not in self._deployments:
                raise Refused(404, {"message": f"Deployment plan '{deployment}' does not exist"})
            self._end(deployment, "deployment_failed")

    def events(self) -> Iterator[dict[str, Any] | None]:
        """What happens from now on; None when nothing has for a while, and at the end."""
        mine: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._changed:
            self._listeners.append(mine)
        try:
            while not self._closed:
                try:
                    event = mine.get(timeout=5)
                except queue.Empty:
                    event = None
                yield event
        finally:
            with self._changed:
                self._listeners.remove(mine)

    # --- deployments ------------------------------------------------------------------------

    def _app(self, id: str) -> App:
        if id not in self._apps:
            raise Refused(404, {"message": f"App '{id}' does not exist"})
        return self._apps[id]

    def _locks(self, id: str) -> list[str]:
        return [key for key, each in self._deployments.items() if id in each["affectedApps"]]

    def _begin(self, id: str, *, force: bool) -> str:
        """A new deployment. Raises Refused where another holds the app, unless it is forced."""
        locks = self._locks(id)
        if locks and not force:
            raise Refused(
                409,
                {
                    "message": "App is locked by one or more deployments. Override with the option"
                    " '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'.",
                    "deployments": [{"id": each} for each in locks],
                },
            )
        for each in locks:
            self._end(each, "deployment_failed")
        if len(self._deployments) >= self._most:
            raise Refused(
                403,
                {"message": f"Max number ({self._most}) of running deployments is achieved. Wait"
                 " for existing deployments to complete or cancel one using force=true parameter."},
            )  # fmt: skip
        new = str(uuid.uuid4())
        self._deployments[new] = {
            "id": new, "version": now(), "affectedApps": [id], "steps": [], "currentActions": [],
            "currentStep": 1, "totalSteps": 1,
        }  # fmt: skip
        self._tell("deployment_info", plan={"id": new}, currentStep={"actions": [{"app": id}]})
        return new

    def _end(self, deployment: str, how: str) -> None:
        del self._deployments[deployment]
        self._tell(how, id=deployment)

    def _tell(self, kind: str, **more: Any) -> None:
        for listener in self._listeners:
            listener.put({"eventType": kind, "timestamp": now(), **more})

    # --- tasks ------------------------------------------------------------------------------

    def _keep_up(self) -> None:
        """Until the end: start what is missing, end what is too much, close what is done."""
        with self._changed:
            while not self._closed:
                soon = [at for at in map(self._attend, list(self._apps)) if at is not None]
                for task in self._tasks:
                    if task.app["id"] not in self._apps:
                        self._doom(task)
                for id, deployment in list(self._deployments.items()):
                    if all(map(self._settled, deployment["affectedApps"])):
                        for app in deployment["affectedApps"]:
                            if app not in self._apps:
                                self._drop_volumes(app)
                        self._end(id, "deployment_success")
                self._changed.wait(max(0.01, min(soon) - time.monotonic()) if soon else None)

    def _attend(self, id: str) -> float | None:
        """Bring one app nearer to its definition; when to look again, if it must wait."""
        app = self._apps[id]
        own = [task for task in self._tasks if task.app["id"] == id]
        for task in own:
            if task.app["version"] != app["version"]:
                self._doom(task)
        live = [task for task in own if not task.doomed]
        for task in live[app["instances"] :]:  # the youngest first
            self._doom(task)
        if len(own) >= app["instances"]:
            return None
        if (at := self._again.get(id, 0.0)) > time.monotonic():
            return at
        for _ in range(app["instances"] - len(own)):
            self._launch(app)
        return None

    def _settled(self, id: str) -> bool:
        own = [task for task in self._tasks if task.app["id"] == id]
        wanted = self._apps[id]["instances"] if id in self._apps else 0
        return len(own) == wanted and all(task.well and not task.doomed for task in own)

    def _launch(self, app: App) -> None:
        """A task on the agent that has the fewest; none where the constraints allow none."""
        own = [task for task in self._tasks if task.app["id"] == app["id"]]
        others = [task.agent for task in own]
        possible = [
            agent
            for agent in self._agents
            if fits(app["constraints"], agent, others, len(self._agents))
        ]
        if not possible:
            return
        agent = min(possible, key=lambda each: sum(t.agent is each for t in self._tasks))
        taken = {task.slot for task in own}
        slot = next(number for number in range(len(own) + 1) if number not in taken)
        name = app["id"].strip("/").replace("/", "_")
        task = Task(f"{name}.{uuid.uuid1()}", app, agent, slot)
        self._tasks.append(task)
        self._launched = True
        self._status(task, "TASK_STAGING")
        threading.Thread(target=self._live, args=(task,), daemon=True).start()

    def _live(self, task: Task) -> None:
        """A task from its start to its end."""
        paths = [
            each["containerPath"]
            for each in task.app["container"].get("volumes") or ()
            if "persistent" in each
        ]
        volumes = {path: self._volume(task, path) for path in paths}
        for name in volumes.values():
            containers.docker(
                "volume", "create", "--label", f"{containers.LABEL}={self.owner}",
                "--label", f"{containers.LABEL}.app={task.app['id']}", name,
            )  # fmt: skip
        host = task.agent["hostname"]
        done = containers.docker(*containers.run_argv(
            task.app, task.id, task.container, host, self.owner, self._domain, volumes
        ))  # fmt: skip
        why = done.stderr.strip()
        if done.returncode == 0:
            with self._changed:
                task.address = containers.address(task.container)
                task.started = now()
                self._status(task, "TASK_RUNNING")
            for check in task.app["healthChecks"]:
                threading.Thread(target=self._watch, args=(task, check), daemon=True).start()
            containers.docker("wait", task.container, timeout=86400)
            ended = containers.inspected(task.container, "{{json .State}}") or {}
            why = f"Container exited with status {ended.get('ExitCode')}"
        task.over.set()
        if not self._closed:
            containers.docker("rm", "--force", "--volumes", task.container)
        with self._changed:
            self._status(task, "TASK_KILLED" if task.doomed else "TASK_FAILED", why)
            self._tasks.remove(task)
            if not task.doomed:
                self._again[task.app["id"]] = (
                    time.monotonic() + task.app["backoffSeconds"] * self._pace
                )
                self._failures[task.app["id"]] = {
                    "appId": task.app["id"], "taskId": task.id, "state": "TASK_FAILED",
                    "message": why, "host": host, "timestamp": now(),
                }  # fmt: skip
            self._changed.notify_all()

    def _volume(self, task: Task, path: str) -> str:
        app = task.app["id"].strip("/").replace("/", "_")
        return f"emulator-{self.owner}-{app}-{path}-{task.slot}"

    def _drop_volumes(self, app: str) -> None:
        if not self._launched:
            return
        mine = f"label={containers.LABEL}={self.owner}"
        own = f"label={containers.LABEL}.app={app}"
        said = containers.docker("volume", "ls", "--quiet", "--filter", mine, "--filter", own)
        if said.stdout.split():
            containers.docker("volume", "rm", *said.stdout.split())

    def _doom(self, task: Task) -> None:
        """Stop a task, with the time that it has for that."""
        if task.doomed:
            return
        task.doomed = True
        grace = str(task.app.get("taskKillGracePeriodSeconds", 10))
        stop = ("stop", "--time", grace, task.container)

        def end() -> None:
            # Until its container is there it cannot be stopped.
            while containers.docker(*stop).returncode != 0 and not task.over.wait(0.2):
                pass

        threading.Thread(target=end, daemon=True).start()

    def _watch(self, task: Task, check: dict[str, Any]) -> None:
        """Ask for a task's health until its end."""
        began, failures = time.monotonic(), 0
        while not task.over.wait(
            0 if task.health is None else check["intervalSeconds"] * self._pace
        ):
            why = containers.sick(task.container, check)
            if task.over.is_set():
                return
            with self._changed:
                before = task.health or {"alive": False, "consecutiveFailures": 0}
                health = {**before, "taskId": task.id, "alive": not why}
                health["lastFailure" if why else "lastSuccess"] = now()
                if why:
                    health["lastFailureCause"] = why
                else:
                    health.setdefault("firstSuccess", now())
                young = time.monotonic() - began < check["gracePeriodSeconds"]
                excused = young and "firstSuccess" not in health
                failures = 0 if not why or excused else failures + 1
                health["consecutiveFailures"] = failures
                task.health = health
                if health["alive"] != before["alive"]:
                    self._tell(
                        "health_status_changed_event", appId=task.app["id"], taskId=task.id,
                        version=task.app["version"], alive=health["alive"],
                    )  # fmt: skip
                if why and not excused:
                    self._tell("failed_health_check_event", appId=task.app["id"], taskId=task.id)
                if 0 < check["maxConsecutiveFailures"] <= failures:
                    self._tell(
                        "unhealthy_task_kill_event", appId=task.app["id"], taskId=task.id,
                        reason=why, host=task.agent["hostname"],
                    )  # fmt: skip
                    self._doom(task)
                self._changed.notify_all()

    def _status(self, task: Task, status: str, message: str = "") -> None:
        task.state = status
        self._tell(
            "status_update_event", taskId=task.id, taskStatus=status, appId=task.app["id"],
            host=task.agent["hostname"], message=message, ports=[], version=task.app["version"],
            ipAddresses=task.addresses,
        )  # fmt: skip
        self._changed.notify_all()

    def until(self, right: Callable[[Emulator], bool], seconds: float = 60) -> bool:
        """Whether something becomes so in time; asked again at each change."""
        with self._changed:
            return self._changed.wait_for(lambda: right(self), seconds)


@contextmanager
def emulated(generation: Generation = "1.5", **options: Any) -> Iterator[Emulator]:
    """An emulator that leaves nothing behind."""
    emulator = Emulator(generation, **options)
    try:
        yield emulator
    finally:
        emulator.close()
