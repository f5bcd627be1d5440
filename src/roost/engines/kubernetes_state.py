"""What Kubernetes and kubectl say, in roost's words: objects are nodes, complaints errors. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from roost.engines.kubernetes_manifests import CONTAINER, LABEL_NODE, Manifest, pod_name
from roost.errors import CommandFailed, EngineError, EngineUnavailable, ImageMissing
from roost.plan import Health, NodeState, Observed, ObservedNode
from roost_node.vocab import LABEL_GROUP, LABEL_POOL, LABEL_ROLE, LABEL_SPEC

_UNITS: Final = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip

#: The kubelet's words for an image that cannot be had.
_NO_IMAGE: Final = frozenset(
    ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
)
#: Its words for a container that it cannot make, whatever it tries.
_NO_CONTAINER: Final = frozenset(
    ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
)


def quantity(text: str) -> float:
    """A number as Kubernetes writes it: `500m`, `2Gi`."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", text)
    return float(match[1]) * _UNITS.get(match[2], 0.0) if match else 0.0


# --- a pool ---------------------------------------------------------------------------------------


def observed(pool: str, found: Sequence[Manifest]) -> Observed:
    """The pool's objects as roost sees them."""
    pods = {each["metadata"]["name"]: each for each in found if each["kind"] == "Pod"}
    nodes = [
        _node(each, pods.get(pod_name(each["metadata"]["name"])))
        for each in found
        if each["kind"] == "StatefulSet" and LABEL_ROLE in each["metadata"]["labels"]
    ]
    return Observed(
        pool,
        tuple(
            sorted(
                name
                for name, each in _named(found, "Service")
                # A master's own Service is part of the node, and chooses that alone.
                if LABEL_NODE not in (each["spec"].get("selector") or {})
            )
        ),
        tuple(sorted(name for name, _ in _named(found, "PersistentVolumeClaim"))),
        tuple(sorted(nodes, key=_by_number)),
    )


def _named(found: Sequence[Manifest], kind: str) -> Iterable[tuple[str, Manifest]]:
    return ((each["metadata"]["name"], each) for each in found if each["kind"] == kind)


def _by_number(node: ObservedNode) -> list[tuple[bool, int, str]]:
    """Sorts `cpu-2` before `cpu-10`."""
    words = re.split(r"(\d+)", node.name)
    return [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words]


def _node(controller: Manifest, pod: Manifest | None) -> ObservedNode:
    labels = controller["metadata"]["labels"]
    template = controller["spec"]["template"]["spec"]
    now = _state(controller, pod)
    own = _container(pod)
    first = _first(pod)
    return ObservedNode(
        name=controller["metadata"]["name"],
        role=labels[LABEL_ROLE],
        group=labels.get(LABEL_GROUP, ""),
        image=template["containers"][0]["image"],
        spec=labels.get(LABEL_SPEC, ""),
        state=now,
        health=_health(own) if now == "running" else "none",
        address=address(pod) if now == "running" else "",
        exit_code=_exit_code(own) if now == "exited" else None,
        restarts=own.get("restartCount", 0) + first.get("restartCount", 0),
        started=_started(own),
        networks=(labels[LABEL_POOL],),
    )


def _state(controller: Manifest, pod: Manifest | None) -> NodeState:
    """A container that has ended is about to be started again, and so runs for everybody else."""
    if pod is None:
        return "exited" if controller["spec"].get("replicas") == 0 else "created"
    phase = pod["status"].get("phase")
    if phase in ("Failed", "Succeeded"):
        return "exited"
    if phase != "Running":
        return "created"
    going = "deletionTimestamp" in pod["metadata"]
    return "exited" if going and "running" not in _container(pod).get("state", {}) else "running"


def _health(own: Mapping[str, Any]) -> Health:
    if own.get("ready"):
        return "healthy"
    # False until the startup probe has succeeded.
    return "unhealthy" if own.get("started") else "starting"


def _container(pod: Manifest | None) -> Mapping[str, Any]:
    """What the kubelet says of the node's container; empty before it says anything."""
    return _status(pod, "containerStatuses", CONTAINER)


