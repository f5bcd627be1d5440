"""A pool as a value: frozen, validated, the same for every engine.

Made by roost.specfile from a pool file, the environment and flags, or directly in Python. What a
validator raises is the end of a sentence that begins with the place: `is 'root', …`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from roost.data import DataEntry, Extra, Scheme, extras
from roost.errors import BadInput
from roost_node.vocab import (
    DEFAULT_POOL,
    IDENTITY_PREFIX,
    LEASE,
    MAX_LEASE,
    MAX_VACATE,
    MIN_LEASE,
    READER_IDENTITY,
    identity,
)

Release = Literal["trixie", "forky", "lts", "feature"]
EngineName = Literal["docker", "podman", "kubernetes", "marathon"]
MarathonVersion = Literal["1.1", "1.4", "1.5+"]
MarathonHealth = Literal["command", "http", "mesos-http"]
PolicyKind = Literal["kubernetes", "calico", "none"]

NAME_PATTERN: Final = r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$|^[a-z]$"
USER_PATTERN: Final = r"^[a-z_][a-z0-9_-]{0,30}$"
IMAGE_PATTERN: Final = r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]*$"
#: A Docker at a TCP port would need certificates beside it.
AGENT_PATTERN: Final = r"^ssh://[A-Za-z0-9_.@:\[\]-]+/?$|^unix:///[^\s]+$"
DOCKER_PATTERN: Final = r"^(ssh|tcp)://[A-Za-z0-9_.@:\[\]-]+/?$|^unix:///[^\s]+$"
NETWORK_PATTERN: Final = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$"
#: A name as Kubernetes takes them, of a namespace or another object; of a context, which is free.
OBJECT_PATTERN: Final = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
CONTEXT_PATTERN: Final = r"^[a-zA-Z0-9][!-~]*$"
#: No login in it: what stands in a pool file or on a command line is no secret.
URL_PATTERN: Final = r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$"
DOMAIN_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
SIZE_PATTERN: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtT]i?)?[bB]?\s*$"

DURATION_PATTERN: Final = r"^\s*[0-9]+\s*(s|sec|m|min|h|d)?\s*$"

#: Where the images are: a registry of one's own, say. They have one tag a release.
IMAGES: Final = os.environ.get("ROOST_IMAGES") or "roost/htcondor"


def image_name(release: Release, extras: tuple[Extra, ...] = ()) -> str:
    """The image of a release, `trixie`, or of one with more in it, `trixie-rclone-sshfs`."""
    return "-".join((f"{IMAGES}:{release}", *extras))


MAX_EXECUTORS: Final = 1000
MIN_MEMORY: Final = 128 * 2**20
MAX_MEMORY: Final = 2**50
#: X.509's limit for a CN, which carries a node's name.
MAX_IDENTITY: Final = 64

#: A pool's users share its domain with nodes, with HTCondor's own identities and with the jobs'
#: slot accounts; on the access point also with the accounts that Debian and its packages make.
RESERVED_USERS: Final = frozenset(
    (READER_IDENTITY, "root", "condor", "unauthenticated", "anonymous", "submit-side",
     "execute-side", "administrator", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail",
     "news", "uucp", "proxy", "www-data", "backup", "list", "irc", "nobody", "sshd", "messagebus",
     "_apt"),
)  # fmt: skip
RESERVED_PREFIXES: Final = (*IDENTITY_PREFIX.values(), "condor", "systemd-")
#: Networks on which nodes cannot find each other by name, or would share one port.
UNFIT_NETWORKS: Final = frozenset(("host", "none", "bridge", "default", "podman"))

#: How long a node's certificate is good unless the pool file says otherwise, in seconds.
CERTIFICATES: Final = 7 * 86400

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12} | {
    f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("kmgt", start=1)
}


def parse_size(value: Any) -> int:
    """Bytes, from an integer or text such as `512MiB`, `2g`, `1.5 GB`. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError("is not a size; write it as 512MiB or 2GiB")  # noqa: TRY004 - pydantic reports it
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-zA-Z]*)\s*", value, re.ASCII)
    unit = match[2].lower().removesuffix("b") if match else None
    if match is None or unit not in _UNITS:
        raise ValueError(f"is {value[:40]!r}, not a size; write it as 512MiB or 2GiB")
    return int(Fraction(match[1]) * _UNITS[unit])


