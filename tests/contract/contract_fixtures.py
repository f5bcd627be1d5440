"""The engines under test, an image small enough for them, and a pool's name that is tidied up."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from contract_bench import Bench

from roost import engines
from roost._run import run
from roost.engines.base import Engine
from roost.engines.fake import FakeEngine
from roost.engines.hosts import HostsEngine
from roost.plan import Retire, everything

ROOT = Path(__file__).parents[2]

#: A node that says what it got, then waits to be stopped; `--fail` as an argument lets it fail. To
#: Marathon, which asks by a command of the app's, it is well at once.
DOCKERFILE = r"""
FROM debian:trixie-slim
RUN mkdir -p /var/lib/roost && useradd --create-home john
RUN printf '%s\n' '#!/bin/sh' \
    'echo "args: $*"' \
    'for f in /var/lib/roost/*; do stat --format "file: %n %a %u:%g" "$f"; done' \
    'case "$*" in *--fail*) echo "cannot go on" >&2; exit 3;; esac' \
    'trap "exit 0" TERM; sleep infinity & wait' > /usr/local/bin/node \
    && printf '#!/bin/sh\ntest "$1" = health\n' > /usr/local/bin/roost-node \
    && chmod +x /usr/local/bin/node /usr/local/bin/roost-node
VOLUME /var/spool/condor
HEALTHCHECK --interval=1s --retries=1 CMD test -e /run/healthy
ENTRYPOINT ["/usr/local/bin/node"]
"""


@pytest.fixture(scope="session")
def containers_conf() -> Iterator[None]:
    """Podman's configuration for this machine, unless the caller brings one."""
    with pytest.MonkeyPatch.context() as patch:
        if "CONTAINERS_CONF" not in os.environ:
            script = subprocess.run(
                [ROOT / "scripts" / "podman"], check=True, capture_output=True, text=True
            )
            patch.setenv("CONTAINERS_CONF", script.stdout.strip())
        yield


@pytest.fixture(scope="session")
def docker_image() -> Iterator[str]:
    # This process's own, so that test runs side by side do not remove each other's.
    name = f"roost/contract-node:{os.getpid()}"
    run(["docker", "build", "--quiet", "--tag", name, "-"], stdin=DOCKERFILE.encode()).check()
    yield name
    run(["docker", "image", "rm", "--no-prune", name])


@pytest.fixture(scope="session")
def podman_image(docker_image: str, containers_conf: None) -> Iterator[str]:
    saved = run(["docker", "save", docker_image]).check()
    run(["podman", "load"], stdin=saved.stdout).check()
    # By the name that Docker has too: Podman finds its localhost/… under it.
    yield docker_image
    run(["podman", "image", "rm", f"localhost/{docker_image}"])


def _bench(name: str, request: pytest.FixtureRequest) -> Bench:
    if name == "fake":
        fake = FakeEngine(images={"there"})
        stop = partial(fake.end, exit_code=0)
        return Bench(fake, "there", stop, fake.pause, fake.cut, lambda node: "")
    if name == "kubernetes":
        return request.getfixturevalue("kubernetes_bench")  # type: ignore[no-any-return]
    if name == "hosts":  # two fakes; what names no host is on the first
        one, two = FakeEngine(images={"there"}), FakeEngine(images={"there"})
        hosts = HostsEngine({"one": one, "two": two})
        stop = partial(one.end, exit_code=0)
        return Bench(hosts, "there", stop, one.pause, one.cut, lambda node: "")
    image = request.getfixturevalue(f"{name}_image")

    def stop_it(node: str) -> None:
        run([name, "stop", node]).check()

    def pause(node: str) -> None:
        run([name, "pause", node]).check()

    def cut(node: str) -> None:
        (network,) = run(
            [name, "inspect", "--format",
             "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", node]
        ).check().text.split()  # fmt: skip
        run([name, "network", "disconnect", network, node]).check()

    def shown(node: str) -> str:
        return run([name, "inspect", node]).check().text

    return Bench(engines.by_name(name), image, stop_it, pause, cut, shown)


@pytest.fixture(scope="session")
def kubernetes_bench(docker_image: str) -> Bench:
    """A cluster of this machine's own, which only `./test kubernetes` starts."""
    config = os.environ.get("ROOST_TEST_KUBERNETES")
    if not config:
        pytest.skip("only `./test kubernetes` has a cluster")
    os.environ["KUBECONFIG"] = config
    run([str(ROOT / "scripts" / "kubernetes"), "load", docker_image]).check()

    def stop(node: str) -> None:
        run(["kubectl", "scale", "statefulset", node, "--replicas", "0"]).check()
        run(["kubectl", "wait", "--for=delete", f"pod/{node}-0", "--timeout=120s"])

    def shown(node: str) -> str:
        return run(["kubectl", "get", "statefulset,pod", "-o", "yaml"]).check().text

    engine = engines.by_name("kubernetes")
    return Bench(engine, docker_image, stop, pause=None, cut=None, shown=shown)


OCI = [pytest.param(name, marks=pytest.mark.engine) for name in ("docker", "podman")]
REAL = [*OCI, pytest.param("kubernetes", marks=pytest.mark.kubernetes)]


@pytest.fixture(params=["fake", "hosts", *REAL])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Every engine in turn."""
    return _bench(request.param, request)


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest) -> Bench:
    """Every engine that runs containers, in turn."""
    return _bench(request.param, request)


@pytest.fixture(params=OCI)
def oci(request: pytest.FixtureRequest) -> Bench:
    """Docker and Podman in turn, whose own words a test knows."""
    return _bench(request.param, request)


@pytest.fixture
def new_pool(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Makes names of pools; whatever these hold is removed after the test."""
    (under_test,) = {"bench", "real", "oci"} & set(request.fixturenames)
    bench: Bench = request.getfixturevalue(under_test)
    with ExitStack() as cleanup:

        def make() -> str:
            pool = f"engines-{uuid.uuid4().hex[:8]}"
            cleanup.callback(_remove, bench.engine, pool)
            return pool

        yield make


@pytest.fixture
def pool(new_pool: Callable[[], str]) -> str:
    return new_pool()


def _remove(engine: Engine, pool: str) -> None:
    for step in everything(engine.observe(pool)):
        assert isinstance(step, Retire)
        list(engine.retire(step.refs))
    assert not engine.observe(pool)
