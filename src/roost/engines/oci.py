"""Docker and Podman through their command lines: one code, two dialects that are data."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import dropwhile
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from roost._run import Completed, run, stream
from roost.confine import FUSE, SECCOMP, Confinement
from roost.engines.base import EVERYBODY, RESTART, STOP_SECONDS, EngineInfo, Event, ref_of
from roost.errors import (
    CommandFailed,
    DiskFull,
    EngineError,
    EngineUnavailable,
    ImageMissing,
    NameTaken,
    PortTaken,
)
from roost.placing import Placement
from roost.plan import (
    Health,
    Item,
    Network,
    Node,
    NodeState,
    Observed,
    ObservedNode,
    Plan,
    Ref,
    Volume,
    bound,
)
from roost.security import Secret
from roost_node.vocab import (
    LABEL_GROUP,
    LABEL_POOL,
    LABEL_ROLE,
    LABEL_SPEC,
    READER_KEY,
    STATE_DIR,
)


@dataclass(frozen=True)
class Dialect:
    """What sets one command line apart from the other."""

    program: str
    title: str
    install: str
    """What to do when the program is not there."""
    info: str
    """Go template that makes a JSON object of `info`: version, cpus, memory, cgroup, rootless."""
    host_variable: str
    """Environment variable that points to an engine on another machine."""
    ignore_missing: tuple[str, ...] = ()
    """Flag with which `stop` and `rm` go on when a container has just vanished."""
    log_limits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By log driver: flags that keep a container's log from filling the disk, where it may."""
    tmpfs_owner: str = "uid={uid},gid={gid}"
    """Option that makes a place in memory the user's."""
    health_by_systemd: bool = False
    """Health checks are run by timers of systemd: without systemd, by nobody."""


DOCKER: Final = Dialect(
    program="docker",
    title="Docker",
    install="install it (on Debian and Ubuntu: `sudo apt install docker.io`)",
    info='{"version":{{json .ServerVersion}},"cpus":{{.NCPU}},"memory":{{.MemTotal}},'
    '"cgroup":{{json .CgroupVersion}},"logs":{{json .LoggingDriver}},'
    '"rootless":"{{range .SecurityOptions}}{{if eq . "name=rootless"}}yes{{end}}{{end}}"}',
    host_variable="DOCKER_HOST",
    # journald, syslog and the others have limits of their own, and refuse these.
    log_limits=dict.fromkeys(
        ("json-file", "local"), ("--log-opt", "max-size=20m", "--log-opt", "max-file=2")
    ),
)
PODMAN: Final = Dialect(
    program="podman",
    title="Podman",
    install="install it (on Debian and Ubuntu: `sudo apt install podman`)",
    info='{"version":{{json .Version.Version}},"cpus":{{.Host.CPUs}},"memory":{{.Host.MemTotal}},'
    '"cgroup":{{json .Host.CgroupsVersion}},"logs":{{json .Host.LogDriver}},'
    '"rootless":{{json .Host.Security.Rootless}}}',
    host_variable="CONTAINER_HOST",
    log_limits={"k8s-file": ("--log-opt", "max-size=20mb")},
    ignore_missing=("--ignore",),
    tmpfs_owner="U",
    health_by_systemd=True,
)


@dataclass(frozen=True)
class At:
    """An engine on another machine."""

    name: str
    """What the pool calls that machine."""
    docker: str = ""
    """Its Docker's address; the environment's if empty."""
    tls: str = ""
    """The directory of the certificates for it."""
    address: str = ""
    """Where that machine's published ports are."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Each one word, so that what follows them is the command."""
        found = [f"--host={self.docker}"] if self.docker else []
        if self.tls:
            tls = Path(self.tls).expanduser()
            found += ["--tlsverify", f"--tlscacert={tls}/ca.pem", f"--tlscert={tls}/cert.pem",
                      f"--tlskey={tls}/key.pem"]  # fmt: skip
        return tuple(found)


Kind = Literal["node", "volume", "network"]

