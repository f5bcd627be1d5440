"""What a node was asked to be: the command line of `docker run IMAGE …` as a value."""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from roost_node.errors import BadInput
from roost_node.vocab import (
    CONDOR_PORT,
    DEFAULT_POOL,
    LEASE,
    MAX_LEASE,
    MAX_VACATE,
    MIN_LEASE,
    STATE_DIR,
    VACATE,
    Role,
)

_NODE: Final = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_HOST: Final = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*\.?$")
_USER: Final = re.compile(r"^[a-z_][a-z0-9_-]{0,30}$")
_POOL: Final = re.compile(r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$")
_SIZE: Final = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)i?b?$", re.IGNORECASE)


_INSIDE: Final = """\
inside a node:
  roost-node health [--live]            is this node healthy? if not, why not; is it alive at all?
  roost-node approve [--list | ID... | --network CIDR --for 10m]    admit nodes (on the master)
  roost-node refuse ID...               turn nodes away (on the master)
  roost-node join-token ROLE [--expires 1h] [--uses 1] [--own]    admits nodes at once (master)
  roost-node drain [--limit SECONDS | --cancel] [--json]    take no new jobs (on an executor)
  roost-node revoke NAME... [--undo]    refuse nodes or users from now on (on the master)
  roost-node credentials                who has a certificate, as JSON (on the master)
  roost-node rotate status|begin|switch|finish    replace the CA, step by step (on the master)
  roost-node renew                      take up what the master announced; renew what is due
  roost-node pace N                     match at the pace of a pool of N executors (on the master)
  roost-node masters MASTER[,MASTER2]   the pool has these masters now (not on a master)
  roost-node probe                      how this node reaches others, as JSON: targets on stdin
  roost-node user add NAME... | rm [--purge] NAME | ls    accounts (on an access point)

exit status: 0 stopped as asked, 2 bad arguments or configuration, 3 the payload failed for good
"""


@dataclass(frozen=True)
class User:
    """An account that the access point needs; its password, if any, stands in a file."""

    name: str
    password_file: Path | None = None


@dataclass(frozen=True)
class Settings:
    """A node: its role and whatever was asked beside it."""

    role: Role
    node: str
    """The node's name: its host name or what it was given, and so the name in its certificate."""
    master: str = ""
    """The master's name or address; empty on the master itself. Of two, the one that admits."""
    second: str = ""
    """The other master's name, where the pool has two: on a master, the one beside it."""
    pool: str = DEFAULT_POOL
    """The pool's name; only the master's counts, the others learn it from the pool's CA."""
    extra_config: str = ""
    """File or URL of HTCondor configuration read after the role's own."""
    authorized_keys: str = ""
    """File or URL of root's authorized_keys; starts sshd."""
    users: tuple[User, ...] = ()
    ccb_address: str = ""
    private_network: str = ""
    forward: str = ""
    """The address at which others find this node: its engine or a router forwards it here."""
    port: int = CONDOR_PORT
    """HTCondor's port here, and there."""
    token_file: Path | None = None
    certificates: float | None = None
    """How long the certificates that this master issues are good, in seconds."""
    cpus: int | None = None
    memory: int | None = None
    """In MiB, as HTCondor counts."""
    lease: int = LEASE
    """The longest lease that a job may have, in seconds; only the access point's counts."""
    vacate: int = VACATE
    """How long a job may take to end at a stop, in seconds; only an executor's counts."""
    data: Path | None = None
    """The file that says what jobs may mount; not a master's."""
    public_read: bool = False
    """Whether whoever reaches the collector or the schedd may read, without an identity."""
    json_logs: bool = False
    health_port: int | None = None
    state_dir: Path = Path(STATE_DIR)


class _Parser(argparse.ArgumentParser):
    """argparse, with one sentence and our exit status instead of a usage page."""

    def error(self, message: str) -> NoReturn:
        message = " ".join(message.split())  # argparse quotes what it was given as it is
        raise BadInput(f"{message}; `docker run IMAGE --help` shows every option")


