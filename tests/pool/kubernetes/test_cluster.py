"""A pool on a real Kubernetes: every verb, and what a cluster does to pods. `./test kubernetes`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from gated import Gated, running
from node_bench import eventually
from roost_bench import EXAMPLES, Json, at_home, fresh, refused, roost, well, write

from roost._run import run
from roost.spec import IMAGES

pytestmark = pytest.mark.kubernetes

SCRIPT = Path(__file__).parents[3] / "scripts" / "kubernetes"
POOL = """\
name: {name}
engine: kubernetes
submit: {{users: [john]}}
execute: [{{count: 2, cpus: 0.4, memory: 256MiB}}]
kubernetes: {{storage: 1GiB}}
"""


def kubectl(*argv: str) -> str:
    return run(["kubectl", *argv]).check().text


def objects(pool: str, kinds: str = "all,secrets,pvc,pdb,networkpolicies") -> dict[str, Json]:
    """Everything in the cluster that is the pool's, by kind and name."""
    found = json.loads(kubectl("get", kinds, "-l", f"roost.pool={pool}", "-o", "json"))["items"]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


class GatedPod(Gated):
    """A job that waits in a pod for its gate to be opened."""

    def inside(self, node: str, *argv: str) -> str:
        return well("exec", node, "--name", self.pool, "--", *argv)

    def hostname(self, node: str) -> str:
        return f"{node}-0"

    def runs(self) -> str:
        def there() -> str:
            host = self.host() if self.state == "running" else ""
            script = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
            return host if host and "gated" in self.inside(host, "sh", "-c", script) else ""

        return eventually(there, 180, what=self.ad)


@pytest.fixture(scope="module")
def cluster(image: str) -> None:
    """A cluster that has the image."""
    config = os.environ.get("ROOST_TEST_KUBERNETES")
    if not config:
        pytest.skip("only `./test kubernetes` has a cluster")
    os.environ["KUBECONFIG"] = config
    run([str(SCRIPT), "load", image]).check()