#: roost's words for the engine's objects, in the order in which they are removed.
_COMMAND: Final[Mapping[Kind, str]] = {
    "node": "container",
    "volume": "volume",
    "network": "network",
}
_LIST: Final[Mapping[Kind, tuple[str, ...]]] = {
    "node": ("ps", "--all", "--no-trunc", "--format", "{{.ID}}"),
    "volume": ("volume", "ls", "--format", "{{.Name}}"),
    "network": ("network", "ls", "--format", "{{.Name}}"),
}
_LABELS: Final[Mapping[Kind, str]] = {
    "node": "{{.Name}} {{json .Config.Labels}}",
    "volume": "{{.Name}} {{json .Labels}}",
    "network": "{{.Name}} {{json .Labels}}",
}
_NODE: Final = (
    '{"name":{{json .Name}},"image":{{json .Config.Image}},"labels":{{json .Config.Labels}},'
    '"state":{{json .State}},"networks":{{json .NetworkSettings.Networks}},'
    '"check":{{json .Config.Healthcheck}},"restarts":{{.RestartCount}}}'
)

_LABELLED: Final = (
    '{"id":{{json .Id}},"hostname":{{json .Config.Hostname}},"env":{{json .Config.Env}}}'
)
_STATE: Final = "{{.Name}} {{.State.Status}}"
_STANDING: Final = "{{.State.Status}} {{json .NetworkSettings.Networks}}"

#: The engines' words for a container's state. One that the engine is about to start again runs, as
#: far as anybody else is concerned: it is neither to be started nor given up.
_STATES: Final[Mapping[str, NodeState]] = {
    "created": "created",
    "configured": "created",
    "initialized": "created",
    "running": "running",
    "paused": "paused",
    "restarting": "running",
    "stopping": "exited",
    "stopped": "exited",
    "exited": "exited",
    "removing": "dead",
    "dead": "dead",
}
_HEALTH: Final[Mapping[str, Health]] = {
    "starting": "starting",
    "healthy": "healthy",
    "unhealthy": "unhealthy",
}

#: What the engines say when something is not there; the only complaint that removal may ignore.
_GONE: Final = re.compile(
    r"no such (?:container|volume|network|object)|(?:network|container) \S+ not found"
    r"|no (?:container|volume|network) with name|unable to find network with name",
    re.IGNORECASE,
)

_PARALLEL: Final = 8

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class _Complaint:
    """What an engine says, and what that means. `{what}` is the first group that matched."""

    pattern: str
    kind: type[EngineError]
    message: str
    advice: str


