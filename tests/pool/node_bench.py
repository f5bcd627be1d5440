"""Nodes started by plain `docker run`, and how a test looks at them: no roost command anywhere."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from roost_node.vocab import CONDOR_USER

T = TypeVar("T")


def docker(*argv: str, stdin: str = "", may_fail: bool = False) -> str:
    """What `docker …` wrote on its standard output; unless it may, it does not fail."""
    done = subprocess.run(
        ["docker", *argv], input=stdin, capture_output=True, text=True, timeout=180, check=False
    )
    assert may_fail or done.returncode == 0, f"docker {argv}: {done.stderr or done.stdout}"
    return done.stdout


class Node:
    """A container that a test started."""

    def __init__(self, name: str) -> None:
        self.name = name

    def sh(self, script: str, *, user: str = "", stdin: str = "", env: Iterable[str] = ()) -> str:
        """What a shell script inside writes, its standard error included; it has to succeed."""
        status, text = self.tried(script, user=user, stdin=stdin, env=env)
        assert status == 0, f"{self.name}: `{script}` ended with {status}: {text}"
        return text

    def tried(
        self, script: str, *, user: str = "", stdin: str = "", env: Iterable[str] = ()
    ) -> tuple[int, str]:
        """Exit status and words, standard error included, of a shell script inside."""
        user = user or self.account
        home = {"root": "/root", "condor": "/", CONDOR_USER: "/"}.get(user, f"/home/{user}")
        variables = [word for entry in (f"HOME={home}", *env) for word in ("-e", entry)]
        done = subprocess.run(
            ["docker", "exec", "-i", "-u", user, "-w", home, *variables, self.name,
             "sh", "-c", f"exec 2>&1; {script}"],
            input=stdin, capture_output=True, text=True, timeout=300, check=False, errors="replace",
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    @cached_property
    def account(self) -> str:
        """Whom it runs as: there root may do less than that user, having no capabilities."""
        return self.inspect()["Config"]["User"] or "root"

    def inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", self.name))[0]
        return found

    @property
    def hostname(self) -> str:
        return str(self.inspect()["Config"]["Hostname"])

    @property
    def ip(self) -> str:
        """Its address on its only network."""
        (network,) = self.inspect()["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    @property
    def running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    def lines(self) -> list[str]:
        """Every line of its log so far, standard error's last."""
        done = subprocess.run(
            ["docker", "logs", self.name], capture_output=True, check=False, timeout=60
        )
        return (done.stdout + done.stderr).decode(errors="replace").splitlines()

    def said(self) -> list[str]:
        """What roost itself said, without label and time."""
        return [line.split(" ", 4)[-1] for line in self.lines() if line.startswith("roost | ")]

    def health(self) -> str:
        """`healthy`, or why not, in the words of `roost-node health`."""
        return self.tried("roost-node health")[1].strip()

    def ended(self, seconds: float = 60) -> int:
        """Its exit code, once it has ended."""
        try:
            done = subprocess.run(
                ["docker", "wait", self.name],
                capture_output=True, text=True, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise AssertionError(f"has not ended in {seconds:g} s{tail(self)}") from None
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def stop(self, seconds: int = 30) -> tuple[int, float]:
        """`docker stop`: the exit code (137 if it was killed) and the seconds that it took."""
        start = time.monotonic()
        docker("stop", "-t", str(seconds), self.name)
        return int(self.inspect()["State"]["ExitCode"]), time.monotonic() - start

    def pid(self, process: str) -> int:
        """The process id, inside, of the oldest process of that name; 0 if there is none."""
        comm = process[:15]  # the kernel keeps no more
        found = self.tried(
            f"cd /proc; for p in [0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = {comm} ]"
            " && echo $p; done; true"
        )[1]  # fmt: skip
        return min(map(int, found.split()), default=0)


class Containers:
    """Makes nodes and networks of names that nobody else has, and removes every one of them."""

    def __init__(self, image: str, directory: Path) -> None:
        self.image = image
        self.directory = directory
        """For files that are mounted."""
        self.prefix = f"nodes-{secrets.token_hex(3)}"
        self.nodes: list[Node] = []
        self._networks: list[str] = []
        self._volumes: list[str] = []

    def name(self, of: str) -> str:
        return f"{self.prefix}-{of}"

    def run(self, of: str, *argv: str, options: Iterable[str] = (), image: str = "") -> Node:
        """`docker run -d` with the image's arguments `argv`; `of` becomes part of the name."""
        node = Node(self.name(of))
        self.nodes.append(node)
        docker("run", "-d", "--name", node.name, *options, image or self.image, *argv)
        return node

    def discard(self, node: Node) -> None:
        """Remove a container now; its name is free again."""
        self.nodes.remove(node)
        docker("rm", "-f", "-v", node.name)

    def network(self, of: str, *options: str) -> str:
        name = self.name(of)
        docker("network", "create", *options, name)
        self._networks.append(name)
        return name

    def volume(self, of: str) -> str:
        name = self.name(of)
        docker("volume", "create", name)
        self._volumes.append(name)
        return name

    def remove(self) -> None:
        if self.nodes:
            docker("rm", "-f", "-v", *(node.name for node in self.nodes), may_fail=True)
        for network in self._networks:
            docker("network", "rm", network)
        for volume in self._volumes:
            docker("volume", "rm", volume)


class Trio:
    """A pool by address: master, access point and execution point, their host names random."""

    def __init__(
        self,
        make: Containers,
        *,
        submit: Iterable[str] = (),
        execute: Iterable[str] = (),
        options: Iterable[str] = (),
        everywhere: Iterable[str] = (),
    ) -> None:
        self.master = make.run("master", "-m", *everywhere, options=options)
        address = self.master.ip
        self.submit = make.run("submit", "-s", address, *submit, *everywhere, options=options)
        self.execute = make.run("execute", "-e", address, *execute, *everywhere, options=options)
        self.nodes = (self.master, self.submit, self.execute)

    def admit(self) -> None:
        """Approve both nodes as soon as they wait."""
        ids = eventually(lambda: waiting(self.master, 2), 60, *self.nodes)
        self.master.sh("roost-node approve " + " ".join(ids))

    def ready(self) -> None:
        """Every node is healthy: there is something to match jobs with."""
        for node in self.nodes:
            healthy(node)


def waiting(master: Node, count: int) -> dict[str, dict[str, Any]]:
    """The requests that wait for admission, by id; empty as long as they are not `count`."""
    status, text = master.tried("roost-node approve --list --json")
    rows = json.loads(text) if status == 0 else []
    return {row["id"]: row for row in rows} if len(rows) == count else {}


def healthy(node: Node, seconds: float = 60) -> None:
    """Wait until the node says that it is healthy."""
    eventually(lambda: node.health() == "healthy", seconds, node, what=node.health)


def eventually(
    check: Callable[[], T], seconds: float, *nodes: Node, what: Callable[[], object] | None = None
) -> T:
    """What `check` gives, as soon as that is true; it may raise AssertionError until then.

    Fails after `seconds`, with what `what` says (or the last AssertionError) and the nodes' last
    log lines.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := check():
                return found
            last: object = f"{found!r}"
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {seconds:g} s: {what() if what else last}"
                + "".join(tail(node) for node in nodes)
            )
        time.sleep(0.25)


def unless(trouble: Callable[..., object], *argv: object) -> bool:
    """Whether there is no trouble; an AssertionError names it, for `eventually`."""
    found = trouble(*argv)
    assert not found, found
    return True


def seen_as(node: Node, status: str) -> bool:
    """Whether the engine's own health check says `status`."""
    found = node.inspect()["State"]["Health"]["Status"]
    assert found == status, f"{node.name} is {found}"
    return True


def tail(node: Node, count: int = 25) -> str:
    """The last lines of a node's log, for the message of a failed assertion."""
    return "".join(f"\n  {node.name}: {line}" for line in node.lines()[-count:])


def refused(node: Node) -> str:
    """The one sentence with which a node that was asked for the impossible ended, with status 2."""
    assert node.ended() == 2, tail(node)
    lines = node.lines()
    odd = [line for line in lines if not line.startswith("roost | ")]
    assert not odd, "\n".join(lines)
    return node.said()[-1]


def submit(node: Node, user: str, script: str, *, name: str = "job", more: str = "") -> str:
    """Submit a shell script as `user` the way the README shows; the job's id."""
    node.sh(
        f"cat > {name}.sh; chmod +x {name}.sh", user=user, stdin=f"#!/bin/sh\n{script}\n"
    )  # fmt: skip
    node.sh(
        f"cat > {name}.sub", user=user,
        stdin=f"executable = {name}.sh\nlog = {name}.log\noutput = {name}.out\nerror = {name}.err\n"
        "should_transfer_files = Yes\nwhen_to_transfer_output = ON_EXIT\n"
        f"{more}\nqueue\n",
    )  # fmt: skip
    return node.sh(f"condor_submit -terse {name}.sub", user=user).split()[0]


def done(node: Node, user: str, name: str = "job", *, seconds: int = 90) -> str:
    """The job's output, once it is done."""
    status, text = node.tried(f"condor_wait -wait {seconds} {name}.log", user=user)
    assert status == 0, f"{text}\n{node.tried('condor_q -all -better-analyze')[1]}{tail(node)}"
    return node.sh(f"cat {name}.out", user=user)


def private(path: Path, content: str | bytes) -> Path:
    """A file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
