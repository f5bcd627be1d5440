"""App definitions: golden files, Marathon's own published schemas, and what those do not say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from marathon_emulator import schemas
from marathon_emulator.definitions import Generation, Invalid, accepted
from roost import cli
from roost.engines.marathon import HEALTH_PORT, MarathonRenderer, apps
from roost.errors import BadInput, PoolFileError
from roost.plan import Keyless, plan
from roost.spec import MarathonVersion
from roost.specfile import parse

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "marathon"
GOLDEN = ROOT / "tests" / "golden" / "marathon"

#: What accepts which generation of app definitions, by the schemas that are published.
ACCEPTED: dict[MarathonVersion, tuple[str, ...]] = {
    "1.1": ("1.1.2", "1.2.0"),
    "1.4": ("1.2.0", "1.3.0", "1.5.0"),
    "1.5+": ("1.5.0",),
}

POOL = """\
name: physics
submit: {users: [john], memory: 1GiB}
execute:
  - {name: cpu, count: 2, cpus: 0.5, memory: 256MiB}
  - {name: big, count: 1, cpus: 4, memory: 4GiB}
network: {name: calinet1}
marathon:
  volume: 1GiB
  constraints:
    submit: [[rack, LIKE, rack-1]]
    cpu: [[hostname, UNIQUE], [rack, GROUP_BY, "2"]]