#: The first that matches counts: an image that did not fit on the disk is first of all a full disk.
_COMPLAINTS: Final = (
    _Complaint(
        r"no space left on device|disk quota exceeded",
        DiskFull,
        "no space is left where {title} keeps its data",
        "free some, for example with `{program} image prune`, and try again",
    ),
    _Complaint(
        r"permission denied while trying to connect",
        EngineUnavailable,
        "{title} is running but you may not use it",
        "join its group with `sudo usermod -aG docker $USER` and log in again, or use sudo",
    ),
    _Complaint(
        r"cannot connect to the docker daemon|failed to connect to the docker API"
        r"|is the docker daemon running",
        EngineUnavailable,
        "{title} is installed but not running",
        "start it with `sudo systemctl start docker` or `sudo service docker start`",
    ),
    _Complaint(
        r"(?:cannot|unable to) connect to podman",
        EngineUnavailable,
        "{title} is installed but its machine is not running",
        "start it with `podman machine start`",
    ),
    _Complaint(
        r"new[ug]idmap|/etc/sub[ug]id",
        EngineUnavailable,
        "{title} cannot run containers for you without root",
        "install the package uidmap and have ranges in /etc/subuid and /etc/subgid, or use sudo",
    ),
    _Complaint(
        r"error setting rlimit",
        EngineUnavailable,
        "{title} asks for resource limits that this machine does not allow",
        "set `default_ulimits` in containers.conf to at most what `ulimit -Hn` and `ulimit -Hu` "
        "say (nproc at most 32768), as scripts/podman does",
    ),
    _Complaint(
        r"unable to find image '([^']+)' locally|no such image:? ([^\s:]+(?::[\w.-]+)?)"
        r"|short-name \"([^\"]+)\" did not resolve|error: (?:inspecting object: )?(\S+): image not"
        r"|initializing source docker://([^\s:]+(?::[\w.-]+)?)",
        ImageMissing,
        "the image {what} is neither here nor can {title} pull it",
        "make it with `roost image build`, or name another one with `htcondor: {{image: …}}`",
    ),
    _Complaint(
        r"bind for \S*?:(\d+) failed: port is already|:(\d+): bind: address already in use",
        PortTaken,
        "port {what} of this machine is in use",
        "stop what listens there or choose another port",
    ),
    _Complaint(
        r"container name \"/?([^\"]+)\" is already in use|network with name (\S+) already exists"
        r"|network name (\S+) already used|volume with name (\S+) already exists",
        NameTaken,
        "the name {what} is taken in {title}, and not by this pool",
        "remove or rename what has it, or give the pool another name with --name",
    ),
    _Complaint(
        r"network (\S+) not found|unable to find network with name or ID ([^\s:]+)",
        EngineError,
        "{title} knows no network {what}",
        "make it with `{program} network create {what}` or name another one with "
        "`network: {{name: …}}`",
    ),
    _Complaint(
        r"no such container:? (\S+)|no container with name or ID \"([^\"]+)\""
        r"|container \"?([^\"\s]+)\"? does not exist",
        EngineError,
        "there is no node {what}",
        "see `roost ls` for those that there are",
    ),
    _Complaint(
        r"container (\S+) is not running|can only create exec sessions on running containers",
        EngineError,
        "the node is not running",
        "see `roost logs` for why; `roost up` starts it again",
    ),
    _Complaint(
        r"container (\S+) is paused",
        EngineError,
        "the node is paused",
        "`roost up` has it go on",
    ),
    _Complaint(
        r"non-overlapping ipv4 address pool|address pools have been fully subnetted"
        r"|could not find free subnet",
        EngineError,
        "{title} has no range of addresses left for another network",
        "remove those that nothing uses with `{program} network prune`",
    ),
    _Complaint(
        r"could not find the file (\S+) in container|\"([^\"]+)\" could not be found on container"
        r"|destination \"[^\":]+:([^\"]+)\" must be a directory",
        EngineError,
        "the image has no folder {what}: it is not one of roost's",
        "make one with `roost image build`",
    ),
    _Complaint(
        r"exec: \"-[mse]\": executable file not found|executable file `-[mse]` not found",
        EngineError,
        "the image does not start a node: it is not one of roost's",
        "make one with `roost image build`",
    ),
)


def explain(dialect: Dialect, error: CommandFailed) -> EngineError:
    """What a failed command of the engine means, with advice."""
    for complaint in _COMPLAINTS:
        match = re.search(complaint.pattern, error.stderr, re.IGNORECASE)
        if match:
            what = next((group for group in match.groups() if group), "")
            words = {"title": dialect.title, "program": dialect.program, "what": what}
            return complaint.kind(
                complaint.message.format(**words), advice=complaint.advice.format(**words)
            )
    if error.status == 127 and error.stderr.endswith("is not installed"):
        return EngineUnavailable(f"{dialect.title} is not installed", advice=dialect.install)
    if error.status == 124:
        return EngineUnavailable(
            f"{dialect.title} does not answer: {error.stderr}", advice="see whether it still runs"
        )
    return EngineError(f"{dialect.title} refused `{_verb(error.argv)}`: {_gist(error.stderr)}")


def _verb(argv: Sequence[str]) -> str:
    """`docker network create`, of a long command line."""
    words = [argv[0], *dropwhile(lambda word: word.startswith("--"), argv[1:])]
    return " ".join(words[: 3 if words[1] in ("container", "network", "volume", "image") else 2])


