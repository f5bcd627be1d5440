"""What Kubernetes says of pods, and kubectl of its failures, in roost's words."""

from __future__ import annotations

from typing import Any

import pytest

from roost.engines.kubernetes import KubernetesEngine
from roost.engines.kubernetes_state import (
    explain,
    observed,
    quantity,
    runs,
    status_of,
    waits,
    was_not_run,
)
from roost.errors import CommandFailed, EngineError, EngineUnavailable, ImageMissing
from roost.plan import Ref
from roost.spec import Kubernetes

LABELS = {
    "roost.pool": "lab", "roost.role": "execute", "roost.group": "cpu", "roost.spec": "0123",
}  # fmt: skip
RUNNING = {"running": {"startedAt": "2026-01-02T03:04:05Z"}}


def controller(name: str = "lab-cpu-1", replicas: int = 1) -> dict[str, Any]:
    return {
        "kind": "StatefulSet",
        "metadata": {"name": name, "labels": LABELS},
        "spec": {
            "replicas": replicas,
            "template": {"spec": {"containers": [{"name": "node", "image": "roost:x"}]}},
        },
    }


def pod(
    state: dict[str, Any] | None = None, *, phase: str = "Running", first: Any = None, **more: Any
) -> dict[str, Any]:
    own = {"name": "node", "image": "roost:x", "ready": False, "started": False, "restartCount": 0}
    first = [{"name": "prepare", "image": "roost:x", "restartCount": 0, **first}] if first else []
    return {
        "kind": "Pod",
        "metadata": {"name": "lab-cpu-1-0", "labels": LABELS},
        "status": {
            "phase": phase,
            "podIP": "10.1.2.3",
            "initContainerStatuses": first,
            "containerStatuses": [own | {"state": state or {}} | more],
        },
    }


def node(*found: dict[str, Any]) -> Any:
    (only,) = observed("lab", found).nodes
    return only


def test_a_running_pod_is_a_running_node() -> None:
    seen = node(controller(), pod(RUNNING, ready=True, started=True, restartCount=2))
    assert (seen.name, seen.role, seen.group, seen.spec) == ("lab-cpu-1", "execute", "cpu", "0123")
    assert (seen.state, seen.health, seen.address) == ("running", "healthy", "10.1.2.3")
    assert (seen.restarts, seen.exit_code, seen.networks) == (2, None, ("lab",))
    assert (seen.image, seen.started) == ("roost:x", "2026-01-02T03:04:05Z")


@pytest.mark.parametrize(
    ("found", "state", "health"),
    [
        (pod(RUNNING), "running", "starting"),
        (pod(RUNNING, started=True), "running", "unhealthy"),
        # It is about to be started again: whoever waits for it sees its restarts.
        (pod({"waiting": {"reason": "CrashLoopBackOff"}}, restartCount=3), "running", "starting"),
        (pod(phase="Pending"), "created", "none"),
        (pod({"terminated": {"exitCode": 3}}, phase="Failed"), "exited", "none"),
    ],
)
def test_states(found: dict[str, Any], state: str, health: str) -> None:
    seen = node(controller(), found)
    assert (seen.state, seen.health) == (state, health)
    assert seen.exit_code == (3 if state == "exited" else None)