_SECONDS: Final = {
    "": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400
}  # fmt: skip


def parse_duration(value: Any) -> int:
    """Seconds, from an integer or text such as `60s`, `5min`, `1h`. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError("is not a duration; write it as 60s, 5min or 1h")  # noqa: TRY004 - pydantic reports it
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*([a-z]*)\s*", value, re.ASCII)
    if match is None or match[2] not in _SECONDS:
        raise ValueError(f"is {value[:40]!r}, not a duration; write it as 60s, 5min or 1h")
    return int(match[1]) * _SECONDS[match[2]]


def _within(least: int, most: int) -> AfterValidator:
    """Durations from `least` to `most` seconds."""

    def check(seconds: int) -> int:
        if not least <= seconds <= most:
            raise ValueError(f"is {_spoken(seconds)}; choose {_spoken(least)} to {_spoken(most)}")
        return seconds

    return AfterValidator(check)


def _spoken(seconds: int) -> str:
    """`90 s`, `5 min`, `2 h`: the largest unit in which it is whole."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _free_user(name: str) -> str:
    if (
        name in RESERVED_USERS
        or name.startswith(RESERVED_PREFIXES)
        or re.match(r"slot[0-9]+_", name)
    ):
        raise ValueError(f"is {name!r}, a name of the pool's or the system's own; choose another")
    return name


def check_user(name: str) -> str:
    """`name`, if a user of a pool may have it. Raises BadInput."""
    if not re.fullmatch(USER_PATTERN, name):
        raise BadInput(
            f"{name!r} is not a user's name",
            advice="use up to 31 lower-case letters, digits, _ and -, a letter or _ first",
        )
    try:
        return _free_user(name)
    except ValueError as error:
        raise BadInput(f"the user {error}") from None


def _fit_network(name: str) -> str:
    if name in UNFIT_NETWORKS:
        raise ValueError(
            f"is {name!r}, not a network where nodes find each other by name; "
            "make one with the engine, or leave it out and roost makes one"
        )
    return name


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"is {text!r}, not an IP address; write it as 192.0.2.1") from None


def _condor_text(text: str) -> str:
    try:
        odd = b"\0" in text.encode()
    except UnicodeEncodeError:
        odd = True
    if odd:
        raise ValueError("holds characters that no configuration file can hold; remove them")
    return text


#: What may stand for a size in a file: for the JSON Schema only.
_SIZE_INPUT: Final = (
    Annotated[int, Field(ge=MIN_MEMORY, le=MAX_MEMORY)]
    | Annotated[str, Field(pattern=SIZE_PATTERN)]
)

#: What may stand for a duration in a file: for the JSON Schema only.
_DURATION_INPUT: Final = (
    Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=DURATION_PATTERN)]
)

Duration = Annotated[int, BeforeValidator(parse_duration, json_schema_input_type=_DURATION_INPUT)]
"""Seconds; in a file also `60s`, `5min`, `1h`."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
UserName = Annotated[str, Field(pattern=USER_PATTERN), AfterValidator(_free_user)]
Cpus = Annotated[float, Field(strict=True, ge=0.01, le=1024)]
Memory = Annotated[
    int,
    Field(ge=MIN_MEMORY, le=MAX_MEMORY),
    BeforeValidator(parse_size, json_schema_input_type=_SIZE_INPUT),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class HTCondor(_Part):
    """Which HTCondor the pool runs."""

    release: Release = "trixie"
    """The image's release: a Debian suite, or `lts` | `feature` of HTCondor's own repositories."""
    image: Annotated[str, Field(pattern=IMAGE_PATTERN)] | None = None
    """The image by name, instead of roost/htcondor:<release> (or $ROOST_IMAGES:<release>)."""


class Master(_Part):
    """The central manager: collector and negotiator."""

    count: Annotated[int, Field(strict=True, ge=1, le=2)] = 1
    """How many: with 2, either may die and matching goes on by itself."""
    cpus: Cpus | None = None
    """CPU limit of the container; none if absent."""
    memory: Memory | None = None
    """Memory limit of the container, in bytes or as `2GiB`; `2GiB` if absent."""


class Submit(_Part):
    """The access point: the schedd and its users."""

    users: Annotated[tuple[UserName, ...], Field(min_length=1)] = ("user",)
    """The users who may submit; the first is the one that `roost submit` takes by default."""
    lease: Annotated[Duration, _within(MIN_LEASE, MAX_LEASE)] = LEASE
    """How long a running job and its access point may be out of touch before it runs again."""
    cpus: Cpus | None = None
    """CPU limit of the container; none if absent."""
    memory: Memory | None = None
    """Memory limit of the container, in bytes or as `2GiB`; `8GiB` if absent."""

    @field_validator("users")
    @classmethod
    def _once_each(cls, users: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({user for user in users if users.count(user) > 1})
        if twice:
            raise ValueError(f"has {twice[0]!r} twice; name each user once")
        return users


class Execute(_Part):
    """A group of executors, all alike."""

    name: Name = "execute"
    """The group's name; its nodes are `<pool>-<name>-1`, `-2`, …"""
    count: Annotated[int, Field(strict=True, ge=0, le=MAX_EXECUTORS)] = 1
    """How many executors."""
    cpus: Cpus = 1.0
    """CPUs that each advertises, and the container's limit."""
    memory: Memory = 2**30
    """Memory that each offers to jobs, in bytes or as `2GiB`; its container may use more."""

    @field_validator("name")
    @classmethod
    def _not_a_role(cls, name: str) -> str:
        if name in ("master", "submit"):
            raise ValueError(f"is {name!r}, a role; choose another name for a group of executors")
        return name


