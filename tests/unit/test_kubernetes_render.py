"""Manifests: golden files, Kubernetes' own schemas, strictly, and what those do not say."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from roost import cli
from roost.engines.base import STOP_SECONDS
from roost.engines.kubernetes_manifests import KubernetesRenderer, size
from roost.errors import BadInput, PoolFileError
from roost.plan import DAEMONS_MEMORY, VACATE, Keyless, plan
from roost.specfile import parse
from roost_node.vocab import CA_KEY

GOLDEN = Path(__file__).parents[1] / "golden" / "kubernetes"

#: The present Kubernetes and the two minors before it, which its project supports too.
MINORS = ("1.35", "1.36", "1.37")

POOL = """\
name: physics
submit: {users: [john, mary], memory: 1GiB}
execute:
  - {name: cpu, count: 2, cpus: 0.5, memory: 256MiB}
  - {name: big, count: 1, cpus: 4, memory: 4GiB}
"""
CASES = {
    "default": "name: physics\n",
    "groups": POOL
    + """\
config: |
  UPDATE_INTERVAL = 60
kubernetes:
  namespace: science
  storage_class: fast
  storage: 50GiB
  drain: 6h
  pull_secret: registry
""",
    "calico": "name: physics\nkubernetes: {policy: calico}\n",
}


@lru_cache
def text(pool: str) -> str:
    spec = parse(pool, "pool.yaml")
    return KubernetesRenderer(spec.kubernetes).render(plan(spec, Keyless()))["pool.yaml"]


def rendered(pool: str = POOL) -> list[dict[str, Any]]:
    return list(yaml.load_all(text(pool), Loader=yaml.CSafeLoader))


def of_kind(kind: str, found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in found if each["kind"] == kind}


def pods(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    sets = of_kind("StatefulSet", found)
    return {name: each["spec"]["template"]["spec"] for name, each in sets.items()}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    found: dict[str, Any] = only
    return found


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return rendered(CASES[request.param])


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("GOLDEN_UPDATE"):
        golden.write_text(text(CASES[name]))
    assert text(CASES[name]) == golden.read_text()


# --- Kubernetes' schemas --------------------------------------------------------------------------


@pytest.mark.parametrize("minor", MINORS)
def test_it_is_what_the_published_schemas_say(case: list[dict[str, Any]], minor: str) -> None:
    for each in case:
        if not each["apiVersion"].startswith("projectcalico.org"):
            kubernetes_validate.validate(each, minor, strict=True)


def test_the_schemas_are_those_of_the_present_and_two_before() -> None:
    assert kubernetes_validate.latest_version().startswith(MINORS[-1])


@pytest.mark.parametrize("minor", MINORS)
def test_the_schemas_refuse_what_they_must(minor: str) -> None:
    bad = of_kind("StatefulSet", rendered())["physics-master"]
    bad["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(bad, minor, strict=True)


# --- what the schemas do not say ------------------------------------------------------------------


def test_names_are_unique_and_labels_are_the_pools(case: list[dict[str, Any]]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in case]
    assert len(set(names)) == len(names)
    for each in case:
        if each["kind"] != "Namespace":
            assert each["metadata"]["labels"]["roost.pool"] == "physics"
            assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?", each["metadata"]["name"])


def test_a_namespace_that_is_named_is_everybodys() -> None:
    found = rendered(CASES["groups"])
    assert list(of_kind("Namespace", found)) == ["science"]
    assert {each["metadata"].get("namespace") for each in found[1:]} == {"science"}
    assert "kubectl -n science apply" in text(CASES["groups"])
    assert not of_kind("Namespace", rendered("kubernetes: {namespace: default}\n"))


def test_every_selector_chooses_what_it_is_for(case: list[dict[str, Any]]) -> None:
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"]
        for name, each in of_kind("StatefulSet", case).items()
    }

    def chosen(selector: dict[str, str]) -> set[str]:
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    for name, each in of_kind("StatefulSet", case).items():
        assert chosen(each["spec"]["selector"]["matchLabels"]) == {name}
        assert each["spec"]["serviceName"] in of_kind("Service", case)
    services = of_kind("Service", case)
    assert chosen(services["physics"]["spec"]["selector"]) == set(labels)
    assert chosen(services["physics-master"]["spec"]["selector"]) == {"physics-master"}
    budgets = {}
    for name, each in of_kind("PodDisruptionBudget", case).items():
        selector = each["spec"]["selector"]
        (roles,) = selector["matchExpressions"]
        budgets[name] = {
            node for node in chosen(selector["matchLabels"])
            if labels[node][roles["key"]] in roles["values"]
        }  # fmt: skip
    assert set.union(*budgets.values()) == set(labels)
    # A pod of two budgets cannot be evicted at all.
    assert sum(map(len, budgets.values())) == len(labels)


def test_every_place_has_a_volume_and_every_volume_a_place(case: list[dict[str, Any]]) -> None:
    claims = of_kind("PersistentVolumeClaim", case)
    for pod in pods(case).values():
        named = [volume["name"] for volume in pod["volumes"]]
        used = [
            mount
            for each in (*pod["initContainers"], *pod["containers"])
            for mount in each["volumeMounts"]
        ]
        assert len(set(named)) == len(named)
        assert {mount["name"] for mount in used} == set(named)
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        for each in pod["containers"]:
            paths = [mount["mountPath"] for mount in each["volumeMounts"]]
            assert len(set(paths)) == len(paths)


def test_no_word_is_a_boolean_to_older_readers() -> None:
    # To YAML 1.1, as Kubernetes reads it, `on` and `no` are booleans; a bare 1e3 is a number.
    odd = rendered("name: on\nsubmit: {users: [no]}\nexecute: [{name: y, cpus: 1}]\n")
    pod = pods(odd)["on-y-1"]
    assert container(pod)["args"][:2] == ["-e", "on-master"]
    for each in odd:
        for value in _scalars(each["metadata"]):
            assert isinstance(value, str)
    for found in pods(odd).values():
        for words in (container(found)["args"], found["initContainers"][0]["command"]):
            assert all(isinstance(word, str) for word in words)
    raw = text("name: on\nsubmit: {users: [no]}\nexecute: [{name: y, cpus: 1}]\n")
    assert "roost.pool: 'on'" in raw
    assert "roost.group: 'y'" in raw
    assert "- 'no'" in raw


def test_no_word_is_a_number_to_other_readers() -> None:
    # The hash of a node's spec may look like one: 1e23 is a string to PyYAML and a float to Go.
    raw = text("execute: [{count: 40}]\n")
    hashes = re.findall(r"roost.spec: (.*)", raw)
    assert hashes
    for each in hashes:
        assert each.startswith("'") == each.strip("'")[0].isdigit()
    assert "&id" not in raw


def _scalars(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _scalars(each)
    elif isinstance(value, list):
        for each in value:
            yield from _scalars(each)
    else:
        yield value


def test_ports_are_named_and_only_these(case: list[dict[str, Any]]) -> None:
    for name, pod in pods(case).items():
        ports = {port["name"]: port["containerPort"] for port in container(pod)["ports"]}
        wanted = {"condor": 9618} | ({"admit": 9619} if name == "physics-master" else {})
        assert ports == wanted
    for each in of_kind("Service", case).values():
        assert all(port["name"] for port in each["spec"]["ports"])


# --- what the pool needs --------------------------------------------------------------------------


def test_readiness_does_not_wait_for_itself(case: list[dict[str, Any]]) -> None:
    for each in of_kind("Service", case).values():
        assert each["spec"]["publishNotReadyAddresses"] is True
        assert each["spec"]["clusterIP"] == "None"


def test_a_node_is_one_pod_and_has_its_own_name(case: list[dict[str, Any]]) -> None:
    for name, each in of_kind("StatefulSet", case).items():
        assert each["spec"]["replicas"] == 1
        args = container(each["spec"]["template"]["spec"])["args"]
        assert args[args.index("--name") + 1] == name


def test_executors_reserve_what_they_offer() -> None:
    found = pods(rendered())
    big = container(found["physics-big-1"])
    assert big["resources"]["requests"] == big["resources"]["limits"]
    assert big["resources"]["limits"] == {"cpu": "4", "memory": size(4 * 2**30 + DAEMONS_MEMORY)}
    assert big["args"][2:6] == ["--cpus", "4", "--memory", "4096"]
    small = container(found["physics-cpu-2"])
    assert small["resources"]["limits"] == {
        "cpu": "500m", "memory": size(256 * 2**20 + DAEMONS_MEMORY)
    }  # fmt: skip
    # What the pool file says of the others they reserve, and no more than a little if it is silent.
    assert container(found["physics-submit"])["resources"]["requests"]["memory"] == "1Gi"
    assert container(found["physics-master"])["resources"] == {
        "requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}
    }  # fmt: skip


def test_nobody_has_more_rights_than_the_role_needs(case: list[dict[str, Any]]) -> None:
    wanted = {
        "master": (100, 102, True, []),
        "submit": (0, 0, False, ["CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID", "FOWNER"]),
        "execute": (0, 0, True, ["CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID"]),
    }
    for each in of_kind("StatefulSet", case).values():
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for one in (*pod["initContainers"], *pod["containers"]):
            assert one["securityContext"]["privileged"] is False
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"]["capabilities"]["drop"] == ["ALL"]
        to = container(pod)["securityContext"]
        assert (
            to["runAsUser"], to["runAsGroup"], to["readOnlyRootFilesystem"],
            to["capabilities"].get("add", []),
        ) == wanted[each["metadata"]["labels"]["roost.role"]]  # fmt: skip
        assert to["runAsNonRoot"] is (to["runAsUser"] != 0)


def test_jobs_may_not_write_where_the_node_is_configured() -> None:
    script = pods(rendered())["physics-cpu-1"]["initContainers"][0]["command"][-1]
    closed, _, open_ = script.partition("chmod 1777")
    for path in ("/run", "/etc/condor/config.d", "/var/lib/roost", "/var/log/condor"):
        assert path in closed.split()
    assert open_.split() == ["/tmp", "/var/tmp"]


def test_the_probes_are_true_to_the_role(case: list[dict[str, Any]]) -> None:
    for pod in pods(case).values():
        node = container(pod)
        assert node["readinessProbe"]["exec"]["command"] == ["roost-node", "health"]
        assert node["livenessProbe"]["exec"]["command"] == ["roost-node", "health", "--live"]
        start = node["startupProbe"]
        assert start["exec"]["command"] == ["roost-node", "health"]
        # A node that waits for its master, or to be admitted, is not killed for that.
        assert start["failureThreshold"] * start["periodSeconds"] >= 12 * 3600
        for name in ("readinessProbe", "livenessProbe", "startupProbe"):
            assert node[name]["timeoutSeconds"] > 8 * 2


def test_an_executor_that_is_ended_drains_first() -> None:
    found = pods(rendered(CASES["groups"]))
    executor = found["physics-big-1"]
    stop = container(executor)["lifecycle"]["preStop"]["exec"]["command"]
    assert stop == ["roost-node", "drain", "--limit", str(6 * 3600)]
    assert executor["terminationGracePeriodSeconds"] == 6 * 3600 + VACATE + STOP_SECONDS
    for name in ("physics-master", "physics-submit"):
        assert "lifecycle" not in container(found[name])
        assert found[name]["terminationGracePeriodSeconds"] == STOP_SECONDS


def test_only_the_pools_own_pods_reach_its_ports() -> None:
    found = of_kind("NetworkPolicy", rendered())
    rules = {}
    for name, each in found.items():
        spec = each["spec"]
        assert spec["policyTypes"] == ["Ingress"]
        (rule,) = spec["ingress"]
        assert rule["from"] == [{"podSelector": {"matchLabels": {"roost.pool": "physics"}}}]
        (port,) = rule["ports"]
        rules[name] = (spec["podSelector"]["matchLabels"], port["port"], port["protocol"])
    everyone = {"roost.pool": "physics"}
    assert rules == {
        "physics": (everyone, 9618, "TCP"),
        "physics-admission": (everyone | {"roost.role": "master"}, 9619, "TCP"),
    }


def test_calicos_policies_say_the_same() -> None:
    found = of_kind("NetworkPolicy", rendered(CASES["calico"]))
    assert {each["apiVersion"] for each in found.values()} == {"projectcalico.org/v3"}
    pool = "roost.pool == 'physics'"
    allowed = {
        name: (each["spec"]["selector"], each["spec"]["ingress"]) for name, each in found.items()
    }

    def allow(port: int) -> list[dict[str, Any]]:
        return [
            {"action": "Allow", "protocol": "TCP", "source": {"selector": pool},
             "destination": {"ports": [port]}}
        ]  # fmt: skip

    assert allowed == {
        "physics": (pool, allow(9618)),
        "physics-admission": (f"{pool} && roost.role == 'master'", allow(9619)),
    }
    assert not of_kind("NetworkPolicy", rendered("kubernetes: {policy: none}\n"))


def test_no_secret_is_rendered_and_the_cas_key_is_the_masters_own() -> None:
    found = rendered(CASES["groups"])
    assert not of_kind("Secret", found)
    assert CA_KEY not in text(CASES["groups"])
    assert "UPDATE_INTERVAL" not in text(CASES["groups"])
    for name, pod in pods(found).items():
        secrets = {
            volume["name"]: volume["secret"]["secretName"]
            for volume in pod["volumes"] if "secret" in volume
        }  # fmt: skip
        role = {"physics-master": "", "physics-submit": "submit"}.get(name, "execute")
        joins = {"join": f"physics-join-{role}"} if role else {}
        assert secrets == {"files": "physics-config"} | joins
        assert all(
            volume["secret"]["defaultMode"] == 0o400
            for volume in pod["volumes"]
            if "secret" in volume
        )


def test_the_access_point_keeps_its_identity_beside_its_queue() -> None:
    kept = {
        mount["mountPath"]: (mount["name"], mount["subPath"])
        for mount in container(pods(rendered())["physics-submit"])["volumeMounts"]
        if "subPath" in mount
    }
    assert kept == {
        "/var/spool/condor": ("physics-spool", "spool"),
        "/home": ("physics-home", "home"),
        "/var/lib/roost": ("physics-spool", "state"),
    }


def test_users_come_from_the_pool_file() -> None:
    args = container(pods(rendered())["physics-submit"])["args"]
    assert args[:6] == ["-s", "physics-master", "-u", "john", "-u", "mary"]


def test_storage_is_what_the_pool_file_asks_for() -> None:
    claims = of_kind("PersistentVolumeClaim", rendered(CASES["groups"]))
    sizes = {
        name: (each["spec"]["storageClassName"], each["spec"]["resources"]["requests"]["storage"])
        for name, each in claims.items()
    }
    assert sizes == {
        "physics-spool": ("fast", "50Gi"),
        "physics-home": ("fast", "50Gi"),
        "physics-state": ("fast", "1Gi"),
    }


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ("network: {name: calinet1}\n", "cannot name one"),
        ("master: {count: 2}\n", "second master"),
    ],
)
def test_what_kubernetes_cannot_have_is_said(pool: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        rendered(pool)


@pytest.mark.parametrize(
    "wrong",
    ["{namespace: Physics}", "{context: 'two words'}", "{drain: 2d}", "{policy: cilium}"],
)
def test_a_wrong_setting_is_refused_with_its_place(wrong: str) -> None:
    with pytest.raises(PoolFileError, match=r"kubernetes\.\w+"):
        parse(f"kubernetes: {wrong}\n", "pool.yaml")


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_files_with_their_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("ROOST_POOL", raising=False)
    file, out = tmp_path / "pool.yaml", tmp_path / "out"
    file.write_text(CASES["groups"])
    assert cli.main(["render", "kubernetes", str(file)]) == 0
    assert capsys.readouterr().out == text(CASES["groups"])
    assert cli.main(["render", "kubernetes", str(file), "-o", str(out)]) == 0
    modes = {
        str(path.relative_to(out)): f"{stat.S_IMODE(path.stat().st_mode):o}"
        for path in out.rglob("*")
    }
    assert modes == {"pool.yaml": "644", "secrets": "700", "secrets/extra.conf": "600"}
    assert (out / "secrets" / "extra.conf").read_text() == "UPDATE_INTERVAL = 60\n"
    assert not (tmp_path / "state").exists()
