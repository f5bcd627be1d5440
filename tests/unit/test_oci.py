"""Docker's and Podman's words, and what roost makes of them. No engine runs here."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from roost import engines
from roost.confine import SECCOMP, Confinement
from roost.engines import oci
from roost.engines.oci import DOCKER, PODMAN, Dialect, OciEngine, explain
from roost.errors import (
    BadInput,
    CommandFailed,
    DiskFull,
    EngineError,
    EngineUnavailable,
    ImageMissing,
    NameTaken,
    PortTaken,
)
from roost.plan import Mount, Node, Ref
from roost.security import Secret
from roost_node.vocab import LABEL_POOL, LABEL_ROLE, STATE_DIR

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts programs of our own, and no others, where docker and podman are looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return put


DOCKER_DOWN = (
    "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
    "Is the docker daemon running?' >&2; exit 1"
)
DOCKER_DENIED = (
    "echo 'permission denied while trying to connect to the Docker daemon socket at "
    "unix:///var/run/docker.sock' >&2; exit 1"
)
INFO = {
    "version": "4.3.1",
    "cpus": 2,
    "memory": 2**30,
    "cgroup": "v2",
    "rootless": False,
    "logs": "json-file",
}
PODMAN_UP = f"echo '{json.dumps(INFO)}'"


# --- complaints ----------------------------------------------------------------------------------

#: What the engines really said, in Docker 20.10 and 28 and in Podman 4.3.
SAID = [
    (
        DOCKER,
        'Error response from daemon: Conflict. The container name "/p-master" is already in use by '
        'container "5b63". You have to remove (or rename) that container.',
        NameTaken,
        "p-master",
    ),
    (
        PODMAN,
        'Error: creating container storage: the container name "p-master" is already in use by '
        "60bc: that name is already in use",
        NameTaken,
        "p-master",
    ),
    (DOCKER, "Error response from daemon: network with name p already exists", NameTaken, "p"),
    (PODMAN, "Error: network name p already used: network already exists", NameTaken, "p"),
    (PODMAN, "Error: volume with name v already exists: volume already exists", NameTaken, "v"),
    (
        DOCKER,
        "Unable to find image 'some/thing:1' locally\nError response from daemon: "
        'Get "https://registry/v2/": dial tcp: lookup registry: no such host',
        ImageMissing,
        "some/thing:1",
    ),
    (
        DOCKER,
        "Error response from daemon: no such image: thing: No such image: thing:latest",
        ImageMissing,
        "thing",
    ),
    (
        PODMAN,
        'Error: short-name "some/thing:1" did not resolve to an alias and no unqualified-search '
        'registries are defined in "/etc/containers/registries.conf"',
        ImageMissing,
        "some/thing:1",
    ),
    (PODMAN, "Error: inspecting object: thing: image not known", ImageMissing, "thing"),
    (
        PODMAN,
        "Trying to pull localhost/thing:1...\nError: initializing source docker://localhost/thing:1"
        ": pinging container registry localhost: connection refused",
        ImageMissing,
        "localhost/thing:1",
    ),
    (
        DOCKER,
        "docker: Error response from daemon: driver failed programming external connectivity on "
        "endpoint x (2bf0): Bind for 0.0.0.0:9618 failed: port is already allocated",
        PortTaken,
        "9618",
    ),
    (
        PODMAN,
        "Error: cannot listen on the TCP port: listen tcp4 :9618: bind: address already in use",
        PortTaken,
        "9618",
    ),
    (
        DOCKER,
        "Unable to find image 'x' locally\nwrite /var/lib/docker/tmp/y: no space left on device",
        DiskFull,
        "image prune",
    ),
    (
        DOCKER,
        "Error response from daemon: network nobody not found\nError: failed to start containers",
        EngineError,
        "docker network create nobody",
    ),
    (
        PODMAN,
        "Error: unable to find network with name or ID nobody: network not found",
        EngineError,
        "podman network create nobody",
    ),
    (DOCKER, "Error response from daemon: No such container: n-1", EngineError, "no node n-1"),
    (
        PODMAN,
        'Error: no container with name or ID "n-1" found: no such container',
        EngineError,
        "no node n-1",
    ),
    (
        PODMAN,
        "Error: runc: runc create failed: error setting rlimit type 6: operation not permitted",
        EngineUnavailable,
        "default_ulimits",
    ),
    (
        PODMAN,
        'Error: cannot set up namespace using "/usr/bin/newuidmap": exit status 1',
        EngineUnavailable,
        "uidmap",
    ),
    (
        DOCKER,
        "Error response from daemon: Container n-1 is paused, unpause the container before exec",
        EngineError,
        "`roost up`",
    ),
    (
        DOCKER,
        "Error response from daemon: could not find an available, non-overlapping IPv4 address "
        "pool among the defaults to assign to the network",
        EngineError,
        "docker network prune",
    ),
    (
        DOCKER,
        "Error response from daemon: Could not find the file /var/lib/roost in container n-1",
        EngineError,
        "no folder /var/lib/roost",
    ),
]


@pytest.mark.parametrize(("dialect", "said", "kind", "names"), SAID)
def test_every_complaint_is_of_its_kind_and_advises(
    dialect: Dialect, said: str, kind: type[EngineError], names: str
) -> None:
    error = explain(dialect, CommandFailed(["engine", "do"], 1, said))
    assert type(error) is kind
    assert names in str(error)
    assert error.advice
    assert "\n" not in str(error)
    assert "{" not in str(error).replace("{image: …}", "").replace("{name: …}", "")


def test_an_unknown_complaint_is_quoted_by_its_own_line() -> None:
    said = "level=error msg=noise\nError: the moon is full\nRun 'x --help' for more"
    error = explain(
        PODMAN, CommandFailed(["podman", "network", "create", "--label", "a"], 125, said)
    )
    assert str(error) == "Podman refused `podman network create`: the moon is full"


# --- choosing an engine --------------------------------------------------------------------------


def test_without_an_engine_both_reasons_are_given(install: Install) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        engines.detect()
    message = str(caught.value)
    assert "Docker is not installed, Podman is not installed" in message
    assert "apt install docker.io" in message
    assert "apt install podman" in message


def test_docker_that_does_not_run_and_no_podman(install: Install) -> None:
    install("docker", DOCKER_DOWN)
    with pytest.raises(EngineUnavailable, match=r"Docker is installed but not running, Podman is"):
        engines.detect()


def test_docker_that_does_not_permit_advises_the_group(install: Install) -> None:
    install("docker", DOCKER_DENIED)
    with pytest.raises(EngineUnavailable, match=r"may not use it.*usermod -aG docker"):
        engines.by_name("docker").observe("p")


def test_podman_is_taken_when_docker_does_not_answer(install: Install) -> None:
    install("docker", DOCKER_DOWN)
    install("podman", PODMAN_UP)
    engine = engines.detect()
    info = engine.info()
    assert (engine.name, info.version, info.cgroup, info.cpus) == ("podman", "4.3.1", "2", 2.0)


def test_something_else_that_is_called_docker_is_not_docker(install: Install) -> None:
    install("docker", "echo hello")
    with pytest.raises(EngineUnavailable, match=r"what answers as `docker` is not Docker"):
        engines.by_name("docker").info()


def test_an_unknown_engine_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"'dokcer' is unknown; did you mean 'docker'\?"):
        engines.by_name("dokcer")
    with pytest.raises(BadInput, match="choose from docker, podman, kubernetes"):
        engines.by_name("lxc")


# --- nodes ---------------------------------------------------------------------------------------


def test_secrets_go_through_stdin_with_their_modes(install: Install, tmp_path: Path) -> None:
    install(
        "docker",
        f'[ "$1" = cp ] && /bin/cat > {tmp_path}/delivered\n'
        f'echo "$@" >> {tmp_path}/argv\n'
        "[ $1 = info ] && echo '"
        + json.dumps(INFO)
        + "'\n[ $1 = container ] && { echo 'Error: No such container: n' >&2; exit 1; }; exit 0",
    )
    node = Node(
        "n", "execute", "cpu", "image", ("-e", "m"), "net", {LABEL_POOL: "p"},
        cpus=1, memory=2**28, health_every=30, mounts=(Mount("v", "/data"),),
        files={"node.key": Secret(b"hidden")},
    )  # fmt: skip
    kinds = [event.kind for event in OciEngine(DOCKER).ensure(node)]
    assert kinds == ["creating", "created", "started"]
    argv = (tmp_path / "argv").read_text()
    assert "hidden" not in argv
    with tarfile.open(tmp_path / "delivered") as tar:
        assert tar.getnames() == ["node.key"]
    _, _, create, copy, start = argv.splitlines()
    assert create.endswith("image -e m")
    for words in (
        "create --name n --hostname n --network net",
        "--label roost.pool=p",
        "--cpus 1 --memory 268435456 --health-interval 30s",
        "--volume v:/data",
        "--cap-drop ALL --security-opt no-new-privileges",
        "--restart unless-stopped",
        "--stop-timeout 30",
        "--log-opt max-size=20m",
    ):
        assert words in create
    assert (copy, start) == (f"cp - n:{STATE_DIR}", "start n")


@pytest.mark.parametrize(("dialect", "owner"), [(DOCKER, "uid=100,gid=102"), (PODMAN, "U")])
def test_what_a_container_may_do_in_the_engines_words(dialect: Dialect, owner: str) -> None:
    to = Confinement("100:102", ("KILL", "CHOWN"), True, ("/run",), ("/tmp",), 64)
    assert "--device" not in oci._confined(to, dialect)
    mounting = " ".join(oci._confined(replace(to, mounts=True), dialect))
    assert mounting.endswith(f"--device /dev/fuse --security-opt seccomp={SECCOMP}")
    assert " ".join(oci._confined(to, dialect)) == (
        "--cap-drop ALL --cap-add KILL --cap-add CHOWN --security-opt no-new-privileges"
        f" --user 100:102 --read-only --tmpfs /run:mode=0755,{owner} --volume /tmp --pids-limit 64"
    )


def test_the_files_of_a_node_without_root_are_its_users() -> None:
    data = oci._tar({"node.key": Secret(b"")}, "100:102")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(entry.uid, entry.gid, entry.mode) for entry in tar] == [(100, 102, 0o600)]


def test_only_what_all_may_read_is_readable_to_all() -> None:
    names = ("ca.crt", "node.crt", "node.key", "ca.key", "reader.key", "extra.conf")
    data = oci._tar({name: Secret(name.encode()) for name in names})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        modes = {entry.name: entry.mode for entry in tar}
        assert all((entry.uid, entry.gid) == (0, 0) for entry in tar)
    readable = {name for name, mode in modes.items() if mode == 0o644}
    assert readable == {"ca.crt", "node.crt", "reader.key"}
    assert set(modes.values()) == {0o644, 0o600}


def _inspected(status: str, **state: object) -> dict[str, object]:
    return {
        "name": "/p-cpu-1",
        "image": "localhost/roost/htcondor:trixie",
        "labels": {LABEL_POOL: "p", LABEL_ROLE: "execute"},
        "state": {"Status": status, "ExitCode": 3, "StartedAt": "2026-01-01T00:00:00Z", **state},
        "networks": {"p": {"IPAddress": "10.0.0.2"}},
        "check": None,
        "restarts": 0,
    }


@pytest.mark.parametrize(
    ("status", "state", "exit_code", "address"),
    [
        ("running", "running", None, "10.0.0.2"),
        ("restarting", "running", None, "10.0.0.2"),
        ("paused", "paused", None, ""),
        ("created", "created", None, ""),
        ("configured", "created", None, ""),
        ("exited", "exited", 3, ""),
        ("dead", "dead", 3, ""),
        ("a word of the future", "exited", 3, ""),
    ],
)
def test_the_engines_states_become_ours(
    status: str, state: str, exit_code: int | None, address: str
) -> None:
    node = oci._node(_inspected(status), "healthy")
    assert node is not None
    assert (node.state, node.exit_code, node.address) == (state, exit_code, address)
    assert (node.name, node.image) == ("p-cpu-1", "roost/htcondor:trixie")
    assert node.health == ("healthy" if state == "running" else "none")


def test_networks_by_all_that_a_pool_file_may_call_them() -> None:
    docker = {"lab": {"NetworkID": "990f7444f9af139a", "IPAddress": ""}}
    assert oci._networks(docker) == ("lab", "990f7444f9af139a", "990f7444f9af")
    podman = {"lab": {"NetworkID": "lab", "IPAddress": ""}}
    assert oci._networks(podman) == ("lab",)
    assert oci._networks(None) == oci._networks({}) == ()


def test_a_container_without_a_role_is_no_node() -> None:
    assert oci._node({**_inspected("running"), "labels": {LABEL_POOL: "p"}}, "none") is None


@pytest.mark.parametrize(
    ("said", "health"),
    [
        ({"Health": {"Status": "unhealthy"}}, "unhealthy"),
        ({"Health": {"Status": ""}}, "none"),
        ({"Health": None}, "none"),
        ({}, "none"),
    ],
)
def test_health_as_the_engine_says_it(said: dict[str, object], health: str) -> None:
    assert oci._engines_health(_inspected("running", **said)) == health


@pytest.mark.parametrize(
    ("test", "argv"),
    [
        (["CMD", "roost-node", "health"], ["roost-node", "health"]),
        (["CMD-SHELL", "a && b"], ["/bin/sh", "-c", "a && b"]),
        (["NONE"], []),
        ([], []),
    ],
)
def test_the_forms_of_healthcheck(test: list[str], argv: list[str]) -> None:
    assert oci._check_argv(test) == argv


@pytest.mark.parametrize(
    ("ports", "endpoint"),
    [
        ({"9618/tcp": [{"HostIp": "0.0.0.0", "HostPort": "19618"}]}, "127.0.0.1:19618"),
        ({"9618/tcp": [{"HostIp": "192.0.2.1", "HostPort": "1"}]}, "192.0.2.1:1"),
        ({"9618/tcp": None}, "10.0.0.2:9618"),
        ({}, "10.0.0.2:9618"),
    ],
)
def test_a_published_port_is_the_better_endpoint(
    install: Install, ports: object, endpoint: str
) -> None:
    networks = {"p": {"IPAddress": "10.0.0.2"}}
    install(
        "podman",
        f"[ $1 = info ] && echo '{json.dumps(INFO)}' && exit\n"
        f"echo '{json.dumps(ports)} {json.dumps(networks)}'",
    )
    assert OciEngine(PODMAN).endpoint(Ref("node", "n"), 9618) == endpoint


def test_addresses_behind_a_rootless_or_remote_engine_are_not_offered(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = """{} {"p": {"IPAddress": "10.0.0.2"}}"""
    rootless = json.dumps(INFO | {"rootless": True})
    install("podman", f"[ $1 = info ] && echo '{rootless}' && exit\necho '{said}'")
    with pytest.raises(EngineError, match=r"does not reach n at 10\.0\.0\.2:9618"):
        OciEngine(PODMAN).endpoint(Ref("node", "n"), 9618)
    install("docker", f"echo '{said}'")
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    with pytest.raises(EngineError, match="does not reach"):
        OciEngine(DOCKER).endpoint(Ref("node", "n"), 9618)


def test_nodes_are_sorted_by_their_numbers() -> None:
    nodes = [
        node
        for number in (10, 2, 1)
        if (node := oci._node({**_inspected("running"), "name": f"p-cpu-{number}"}, "none"))
    ]
    assert [node.name for node in sorted(nodes, key=oci._by_number)] == [
        "p-cpu-1", "p-cpu-2", "p-cpu-10",
    ]  # fmt: skip


def test_what_the_daemon_said_is_the_reason() -> None:
    said = "Error response from daemon: the reason\nError: failed to start containers: p-master\n"
    error = explain(DOCKER, CommandFailed(["docker", "start", "p-master"], 1, said))
    assert str(error) == "Docker refused `docker start`: the reason"


def test_an_image_that_starts_no_node() -> None:
    said = (
        "Error response from daemon: failed to create shim task: OCI runtime create failed: runc "
        'create failed: unable to start container process: exec: "-m": executable file not found '
        "in $PATH: unknown\nError: failed to start containers: p-master\n"
    )
    error = explain(DOCKER, CommandFailed(["docker", "start", "p-master"], 1, said))
    assert "not one of roost's" in str(error)