class Network(_Part):
    """The network that the pool's containers share."""

    name: Annotated[str, Field(pattern=NETWORK_PATTERN), AfterValidator(_fit_network)] | None = None
    """A network that the engine knows already; without it roost makes one named after the pool."""
    master: Annotated[str, AfterValidator(_ip)] | None = None
    """The master's address there; only where several hosts have this network."""


class Host(_Part):
    """A machine of several, with a Docker that runs a share of the pool."""

    name: Name
    """What the pool calls it."""
    docker: Annotated[str, Field(pattern=DOCKER_PATTERN)] | None = None
    """Its Docker: `ssh://user@host`, `tcp://host:2376` with `tls`, or `unix:///…`; without it the
    one that Docker's own settings name here."""
    tls: str | None = None
    """The directory with ca.pem, cert.pem and key.pem for `tcp://`; `~` is the home."""
    address: Annotated[str, AfterValidator(_ip)] | None = None
    """Its address as the other hosts reach it; the first host needs one unless `network` is set."""
    execute: Mapping[Name, Annotated[int, Field(strict=True, ge=1, le=MAX_EXECUTORS)]] = {}
    """How many executors of each group it has. With more or fewer in all, hosts take turns so."""

    @field_validator("tls")
    @classmethod
    def _with_tcp(cls, tls: str | None, info: ValidationInfo) -> str | None:
        if tls is not None and not (info.data.get("docker") or "").startswith("tcp://"):
            raise ValueError("goes with `docker: tcp://…` alone; leave it out")
        return tls

    @model_validator(mode="after")
    def _not_open_to_all(self) -> Host:
        if (self.docker or "").startswith("tcp://") and self.tls is None:
            raise ValueError(
                "has docker: tcp://… without `tls`: whoever reaches that port is root there; name "
                "the directory of its certificates, or use ssh://"
            )
        return self


class Security(_Part):
    """Who may read the pool, and what its certificates are like."""

    public_read: Annotated[bool, Field(strict=True)] = False
    """Whether everybody who reaches the collector and the schedd may read, without an identity."""
    certificates: Annotated[Duration, _within(60, 366 * 86400)] = CERTIFICATES
    """How long a node's certificate is good; it renews itself after two thirds of that."""


#: Marathon's operators, and how many words their constraints may have, the field's name counted.
_OPERATORS: Final = {
    "UNIQUE": (2,), "CLUSTER": (2, 3), "GROUP_BY": (2, 3), "LIKE": (3,), "UNLIKE": (3,),
    "MAX_PER": (3,),
}  # fmt: skip


def _constraint(words: tuple[str, ...]) -> tuple[str, ...]:
    lengths = _OPERATORS.get(words[1], ()) if len(words) > 1 else ()
    if len(words) not in lengths:
        raise ValueError(
            f"is {list(words)}, not a constraint of Marathon; write it as [rack, LIKE, rack-1], "
            f"with one of {', '.join(_OPERATORS)}"
        )
    return words


Constraint = Annotated[tuple[str, ...], AfterValidator(_constraint)]


