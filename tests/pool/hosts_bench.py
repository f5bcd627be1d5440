"""Two machines for one pool: a Docker each, in network namespaces of their own, a router between.

    head 198.18.78.1 ── 198.18.78.2 router 10.77.0.1 ── 10.77.0.2 far

The router either hides `far` (NAT: nobody can call it) or knows the way to everything behind both.
Nothing of the machine's own Docker and of its firewall is touched: every rule is in a namespace.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from node_bench import eventually
from roost_bench import ROOST

from roost._run import Completed, run

HEAD: Final = "198.18.78.1"
FAR: Final = "10.77.0.2"
#: The subnets of a network that both engines have, where the router knows the way.
SUBNETS: Final = {"head": "10.201.0.0/24", "far": "10.202.0.0/24"}


class Machine:
    """A network namespace and a Docker daemon that lives in it."""

    def __init__(self, name: str, tag: str, directory: Path) -> None:
        self.name = name
        self.namespace = f"roost-{tag}-{name}"
        self.directory = directory / name
        self.socket = f"unix://{self.directory}/sock"
        self._daemon: subprocess.Popen[bytes] | None = None

    def ip(self, *words: str) -> None:
        run(["ip", "-netns", self.namespace, *words]).check()

    def inside(self, *argv: str, env: dict[str, str] | None = None) -> Completed:
        """Run a program on the machine."""
        return run(["nsenter", f"--net=/run/netns/{self.namespace}", *argv], env=env)

    def docker(self, *argv: str) -> str:
        return run(["docker", "--host", self.socket, *argv]).check().text

    def start(self, *flags: str) -> None:
        """Its Docker; everything of it lies in the machine's directory."""
        at = self.directory
        (at / "daemon.json").write_text("{}")
        # Debian's containerd listens there: with its socket in sight dockerd would share it.
        script = 'mount -t tmpfs tmpfs /run/containerd && exec "$@"'
        with (at / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--mount",
                 "sh", "-c", script, "sh", "dockerd",
                 "--config-file", at / "daemon.json", "--data-root", at / "data",
                 "--exec-root", at / "exec", "--pidfile", at / "pid", "--host", self.socket,
                 "--cgroup-parent", f"/{self.namespace}", *flags],
                stdout=log, stderr=log,
            )  # fmt: skip
        eventually(self._answers, 90, what=lambda: (at / "log").read_text()[-2000:])

    def _answers(self) -> bool:
        assert self._daemon is not None
        assert self._daemon.poll() is None, (self.directory / "log").read_text()[-2000:]
        return run(["docker", "--host", self.socket, "version"]).status == 0

    def stop(self) -> None:
        if self._daemon is not None:
            containers = run(["docker", "--host", self.socket, "ps", "-aq"]).text.split()
            if containers:
                run(["docker", "--host", self.socket, "rm", "-f", "-v", *containers])
            self._daemon.terminate()
            self._daemon.wait(120)