def _first(pod: Manifest | None) -> Mapping[str, Any]:
    statuses = (pod or {}).get("status", {}).get("initContainerStatuses") or [{}]
    found: Mapping[str, Any] = statuses[0]
    return found


def _status(pod: Manifest | None, kind: str, name: str) -> Mapping[str, Any]:
    found = (pod or {}).get("status", {}).get(kind) or []
    return next((each for each in found if each["name"] == name), {})


def _exit_code(own: Mapping[str, Any]) -> int | None:
    for when in ("state", "lastState"):
        ended = own.get(when, {}).get("terminated")
        if ended:
            return int(ended["exitCode"])
    return None


def _started(own: Mapping[str, Any]) -> str:
    for when in ("state", "lastState"):
        for each in own.get(when, {}).values():
            if each.get("startedAt"):
                return str(each["startedAt"])
    return ""


def address(pod: Manifest | None) -> str:
    """A pod's IP address; empty if it has none."""
    return str((pod or {}).get("status", {}).get("podIP") or "")


# --- a pod that starts ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Waits:
    """A pod whose container does not run yet."""

    text: str
    """What it waits for, after `waiting: `."""
    error: EngineError | None = None
    """Set if it will hardly ever run as things are."""


def runs(pod: Manifest) -> bool:
    """Whether the node's container runs, or has run and is about to be started again."""
    own = _container(pod)
    return "running" in own.get("state", {}) or bool(own.get("restartCount"))


def waits(pod: Manifest | None, warnings: Sequence[Manifest]) -> Waits | None:
    """What a node's pod waits for; None once its container runs. `warnings` are the cluster's."""
    if pod is not None and runs(pod):
        return None
    warned = " ".join(_latest(warnings).split())
    node = pod["metadata"]["name"].removesuffix("-0") if pod else ""
    for status, is_first in ((_first(pod), True), (_container(pod), False)):
        reason = status.get("state", {}).get("waiting", {}).get("reason", "")
        said = status.get("state", {}).get("waiting", {}).get("message") or warned or reason
        if reason in _NO_IMAGE:
            image = status.get("image", "")
            return Waits(
                f"for the image {image}: {said}",
                ImageMissing(
                    f"the image {image} cannot be pulled by the cluster: {_short(said)}",
                    advice="push it to a registry that the cluster reaches, and name it with "
                    "`htcondor: {image: …}`",
                ),
            )
        if reason in _NO_CONTAINER:
            what = "cannot make its places ready" if is_first else "cannot be started"
            return Waits(
                f"for its container: {said}",
                EngineError(
                    f"{node} {what}: {_short(said)}",
                    advice=f"see `kubectl describe pod {pod_name(node)}`",
                ),
            )
    if warned:
        return Waits(_short(warned))
    return Waits("for its pod" if pod is None else "for its container")


def _latest(warnings: Sequence[Manifest]) -> str:
    def when(event: Manifest) -> str:
        return event.get("lastTimestamp") or event.get("eventTime") or ""

    return str(max(warnings, key=when).get("message", "")) if warnings else ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:299]}…"


# --- what kubectl says ----------------------------------------------------------------------------

_ENDED: Final = re.compile(r"^command terminated with exit code (\d+)\n?\Z", re.MULTILINE)


def was_not_run(status: int, stderr: str) -> bool:
    """Whether `kubectl exec` failed itself, instead of what it was to run."""
    return status != 0 and not _ENDED.search(stderr)


def status_of(status: int, stderr: str) -> tuple[int, str]:
    """The status of the command that `kubectl exec` ran, and what that wrote on stderr."""
    match = _ENDED.search(stderr)
    return (int(match[1]), stderr[: match.start()]) if match else (status, stderr)


@dataclass(frozen=True)
class _Complaint:
    """What kubectl says, and what that means. `{what}` is the first group that matched."""

    pattern: str
    kind: type[EngineError]
    message: str
    advice: str


