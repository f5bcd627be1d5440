"""The emulator of Marathon: what it accepts, what it answers; nothing here starts a container."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from marathon_emulator import schemas
from marathon_emulator.definitions import Generation, Invalid, accepted, fits, network
from marathon_emulator.emulator import emulated
from marathon_emulator.rest import Server, serving

#: Nobody can run it: its deployment goes on for ever.
NOWHERE = {"constraints": [["hostname", "LIKE", "nowhere"]]}


def app(**more: Any) -> dict[str, Any]:
    return {"id": "/x", "container": {"type": "DOCKER", "docker": {"image": "i"}}, **more}


def docker(**more: Any) -> dict[str, Any]:
    return {"type": "DOCKER", "docker": {"image": "i", **more}}


# --- definitions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (
            {"container": docker(network="USER"), "ipAddress": {"networkName": "n"}},
            [{"mode": "container", "name": "n"}],
        ),
        ({"container": docker(network="BRIDGE")}, [{"mode": "container/bridge"}]),
        ({"container": docker(network="HOST")}, [{"mode": "host"}]),
        ({"networks": [{"mode": "container", "name": "n"}]}, [{"mode": "container", "name": "n"}]),
    ],
)
def test_1_5_takes_older_words_and_never_says_them(
    asked: dict[str, Any], kept: list[dict[str, str]]
) -> None:
    found = accepted(app(**asked), "1.5")
    assert found["networks"] == kept
    assert "ipAddress" not in found
    assert "network" not in found["container"]["docker"]


def test_mappings_move_to_the_container_in_1_5() -> None:
    ports = [{"containerPort": 9618, "protocol": "tcp"}]
    found = accepted(app(container=docker(network="BRIDGE", portMappings=ports)), "1.5")
    assert found["container"]["portMappings"] == ports
    assert "portMappings" not in found["container"]["docker"]


@pytest.mark.parametrize(
    ("generation", "asked", "where"),
    [
        ("1.5", {"id": "/No"}, "/id"),
        ("1.5", {"networks": [{"mode": "container"}]}, "/networks(0)/name"),
        ("1.1", {"ipAddress": {"discovery": {"ports": [
            {"number": 1, "name": "a", "protocol": "tcp"}]}},
            "container": docker(network="BRIDGE")}, "/ipAddress"),
        ("1.5", {"constraints": [["hostname", "LIKE"]]}, "/constraints(0)"),
        ("1.4", {"residency": {"taskLostBehavior": "WAIT_FOREVER"}}, "/"),
        ("1.5", {"cmd": "true", "args": ["true"]}, "/"),
    ],
)  # fmt: skip
def test_what_marathon_refuses_beside_its_schemas(
    generation: Generation, asked: dict[str, Any], where: str
) -> None:
    with pytest.raises(Invalid) as refused:
        accepted(app(**asked), generation)
    assert where in [path for path, _ in refused.value.details]


def test_the_published_schema_is_asked() -> None:
    if schemas.SCHEMAS is None:
        pytest.skip(schemas.ABSENT)
    with pytest.raises(Invalid, match="memory"):
        accepted(app(memory=1), "1.5")


def test_a_parameter_of_docker_is_the_network_of_1_1() -> None:
    said = docker(parameters=[{"key": "net", "value": "calinet1"}])
    assert network(accepted(app(container=said, ipAddress={}), "1.1")) == ""
    assert network(accepted(app(networks=[{"mode": "container", "name": "n"}]), "1.5")) == "n"


AGENTS = [{"hostname": f"a{n}", "rack": f"r{n // 2}"} for n in range(4)]


@pytest.mark.parametrize(
    ("constraint", "others", "possible"),
    [
        (("hostname", "UNIQUE"), [0, 2], [1, 3]),
        (("rack", "CLUSTER"), [0], [0, 1]),
        (("rack", "CLUSTER", "r1"), [], [2, 3]),
        (("rack", "LIKE", "r[1-9]"), [], [2, 3]),
        (("rack", "UNLIKE", "r1"), [], [0, 1]),
        (("rack", "MAX_PER", "1"), [0], [2, 3]),
        (("rack", "GROUP_BY", "2"), [0], [2, 3]),
        (("rack", "GROUP_BY", "2"), [0, 2], [0, 1, 2, 3]),
        (("gpu", "LIKE", "yes"), [], []),
        (("gpu", "UNLIKE", "yes"), [], [0, 1, 2, 3]),
    ],
)
def test_constraints(constraint: tuple[str, ...], others: list[int], possible: list[int]) -> None:
    there = [AGENTS[at] for at in others]
    assert [
        at for at, agent in enumerate(AGENTS) if fits([constraint], agent, there, len(AGENTS))
    ] == possible


# --- what it answers ----------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with emulated("1.5", most=2) as emulator, serving(emulator) as found:
        yield found


@pytest.fixture
def ask(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def said(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


def test_an_app_of_no_instances_is_deployed_at_once(ask: httpx.Client, server: Server) -> None:
    status, created = said(ask.post("/v2/apps", json=app(instances=0, labels={"a": "b"})))
    assert (status, created["id"], len(created["deployments"])) == (201, "/x", 1)
    assert server.emulator.until(lambda it: not it.running(), 10)
    assert [each["id"] for each in ask.get("/v2/apps?label=a==b").json()["apps"]] == ["/x"]
    assert ask.get("/v2/apps?label=a==c").json() == {"apps": []}
    assert ask.get("/v2/apps//x").json()["app"]["tasksRunning"] == 0
    status, again = said(ask.post("/v2/apps", json=app()))
    assert (status, again) == (409, {"message": "An app with id [/x] already exists."})


def test_a_locked_app_names_what_holds_it(ask: httpx.Client) -> None:
    ask.post("/v2/apps", json=app(**NOWHERE))
    (held,) = ask.get("/v2/deployments").json()
    assert held["affectedApps"] == ["/x"]
    status, body = said(ask.put("/v2/apps//x", json={"instances": 2}))
    assert (status, body["deployments"]) == (409, [{"id": held["id"]}])
    status, body = said(ask.put("/v2/apps//x?force=true", json={"instances": 2}))
    assert status == 200
    (now,) = ask.get("/v2/deployments").json()
    assert now["id"] == body["deploymentId"] != held["id"]
    # The one request that is forced unless it says otherwise.
    assert ask.delete("/v2/apps//x?force=false").status_code == 409
    assert ask.delete("/v2/apps//x").status_code == 200


def test_refusals(ask: httpx.Client) -> None:
    status, body = said(ask.post("/v2/apps", content=b"{"))
    assert (status, body["message"]) == (400, "Invalid JSON")
    status, body = said(ask.post("/v2/apps", json=app(id="/No")))
    assert (status, body["message"]) == (422, "Object is not valid")
    assert {"path", "errors"} == set(body["details"][0])
    assert said(ask.get("/v2/apps//y")) == (404, {"message": "App '/y' does not exist"})
    assert ask.get("/v2/events").status_code == 405
    for name in ("/a", "/b"):
        assert ask.post("/v2/apps", json=app(id=name, **NOWHERE)).status_code == 201
    assert ask.post("/v2/apps", json=app(id="/c", **NOWHERE)).status_code == 403


def test_events_are_those_that_were_asked_for(ask: httpx.Client, server: Server) -> None:
    stream = {"Accept": "text/event-stream"}
    with ask.stream("GET", "/v2/events?event_type=deployment_success", headers=stream) as events:
        lines = events.iter_lines()
        assert next(lines) == "event: event_stream_attached"
        with httpx.Client(base_url=server.url) as other:
            deployment = other.post("/v2/apps", json=app(instances=0)).json()["deployments"][0]
        data = next(line for line in lines if line.startswith('data: {"'))
    event = json.loads(data.removeprefix("data: "))
    assert (event["eventType"], event["id"]) == ("deployment_success", deployment["id"])


def test_who_has_no_login_is_refused() -> None:
    with emulated("1.4") as emulator, serving(emulator, login="john:secret") as server:
        assert httpx.get(f"{server.url}/v2/info").status_code == 401
        answer = httpx.get(f"{server.url}/v2/info", auth=("john", "secret"))
    assert answer.json()["version"] == "1.4.9"