def _parser() -> _Parser:
    parser = _Parser(
        prog="docker run IMAGE",
        allow_abbrev=False,
        description="A node of an HTCondor pool: one role a container.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_INSIDE,
    )
    role = parser.add_mutually_exclusive_group()
    role.add_argument("-m", dest="master_role", action="store_true", help="central manager")
    role.add_argument("-s", dest="submit_to", metavar="MASTER[,MASTER2]", help="access point")
    role.add_argument("-e", dest="execute_for", metavar="MASTER[,MASTER2]", help="execution point")
    add = parser.add_argument
    add("-c", dest="config", metavar="URL|FILE", default="", help="extra HTCondor configuration")
    add("-k", dest="keys", metavar="URL|FILE", default="", help="authorized_keys; starts sshd")
    add("-u", dest="users", metavar="USER", action="append", default=[], help="create a user")
    add("-p", dest="passwords", metavar="FILE", action="append", default=[],
        help="file that holds the password of the -u before it")  # fmt: skip
    add("-C", dest="ccb", metavar="ADDRESS", default="", help="CCB address")
    add("-P", dest="private", metavar="NAME", default="", help="private network name")
    add("--forward", metavar="ADDRESS[:PORT]", default="",
        help="where others reach this node: a published port is the same inside")  # fmt: skip
    add("-S", "--join-token", dest="token", metavar="FILE", help="join token: admitted at once")
    add("--peer", metavar="MASTER2", help="the pool's other master (master only)")
    add("--name", metavar="NODE", help="this node's name, where that is not its host name")
    add("--pool", metavar="NAME", default=DEFAULT_POOL, help="the pool's name (master only)")
    add("--certificates", metavar="TIME", help="how long certificates are good: 7d (master only)")
    add("--cpus", metavar="N", help="CPUs to advertise")
    add("--memory", metavar="SIZE", help="memory to advertise: 2GiB, 512m, or a number of MiB")
    add("--lease", metavar="SECONDS", help="how long a job may be out of touch (with -s)")
    add("--vacate", metavar="SECONDS", help="how long a job may take to end at a stop (with -e)")
    add("--data", metavar="FILE", help="what jobs may mount, as roost writes it (with -s, -e)")
    add("--public-read", action="store_true", help="let everybody read (not with -e)")
    add("--json-logs", action="store_true", help="logs as JSON lines")
    add("--health-port", metavar="N", help="answer HTTP /health on this port")
    return parser


def parse(argv: Sequence[str], *, hostname: str | None = None) -> Settings:
    """The command line as Settings. Raises BadInput, one sentence for the first thing wrong."""
    _reject_inline_passwords(argv)
    args = _parser().parse_args(argv)
    role, master, second = _role(args)
    node = _node_name(hostname or socket.gethostname()) if args.name is None else _named(args.name)
    if role == "master" and second == node:
        raise BadInput(f"--peer {second!r} is this master itself; name the other one")
    users = _users(argv)
    if users and role != "submit":
        raise BadInput("-u makes users of an access point; it goes with -s MASTER")
    if args.lease is not None and role != "submit":
        raise BadInput("--lease is for the jobs of an access point; it goes with -s MASTER")
    if args.vacate is not None and role != "execute":
        raise BadInput("--vacate is for the jobs of an execution point; it goes with -e MASTER")
    if args.data is not None and role == "master":
        raise BadInput("--data says what jobs may mount; it goes with -s MASTER or -e MASTER")
    if args.public_read and role == "execute":
        raise BadInput("--public-read is for what answers for the pool; it goes with -m or -s")
    if not _POOL.match(args.pool):
        raise BadInput(
            f"--pool {args.pool!r} is not a pool's name; use up to 32 of a-z, 0-9 and '-'"
        )
    forward, port = _forward(args.forward)
    if role == "master" and port != CONDOR_PORT:
        raise BadInput(f"--forward: every node looks for its master at port {CONDOR_PORT}")
    return Settings(
        role=role,
        node=node,
        master=master,
        second=second,
        pool=args.pool,
        extra_config=args.config,
        authorized_keys=args.keys,
        users=users,
        ccb_address=_knob(args.ccb, "-C"),
        private_network=_knob(args.private, "-P"),
        forward=forward,
        port=port,
        token_file=Path(args.token) if args.token else None,
        certificates=_lifetime(args.certificates, role),
        cpus=_cpus(args.cpus),
        memory=_memory(args.memory),
        lease=_lease(args.lease),
        vacate=_vacate(args.vacate),
        data=Path(args.data) if args.data else None,
        public_read=args.public_read,
        json_logs=args.json_logs,
        health_port=_port(args.health_port),
    )


def _role(args: argparse.Namespace) -> tuple[Role, str, str]:
    """The role, its master and its second master."""
    if args.peer is not None and not args.master_role:
        raise BadInput("--peer names a master's peer; it goes with -m")
    if args.master_role:
        return "master", "", "" if args.peer is None else _second(args.peer, "--peer")
    if args.submit_to is not None:
        return "submit", *masters(args.submit_to, "-s")
    if args.execute_for is not None:
        return "execute", *masters(args.execute_for, "-e")
    raise BadInput("a node needs a role: -m, or -s MASTER, or -e MASTER")


def masters(text: str, flag: str) -> tuple[str, str]:
    """`master` or `master,master-2` as two names; the second may be empty. Raises BadInput."""
    first, comma, second = text.partition(",")
    found = _address(first, flag), _second(second, flag) if comma else ""
    if found[0] == found[1]:
        raise BadInput(f"{flag} {text!r} names one master twice; name each once")
    return found


def _forward(text: str) -> tuple[str, int]:
    """`host:port` or `host` of --forward; the port is HTCondor's own if it names none."""
    match = re.fullmatch(r"(\[[^]]*\]|[^:]*)(?::([0-9]{1,5}))?", text)
    if text and (match is None or not match[1]):
        raise BadInput(
            f"--forward {text!r} is not an address; write it as in `--forward 192.0.2.1` or "
            "`--forward 192.0.2.1:9620`"
        )
    if not text or match is None:
        return "", CONDOR_PORT
    port = int(match[2] or CONDOR_PORT)
    if not 0 < port < 65536:
        raise BadInput(f"--forward {text!r}: {port} is not a port; give one from 1 to 65535")
    return _address(match[1], "--forward"), port