#: The first that matches counts.
_COMPLAINTS: Final = (
    _Complaint(
        r"context \"?([^\" ]+)\"? does not exist|no context exists with the name: \"([^\"]+)\"",
        EngineUnavailable,
        "the kubeconfig has no context {what}",
        "see `kubectl config get-contexts`, and name one with `kubernetes: {{context: …}}`",
    ),
    _Complaint(
        r"must be logged in to the server|\(unauthorized\)|getting credentials",
        EngineUnavailable,
        "the Kubernetes cluster does not accept your login",
        "log in again, or choose another context with `kubectl config use-context`",
    ),
    _Complaint(
        r"the connection to the server (\S+) was refused|unable to connect to the server"
        r"|no configuration has been provided|dial tcp (\S+):|get current server api group",
        EngineUnavailable,
        "no Kubernetes cluster answers",
        "see `kubectl cluster-info`; `kubectl config use-context` chooses another cluster",
    ),
    _Complaint(
        r"namespaces? \"([^\"]+)\" not found",
        EngineError,
        "the cluster has no namespace {what}",
        "make it with `kubectl create namespace {what}`, or name it with "
        "`kubernetes: {{namespace: …}}`",
    ),
    _Complaint(
        r"exceeded quota: ([^,]+)",
        EngineError,
        "the quota {what} of the namespace is used up",
        "see `kubectl describe quota`, or make the pool smaller",
    ),
    _Complaint(
        r"no matches for kind \"NetworkPolicy\" in version \"projectcalico",
        EngineError,
        "the cluster does not serve Calico's policies",
        "install Calico's API server there, or leave out `kubernetes: {{policy: calico}}`",
    ),
    _Complaint(
        r"pods? \"([^\"]+)-0\" not found|statefulsets?\.apps \"([^\"]+)\" not found",
        EngineError,
        "there is no node {what}",
        "see `roost ls` for those that there are",
    ),
    _Complaint(
        r"container not found|is not running|is waiting to start|does not have a host assigned"
        r"|in a completed pod|container is not created",
        EngineError,
        "the node is not running",
        "see `roost logs` for why; `roost up` starts it again",
    ),
    _Complaint(
        r"timed out waiting for the condition on (\S+)",
        EngineError,
        "{what} does not end",
        "its machine may be gone: see `kubectl get nodes`; `kubectl delete --force` forgets it",
    ),
)  # fmt: skip

_FORBIDDEN: Final = re.compile(r"\(forbidden\): (.*)", re.IGNORECASE)


def explain(error: CommandFailed) -> EngineError:
    """What a failed kubectl means, with advice."""
    for complaint in _COMPLAINTS:
        match = re.search(complaint.pattern, error.stderr, re.IGNORECASE)
        if match:
            what = next((group for group in match.groups() if group), "")
            return complaint.kind(
                complaint.message.format(what=what), advice=complaint.advice.format(what=what)
            )
    if match := _FORBIDDEN.search(error.stderr):
        return EngineError(
            f"Kubernetes forbids it: {_short(match[1])}",
            advice="ask for a role in the namespace that may do this",
        )
    if error.status == 127 and error.stderr.endswith("is not installed"):
        return EngineUnavailable(
            "kubectl is not installed",
            advice="install it as kubernetes.io/docs/tasks/tools says",
        )
    if error.status == 124:
        return EngineUnavailable(
            f"Kubernetes does not answer: {error.stderr}", advice="see `kubectl cluster-info`"
        )
    return EngineError(f"Kubernetes refused it: {_gist(error.stderr)}")


def no_node(name: str) -> EngineError:
    """There is no such node."""
    return EngineError(f"there is no node {name}", advice="see `roost ls` for those that there are")


def _gist(stderr: str) -> str:
    """The line that says what is wrong, among warnings before it and hints after it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    wrong = [line for line in lines if re.match(r"error", line, re.IGNORECASE)]
    said = (wrong or lines or ["it said nothing"])[-1]
    return _short(re.sub(r"^error(?: from server(?: \(\w+\))?)?: ", "", said, flags=re.IGNORECASE))