@pytest.fixture(scope="module", autouse=True)
def pool(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool with two executors, which every command of this module means."""
    name = fresh("kube")
    home = tmp_path_factory.mktemp("kubernetes")
    file = write(home / "pool.yaml", POOL.format(name=name))
    with at_home(home), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROOST_POOL", name)
        try:
            said = roost("up", file, timeout=600)
            assert said.returncode == 0, said.stderr
            assert said.stdout == f"The pool {name} is up: 2 executors, on kubernetes.\n"
            yield name
        finally:
            done = roost("down", "--name", name, "--engine", "kubernetes", timeout=600)
            assert done.returncode == 0, done.stderr
            assert objects(name) == {}


def executors(pool: str) -> set[str]:
    rows = json.loads(well("status", "--json"))["nodes"]
    return {row["name"] for row in rows if row["role"] == "execute"}


def test_the_demos_job(pool: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "sleep", tmp_path, dirs_exist_ok=True)
    done = json.loads(well("submit", "--wait", "--json", tmp_path / "sleep.sub"))
    assert [job["exit_code"] for job in done["jobs"]] == [0]
    first, last = (tmp_path / "sleep.out").read_text().splitlines()
    assert first.startswith(f"sleeping for 20 seconds on {pool}-execute-")
    assert first.endswith(" as slot1_1")
    assert last == "done"


def test_the_verbs_that_only_look(pool: str) -> None:
    status = json.loads(well("status", "--json"))
    assert {node["name"] for node in status["nodes"]} == {
        f"{pool}-{end}" for end in ("master", "submit", "execute-1", "execute-2")
    }
    assert {(node["state"], node["health"]) for node in status["nodes"]} == {("running", "healthy")}
    assert {slot["total_memory"] for slot in status["slots"]} == {256}
    (row,) = json.loads(well("ls", "--json", "--name", pool, "--engine", "kubernetes"))
    assert row == {"name": pool, "engine": "kubernetes", "nodes": 4, "running": 4, "executors": 2}
    assert "negotiator" in well("logs", "master")
    assert well("exec", "submit", "--user", "john", "--", "sh", "-c", "id -un; cd; pwd") == (
        "john\n/home/john\n"
    )
    assert roost("exec", "execute-1", "--", "sh", "-c", "exit 7").returncode == 7
    with running("logs", "-f", "submit") as following:
        assert following.process.stdout is not None
        assert following.process.stdout.readline()
    assert [row for row in json.loads(well("doctor", "--json")) if row["severity"] == "error"] == []


def test_up_again_changes_nothing(pool: str) -> None:
    before = {name: each["metadata"]["uid"] for name, each in objects(pool, "pods").items()}
    assert before
    well("up")
    after = {name: each["metadata"]["uid"] for name, each in objects(pool, "pods").items()}
    assert after == before


def test_why_says_what_is_asked_for(pool: str, tmp_path: Path) -> None:
    file = write(
        tmp_path / "big.sub",
        "executable = /bin/true\ntransfer_executable = False\nrequest_memory = 1TB\n"
        "should_transfer_files = YES\nqueue\n",
    )
    (id,) = json.loads(well("submit", file, "--json"))["jobs"]
    try:
        eventually(lambda: "memory" in well("why", id), 120)
    finally:
        well("rm", id)


def test_each_node_made_its_own_key_and_the_authority_is_the_masters(pool: str) -> None:
    def holds(node: str) -> set[str]:
        return set(well("exec", node, "--", "ls", "/var/lib/roost").split())

    assert {"ca.key", "node.key"} <= holds("master")
    for node in ("submit", "execute-1", "execute-2"):
        assert "node.key" in holds(node)
        assert "ca.key" not in holds(node)
    secrets = {name: set(each["data"]) for name, each in objects(pool, "secrets").items()}
    assert [name for name, keys in secrets.items() if "ca.key" in keys] == [
        f"Secret/{pool}-master-files"
    ]
    assert {name for name, keys in secrets.items() if keys == {"token"}} == {
        f"Secret/{pool}-join-submit", f"Secret/{pool}-join-execute",
    }  # fmt: skip
    shown = kubectl("get", "statefulsets,pods,services", "-o", "yaml")
    assert "roost-join.v1" not in shown
    assert "PRIVATE KEY" not in shown
    # What the node's own container may see does not hold what was delivered.
    mounts = well("exec", "master", "--", "cat", "/proc/self/mounts")
    assert "/etc/roost/files" not in mounts


def test_nobody_is_privileged(pool: str) -> None:
    for node, bits in (("master", 0), ("execute-1", None)):
        said = well("exec", node, "--", "cat", "/proc/1/status")
        status = dict(line.split(":", 1) for line in said.splitlines())
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == "2"
        if bits is not None:
            assert int(status["CapBnd"], 16) == bits
    # A job may not configure its node.
    mode = well("exec", "execute-1", "--", "stat", "-c", "%a %U", "/etc/condor/config.d", "/run",
                "/var/lib/roost")  # fmt: skip
    assert mode.splitlines() == ["755 root"] * 3


def test_scale_takes_what_is_idle(pool: str, tmp_path: Path) -> None:
    job = GatedPod(pool, tmp_path, "scaled")
    busy = job.runs()
    well("scale", "3")
    assert executors(pool) == {f"{pool}-execute-{n}" for n in (1, 2, 3)}
    well("scale", "1")
    assert executors(pool) == {busy}
    well("scale", "2")
    job.open()
    job.ended_in_one_run()


def test_a_busy_executor_is_drained_by_name(pool: str, tmp_path: Path) -> None:
    job = GatedPod(pool, tmp_path, "drained")
    node = job.runs()
    before = executors(pool)
    with running("drain", node) as drain:
        drain.until(f"{node} waiting: for {job.id} of john")
        job.open()
        assert drain.end()[0] == 0
    job.ended_in_one_run()
    assert executors(pool) == before - {node}
    well("scale", "2")


def test_a_pod_that_kubernetes_ends_lets_its_job_finish_and_comes_back(
    pool: str, tmp_path: Path
) -> None:
    job = GatedPod(pool, tmp_path, "evicted")
    node = job.runs()
    uid = objects(pool, "pods")[f"Pod/{node}-0"]["metadata"]["uid"]
    eviction = {
        "apiVersion": "policy/v1beta1",
        "kind": "Eviction",
        "metadata": {"name": f"{node}-0", "namespace": "default"},
    }
    # What `kubectl drain` does to each pod of a machine.
    evict = f"/api/v1/namespaces/default/pods/{node}-0/eviction"
    run(
        ["kubectl", "create", "--raw", evict, "-f", "-"], stdin=json.dumps(eviction).encode()
    ).check()
    drains = ("condor_status", "-const", f'Machine == "{node}"', "-af", "RoostDraining")
    eventually(lambda: "true" in well("exec", "submit", "--", *drains), 120)
    assert "deletionTimestamp" in objects(pool, "pods")[f"Pod/{node}-0"]["metadata"]
    job.open()
    job.ended_in_one_run()

    def anew() -> bool:
        pod = objects(pool, "pods").get(f"Pod/{node}-0")
        return pod is not None and pod["metadata"]["uid"] != uid

    eventually(anew, 180)
    after = GatedPod(pool, tmp_path, "after", f'requirements = Machine == "{node}"')
    assert after.runs() == node
    after.open()
    after.ended_in_one_run()


def test_the_queue_survives_the_access_points_pod(pool: str, tmp_path: Path) -> None:
    running_job = GatedPod(pool, tmp_path, "running")
    running_job.runs()
    waiting = GatedPod(pool, tmp_path, "waiting", "hold = True")
    uid = objects(pool, "pods")[f"Pod/{pool}-submit-0"]["metadata"]["uid"]
    kubectl("delete", "pod", f"{pool}-submit-0", "--wait=false")

    def anew() -> bool:
        pod = objects(pool, "pods").get(f"Pod/{pool}-submit-0")
        if pod is None or pod["metadata"]["uid"] == uid:
            return False
        return all(
            each["ready"] for each in pod["status"].get("containerStatuses") or [{"ready": 0}]
        )

    eventually(anew, 240)
    assert waiting.state == "held"
    assert well("exec", "submit", "--user", "john", "--", "id", "-un") == "john\n"
    well("exec", "submit", "--user", "john", "--", "condor_release", waiting.id)
    running_job.open()
    running_job.ended_in_one_run(shadows=2)
    waiting.runs()
    waiting.open()
    waiting.ended_in_one_run()


def test_an_image_that_nobody_has_is_said_and_nothing_stays(pool: str, tmp_path: Path) -> None:
    name = fresh("kube")
    text = POOL.format(name=name) + "htcondor: {image: localhost/nobody/has-this:1}\n"
    file = write(tmp_path / "pool.yaml", text)
    said = refused(roost("up", file, "--name", name, timeout=300), status=1)
    assert "the image localhost/nobody/has-this:1 cannot be pulled by the cluster" in said
    assert objects(name) == {}


def test_what_it_cannot_hold_is_refused_before_anything_is_made(pool: str) -> None:
    name = fresh("kube")
    said = refused(roost("up", "--name", name, "--engine", "kubernetes", "--network", "mine"))
    assert "cannot name one" in said
    assert objects(name) == {}


def test_the_image_is_this_checkouts(pool: str) -> None:
    pods = objects(pool, "pods").values()
    assert {each["spec"]["containers"][0]["image"] for each in pods} == {f"{IMAGES}:trixie"}