def _second(text: str, flag: str) -> str:
    """A second master: by the name in its certificate, which nothing else would tell."""
    name = _address(text, flag)
    if not _NODE.fullmatch(name):
        raise BadInput(
            f"{flag} {text!r}: a pool's second master is known by its node's name alone,"
            " as in `physics-master-2`; a pool has at most two"
        )
    return name


def is_user(name: str) -> bool:
    """Whether `name` can be the name of an account."""
    return _USER.match(name) is not None


def _address(text: str, flag: str) -> str:
    advice = f"give the master's name or IP address, as in `{flag} master` or `{flag} 172.17.0.2`"
    bare = text.strip("[]")
    if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", bare):
        try:
            return str(ipaddress.ip_address(bare))
        except ValueError:
            raise BadInput(f"{flag} {text!r} is not a valid IP address; {advice}") from None
    if len(text) > 253 or not _HOST.match(text):
        raise BadInput(f"{flag} {text!r} is neither a host name nor an address; {advice}")
    return text.rstrip(".").lower()


def _node_name(hostname: str) -> str:
    # The first label alone: the rest is the network's, and differs where one node has two networks.
    name = hostname.split(".", maxsplit=1)[0].lower()
    if not _NODE.fullmatch(name):
        raise BadInput(
            f"the host name {hostname!r} cannot be a node's name; "
            "set one of a-z, 0-9 and '-' with docker run --hostname"
        )
    return name


def _named(name: str) -> str:
    """The name given with --name. Raises BadInput."""
    if not _NODE.fullmatch(name):
        raise BadInput(f"--name {name!r} cannot be a node's name; use up to 63 of a-z, 0-9 and '-'")
    return name


def _reject_inline_passwords(argv: Sequence[str]) -> None:
    for word, value in itertools.pairwise(argv):
        if word == "-p" and not _is_file(value):
            raise BadInput(
                "-p takes a file that holds the password, and there is no such file; "
                "a password itself must never stand on a command line"
            )


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # longer than any name
        return False


def _users(argv: Sequence[str]) -> tuple[User, ...]:
    """Users in their order; a -p belongs to the -u before it, which argparse cannot say."""
    users: list[User] = []
    words = iter(argv)
    for word in words:
        if word == "-u":
            name = next(words)
            if not is_user(name):
                raise BadInput(f"-u {name!r} is not a user's name; use a-z, 0-9, '_' and '-'")
            users.append(User(name))
        elif word == "-p":
            if not users:
                raise BadInput("-p FILE belongs to the -u USER before it, and there is none")
            users[-1] = User(users[-1].name, Path(next(words)))
    return tuple(users)


def _lifetime(text: str | None, role: Role) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0
    if role != "master" or not 30 <= seconds <= 366 * 86400:
        raise BadInput(
            f"--certificates {text!a}: give the master a time from 30s to 366d, such as 7d"
        )
    return float(seconds)


def _knob(text: str, flag: str) -> str:
    """What becomes the value of a knob: a line of its own would be another knob."""
    if not re.fullmatch(r"[ -~]*", text):
        raise BadInput(f"{flag} {text!r} holds what no name or address holds; give printable ASCII")
    return text


def _cpus(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 4096:
        raise BadInput(f"--cpus {text!r} is not a number of CPUs; give one above 0, such as 2")
    # HTCondor hands out whole CPUs; a fraction still runs one job.
    return max(1, int(value))


def _memory(text: str | None) -> int | None:
    if text is None:
        return None
    match = _SIZE.match(text.strip())
    factor = {"": 1.0, "k": 2**-10, "m": 1.0, "g": 2.0**10, "t": 2.0**20}
    mebibytes = int(float(match[1]) * factor[match[2].lower()]) if match else 0
    if mebibytes < 1:
        raise BadInput(
            f"--memory {text!r} is not an amount of memory; write 2GiB, 512m or a number of MiB"
        )
    return mebibytes


def _lease(text: str | None) -> int:
    if text is None:
        return LEASE
    if not re.fullmatch("[0-9]{1,9}", text) or not MIN_LEASE <= int(text) <= MAX_LEASE:
        raise BadInput(
            f"--lease {text!r} is not a lease; give a number of seconds from {MIN_LEASE} "
            f"to {MAX_LEASE}"
        )
    return int(text)


def _vacate(text: str | None) -> int:
    if text is None:
        return VACATE
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_VACATE:
        raise BadInput(
            f"--vacate {text!r} is not a time to end; give a number of seconds from 1 "
            f"to {MAX_VACATE}"
        )
    return int(text)


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise BadInput(f"--health-port {text!r} is not a port; give a number from 1 to 65535")
    return int(text)