class Machines:
    """Both, and the router."""

    def __init__(self, directory: Path) -> None:
        tag = secrets.token_hex(2)
        self.directory = directory
        self.head = Machine("head", tag, directory)
        self.far = Machine("far", tag, directory)
        self.router = Machine("router", tag, directory)

    def make(self, undo: ExitStack) -> None:
        """Namespaces, cables, engines; `undo` takes away what was made, also of a failure."""
        for machine in (self.head, self.router, self.far):
            machine.directory.mkdir()
            run(["ip", "netns", "add", machine.namespace]).check()
            undo.callback(run, ["ip", "netns", "delete", machine.namespace])
            machine.ip("link", "set", "lo", "up")
            machine.inside("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward").check()
        for machine, there, own, gateway in (
            (self.head, "left", HEAD, "198.18.78.2"),
            (self.far, "right", FAR, "10.77.0.1"),
        ):
            machine.ip("link", "add", "wan0", "type", "veth", "peer", "name", there, "netns",
                       self.router.namespace)  # fmt: skip
            machine.ip("address", "add", f"{own}/24", "dev", "wan0")
            machine.ip("link", "set", "wan0", "up")
            self.router.ip("address", "add", f"{gateway}/24", "dev", there)
            self.router.ip("link", "set", there, "up")
        self.far.ip("route", "add", "default", "via", "10.77.0.1")
        self.certificate = _certificate(self.directory)
        undo.callback(self.head.stop)
        self.head.start()
        undo.callback(self.far.stop)
        files = {"cacert": "ca", "cert": "cert", "key": "key"}
        flags = [f"--tls{what}={self.certificate}/{name}.pem" for what, name in files.items()]
        self.far.start("--host", f"tcp://{FAR}:2376", "--tlsverify", *flags)

    def load(self, image: str) -> None:
        """What nobody could pull."""
        saved = self.directory / "image.tar"
        run(["docker", "save", "-o", str(saved), image]).check()
        loading = [
            subprocess.Popen(
                ["docker", "--host", each.socket, "load", "-q", "-i", saved],
                stdout=subprocess.DEVNULL,
            )
            for each in (self.head, self.far)
        ]
        assert [each.wait(240) for each in loading] == [0, 0]
        saved.unlink()

    @contextmanager
    def nat(self) -> Iterator[None]:
        """`far` can call everybody, and nobody can call it."""
        rule = ("POSTROUTING", "-o", "left", "-j", "MASQUERADE")
        self.router.inside("iptables", "-t", "nat", "-A", *rule).check()
        try:
            yield
        finally:
            self.router.inside("iptables", "-t", "nat", "-D", *rule).check()

    @contextmanager
    def routed(self, network: str) -> Iterator[None]:
        """A network of that name on both engines, whose containers reach each other as they are."""
        with ExitStack() as undo:
            ways = {self.head: "198.18.78.2", self.far: "10.77.0.1"}
            for machine, gateway in ways.items():
                machine.docker(
                    "network", "create", "--subnet", SUBNETS[machine.name],
                    "--opt", "com.docker.network.bridge.enable_ip_masquerade=false", network,
                )  # fmt: skip
                undo.callback(machine.docker, "network", "rm", network)
                machine.inside("iptables", "-I", "DOCKER-USER", "-j", "ACCEPT").check()
                other = self.far if machine is self.head else self.head
                for subnet in (SUBNETS[other.name], "10.77.0.0/24"):
                    if machine is self.head or subnet != "10.77.0.0/24":
                        machine.ip("route", "add", subnet, "via", gateway)
                        undo.callback(machine.ip, "route", "delete", subnet)
            self.router.ip("route", "add", SUBNETS["head"], "via", HEAD)
            undo.callback(self.router.ip, "route", "delete", SUBNETS["head"])
            self.router.ip("route", "add", SUBNETS["far"], "via", FAR)
            undo.callback(self.router.ip, "route", "delete", SUBNETS["far"])
            yield

    def roost(self, *argv: str | Path, timeout: float = 400) -> Completed:
        """The command, as somebody on `head` runs it."""
        words = ["nsenter", f"--net=/run/netns/{self.head.namespace}", ROOST, *map(str, argv)]
        return run(words, timeout=timeout)

    def well(self, *argv: str | Path) -> str:
        done = self.roost(*argv)
        assert done.status == 0, done.stderr + done.text
        return done.text

    def held(self) -> dict[str, set[str]]:
        """Machine → names of its containers and of volumes and networks that it did not have."""
        return {
            each.name: {
                *each.docker("ps", "-a", "--format", "{{.Names}}").split(),
                *each.docker("volume", "ls", "--format", "{{.Name}}").split(),
                *each.docker("network", "ls", "--format", "{{.Name}}").split(),
            }
            - {"bridge", "host", "none"}
            for each in (self.head, self.far)
        }

    def address(self, node: str, machine: Machine) -> str:
        networks = json.loads(machine.docker("inspect", node))[0]["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])


def _certificate(directory: Path) -> Path:
    """One that is its own authority, for the daemon and for who calls it; as Docker names files."""
    at = directory / "tls"
    at.mkdir()
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=far", "-addext", f"subjectAltName=IP:{FAR}",
         "-keyout", str(at / "key.pem"), "-out", str(at / "cert.pem")]).check()  # fmt: skip
    (at / "ca.pem").write_bytes((at / "cert.pem").read_bytes())
    return at


@contextmanager
def machines(image: str) -> Iterator[Machines]:
    """Both machines with the image, until the end."""
    # Short, because sockets' paths are; and on a disk that an overlay may be on.
    with tempfile.TemporaryDirectory(prefix="roost-hosts-", dir="/var/tmp") as directory:
        made = Machines(Path(directory))
        with ExitStack() as undo:
            made.make(undo)
            made.load(image)
            yield made
