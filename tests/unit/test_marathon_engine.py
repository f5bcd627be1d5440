"""The engine on Marathon: what it asks of one, what it makes of the answers; no container runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from marathon_emulator.emulator import emulated
from marathon_emulator.rest import Server, serving
from roost import cli, engines
from roost.engines.marathon import engine as module
from roost.engines.marathon.agents import Agents, Container
from roost.engines.marathon.client import Client, Locked, refusal
from roost.engines.marathon.engine import MarathonEngine, observed, own_requests, words
from roost.engines.oci import DOCKER, At, OciEngine
from roost.errors import BadInput, EngineError, EngineUnavailable, NameTaken, PoolFileError
from roost.fit import named
from roost.plan import Keyless, Network, Node, Observed, ObservedNode, Volume, plan
from roost.spec import Marathon, PoolSpec
from roost.specfile import load, parse
from roost_node.vocab import LABEL_POOL

POOL = """\
name: p
execute: [{name: cpu, count: 2}]
network: {name: n}
marathon: {constraints: {cpu: [[hostname, LIKE, nowhere]]}}
"""
PLAN = plan(parse(POOL, "pool.yaml"), Keyless())


def node(group: str) -> Node:
    return next(each for each in PLAN.nodes if each.group == group)


@pytest.fixture
def server() -> Iterator[Server]:
    with emulated("1.5") as emulator, serving(emulator) as found:
        yield found


@pytest.fixture
def engine(server: Server, monkeypatch: pytest.MonkeyPatch) -> MarathonEngine:
    """On agents where no container is, and with little patience."""
    spec = parse(POOL, "pool.yaml")
    found = MarathonEngine(
        spec.marathon.model_copy(update={"url": server.url}), [OciEngine(DOCKER)]
    )
    monkeypatch.setattr(found._agents, "containers", lambda _label: {})
    monkeypatch.setattr(module, "PLACED_WITHIN", 0.2)
    return found


def posted(server: Server) -> list[str]:
    return [line for line in server.asked if not line.startswith("GET ")]


# --- what is made and undone --------------------------------------------------------------------


def test_what_no_agent_takes_is_said_and_taken_back(engine: MarathonEngine, server: Server) -> None:
    with pytest.raises(EngineError, match=r"no agent .*/p-cpu.*1 CPUs, 1152 MiB and hostname LIKE"):
        list(engine.ensure(node("cpu")))
    assert server.emulator.listed() == []
    assert posted(server) == ["POST /v2/apps", "DELETE /v2/apps//p-cpu"]


def test_what_somebody_else_changes_is_not_forced(engine: MarathonEngine, server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        app = {
            "id": "/p-cpu", "labels": dict(node("cpu").labels), "instances": 1,
            "constraints": [["hostname", "LIKE", "nowhere"]],
            "container": {"type": "DOCKER", "docker": {"image": "i"}},
        }  # fmt: skip
        http.post("/v2/apps", json=app).raise_for_status()
        (held,) = http.get("/v2/deployments").json()
    with pytest.raises(Locked, match=rf"/p-cpu, by the deployment {held['id']}; wait"):
        list(engine.ensure(node("cpu")))
    assert [each["instances"] for each in server.emulator.listed()] == [1]


def test_an_app_of_somebody_elses_is_left_alone(engine: MarathonEngine, server: Server) -> None:
    foreign = {
        "id": "/p-cpu", "instances": 0, "container": {"type": "DOCKER", "docker": {"image": "i"}}
    }  # fmt: skip
    httpx.post(f"{server.url}/v2/apps", json=foreign).raise_for_status()
    with pytest.raises(NameTaken, match="/p-cpu exists on Marathon and is not this pool's"):
        list(engine.ensure(node("cpu")))
    assert list(engine.retire([node.ref for node in engine.observe("p").nodes])) == []


def test_it_makes_no_network_and_volumes_come_with_their_node(engine: MarathonEngine) -> None:
    with pytest.raises(BadInput, match="makes no networks"):
        list(engine.ensure(Network("p", {LABEL_POOL: "p"})))
    (event,) = engine.ensure(Volume("p-spool", {LABEL_POOL: "p"}))
    assert event.kind == "unchanged"
    assert engine.observe("p") == Observed("p")
    assert engine.pools() == []


def test_another_image_comes_to_a_pool_without_executors(engine: MarathonEngine) -> None:
    old = ObservedNode("abc", "execute", "cpu", "another", "", "running", "healthy")
    with pytest.raises(BadInput, match="scale to 0 first"):
        engine.check_change(PLAN, Observed("p", nodes=(old,)))
    engine.check_change(PLAN, Observed("p"))


# --- what is seen -------------------------------------------------------------------------------


def app(role: str, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    labels = {"roost.pool": "p", "roost.role": role, "roost.group": "cpu", "roost.spec": "0"}
    return {
        "id": f"/p-{role}", "labels": labels, "instances": len(tasks), "tasks": list(tasks),
        "networks": [{"mode": "container", "name": "n"}],
        "container": {"docker": {"image": "i"}}, **more,
    }  # fmt: skip


def task(id: str = "t", state: str = "TASK_RUNNING", **health: Any) -> dict[str, Any]:
    return {
        "id": id, "state": state, "ipAddresses": [{"ipAddress": "10.0.0.2"}],
        "healthCheckResults": [health] if health else [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "state", "health"),
    [
        (task(alive=True, firstSuccess="t"), "running", "healthy"),
        (task(alive=False, firstSuccess="t"), "running", "unhealthy"),
        (task(alive=False), "created", "starting"),
        (task(), "created", "starting"),
        (task(state="TASK_STAGING"), "created", "starting"),
    ],
)
def test_a_task_as_a_node(found: dict[str, Any], state: str, health: str) -> None:
    (seen,) = observed(app("execute", found), {"t": Container("c" * 64, "abc", OciEngine(DOCKER))})
    assert (seen.name, seen.state, seen.health) == ("abc", state, health)
    assert (seen.address, seen.networks, seen.spec) == ("10.0.0.2", ("n",), "0")


def test_one_of_a_kind_has_its_name_also_without_a_task() -> None:
    (seen,) = observed(app("master", instances=1), {})
    assert (seen.name, seen.state) == ("p-master", "created")
    assert observed(app("master", instances=0), {}) == []
    assert [each.name for each in observed(app("execute", task("x")), {})] == ["x"]


ROW = {"id": "1", "name": "exec-abc", "address": "10.0.0.2", "fingerprint": "b5:8d"}


@pytest.mark.parametrize(
    ("name", "address", "log", "ids"),
    [
        ("exec-abc", "10.0.0.2", "to admit exec-abc, key b5:8d: …", ["1"]),
        ("exec-abd", "10.0.0.2", "key b5:8d", []),
        ("exec-abc", "10.0.0.3", "key b5:8d", []),
        ("exec-abc", "10.0.0.2", "key b5:8e", []),
        ("exec-abc", "10.0.0.2", "", []),
    ],
)
def test_only_the_node_that_was_started_is_admitted(
    name: str, address: str, log: str, ids: list[str]
) -> None:
    assert own_requests([ROW], name, address, log) == ids


@pytest.mark.parametrize(
    ("version", "said"),
    [("1.1.2", "1.1"), ("0.15.3", "1.1"), ("1.2.0-RC8", "1.4"), ("1.4.9", "1.4"),
     ("1.5.6", "1.5+"), ("1.11.24", "1.5+"), ("2.0", "1.5+")],
)  # fmt: skip
def test_the_words_are_those_that_it_understands(version: str, said: str) -> None:
    assert words(version) == said


def test_names_that_an_engine_gave_are_kept() -> None:
    spec = parse(POOL, "pool.yaml").scaled({"cpu": 3})
    there = Observed("p", nodes=tuple(
        ObservedNode(name, "execute", "cpu", "i", "", "running", "healthy") for name in ("a", "b")
    ))  # fmt: skip
    target = plan(spec, Keyless(), standing={"b"}, named=named(there, {"b"}))
    assert [each.name for each in target.nodes if each.role == "execute"] == [
        "b", "p-cpu-1", "p-cpu-2"
    ]  # fmt: skip


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, {"message": "Invalid username or password."}, EngineUnavailable, "~/.netrc"),
        (403, {"message": "Not Authorized to perform this action!"}, EngineUnavailable, "let you"),
        (403, {"message": "Max number (100) of running deployments is achieved. Wait for"},
         EngineError, r"too many deployments going on: Max number \(100\)"),
        (409, {"message": "An app with id [/x] already exists."}, NameTaken, "/x exists"),
        (409, {"message": "App is locked", "deployments": [{"id": "d-1"}]}, Locked, "d-1"),
        (422, {"message": "Object is not valid", "details": [
            {"path": "/id", "errors": ["must match"]}]}, EngineError, r"\(/id: must match\)"),
        (400, {"message": "Invalid JSON"}, EngineError, "does not accept /x: Invalid JSON"),
        (500, None, EngineError, "refused /x: status 500"),
        (200, None, EngineUnavailable, "is not Marathon"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do(
    status: int, body: Any, kind: type[EngineError], said: str
) -> None:
    error = refusal("http://m", status, body, "/x")
    assert type(error) is kind
    with pytest.raises(kind, match=said):
        raise error


def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("ROOST_POOL", "ROOST_ENGINE", "MARATHON_URL"):
        monkeypatch.delenv(variable, raising=False)


def test_the_command_says_in_a_sentence_why_it_cannot_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home(tmp_path, monkeypatch)
    up = ["up", "--network", "n", "--engine", "marathon"]

    def sentence(*argv: str, status: int) -> str:
        assert cli.main([*up, *argv]) == status
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "it is not said where Marathon is; give --url" in sentence(status=2)
    assert "--url is 'http://u:p@m'" in sentence("--url", "http://u:p@m", status=2)
    said = sentence("--url", "http://127.0.0.1:9", status=1)
    assert said.startswith("roost: no Marathon answers at http://127.0.0.1:9: connection refused; ")
    with emulated("1.5") as emulator, serving(emulator, login="john:secret") as server:
        assert "does not let you in: Invalid username" in sentence("--url", server.url, status=1)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login john password secret\n")
        (tmp_path / ".netrc").chmod(0o600)
        assert Client(server.url).version() == "1.5.6"
    assert not (tmp_path / "state").exists()


def test_where_marathon_is_comes_from_flag_environment_or_file(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text("engine: marathon\nmarathon: {url: http://file}\n")
    assert load(file, environ={}).marathon.url == "http://file"
    assert load(file, environ={"MARATHON_URL": "http://env"}).marathon.url == "http://env"
    assert load(None, environ={"MARATHON_URL": "http://env"}).marathon.url is None
    with pytest.raises(PoolFileError, match="MARATHON_URL is 'ftp://m'; write it as http"):
        load(file, environ={"MARATHON_URL": "ftp://m"})


def test_a_tasks_container_is_looked_for_on_every_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "a": [{"id": "1", "hostname": "h1", "env": ["MESOS_TASK_ID=t1", "A=b=c"]}],
        "b": [{"id": "2", "hostname": "h2", "env": ["MESOS_TASK_ID=t2"]},
              {"id": "3", "hostname": "h3", "env": None}],
    }  # fmt: skip
    dockers = [OciEngine(DOCKER, At(name, f"ssh://{name}")) for name in found]
    for docker, (_, there) in zip(dockers, found.items(), strict=True):
        monkeypatch.setattr(docker, "labelled", lambda _label, there=there: there)
    containers = Agents(dockers).containers("l")
    assert {task: each.hostname for task, each in containers.items()} == {"t1": "h1", "t2": "h2"}
    assert [containers[task].docker for task in ("t1", "t2")] == dockers


def test_agents_are_named_by_ssh_or_a_socket() -> None:
    text = "execute: [{name: cpu}]\nmarathon: {agents: [%s]}\n"
    assert parse(text % "ssh://a@b, 'unix:///x'", "f").marathon.agents == ("ssh://a@b", "unix:///x")
    with pytest.raises(PoolFileError, match="write it as ssh://user@host"):
        parse(text % "'tcp://a:2375'", "f")


def test_it_is_found_by_its_name() -> None:
    spec = PoolSpec(marathon=Marathon(url="http://m"))
    assert engines.by_name("marathon", spec).name == "marathon"
    with pytest.raises(BadInput, match="did you mean 'marathon'"):
        engines.by_name("maraton")
