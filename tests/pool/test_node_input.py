"""What a node was asked that cannot be: one sentence with what to do, and exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest
from node_bench import Containers, Node, eventually, healthy, private, refused

from roost_node import pki

pytestmark = pytest.mark.engine

#: What is asked, and what the sentence has to say.
ASKED: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "no-role": ((), "a node needs a role: -m, or -s MASTER, or -e MASTER"),
    "flag": (("-m", "--colour"), "unrecognized arguments: --colour; `docker run IMAGE --help`"),
    "word": (("start",), "'start' is unknown; a node is started with -m, -s MASTER or -e MASTER"),
    "no-master": (("-s",), "argument -s: expected one argument"),
    "two-roles": (("-m", "-e", "10.0.0.1"), "not allowed with argument"),
    "address": (("-e", "10.0.0.256"), "-e '10.0.0.256' is not a valid IP address; give"),
    "name": (("-s", "a_b"), "-s 'a_b' is neither a host name nor an address; give"),
    "user": (("-s", "cm", "-u", "Jöhn"), "is not a user's name"),
    "user-of-master": (("-m", "-u", "john"), "it goes with -s MASTER"),
    "password": (("-s", "cm", "-u", "john", "-p", "sesame"), "-p takes a file that holds the"),
    "cpus": (("-e", "cm", "--cpus", "-1"), "--cpus '-1' is not a number of CPUs; give one above 0"),
    "memory": (("-e", "cm", "--memory", "lots"), "'lots' is not an amount of memory; write 2GiB"),
    "port": (("-m", "--health-port", "99999"), "'99999' is not a port; give a number from 1 to"),
    "no-config": (("-m", "-c", "/no/such"), "-c /no/such cannot be read: No such file"),
    "config-folder": (("-m", "-c", "/etc"), "-c /etc: this is a directory; give a file or a URL"),
    "pool": (("-m", "--pool", "No Such"), "--pool 'No Such' is not a pool's name"),
}


@pytest.fixture(scope="module")
def asked(shared: Containers) -> dict[str, Node]:
    """All of them, side by side."""
    return {name: shared.run(name, *argv) for name, (argv, _) in ASKED.items()}


@pytest.mark.parametrize("name", ASKED)
def test_the_command_line(name: str, asked: dict[str, Node]) -> None:
    sentence = refused(asked[name])
    assert ASKED[name][1] in sentence
    assert asked[name].said() == [sentence]
    assert "sesame" not in sentence


def test_also_as_json(containers: Containers) -> None:
    node = containers.run("json", "-e", "10.0.0.256", "--json-logs")
    assert node.ended() == 2
    (line,) = node.lines()
    assert json.loads(line)["daemon"] == "roost"
    assert "is not a valid IP address" in json.loads(line)["message"]


def identity(directory: Path, node: str) -> Path:
    """A state directory such as roost delivers, for an execution point named `node`."""
    directory.mkdir(mode=0o700)
    ca_key, ca_cert = pki.new_ca("physics")
    key = pki.new_key()
    private(directory / "node.key", key)
    (directory / "node.crt").write_bytes(pki.sign_node(ca_key, ca_cert, key, "execute", node))
    (directory / "ca.crt").write_bytes(ca_cert)
    return directory


def _another_ca(directory: Path) -> None:
    (directory / "ca.crt").write_bytes(pki.new_ca("physics")[1])


def _another_key(directory: Path) -> None:
    private(directory / "node.key", pki.new_key())


def _folder(directory: Path) -> None:
    (directory / "node.key").unlink()
    (directory / "node.key").mkdir()


def _open_to_all(directory: Path) -> None:
    (directory / "node.key").chmod(0o644)


def _garbage(directory: Path) -> None:
    (directory / "node.crt").write_text("no certificate")


def _other_name(_directory: Path) -> None:
    """The container is named otherwise, below."""


SPOILT: Final[Mapping[str, tuple[Callable[[Path], None], str]]] = {
    "other-name": (_other_name, "is for 'exec-ex1' and this is 'exec-ex2'; give the node that"),
    "another-ca": (_another_ca, "is not signed by the CA of pool 'physics' beside it; it is"),
    "another-key": (_another_key, "is for another key than the one beside it; deliver both anew"),
    "folder": (_folder, "private key /var/lib/roost/node.key is a directory, not a file"),
    "open": (_open_to_all, "has mode 0644: others may read it; run chmod 600 on it"),
    "garbage": (_garbage, "certificate /var/lib/roost/node.crt is not a certificate in PEM"),
}


@pytest.fixture(scope="module")
def spoilt(shared: Containers) -> dict[str, Node]:
    found = {}
    for name, (spoil, _) in SPOILT.items():
        spoil(directory := identity(shared.directory / name, "ex1"))
        hostname = "ex2" if name == "other-name" else "ex1"
        options = ["-v", f"{directory}:/var/lib/roost", "--hostname", hostname]
        found[name] = shared.run(f"id-{name}", "-e", "10.255.255.1", options=options)
    return found


@pytest.mark.parametrize("name", SPOILT)
def test_credentials_that_do_not_fit(name: str, spoilt: dict[str, Node]) -> None:
    sentence = refused(spoilt[name])
    assert SPOILT[name][1] in sentence
    announcement = f"ex{2 if name == 'other-name' else 1}: execution point of 10.255.255.1"
    assert spoilt[name].said() == [announcement, sentence]


def test_credentials_that_fit_are_taken(containers: Containers) -> None:
    """The control: the same files, not spoilt, let the node go on to look for its master."""
    directory = identity(containers.directory / "good", "ex1")
    options = ["-v", f"{directory}:/var/lib/roost", "--hostname", "ex1"]
    node = containers.run("good", "-e", "cm.invalid", options=options)
    said = "waiting for the master at cm.invalid:9618: its name does not resolve yet"
    eventually(lambda: said in node.said(), 30, node)
    assert node.stop()[0] == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("use ROLE : Nonsense\n", "Nonsense"),
        ("this is no configuration\n", "Line 1"),
        ("if true\nA = 1\n", "endif"),
    ],
)
def test_configuration_that_htcondor_cannot_read(
    text: str, why: str, containers: Containers
) -> None:
    file = private(containers.directory / "mine.conf", text)
    node = containers.run("conf", "-m", "-c", "/mine.conf", options=["-v", f"{file}:/mine.conf:ro"])
    sentence = refused(node)
    assert sentence.startswith("HTCondor cannot read the extra configuration (mine.conf): ")
    assert why in sentence


def test_a_master_of_another_pool_than_its_volume(containers: Containers) -> None:
    volume = containers.volume("state")
    options = ["-v", f"{volume}:/var/lib/roost"]
    first = containers.run("first", "-m", "--pool", "physics", options=options)
    healthy(first)
    first.stop()
    second = containers.run("second", "-m", "--pool", "biology", options=options)
    assert "is that of pool 'physics' and this is to be 'biology'" in refused(second)