class Marathon(_Part):
    """How the pool runs on Marathon; other engines take no notice of it."""

    url: Annotated[str, Field(pattern=URL_PATTERN)] | None = None
    """Where its API is, such as `http://marathon:8080`; without it $MARATHON_URL."""
    agents: tuple[Annotated[str, Field(pattern=AGENT_PATTERN)], ...] = ()
    """The Docker of each of Mesos' agents: `ssh://user@host`, or `unix:///…` on this machine;
    without any the one that Docker's own settings name here."""
    version: MarathonVersion = "1.5+"
    """Whose words are rendered: `1.1` is that and older, `1.4` is 1.2 to 1.4."""
    health: MarathonHealth = "command"
    """Who asks for a node's health, and how; `http` and `mesos-http` from version 1.4."""
    domain: Annotated[str, Field(pattern=DOMAIN_PATTERN)] = "marathon.mesos"
    """Mesos-DNS's domain for Marathon's apps: the master is `<pool>-master.<domain>`."""
    volume: Memory = 10 * 2**30
    """Size of each persistent volume for jobs: the spool, and the users' homes."""
    constraints: Mapping[str, tuple[Constraint, ...]] = {}
    """Where nodes may run: by `master`, `submit` or a group's name, a list of constraints."""


ObjectName = Annotated[str, Field(pattern=OBJECT_PATTERN)]


class Kubernetes(_Part):
    """How the pool runs on Kubernetes; other engines take no notice of it."""

    context: Annotated[str, Field(pattern=CONTEXT_PATTERN)] | None = None
    """The context of the kubeconfig; without it the one that is current."""
    namespace: ObjectName | None = None
    """The namespace, made if there is none; without it the context's own."""
    storage_class: ObjectName | None = None
    """The class of the persistent volumes; without it the cluster's default."""
    storage: Memory = 10 * 2**30
    """Size of each persistent volume for jobs: the spool, and the users' homes."""
    drain: Annotated[Duration, _within(0, MAX_VACATE)] = 3600
    """How long jobs may go on when Kubernetes ends their executor; then they run elsewhere."""
    policy: PolicyKind = "kubernetes"
    """Whose network policies keep others away from the pool's ports; `none` for no policies."""
    pull_secret: ObjectName | None = None
    """The Secret with which the image is pulled, if its registry asks for one."""


def _field(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)


def _counted(group: Any, sums: Mapping[str, int]) -> Any:
    """A group as it was given, with its hosts' count if it names none."""
    name = _field(group, "name") or "execute"
    if isinstance(group, Execute):
        if name not in sums or "count" in group.model_fields_set:
            return group
        return group.model_copy(update={"count": sums[name]})
    return {"count": sums[name], **group} if name in sums else group