"""


def rendered(version: MarathonVersion, text: str = POOL, **changes: object) -> dict[str, Any]:
    spec = parse(text, "pool.yaml")
    settings = spec.marathon.model_copy(update={"version": version, **changes})
    return apps(plan(spec, Keyless()), settings)


def wrong(app: Any, version: str) -> list[tuple[str, str]]:
    if schemas.SCHEMAS is None:
        pytest.skip(schemas.ABSENT)
    return schemas.wrong(app, version)


PAIRS = [(version, schema) for version, schemas in ACCEPTED.items() for schema in schemas]


@pytest.mark.parametrize("version", get_args(MarathonVersion))
def test_golden(version: MarathonVersion) -> None:
    text = json.dumps(list(rendered(version).values()), indent=2) + "\n"
    golden = GOLDEN / f"{version}.json"
    if os.environ.get("GOLDEN_UPDATE"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(("version", "schema"), PAIRS)
def test_it_is_what_the_published_schema_says(version: MarathonVersion, schema: str) -> None:
    for app in rendered(version).values():
        assert wrong(app, schema) == []


@pytest.mark.parametrize(
    ("version", "generation"), [("1.1", "1.1"), ("1.4", "1.4"), ("1.4", "1.5"), ("1.5+", "1.5")]
)
def test_it_breaks_none_of_the_rules_that_the_schemas_do_not_say(
    version: MarathonVersion, generation: Generation
) -> None:
    for app in rendered(version).values():
        assert accepted(app, generation)["id"] == app["id"]


def test_words_of_1_1_name_no_network_that_1_5_could_take() -> None:
    with pytest.raises(Invalid, match="not allowed for Docker"):
        accepted(rendered("1.1")["cpu"], "1.5")


@pytest.mark.parametrize("schema", ["1.1.2", "1.2.0", "1.3.0", "1.5.0"])
def test_every_schema_is_used_and_refuses_what_it_must(schema: str) -> None:
    assert schema in {each for _, each in PAIRS}
    app = rendered("1.1")["cpu"]
    assert wrong(app | {"memory": 1}, schema)
    assert wrong(app | {"cmd": "true"}, schema)


@pytest.mark.parametrize(
    ("version", "older"), [("1.4", "1.1.2"), ("1.5+", "1.1.2"), ("1.5+", "1.3.0")]
)
def test_a_newer_generation_is_refused_by_an_older_marathon(
    version: MarathonVersion, older: str
) -> None:
    assert wrong(rendered(version)["master"], older)


@pytest.mark.parametrize("version", ["1.4", "1.5+"])
@pytest.mark.parametrize(("health", "protocol"), [("http", "HTTP"), ("mesos-http", "MESOS_HTTP")])
def test_health_over_http_asks_the_port_that_the_node_opens(
    version: MarathonVersion, health: str, protocol: str
) -> None:
    # MESOS_HTTP came with 1.4, and the schema before the one of 1.5 is that of 1.3.
    schemas = ACCEPTED[version] if health == "http" else ("1.5.0",)
    for app in rendered(version, health=health).values():
        (check,) = app["healthChecks"]
        assert (check["protocol"], check["port"]) == (protocol, HEALTH_PORT)
        assert app["args"][-2:] == ["--health-port", str(check["port"])]
        for schema in schemas:
            assert wrong(app, schema) == []


@pytest.mark.parametrize("version", get_args(MarathonVersion))
def test_a_node_that_waits_is_not_killed_for_its_health(version: MarathonVersion) -> None:
    for app in rendered(version).values():
        (check,) = app["healthChecks"]
        assert check["command"] == {"value": "roost-node health"}
        assert check["maxConsecutiveFailures"] == 0


@pytest.mark.parametrize("version", get_args(MarathonVersion))
def test_calico_is_asked_for_in_the_words_of_the_version(version: MarathonVersion) -> None:
    for app in rendered(version).values():
        docker = app["container"]["docker"]
        params = [(each["key"], each["value"]) for each in docker["parameters"]]
        said = ("net", "calinet1") in params, docker.get("network"), "networks" in app
        assert (
            said
            == {
                "1.1": (True, None, False),
                "1.4": (False, "USER", False),
                "1.5+": (False, None, True),
            }[version]
        )
        if version == "1.4":
            assert app["ipAddress"]["networkName"] == "calinet1"
        if version == "1.5+":
            assert app["networks"] == [{"mode": "container", "name": "calinet1"}]
            assert "ipAddress" not in app


@pytest.mark.parametrize("version", get_args(MarathonVersion))
def test_a_persistent_volume_is_relative_and_docker_mounts_it(version: MarathonVersion) -> None:
    found = rendered(version)
    assert not any("volumes" in found[group]["container"] for group in ("cpu", "big"))
    for group, paths in {
        "master": {"/var/lib/roost"},
        "submit": {"/var/spool/condor", "/home", "/var/lib/roost"},
    }.items():
        volumes = found[group]["container"]["volumes"]
        made = {each["containerPath"] for each in volumes if "persistent" in each}
        mounted = {
            each["hostPath"]: each["containerPath"] for each in volumes if "hostPath" in each
        }
        assert set(mounted) == made
        assert set(mounted.values()) == paths
        assert not any("/" in name for name in made)
        # Two of it would be two queues, or two authorities.
        assert set(found[group]["upgradeStrategy"].values()) == {0}
        assert found[group]["instances"] == 1


def test_nodes_find_the_master_by_the_name_that_mesos_dns_gives_it() -> None:
    found = rendered("1.5+", domain="slave.example")
    assert found["master"]["id"] == "/physics-master"
    assert found["master"]["args"] == ["-m", "--pool", "physics"]
    assert found["submit"]["args"][:2] == ["-s", "physics-master.slave.example"]
    assert found["cpu"]["args"][:2] == ["-e", "physics-master.slave.example"]


def test_executors_are_made_by_number_and_have_no_fixed_name() -> None:
    found = rendered("1.5+")
    assert (found["cpu"]["instances"], found["big"]["instances"]) == (2, 1)
    named = {
        group
        for group, app in found.items()
        if any(each["key"] == "hostname" for each in app["container"]["docker"]["parameters"])
    }
    assert named == {"master", "submit"}


def test_constraints_are_those_of_the_pool_file() -> None:
    found = rendered("1.5+")
    assert found["cpu"]["constraints"] == [["hostname", "UNIQUE"], ["rack", "GROUP_BY", "2"]]
    assert found["submit"]["constraints"] == [["rack", "LIKE", "rack-1"]]
    assert "constraints" not in found["master"]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("marathon: {constraints: {cpu: [[rack, UNIQ]]}}", "not a constraint of Marathon"),
        ("marathon: {constraints: {cpu: [[hostname, UNIQUE, x]]}}", "not a constraint of Marathon"),
        ("marathon: {constraints: {gpu: [[hostname, UNIQUE]]}}", "nothing of this pool"),
        ("marathon: {version: 1.5}", "choose from 1.1, 1.4, 1.5+"),
        ("marathon: {domain: '-'}", "write it as marathon.mesos"),
        ("marathon: {volumes: 1GiB}", "did you mean volume?"),
    ],
)
def test_a_wrong_section_is_explained(section: str, said: str) -> None:
    with pytest.raises(PoolFileError, match=re.escape(said)):
        parse(f"execute: [{{name: cpu}}]\n{section}\n", "pool.yaml")


@pytest.mark.parametrize(
    ("text", "version", "changes", "said"),
    [
        ("name: lab", "1.5+", {}, "names none"),
        ("master: {count: 2}\nnetwork: {name: n}", "1.5+", {}, "two masters"),
        ("config: A = 1\nnetwork: {name: n}", "1.5+", {}, "may hold secrets"),
        ("network: {name: n}", "1.1", {"health": "http"}, "loses a node's address"),
        (
            "network: {name: n}\nmarathon: {constraints: {submit: [[rack, MAX_PER, '1']]}}",
            "1.1",
            {},
            "no constraint MAX_PER",
        ),
    ],
)
def test_what_marathon_cannot_have_is_said_and_nothing_written(
    text: str, version: MarathonVersion, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        rendered(version, text, **changes)


# --- the command and the examples ---------------------------------------------------------------


def test_the_examples_are_what_is_rendered() -> None:
    spec = parse((EXAMPLES / "pool.yaml").read_text(), "pool.yaml")
    texts = MarathonRenderer(spec.marathon).render(plan(spec, Keyless()))
    assert set(texts) == {"master.json", "submit.json", "execute.json"}
    assert {path.name: path.read_text() for path in EXAMPLES.glob("*.json")} == texts


def test_the_examples_are_valid() -> None:
    for path in EXAMPLES.glob("*.json"):
        assert wrong(json.loads(path.read_text()), "1.5.0") == []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("ROOST_POOL", raising=False)
    return tmp_path


def test_the_command_writes_one_file_an_app_and_makes_no_keys(home: Path) -> None:
    out = home / "out"
    asked = ["render", "marathon", str(EXAMPLES / "pool.yaml"), "-o", str(out)]
    assert cli.main(asked) == 0
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        path.name: path.read_text() for path in EXAMPLES.glob("*.json")
    }
    assert not (home / "state").exists()
    assert cli.main(asked) == 2  # nothing is overwritten


def test_the_flag_wins_over_the_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["render", "marathon", str(EXAMPLES / "pool.yaml"), "--marathon-version", "1.4"]
    assert cli.main(asked) == 0
    master, *_ = json.loads(capsys.readouterr().out)
    assert master["ipAddress"]["networkName"] == "calinet1"


def test_what_cannot_be_is_one_sentence(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["render", "marathon", "-o", str(home / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("roost: Marathon makes no networks")
    assert not (home / "out").exists()
