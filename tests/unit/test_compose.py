"""Golden files, and the rules of the Compose specification that a reader would not see broken."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from roost.engines.compose import FILE, JOIN_TOKEN, ComposeRenderer, mode_of, secret_files
from roost.plan import Plan, plan
from roost.security import Secret
from roost.spec import Execute, PoolSpec
from roost.specfile import parse
from roost_node.vocab import (
    CA_CERT,
    CA_KEY,
    EXTRA_CONFIG,
    LABEL_POOL,
    NODE_CERT,
    NODE_KEY,
    STATE_DIR,
    Role,
)

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/pool.yaml"))


class FakeKeys:
    """Files that tell whose they are, and are nobody's keys."""

    def node_files(self, role: Role, node: str) -> Mapping[str, Secret]:
        names = (CA_CERT, NODE_CERT, NODE_KEY, *((CA_KEY,) if node.endswith("-master") else ()))
        return {name: Secret(f"fake {name} of {node}".encode()) for name in names}


def planned(case: str) -> Plan:
    path = GOLDEN / case / "pool.yaml"
    return plan(parse(path.read_text(), str(path)), FakeKeys())


def rendered(case: str) -> dict[str, Any]:
    value = yaml.safe_load(ComposeRenderer().render(planned(case))[FILE])
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    text = ComposeRenderer().render(planned(case))[FILE]
    golden = GOLDEN / case / FILE
    if os.environ.get("GOLDEN_UPDATE"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("case", CASES)
def test_every_reference_is_defined_and_everything_defined_is_used(case: str) -> None:
    project = rendered(case)
    services = project["services"].values()
    assert {name for s in services for name in s["networks"]} == set(project["networks"])
    mounts = [mount.partition(":")[0] for s in services for mount in s.get("volumes", ())]
    named = [mount for mount in mounts if not mount.startswith("/")]
    assert sorted(named) == sorted(project["volumes"])
    used = {secret["source"] for s in services for secret in s.get("secrets", ())}
    assert used == set(project["secrets"])
    assert {need for s in services for need in s.get("depends_on", ())} <= set(project["services"])


@pytest.mark.parametrize("case", CASES)
def test_the_types_are_those_of_the_specification(case: str) -> None:
    project = rendered(case)
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", project["name"])
    for name, service in project["services"].items():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
        assert all(isinstance(word, str) for word in service["command"])
        assert all(isinstance(value, str) for value in service["labels"].values())
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        assert all(isinstance(value, str) for key, value in limits.items() if key != "pids")
        assert re.fullmatch(r"[0-9]+[bkmg]", limits.get("memory", "1b"))
    assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in project["secrets"])


@pytest.mark.parametrize("case", CASES)
def test_the_files_beside_it_are_the_ones_it_names(case: str) -> None:
    named = {secret["file"].removeprefix("./") for secret in rendered(case)["secrets"].values()}
    assert named - {JOIN_TOKEN} == set(secret_files(planned(case)))


@pytest.mark.parametrize("case", CASES)
def test_the_text_holds_no_secret(case: str) -> None:
    text = ComposeRenderer().render(planned(case))[FILE]
    files = secret_files(planned(case))
    assert files
    for secret in files.values():
        for line in secret.reveal().decode().splitlines():
            assert line not in text


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("secrets/master/ca.crt", 0o644),
        ("secrets/master/ca.key", 0o600),
        ("secrets/submit/node.crt", 0o644),
        ("secrets/submit/node.key", 0o600),
        ("secrets/submit/reader.key", 0o644),
        ("secrets/cpu/extra.conf", 0o600),
        (JOIN_TOKEN, 0o600),
    ],
)
def test_only_what_the_users_of_an_access_point_need_is_readable_to_them(
    path: str, mode: int
) -> None:
    assert mode_of(path) == mode


def test_what_can_be_scaled_has_no_fixed_name_and_shares_no_certificate() -> None:
    services = rendered("groups")["services"]
    for group in ("cpu", "big"):
        service = services[group]
        assert not {"container_name", "hostname", "ports"} & set(service)
        targets = [secret["target"] for secret in service["secrets"]]
        assert targets == [f"{STATE_DIR}/{EXTRA_CONFIG}", "/run/secrets/join-token"]
        assert service["command"][-2:] == ["--join-token", "/run/secrets/join-token"]
    assert services["cpu"]["deploy"]["replicas"] == 4
    assert services["cpu"]["deploy"]["resources"]["limits"] == {
        "cpus": "0.5",
        "memory": "1628m",
        "pids": 1536,
    }
    assert services["big"]["deploy"]["resources"]["limits"]["memory"] == "62631072k"


def test_every_service_is_confined() -> None:
    for name, service in rendered("groups")["services"].items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "user"} & set(service)
        # Compose mounts the files with the owner that they have outside: only root reads those.
        assert "DAC_OVERRIDE" in service["cap_add"]
        assert service.get("read_only", False) == (name != "submit")
        assert all(place.endswith(":mode=0755") for place in service.get("tmpfs", ()))


def test_the_master_is_found_by_the_name_that_the_others_call() -> None:
    services = rendered("groups")["services"]
    master = services["master"]["container_name"]
    assert services["master"]["hostname"] == master
    assert services["submit"]["command"][:2] == ["-s", master]
    assert services["cpu"]["command"][:2] == ["-e", master]


def test_two_masters_are_two_services_and_one_holds_the_authority() -> None:
    services = rendered("two-masters")["services"]
    assert services["master-2"]["hostname"] == "lab-master-2"
    assert services["cpu"]["command"][:2] == ["-e", "lab-master,lab-master-2"]
    holders = {
        name
        for name, service in services.items()
        for secret in service["secrets"]
        if secret["source"].endswith(CA_KEY)
    }
    assert holders == {"master"}
    header = ComposeRenderer().render(planned("two-masters"))[FILE]
    assert "# docker compose up -d --wait master master-2 submit" in header


def test_a_network_of_the_users_is_external_and_one_of_the_pools_is_labelled() -> None:
    assert rendered("network")["networks"] == {"pool": {"name": "calinet1", "external": True}}
    assert rendered("default")["networks"] == {
        "pool": {"name": "roost", "labels": {LABEL_POOL: "roost"}}
    }


def test_a_pool_without_executors_asks_for_no_token() -> None:
    text = ComposeRenderer().render(planned("network"))[FILE]
    assert "join-token" not in text


def test_the_same_plan_gives_the_same_text() -> None:
    spec = PoolSpec(execute=(Execute(count=3),))
    first, second = (ComposeRenderer().render(plan(spec, FakeKeys())) for _ in range(2))
    assert first == second


@pytest.fixture(scope="module")
def compose() -> list[str]:
    """A real Compose 2: the one that is here, else Debian's."""
    script = Path(__file__).parents[2] / "scripts" / "compose"
    return subprocess.run([script], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.engine
@pytest.mark.parametrize("case", CASES)
def test_compose_accepts_it(case: str, compose: list[str], tmp_path: Path) -> None:
    for name, text in ComposeRenderer().render(planned(case)).items():
        (tmp_path / name).write_text(text)
    checked = subprocess.run(
        [*compose, "-f", str(tmp_path / FILE), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
