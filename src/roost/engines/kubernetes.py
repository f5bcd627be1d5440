"""Kubernetes through kubectl: the pool as objects that a cluster keeps as they should be.

kubectl, not a client library: it is there wherever somebody has a cluster, takes every login that a
kubeconfig knows, speaks the streams of `exec` and `logs` as each server does, and goes through the
same door as Docker's and Podman's command lines.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from typing import Final

from roost._run import Completed, run, stream
from roost.engines import kubernetes_manifests as manifests
from roost.engines import kubernetes_state as state
from roost.engines.base import STOP_SECONDS, EngineInfo, Event, ref_of
from roost.engines.kubernetes_manifests import CONTAINER, Manifest
from roost.errors import CommandFailed, EngineError, EngineUnavailable, NameTaken
from roost.plan import VACATE, Item, Network, Node, Observed, Plan, Ref, Volume
from roost.security import Secret
from roost.spec import Kubernetes
from roost_node.vocab import LABEL_POOL, LABEL_ROLE, Role

#: How long one question may take, in seconds.
_PATIENCE: Final = 60.0
#: How long a pod may take until its container runs: its volumes are made and its image is pulled.
_RUNS_WITHIN: Final = 300.0
#: How long an image or a container may be refused before that is an error, in seconds: the first
#: refusal is sometimes followed by a success. Room is waited for: clusters that grow need minutes.
_HOPELESS_AFTER: Final = 20.0
#: How long a pod may take to be gone, beyond its own time to stop.
_GONE_WITHIN: Final = 120.0
#: How long a master may take until it makes a join token, in seconds.
_TOKEN_WITHIN: Final = 120.0
_POLL: Final = 0.5
_PARALLEL: Final = 8

#: roost's words for what Kubernetes holds, each by the object that its label is read from.
_OBJECT: Final[Mapping[str, str]] = {
    "node": "statefulset",
    "volume": "persistentvolumeclaim",
    "network": "service",
}
_OBSERVED: Final = "statefulsets,pods,services,persistentvolumeclaims"


class KubernetesEngine:
    """A pool's nodes as pods of a cluster, by kubectl."""

    name = "kubernetes"
    #: The others make their keys themselves and are admitted with a token from a Secret.
    delivers: frozenset[Role] = frozenset(("master",))

    def __init__(self, settings: Kubernetes | None = None) -> None:
        self.settings = settings or Kubernetes()
        self._tokens = threading.Lock()

    def __repr__(self) -> str:
        return f"KubernetesEngine({self.settings.namespace or 'the present namespace'!r})"

    # --- what there is ---------------------------------------------------------------------------

    def info(self) -> EngineInfo:
        """Version of the server, CPUs and memory of all nodes. Raises EngineUnavailable."""
        said = json.loads(self._call("version", "--output", "json", timeout=30).text)
        version = said.get("serverVersion", {}).get("gitVersion", "")
        if not version:
            raise EngineUnavailable(
                "kubectl knows no cluster",
                advice="choose one with `kubectl config use-context` or `kubernetes: {context: …}`",
            )
        try:
            nodes = self._items("nodes")
        except EngineError:  # whoever may use a namespace alone may not look at machines
            nodes = []
        return EngineInfo(
            self.name,
            version.removeprefix("v"),
            sum(state.quantity(node["status"]["allocatable"]["cpu"]) for node in nodes),
            int(sum(state.quantity(node["status"]["allocatable"]["memory"]) for node in nodes)),
            cgroup="",
            rootless=False,
        )

    def check(self, plan: Plan) -> None:
        """Raises BadInput for a network of one's own, and for a second master."""
        manifests.check(plan)

    def pools(self) -> Sequence[str]:
        """The names of all pools that it holds anything of in the namespace, sorted."""
        found = self._items(",".join(_OBJECT.values()), "--selector", LABEL_POOL)
        return sorted({each["metadata"]["labels"][LABEL_POOL] for each in found})

    def observe(self, pool: str) -> Observed:
        """What it holds of `pool`, from labels, in one question; empty if nothing."""
        return state.observed(pool, self._items(_OBSERVED, "--selector", f"{LABEL_POOL}={pool}"))

    def has_image(self, image: str) -> bool:  # noqa: ARG002 - the protocol's
        """True: only the machine that will run a pod can say, by pulling; then `ensure` says it."""
        return True

    # --- making ----------------------------------------------------------------------------------

    def ensure(self, item: Item) -> Iterator[Event]:
        """Create the item and, of a node, wait until its container runs, saying what it waits for.

        What a failed call had made is removed by itself. Raises NameTaken when the name belongs to
        something else, ImageMissing when the image cannot be pulled.
        """
        ref = ref_of(item)
        there = self._get(_OBJECT[ref.kind], item.name)
        if there is not None and _pool(there) != item.labels[LABEL_POOL]:
            raise NameTaken(
                f"the {_OBJECT[ref.kind]} {item.name} exists in Kubernetes and is not this pool's",
                advice="remove or rename it, or give the pool another name with --name",
            )
        if there is not None:
            yield from self._resume(item, ref, there)
            return
        yield Event("creating", ref)
        finished = False
        try:
            self._apply(self._wanted(item))
            yield Event("created", ref)
            if isinstance(item, Node):
                yield from self._until_it_runs(item)
                yield Event("started", ref)
            finished = True
        finally:
            if not finished:
                with suppress(EngineError):
                    self._remove([ref])

    def _resume(self, item: Item, ref: Ref, there: Manifest) -> Iterator[Event]:
        """Have a node go on that somebody has stopped by having none of it; else nothing."""
        if not isinstance(item, Node):
            yield Event("unchanged", ref)
            return
        stopped = there["spec"].get("replicas") == 0
        if stopped:
            self._call("scale", "statefulset", item.name, "--replicas", "1")
        pod = self._get("pod", manifests.pod_name(item.name))
        if stopped or pod is None or not state.runs(pod):
            yield from self._until_it_runs(item)
            yield Event("started", ref)
        else:
            yield Event("unchanged", ref)

    def _wanted(self, item: Item) -> list[Manifest]:
        match item:
            case Network():
                self._make_namespace()
                return manifests.of_network(item, self.settings, self._budgets)
            case Volume():
                return manifests.of_volume(item, self.settings)
            case Node():
                token = manifests.enrols(item) and self._token(item)
                found = manifests.of_node(item, self.settings, token=token)
                return [*self._secrets(item), *found]

    def _make_namespace(self) -> None:
        name = self.settings.namespace
        if name and self._get("namespace", name, namespaced=False) is None:
            self._apply([manifests.namespace(name)])

    @cached_property
    def _budgets(self) -> str:
        """The version of PodDisruptionBudget that this server serves."""
        versions = self._call("api-versions").text.split()
        return "policy/v1" if "policy/v1" in versions else "policy/v1beta1"

    def _secrets(self, node: Node) -> list[Manifest]:
        if not node.files:
            return []
        name = manifests.files_secret(node)
        return [_secret(name, node.labels[LABEL_POOL], node.files)]

    def _token(self, node: Node) -> bool:
        """Make sure of the Secret with the join token of the node's role; False if nobody can.

        A pool without a master has nobody who makes one: its nodes ask to be admitted.
        """
        pool = node.labels[LABEL_POOL]
        with self._tokens:  # nodes are made side by side
            master = self._master(pool)
            if master is None:
                return False
            name = manifests.token_secret(pool, node.role)
            if self._get("secret", name) is None:
                text = self._new_token(master, node.role)
                self._apply([_secret(name, pool, {manifests.TOKEN: Secret(text)})])
        return True

    def _master(self, pool: str) -> Ref | None:
        there = self._items("statefulsets", "-l", f"{LABEL_POOL}={pool},{LABEL_ROLE}=master")
        return Ref("node", there[0]["metadata"]["name"]) if there else None

    def _new_token(self, master: Ref, role: Role) -> bytes:
        until = time.monotonic() + _TOKEN_WITHIN
        while True:
            done = self.exec(
                master,
                ["roost-node", "join-token", role, "--own", "--expires", manifests.TOKEN_LIFETIME,
                 "--uses", str(manifests.TOKEN_USES)],
                timeout=_PATIENCE,
            )  # fmt: skip
            if done.status == 0:
                return done.stdout.strip()
            if time.monotonic() > until:
                said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise EngineError(
                    f"{master.name} makes no join token: {said}",
                    advice=f"see `roost logs {master.name}`",
                )
            time.sleep(_POLL)

    def _until_it_runs(self, node: Node) -> Iterator[Event]:
        """Return once the node's container runs, or has run; yields what is waited for."""
        until = time.monotonic() + _RUNS_WITHIN
        refused = None
        said = ""
        while True:
            pod = self._get("pod", manifests.pod_name(node.name))
            waits = state.waits(pod, self._warnings(node, pod))
            if waits is None:
                return
            now = time.monotonic()
            if waits.error is None:
                refused = None
            elif now - (refused := now if refused is None else refused) > _HOPELESS_AFTER:
                raise waits.error
            if now > until:
                raise EngineError(
                    f"{node.name} did not start within {_RUNS_WITHIN:g} s: {waits.text}",
                    advice=f"see `kubectl describe pod {manifests.pod_name(node.name)}`",
                )
            if waits.text != said:
                said = waits.text
                yield Event("waiting", ref_of(node), said)
            time.sleep(_POLL)

    def _warnings(self, node: Node, pod: Manifest | None) -> Sequence[Manifest]:
        """What the cluster warns of while a pod is not there or does not start: why, that is."""
        if pod is not None and state.runs(pod):
            return ()
        of = (
            f"involvedObject.kind=StatefulSet,involvedObject.name={node.name}"
            if pod is None
            else f"involvedObject.uid={pod['metadata']['uid']}"
        )
        return self._items("events", "--field-selector", f"{of},type=Warning")

    # --- removing --------------------------------------------------------------------------------

    def retire(self, refs: Sequence[Ref]) -> Iterator[Event]:
        """Stop and remove exactly these, side by side; what is already gone is a no-op.

        Nodes go before the volumes and networks that they use. Raises NameTaken, before anything
        is removed, when a name belongs to something that is no pool's.
        """
        there = {kind: self._held(kind, refs) for kind in _OBJECT}
        for going in there.values():
            for ref in going:
                yield Event("removing", ref)
            self._remove(going)
            for ref in going:
                yield Event("removed", ref)

    def _held(self, kind: str, refs: Sequence[Ref]) -> list[Ref]:
        """Those of this kind that are there. Raises NameTaken if one is no pool's."""
        names = [ref.name for ref in refs if ref.kind == kind]
        if not names:
            return []
        words = ["get", _OBJECT[kind], *names, "--ignore-not-found", "--output", "json"]
        said = json.loads(self._call(*words).text.strip() or '{"items": []}')
        there = {each["metadata"]["name"]: each for each in said.get("items", [said])}
        for name, each in there.items():
            if not _pool(each):
                raise NameTaken(
                    f"the {_OBJECT[kind]} {name} exists in Kubernetes and is no pool's",
                    advice="remove it with kubectl, if it is not needed",
                )
        return [ref for ref in refs if ref.kind == kind and ref.name in there]

    def _remove(self, refs: Sequence[Ref]) -> None:
        for ref in refs:
            if ref.kind == "network":
                self._remove_shared(ref.name)
            elif ref.kind == "volume":
                self._delete(["persistentvolumeclaim", ref.name])
        nodes = [ref.name for ref in refs if ref.kind == "node"]
        if nodes:
            self._remove_nodes(nodes)

    def _remove_shared(self, pool: str) -> None:
        """Everything of the pool that is no node's and no volume."""
        kinds = ["services", "secrets", "poddisruptionbudgets.policy"]
        kinds.append(
            "networkpolicies.projectcalico.org"
            if self.settings.policy == "calico"
            else "networkpolicies.networking.k8s.io"
        )
        self._delete([",".join(kinds), "--selector", f"{LABEL_POOL}={pool}"])

    def _remove_nodes(self, names: Sequence[str]) -> None:
        """The controllers first, so that nothing comes back; then the pods, side by side.

        What still runs jobs sends them away first: whoever wanted to wait for them has drained it.
        Its preStop would wait for as long as the pool file says.
        """
        with ThreadPoolExecutor(_PARALLEL) as threads:
            list(threads.map(self._send_jobs_away, names))
        self._delete(["statefulset", *names, "--cascade=orphan"])
        pods = [manifests.pod_name(name) for name in names]
        self._delete(["pod", *pods, "--grace-period", str(VACATE + STOP_SECONDS)])
        self._delete(["service", *names])
        self._delete(["secret", *map(manifests.own_secret, names)])

    def _send_jobs_away(self, name: str) -> None:
        pod = self._get("pod", manifests.pod_name(name))
        if pod is None or not state.runs(pod) or _label(pod, LABEL_ROLE) != "execute":
            return
        with suppress(EngineError):  # it goes all the same
            argv = ["roost-node", "drain", "--json", "--limit", "0"]
            self.exec(Ref("node", name), argv, timeout=_PATIENCE)

    def _delete(self, what: Sequence[str]) -> None:
        """Delete and wait until it is gone. Raises EngineError if that takes too long."""
        within = _GONE_WITHIN + VACATE + STOP_SECONDS
        self._call(
            "delete", "--ignore-not-found", "--timeout", f"{within:g}s", *what, timeout=within + 30
        )

    # --- talking to nodes ------------------------------------------------------------------------

    def logs(self, ref: Ref, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """The node's log lines, the oldest first."""
        flags = ["--follow"] if follow else []
        flags += [] if tail is None else ["--tail", str(tail)]
        try:
            yield from stream(
                self._argv("logs", manifests.pod_name(ref.name), "-c", CONTAINER, *flags)
            )
        except CommandFailed as error:
            raise state.explain(error) from None

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
        try:
            done = run(
                self._argv("exec", *(["--stdin"] if stdin else []), *_in(ref, argv, user)),
                stdin=stdin, timeout=timeout,
            )  # fmt: skip
        except CommandFailed as error:
            if error.status == 124:
                return Completed(tuple(argv), 124, b"", error.stderr)
            raise state.explain(error) from None
        if state.was_not_run(done.status, done.stderr):
            raise state.explain(CommandFailed(done.argv, done.status, done.stderr))
        status, said = state.status_of(done.status, done.stderr)
        return Completed(tuple(argv), status, done.stdout, said)

    def interactive(
        self, ref: Ref, argv: Sequence[str], *, user: str | None = None, terminal: bool = True
    ) -> list[str]:
        """The command line with which a terminal runs `argv` in the node, or else a pipe."""
        return self._argv(
            "exec", "--stdin", *(["--tty"] if terminal else []), *_in(ref, argv, user)
        )

    def endpoint(self, ref: Ref, port: int) -> str:
        """`host:port` at which this machine reaches the node's port. Raises EngineError if none.

        That is the pod's own address, where this machine has a way into the cluster's network.
        """
        if self._get("statefulset", ref.name) is None:
            raise state.no_node(ref.name)
        pod = self._get("pod", manifests.pod_name(ref.name))
        address = state.address(pod)
        if not address:
            raise EngineError(
                f"{ref.name} has no address now", advice="`roost up` starts what stands still"
            )
        try:
            socket.create_connection((address, port), timeout=3).close()
        except ConnectionRefusedError:
            pass  # there is a way to it; it does not listen yet
        except OSError:
            raise EngineError(
                f"this machine does not reach {ref.name} at {address}:{port}, inside the cluster",
                advice="work through `roost submit`, `roost exec` and `roost shell`, or on a "
                "machine that is in the cluster's network",
            ) from None
        return f"{address}:{port}"

    # --- the command line ------------------------------------------------------------------------

    def _argv(self, *words: str, namespaced: bool = True) -> list[str]:
        place = ["--context", self.settings.context] if self.settings.context else []
        if namespaced and self.settings.namespace:
            place += ["--namespace", self.settings.namespace]
        return ["kubectl", *place, *words]

    def _call(
        self, *words: str, stdin: bytes = b"", timeout: float | None = _PATIENCE,
        namespaced: bool = True,
    ) -> Completed:  # fmt: skip
        """Run kubectl. Raises EngineError of the kind that fits."""
        try:
            argv = self._argv(*words, namespaced=namespaced)
            return run(argv, stdin=stdin, timeout=timeout).check()
        except CommandFailed as error:
            raise state.explain(error) from None

    def _items(self, kinds: str, *selecting: str) -> list[Manifest]:
        said = json.loads(self._call("get", kinds, *selecting, "--output", "json").text)
        return list(said["items"])

    def _get(self, kind: str, name: str, *, namespaced: bool = True) -> Manifest | None:
        """One object; None if it is not there."""
        words = ["get", kind, name, "--ignore-not-found", "--output", "json"]
        text = self._call(*words, namespaced=namespaced).text
        return dict(json.loads(text)) if text.strip() else None

    def _apply(self, found: Sequence[Manifest]) -> None:
        """Through stdin: neither argv nor a file ever shows a secret."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(found)})
        self._call(
            "apply", "--server-side", "--force-conflicts", "--field-manager", "roost", "-f", "-",
            stdin=text.encode(),
        )  # fmt: skip


def _pool(there: Manifest) -> str:
    return _label(there, LABEL_POOL)


def _label(there: Manifest, key: str) -> str:
    return str((there["metadata"].get("labels") or {}).get(key, ""))


def _secret(name: str, pool: str, content: Mapping[str, Secret]) -> Manifest:
    data = {key: base64.b64encode(value.reveal()).decode() for key, value in content.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {LABEL_POOL: pool}},
        "type": "Opaque",
        "data": data,
    }


def _in(ref: Ref, argv: Sequence[str], user: str | None) -> list[str]:
    """What follows `kubectl exec`. It knows no users, so the change is made in the container."""
    return [manifests.pod_name(ref.name), "-c", CONTAINER, "--", *as_user(user), *argv]


def as_user(user: str | None) -> list[str]:
    """A command that becomes `user`, at home, and runs what follows."""
    if not user:
        return []
    return ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--reset-env", "--"]