def test_a_pod_that_is_ending_runs_while_its_container_does() -> None:
    ending = pod(RUNNING, ready=True)
    ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert node(controller(), ending).state == "running"
    ended = pod({"terminated": {"exitCode": 0}})
    ended["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    seen = node(controller(), ended)
    assert (seen.state, seen.exit_code, seen.address) == ("exited", 0, "")


def test_a_node_without_a_pod() -> None:
    assert node(controller()).state == "created"
    stopped = node(controller(replicas=0))
    assert (stopped.state, stopped.exit_code, stopped.address) == ("exited", None, "")


def test_a_pool_is_its_services_claims_and_controllers() -> None:
    def of(kind: str, name: str, **spec: Any) -> dict[str, Any]:
        return {"kind": kind, "metadata": {"name": name, "labels": LABELS}, "spec": spec}

    seen = observed(
        "lab",
        [
            of("Service", "lab", selector={"roost.pool": "lab"}),
            of("Service", "lab-master", selector={"roost.node": "lab-master"}),
            of("PersistentVolumeClaim", "lab-spool"),
            of("PersistentVolumeClaim", "lab-home"),
            controller("lab-cpu-10"),
            controller("lab-cpu-9"),
        ],
    )
    assert (seen.networks, seen.volumes) == (("lab",), ("lab-home", "lab-spool"))
    assert [each.name for each in seen.nodes] == ["lab-cpu-9", "lab-cpu-10"]


# --- a pod that starts --------------------------------------------------------------------------


def warning(message: str, at: str = "2026-01-02T03:04:05Z") -> dict[str, Any]:
    return {"message": message, "lastTimestamp": at}


def test_what_runs_or_has_run_waits_for_nothing() -> None:
    assert waits(pod(RUNNING), ()) is None
    assert waits(pod({"waiting": {"reason": "CrashLoopBackOff"}}, restartCount=1), ()) is None
    assert not runs(pod({"waiting": {"reason": "PodInitializing"}}, phase="Pending"))


def test_what_a_pod_waits_for_is_said_in_the_clusters_last_words() -> None:
    said = waits(
        pod(phase="Pending"),
        [
            warning("0/1 nodes are available: 1 Insufficient cpu.", "2026-01-02T03:04:06Z"),
            warning("older", "2026-01-02T03:04:05Z"),
        ],
    )
    assert said is not None
    # Room may come: a cluster grows.
    assert (said.text, said.error) == ("0/1 nodes are available: 1 Insufficient cpu.", None)
    none_yet = waits(None, ())
    assert none_yet is not None
    assert none_yet.text == "for its pod"


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
@pytest.mark.parametrize("first", [True, False])
def test_an_image_that_cannot_be_pulled(reason: str, first: bool) -> None:
    state = {"waiting": {"reason": reason, "message": "Back-off pulling"}}
    found = pod(phase="Pending", first={"state": state}) if first else pod(state, phase="Pending")
    said = waits(found, ())
    assert said is not None
    assert isinstance(said.error, ImageMissing)
    assert "the image roost:x cannot be pulled by the cluster" in str(said.error)


def test_a_container_that_cannot_be_made() -> None:
    said = waits(pod({"waiting": {"reason": "CreateContainerError"}}, phase="Pending"), ())
    assert said is not None
    assert "lab-cpu-1 cannot be started: CreateContainerError" in str(said.error)
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    said = waits(pod(phase="Pending", first={"state": state}), ())
    assert said is not None
    assert "lab-cpu-1 cannot make its places ready: back-off 10s" in str(said.error)


# --- kubectl ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stderr", "kind", "said"),
    [
        ("The connection to the server 1.2.3.4:6443 was refused - did you specify the right host?",
         EngineUnavailable, "no Kubernetes cluster answers"),
        ("Unable to connect to the server: dial tcp 1.2.3.4:6443: i/o timeout", EngineUnavailable,
         "no Kubernetes cluster answers"),
        ("error: You must be logged in to the server (Unauthorized)", EngineUnavailable,
         "does not accept your login"),
        ('error: context "nowhere" does not exist', EngineUnavailable, "has no context nowhere"),
        ('Error from server (NotFound): namespaces "science" not found', EngineError,
         "the cluster has no namespace science; make it with `kubectl create namespace science`"),
        ('Error from server (NotFound): pods "lab-cpu-1-0" not found', EngineError,
         "there is no node lab-cpu-1;"),
        ('error: unable to upgrade connection: container not found ("node")', EngineError,
         "the node is not running"),
        ('Error from server (Forbidden): pods is forbidden: User "mary" cannot list it',
         EngineError, 'forbids it: pods is forbidden: User "mary" cannot list'),
        ('error: timed out waiting for the condition on pods/lab-cpu-1-0', EngineError,
         "pods/lab-cpu-1-0 does not end"),
        ("W0101 deprecated\nError from server (Invalid): it is invalid\nread it", EngineError,
         "Kubernetes refused it: it is invalid"),
    ],
)  # fmt: skip
def test_complaints_are_explained(stderr: str, kind: type[EngineError], said: str) -> None:
    error = explain(CommandFailed(["kubectl", "get"], 1, stderr))
    assert type(error) is kind
    assert said in str(error)


def test_a_kubectl_that_is_not_there() -> None:
    error = explain(CommandFailed(["kubectl"], 127, "kubectl is not installed"))
    assert isinstance(error, EngineUnavailable)
    assert "kubernetes.io/docs" in str(error)


def test_the_commands_own_status_is_told_from_kubectls() -> None:
    assert status_of(1, "wrong\ncommand terminated with exit code 4\n") == (4, "wrong\n")
    assert status_of(0, "a warning") == (0, "a warning")
    assert not was_not_run(1, "command terminated with exit code 1\n")
    assert was_not_run(1, 'Error from server (NotFound): pods "x-0" not found\n')


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("500m", 0.5), ("1Ki", 1024), ("1.5Gi", 1.5 * 2**30), ("3M", 3e6), ("odd!", 0)],
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == value


def test_context_and_namespace_are_those_of_the_pool_file() -> None:
    engine = KubernetesEngine(Kubernetes(context="lab", namespace="science"))
    argv = engine.interactive(Ref("node", "n"), ["sh"])
    assert argv[:5] == ["kubectl", "--context", "lab", "--namespace", "science"]
    assert argv[-2:] == ["--", "sh"]
    assert KubernetesEngine().interactive(Ref("node", "n"), ["sh"])[:2] == ["kubectl", "exec"]