class PoolSpec(_Part):
    """A pool: what `pool.yaml` says, complete."""

    name: Name = DEFAULT_POOL
    """The pool's name: prefix of its nodes' names and, with `.internal`, its HTCondor domain."""
    engine: EngineName | None = None
    """Where it runs; without it the first container engine here that runs: Docker, then Podman."""
    htcondor: HTCondor = HTCondor()
    """Which HTCondor the pool runs."""
    master: Master = Master()
    """The central manager: collector and negotiator."""
    submit: Submit = Submit()
    """The access point: the schedd and its users."""
    execute: tuple[Execute, ...] = (Execute(),)
    """The groups of executors."""
    security: Security = Security()
    """Who may read the pool, and what its certificates are like."""
    network: Network = Network()
    """The network that the pool's containers share."""
    hosts: tuple[Host, ...] = ()
    """The machines that the pool is on, if several; the first has master and access point."""
    data: Mapping[Name, DataEntry] = {}
    """What jobs may mount by name (`+DataMounts` in their submit files)."""
    data_urls: tuple[Scheme, ...] = ()
    """URLs of these schemes may stand in `+DataMounts` beside the names."""
    marathon: Marathon = Marathon()
    """How the pool runs on Marathon; other engines take no notice of it."""
    kubernetes: Kubernetes = Kubernetes()
    """How the pool runs on Kubernetes; other engines take no notice of it."""
    config: Annotated[str, AfterValidator(_condor_text)] = ""
    """HTCondor configuration for every node, read last."""

    @model_validator(mode="before")
    @classmethod
    def _counts_of_hosts(cls, data: Any) -> Any:
        """A group that names no count has what its hosts name."""
        if not isinstance(data, dict) or not data.get("hosts"):
            return data
        try:
            shares = [dict(_field(host, "execute") or {}) for host in data["hosts"]]
            sums = {name: sum(share.get(name, 0) for share in shares) for each in shares
                    for name in each}  # fmt: skip
            groups = [_counted(group, sums) for group in data.get("execute", [{}])]
        except (TypeError, ValueError, AttributeError):
            return data  # for the fields' own checks to say
        return data | {"execute": groups}

    @model_validator(mode="after")
    def _hosts_fit(self) -> PoolSpec:
        problem = self._unfit_hosts()
        if problem:
            raise ValueError(problem)
        return self

    def _unfit_hosts(self) -> str:
        """What about the hosts cannot be; empty if nothing."""
        names = [host.name for host in self.hosts]
        groups = {group.name for group in self.execute}
        unknown = sorted({name for host in self.hosts for name in host.execute} - groups)
        own, at = self.network.name, self.network.master
        problems = {
            "has network.master, which is for several `hosts`; leave it out": at and not names,
            f"has two hosts of one name ({', '.join(names)}); give each its own": len(set(names))
            < len(names),
            f"has hosts with executors of {', '.join(unknown)}, which is no group of it; its "
            f"groups: {', '.join(sorted(groups))}": unknown,
            f"has hosts, which take Docker alone, and engine: {self.engine}; leave that out": names
            and self.engine not in (None, "docker"),
            "has hosts and two masters, which cannot be together; set master.count to 1": names
            and self.master.count > 1,
            "has hosts on a network of their own, where no name is known to all; give the "
            "master's address on it as network.master": names and own and not at,
            "has network.master and no network.name; name the network that all hosts have": names
            and at
            and not own,
            f"has hosts and no network of their own, so {names[0] if names else ''} must be "
            "reached by the others: give it `address`, its IP address as they see it": len(names)
            > 1
            and not own
            and not self.hosts[0].address,
        }
        return next((problem for problem, is_there in problems.items() if is_there), "")

    @property
    def extras(self) -> tuple[Extra, ...]:
        """What its image must have beside HTCondor, so that nodes can mount its `data`."""
        return extras(self.data, self.data_urls)

    @property
    def image_name(self) -> str:
        """The image that every node runs."""
        return self.htcondor.image or image_name(self.htcondor.release, self.extras)

    @field_validator("execute")
    @classmethod
    def _groups_fit(cls, groups: tuple[Execute, ...], info: ValidationInfo) -> tuple[Execute, ...]:
        names = [group.name for group in groups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"has the name {twice[0]!r} twice; give each group its own name")
        pool = info.data.get("name", "")
        for name in names:
            spare = MAX_IDENTITY - len(identity("execute", f"{pool}-{name}-{MAX_EXECUTORS}"))
            if spare < 0:
                raise ValueError(
                    f"makes, of {pool!r} and {name!r}, node names {-spare} characters too long for "
                    "a certificate; shorten one of them"
                )
        return groups

    @field_validator("marathon")
    @classmethod
    def _constrained_exist(cls, marathon: Marathon, info: ValidationInfo) -> Marathon:
        known = ["master", "submit", *(group.name for group in info.data.get("execute", ()))]
        unknown = sorted(set(marathon.constraints) - set(known))
        if unknown:
            raise ValueError(
                f"has constraints for {unknown[0]!r}, which is nothing of this pool; "
                f"it has {', '.join(known)}"
            )
        return marathon

    @property
    def executors(self) -> int:
        """How many executors in all groups."""
        return sum(group.count for group in self.execute)

    def scaled(self, counts: Mapping[str, int]) -> PoolSpec:
        """This pool with other counts, by group.

        Raises KeyError for an unknown group, BadInput for a count that no group can have.
        """
        known = {group.name for group in self.execute}
        unknown = set(counts) - known
        if unknown:
            raise KeyError(min(unknown))
        for name, count in counts.items():
            if not 0 <= count <= MAX_EXECUTORS:
                raise BadInput(
                    f"{name} cannot have {count} executors", advice=f"choose 0 to {MAX_EXECUTORS}"
                )
        groups = tuple(
            group.model_copy(update={"count": counts.get(group.name, group.count)})
            for group in self.execute
        )
        return self.model_copy(update={"execute": groups})