def _gist(stderr: str) -> str:
    """The line that says what is wrong, among warnings before it and hints after it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    wrong = [line for line in lines if re.match(r"(?:docker: )?Error", line)]
    # Docker's client adds `Error: failed to start containers` to what the daemon said.
    daemon = [line for line in wrong if "response from daemon" in line]
    said = (daemon or wrong or lines or ["it said nothing"])[-1]
    return re.sub(r"^(?:docker: )?Error(?: response from daemon)?: ", "", said)


class OciEngine:
    """Containers by the command line of Docker or Podman."""

    delivers = EVERYBODY

    def __init__(self, dialect: Dialect, at: At | None = None) -> None:
        """`at` names an engine on another machine; else the one that the environment names."""
        self.dialect = replace(dialect, title=f"{dialect.title} on {at.name}") if at else dialect
        self.name = dialect.program
        self._at = at
        self._command = [self.name, *(at.flags if at else ())]

    def __repr__(self) -> str:
        return f"OciEngine({self.dialect.title})"

    # --- what there is ---------------------------------------------------------------------------

    def info(self) -> EngineInfo:
        """Version and capabilities. Raises EngineUnavailable when it does not answer."""
        said = self._call("info", "--format", self.dialect.info, timeout=20).text
        try:
            data = json.loads(said)
        except ValueError:
            data = {}
        if not data.get("version"):
            raise EngineUnavailable(
                f"what answers as `{self.name}` is not {self.dialect.title}",
                advice=self.dialect.install,
            )
        return EngineInfo(
            name=self.name,
            version=data["version"],
            cpus=float(data["cpus"]),
            memory=int(data["memory"]),
            cgroup=str(data["cgroup"]).removeprefix("v"),
            rootless=bool(data["rootless"]),
            log_driver=str(data.get("logs") or ""),
        )

    def check(self, plan: Plan) -> None:
        """Plans are made of what these engines have."""

    def pools(self) -> Sequence[str]:
        """The names of all pools that it holds anything of, sorted."""

        def of(kind: Kind) -> set[str]:
            names = self._list(kind, LABEL_POOL)
            return {labels[LABEL_POOL] for labels in self._labels(kind, names).values()}

        return sorted(set().union(*_side_by_side(of, _COMMAND)))

    def observe(self, pool: str) -> Observed:
        """What it holds of `pool`, from labels; empty if nothing.

        Three listings side by side and one inspection, however many nodes there are. Only where
        the engine runs no health checks, each running node's is run here.
        """
        nodes, volumes, networks = _side_by_side(
            lambda kind: self._list(kind, f"{LABEL_POOL}={pool}"), _COMMAND
        )
        inspected = [json.loads(line) for line in self._inspect("node", _NODE, nodes)]
        if self._runs_no_checks:
            healths = _side_by_side(self._ask_health, inspected)
        else:
            healths = [_engines_health(data) for data in inspected]
        observed = [_node(data, health) for data, health in zip(inspected, healths, strict=True)]
        return Observed(
            pool,
            tuple(sorted(networks)),
            tuple(sorted(volumes)),
            tuple(sorted((node for node in observed if node), key=_by_number)),
        )

    def has_image(self, image: str) -> bool:
        """Whether `image` is here, without pulling it."""
        try:
            self._call("image", "inspect", "--format", "{{.Id}}", image)
        except ImageMissing:
            return False
        return True

    def holds(self, ref: Ref) -> bool:
        """Whether it has this, as some pool's."""
        return LABEL_POOL in self._labels(ref.kind, [ref.name]).get(ref.name, {})

    def labelled(self, label: str) -> Sequence[Mapping[str, Any]]:
        """What runs with a label, whoever made it: id, host name and environment."""
        ids = self._call("ps", "--no-trunc", "--quiet", "--filter", f"label={label}").text.split()
        return [json.loads(line) for line in self._inspect("node", _LABELLED, ids)]

    # --- making ----------------------------------------------------------------------------------

    def ensure(self, item: Item) -> Iterator[Event]:
        """Create the item or start it; a no-op (`unchanged`) if it is there already.

        A node's files are in place before its process starts. What a failed call had made is
        removed by itself. Raises NameTaken when the name belongs to something else.
        """
        match item:
            case Node():
                return self._ensure_node(item)
            case Network() | Volume():
                return self._ensure_bare(item)

    def _ensure_bare(self, item: Network | Volume) -> Iterator[Event]:
        ref = ref_of(item)
        if self._is_ours(ref, item.labels):
            yield Event("unchanged", ref)
            return
        yield Event("creating", ref)
        self._call(_COMMAND[ref.kind], "create", *_label_flags(item.labels), item.name)
        yield Event("created", ref)

    def _ensure_node(self, node: Node) -> Iterator[Event]:
        ref = ref_of(node)
        if self._is_ours(ref, node.labels):
            yield Event("started" if self._revived(node) else "unchanged", ref)
            return
        yield Event("creating", ref)
        complete = False
        try:
            self._call(*self._create(node))
            yield Event("created", ref)
            self._start(node, node.files)
            complete = True
            yield Event("started", ref)
        except NameTaken:  # somebody else made it a moment ago
            complete = True
            raise
        finally:
            if not complete:
                with suppress(EngineError):
                    self._remove_nodes([node.name])

    def _revived(self, node: Node) -> bool:
        """Have a node that is there run on its network; False if it does so already."""
        found = self._inspect("node", _STANDING, [node.name])
        status, _, networks = (found[0] if found else "dead null").partition(" ")
        state = _STATES.get(status, "exited")
        astray = node.network not in _networks(json.loads(networks))
        if astray:
            self._call("network", "connect", node.network, node.name)
        match state:
            case "running":
                return astray
            case "paused":
                self._call("unpause", node.name)
            case "created":  # whoever made it was stopped before the files were there
                self._start(node, node.files)
            case _:
                self._start_again(node)
        return True

    def _start_again(self, node: Node) -> None:
        try:
            self._start(node, {})
        except EngineError:
            # Docker knows a container's network by its id: one of the same name is another.
            (networks,) = self._inspect("node", "{{json .NetworkSettings.Networks}}", [node.name])
            there = self._inspect("network", "{{.Id}}", [node.network])
            if not there or there[0] in _networks(json.loads(networks)):
                raise
            self._call("network", "disconnect", "--force", node.network, node.name)
            self._call("network", "connect", node.network, node.name)
            self._start(node, {})

    def _create(self, node: Node) -> list[str]:
        limits: list[str] = []
        # The engine refuses more CPUs than its machine has; an executor may advertise more.
        if node.cpus is not None and node.cpus < self._machine.cpus:
            limits += ["--cpus", f"{node.cpus:g}"]
        if node.memory is not None:
            limits += ["--memory", str(node.memory)]
        if node.health_every is not None:
            limits += ["--health-interval", f"{node.health_every}s"]
        return [
            "create", "--name", node.name, "--hostname", node.name, "--network", node.network,
            *_placed(node.placement), *_label_flags(node.labels), *limits,
            *_confined(node.confinement, self.dialect),
            *(word for at in node.mounts for word in ("--volume", f"{at.volume}:{at.path}")),
            *(word for at in node.binds for word in ("--volume", bound(at))),
            "--restart", RESTART, "--stop-timeout", str(STOP_SECONDS),
            *self.dialect.log_limits.get(self._machine.log_driver, ()),
            node.image, *node.args,
        ]  # fmt: skip

    def _start(self, node: Node, files: Mapping[str, Secret]) -> None:
        if files:
            # Through stdin: neither argv, nor the environment, nor `inspect` ever shows a secret.
            self._call(
                "cp", "-", f"{node.name}:{STATE_DIR}", stdin=_tar(files, node.confinement.user)
            )
        self._call("start", node.name)

    # --- removing --------------------------------------------------------------------------------

    def retire(self, refs: Sequence[Ref]) -> Iterator[Event]:
        """Stop and remove exactly these, side by side; what is already gone is a no-op.

        Nodes go before the volumes and networks that they use. Raises NameTaken, before anything
        is removed, when a name belongs to something that is no pool's.
        """
        there: dict[Kind, list[str]] = {}
        for kind in _COMMAND:
            names = [ref.name for ref in refs if ref.kind == kind]
            labels = self._labels(kind, names)
            for name in names:
                if name in labels and LABEL_POOL not in labels[name]:
                    raise _taken(self.dialect, Ref(kind, name))
            there[kind] = [name for name in names if name in labels]
        for kind, names in there.items():
            if not names:
                continue
            for name in names:
                yield Event("removing", Ref(kind, name))
            if kind == "node":
                self._remove_nodes(names)
            else:
                self._unless_gone(_COMMAND[kind], "rm", *names)
            for name in names:
                yield Event("removed", Ref(kind, name))

    def _remove_nodes(self, names: Sequence[str]) -> None:
        states = dict(line.split() for line in self._inspect("node", _STATE, names))
        paused = [name.removeprefix("/") for name, state in states.items() if state == "paused"]
        if paused:  # Podman does not stop these, and nothing in them could end well
            self._unless_gone("unpause", *paused)
        # Both engines stop several containers side by side, each within its own --stop-timeout.
        self._unless_gone("stop", *self.dialect.ignore_missing, *names)
        self._unless_gone("rm", "--force", "--volumes", *self.dialect.ignore_missing, *names)

    def _unless_gone(self, *argv: str) -> None:
        done = run([*self._command, *argv])
        wrong = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        if done.status != 0 and not (wrong and all(_GONE.search(line) for line in wrong)):
            raise explain(self.dialect, CommandFailed(done.argv, done.status, done.stderr))

    # --- talking to nodes ------------------------------------------------------------------------

    def logs(self, ref: Ref, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """The node's log lines, the oldest first."""
        flags = ["--follow"] if follow else []
        flags += [] if tail is None else ["--tail", str(tail)]
        try:
            yield from stream([*self._command, "logs", *flags, ref.name])
        except CommandFailed as error:
            raise explain(self.dialect, error) from None

    def exec(
        self,
        ref: Ref,
        argv: Sequence[str],
        *,
        user: str | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,
    ) -> Completed:
        """Run `argv` in a running node; its status is in the result, not raised.

        The status is 124 when it takes longer than `timeout` seconds. Raises EngineError when the
        node is not there or not running.
        """
        flags = ["--interactive"] if stdin else []
        flags += ["--user", user] if user else []
        try:
            done = run(
                [*self._command, "exec", *flags, ref.name, *argv], stdin=stdin, timeout=timeout
            )
        except CommandFailed as error:
            if error.status == 124:
                return Completed(tuple(argv), 124, b"", error.stderr)
            raise explain(self.dialect, error) from None
        refused = re.match(
            r"Error.*(?:no such container|is not running|is paused|exec sessions on running"
            r"|does not exist)|.*(?:docker daemon|connect to podman)",
            done.stderr,
            re.IGNORECASE,
        )
        if done.status in (1, 125, 255) and refused:
            raise explain(self.dialect, CommandFailed(done.argv, done.status, done.stderr))
        return Completed(tuple(argv), done.status, done.stdout, done.stderr)

    def interactive(
        self, ref: Ref, argv: Sequence[str], *, user: str | None = None, terminal: bool = True
    ) -> list[str]:
        """The command line with which a terminal runs `argv` in the node, or else a pipe."""
        flags = ["--tty"] if terminal else []
        flags += ["--user", user] if user else []
        return [*self._command, "exec", "--interactive", *flags, ref.name, *argv]

    def endpoint(self, ref: Ref, port: int) -> str:
        """`host:port` at which this machine reaches the node's port. Raises EngineError if none."""
        found = self._inspect(
            "node", "{{json .NetworkSettings.Ports}} {{json .NetworkSettings.Networks}}", [ref.name]
        )
        if not found:
            raise EngineError(
                f"there is no node {ref.name}", advice="see `roost ls` for those that there are"
            )
        decoder = json.JSONDecoder()
        ports, end = decoder.raw_decode(found[0])
        networks, _ = decoder.raw_decode(found[0], end + 1)
        for published in (ports or {}).get(f"{port}/tcp") or []:
            anywhere = published["HostIp"] in ("", "0.0.0.0", "::")  # noqa: S104 - read, not bound
            here = self._at.address if self._at and self._at.address else "127.0.0.1"
            return f"{here if anywhere else published['HostIp']}:{published['HostPort']}"
        address = _address(networks)
        if not address:
            raise EngineError(
                f"{ref.name} has no address now", advice="`roost up` starts what stands still"
            )
        if self._is_elsewhere:
            raise EngineError(
                f"this machine does not reach {ref.name} at {address}:{port}",
                advice=f"work through `roost exec`, or use a {self.dialect.title} that runs here "
                "with root",
            )
        return f"{address}:{port}"

    # --- the command line ------------------------------------------------------------------------

    def _call(self, *argv: str, stdin: bytes = b"", timeout: float | None = None) -> Completed:
        """Run the engine's command. Raises EngineError of the kind that fits."""
        try:
            return run([*self._command, *argv], stdin=stdin, timeout=timeout).check()
        except CommandFailed as error:
            raise explain(self.dialect, error) from None

    def _list(self, kind: Kind, label: str) -> list[str]:
        command = _LIST[kind]
        return self._call(*command, "--filter", f"label={label}").text.split()

    def _inspect(self, kind: Kind, template: str, names: Sequence[str]) -> list[str]:
        """One line for each of `names` that is there, in one call."""
        if not names:
            return []
        try:
            done = run([*self._command, _COMMAND[kind], "inspect", "--format", template, *names])
        except CommandFailed as error:
            raise explain(self.dialect, error) from None
        # Something may vanish between a listing and this: the engines say so and show the rest.
        if done.status != 0 and not _GONE.search(done.stderr):
            raise explain(self.dialect, CommandFailed(done.argv, done.status, done.stderr))
        return [line for line in done.text.splitlines() if line]

    def _labels(self, kind: Kind, names: Sequence[str]) -> dict[str, Mapping[str, str]]:
        """The labels of those that are there, by name."""
        lines = (line.partition(" ") for line in self._inspect(kind, _LABELS[kind], names))
        return {name.removeprefix("/"): json.loads(labels) or {} for name, _, labels in lines}

    def _is_ours(self, ref: Ref, labels: Mapping[str, str]) -> bool:
        """Whether it is there and this pool's; False if not there. Raises NameTaken."""
        there = self._labels(ref.kind, [ref.name]).get(ref.name)
        if there is not None and there.get(LABEL_POOL) != labels[LABEL_POOL]:
            raise _taken(self.dialect, ref)
        return there is not None

    @cached_property
    def _machine(self) -> EngineInfo:
        return self.info()

    @property
    def _is_elsewhere(self) -> bool:
        """Whether containers' addresses mean nothing here: a remote engine, or one without root."""
        named = self._at.docker if self._at else ""
        host = named or os.environ.get(self.dialect.host_variable, "")
        return bool(host and not host.startswith("unix:")) or self._machine.rootless

    @property
    def _runs_no_checks(self) -> bool:
        return self.dialect.health_by_systemd and not Path("/run/systemd/system").is_dir()

    def _ask_health(self, data: Mapping[str, Any]) -> Health:
        """The node's health by running the image's own HEALTHCHECK in it, as the engine would."""
        check = data["check"] or {}
        argv = _check_argv(check.get("Test") or ())
        if not argv or not data["state"]["Running"]:
            return "none"
        try:
            done = self.exec(
                Ref("node", data["name"]), argv, timeout=_seconds(check.get("Timeout")) or 30
            )
        except EngineError:  # it has just stopped
            return "none"
        if done.status == 0:
            return "healthy"
        age = datetime.now(UTC) - datetime.fromisoformat(data["state"]["StartedAt"])
        young = age < timedelta(seconds=_seconds(check.get("StartPeriod")))
        return "starting" if young else "unhealthy"


# --- values in, values out ----------------------------------------------------------------------


def _tar(files: Mapping[str, Secret], user: str = "") -> bytes:
    """A tar of the files, root's or those of `user` (`UID:GID`).

    Only certificates and the reader's key are readable to all.
    """
    uid, gid = (int(number) for number in (user or "0:0").split(":"))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, secret in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            # Every user of an access point reads the collector as the reader.
            entry.mode = 0o644 if name.endswith(".crt") or name == READER_KEY else 0o600
            entry.uid, entry.gid = uid, gid
            entry.mtime = int(datetime.now(UTC).timestamp())
            entry.size = len(secret.reveal())
            tar.addfile(entry, io.BytesIO(secret.reveal()))
    return archive.getvalue()


def _confined(to: Confinement, dialect: Dialect) -> list[str]:
    uid, _, gid = (to.user or "0:0").partition(":")
    owner = dialect.tmpfs_owner.format(uid=uid, gid=gid)
    return [
        "--cap-drop", "ALL",
        *(word for name in to.capabilities for word in ("--cap-add", name)),
        "--security-opt", "no-new-privileges",
        *(["--user", to.user] if to.user else []),
        *(["--read-only"] if to.read_only else []),
        *(word for place in to.tmpfs for word in ("--tmpfs", f"{place}:mode=0755,{owner}")),
        *(word for path in to.volumes for word in ("--volume", path)),
        *(["--pids-limit", str(to.pids)] if to.pids else []),
        *(["--device", FUSE, "--security-opt", f"seccomp={SECCOMP}"] if to.mounts else []),
    ]  # fmt: skip


def _placed(at: Placement) -> list[str]:
    """What others must know to find it, and it to find them, on several hosts."""
    bound = f"[{at.publish_at}]" if ":" in at.publish_at else at.publish_at
    return [
        *(["--ip6" if ":" in at.address else "--ip", at.address] if at.address else []),
        *(word for port in at.publish for word in ("--publish", f"{bound}:{port}:{port}")),
        *(word for name, to in at.names for word in ("--add-host", f"{name}:{to}")),
    ]


def _label_flags(labels: Mapping[str, str]) -> list[str]:
    return [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]


def _taken(dialect: Dialect, ref: Ref) -> NameTaken:
    return NameTaken(
        f"the {_COMMAND[ref.kind]} {ref.name} exists in {dialect.title} and is not this pool's",
        advice="remove or rename it, or give the pool another name with --name",
    )


def _node(data: Mapping[str, Any], health: Health) -> ObservedNode | None:
    """A node of what `inspect` says; None if its labels are not those of a node."""
    labels, state = data["labels"], data["state"]
    if LABEL_ROLE not in labels:
        return None
    now = _STATES.get(state["Status"], "exited")
    started = state["StartedAt"]
    return ObservedNode(
        name=data["name"].removeprefix("/"),
        role=labels[LABEL_ROLE],
        group=labels.get(LABEL_GROUP, ""),
        image=data["image"].removeprefix("localhost/"),  # Podman's prefix for what was made here
        spec=labels.get(LABEL_SPEC, ""),
        state=now,
        health=health if now == "running" else "none",
        address=_address(data["networks"]) if now == "running" else "",
        exit_code=state["ExitCode"] if now in ("exited", "dead") else None,
        restarts=data["restarts"],
        started="" if started.startswith("0001-") else started,
        networks=_networks(data["networks"]),
    )


def _engines_health(data: Mapping[str, Any]) -> Health:
    return _HEALTH.get((data["state"].get("Health") or {}).get("Status", ""), "none")


def _address(networks: Mapping[str, Any] | None) -> str:
    """A node is on one network: the pool's."""
    found = (network["IPAddress"] for network in (networks or {}).values())
    return next((address for address in found if address), "")


def _networks(networks: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What a pool file may call them: names, ids, ids as the engines shorten them."""
    found = (networks or {}).items()
    ids = [network.get("NetworkID") or name for name, network in found]
    return tuple(dict.fromkeys([*(name for name, _ in found), *ids, *(id[:12] for id in ids)]))


def _check_argv(test: Sequence[str]) -> list[str]:
    """HEALTHCHECK's forms: CMD with words, CMD-SHELL with a line, NONE."""
    match list(test):
        case ["CMD", *words]:
            return words
        case ["CMD-SHELL", line]:
            return ["/bin/sh", "-c", line]
        case _:
            return []


def _seconds(nanoseconds: int | None) -> float:
    return (nanoseconds or 0) / 1e9


def _by_number(node: ObservedNode) -> list[tuple[bool, int, str]]:
    """Sorts `cpu-2` before `cpu-10`."""
    words = re.split(r"(\d+)", node.name)
    return [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words]


def _side_by_side(work: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """`work` of each, in their order, at most eight at once."""
    with ThreadPoolExecutor(_PARALLEL) as pool:
        return list(pool.map(work, items))
