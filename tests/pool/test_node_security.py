"""What others may not: each refusal beside a control, where the same thing is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from node_bench import Containers, Node, Trio, eventually, healthy, private

pytestmark = pytest.mark.engine

METHODS: Final = ("FS", "CLAIMTOBE", "ANONYMOUS", "IDTOKENS", "PASSWORD")

#: A collector that believes anybody, to show that what is refused elsewhere was really tried.
CREDULOUS: Final = f"""\
SEC_DEFAULT_AUTHENTICATION_METHODS = SSL, {", ".join(METHODS)}
ALLOW_READ = *
SEC_TOKEN_SYSTEM_DIRECTORY = /etc/condor/tokens.d
SEC_ENABLE_TOKEN_REQUEST = True
ENABLE_RUNTIME_CONFIG = True
ALLOW_CONFIG = *
ALLOW_ADMINISTRATOR = *
SETTABLE_ATTRS_CONFIG = *
SETTABLE_ATTRS_ADMINISTRATOR = *
"""

#: What a thief would need for a token or a password: the same on both collectors.
CREDENTIALS: Final = """\
mkdir -p /etc/condor/passwords.d /etc/condor/tokens.d
head -c 32 /dev/zero | tr '\\0' x > /etc/condor/passwords.d/POOL
chmod 600 /etc/condor/passwords.d/POOL
_CONDOR_SEC_TOKEN_POOL_SIGNING_KEY_FILE=/etc/condor/passwords.d/POOL \\
    condor_token_create -identity condor@roost.internal > /etc/condor/tokens.d/thief
chmod 600 /etc/condor/tokens.d/thief
export _CONDOR_SEC_PASSWORD_FILE=/etc/condor/pool_password
condor_store_cred -c add -i /etc/condor/passwords.d/POOL
"""


def client(method: str) -> list[str]:
    """The environment of a client that offers this method, and believes any server."""
    return [
        f"_CONDOR_SEC_CLIENT_AUTHENTICATION_METHODS={method}",
        "_CONDOR_ALLOW_CLIENT=*",
        "_CONDOR_SEC_TOKEN_SYSTEM_DIRECTORY=/etc/condor/tokens.d",
        "_CONDOR_SEC_PASSWORD_FILE=/etc/condor/pool_password",
    ]


@pytest.fixture(scope="module")
def collectors(shared: Containers) -> tuple[Node, Node]:
    """As roost makes it, and one that believes anybody."""
    config = private(
        shared.directory / "credulous",
        CREDULOUS
        + "SEC_PASSWORD_FILE = /etc/condor/pool_password\n"
        + "SEC_TOKEN_POOL_SIGNING_KEY_FILE = /etc/condor/passwords.d/POOL\n",
    )
    strict = shared.run("strict", "-m")
    credulous = shared.run("credulous", "-m", "-c", "/c", options=["-v", f"{config}:/c:ro"])
    for node in (strict, credulous):
        healthy(node)
        node.sh(CREDENTIALS)
    return strict, credulous


@pytest.mark.parametrize("method", METHODS)
def test_only_certificates_are_believed(method: str, collectors: tuple[Node, Node]) -> None:
    strict, credulous = collectors
    query = "condor_status -any -af MyType"
    status, text = credulous.tried(query, env=client(method))
    assert status == 0, f"the control does not hold: {text}"
    assert "Negotiator" in text
    status, text = strict.tried(query, env=client(method))
    assert status != 0, text
    assert "Negotiator" not in text
    assert "Negotiator" in strict.sh(query, env=client("SSL"))


def test_configuration_is_changed_by_nobody(collectors: tuple[Node, Node]) -> None:
    """Not by the daemon's own administrator either."""
    for node, may in zip(collectors, (False, True), strict=True):
        address = node.sh("condor_status -collector -af MyAddress").strip()
        status, text = node.tried(f"condor_config_val -addr '{address}' -rset ROOST_ROGUE=1")
        assert (status == 0, "Successfully set" in text) == (may, may), text


def test_tokens_are_given_to_nobody(collectors: tuple[Node, Node]) -> None:
    """A request is put before an administrator where that is allowed, and waits there."""
    for node, may in zip(collectors, (False, True), strict=True):
        address = node.sh("condor_status -collector -af MyAddress").strip()
        status, text = node.tried(
            f"timeout 8 condor_token_request -pool '{address}' -identity x@roost.internal",
            env=client("SSL"),
        )
        # What is accepted waits until somebody approves it.
        assert (status, "Token request disabled" in text) == ((124, False) if may else (1, True)), (
            text
        )


def test_a_pool_for_everybody_to_read(image: str, containers: Containers) -> None:
    """`--public-read`: who has no certificate reads, and that alone; others as ever."""
    master = containers.run("master", "-m", "--public-read")
    healthy(master)
    token = private(containers.directory / "token", master.sh("roost-node join-token submit"))
    access = containers.run("submit", "-s", master.ip, "--public-read", "-u", "john", "-S", "/t",
                            options=["-v", f"{token}:/t:ro"])  # fmt: skip
    healthy(access)
    stranger = containers.run("stranger", "infinity", options=["--entrypoint", "sleep"])
    # He says that he needs no identity; what he believes of the other side is his own affair.
    reads = [
        "_CONDOR_SEC_CLIENT_AUTHENTICATION=OPTIONAL",
        "_CONDOR_ALLOW_CLIENT=*",
        "_CONDOR_SCHEDD_ADDRESS_FILE=/schedd",
        "_CONDOR_SCHEDD_SUPER_ADDRESS_FILE=/schedd",
    ]
    collector = f"<{master.ip}:9618?alias={master.hostname}>"
    schedd = f"<{access.ip}:9618?alias={access.hostname}&sock=schedd>"
    asked = {
        collector: f"condor_status -pool '{collector}' -any -af MyType",
        schedd: "condor_q -all -totals",
    }
    stranger.sh("cat > /schedd", stdin=f"{schedd}\n")
    for address, command in asked.items():
        status, text = stranger.tried(command, env=reads)
        assert status == 0, text
        table = f"condor_ping -addr '{address}' -table READ WRITE DAEMON ADMINISTRATOR NEGOTIATOR"
        rows = [line.split() for line in stranger.tried(table, env=reads)[1].splitlines()]
        found = {row[0]: row[4:6] for row in rows if row and row[0].isupper()}
        assert found.pop("READ") == ["ALLOW", "unauthenticated@unmapped"], rows
        assert len(found) == 4
        assert {row[0] for row in found.values()} == {"FAIL"}
    # A member is still known, and still reads in cipher.
    for tool in ("condor_ping -type schedd", "condor_ping -type collector"):
        _, row = access.sh(f"{tool} -table READ", user="john").splitlines()
        assert row.split()[2:5] == ["AES", "AES", "ALLOW"]


def test_without_a_certificate_nothing_is_answered(
    collectors: tuple[Node, Node], image: str, containers: Containers
) -> None:
    strict, _ = collectors
    stranger = containers.run("stranger", "infinity", options=["--entrypoint", "sleep"])
    query = f"condor_status -pool {strict.ip} -any -af MyType"
    methods = "SSL, FS, CLAIMTOBE, ANONYMOUS, IDTOKENS, PASSWORD"
    status, text = stranger.tried(query, env=client(methods))
    assert status != 0, text
    assert "Negotiator" not in text
    # The control: with the pool's CA and a certificate, the same question is answered.
    for name in ("ca.crt", "node.crt", "node.key"):
        stranger.sh(f"umask 077; cat > /{name}", stdin=strict.sh(f"cat /var/lib/roost/{name}"))
    certified = [
        *client("SSL"),
        "_CONDOR_AUTH_SSL_CLIENT_CAFILE=/ca.crt",
        "_CONDOR_AUTH_SSL_CLIENT_CERTFILE=/node.crt",
        "_CONDOR_AUTH_SSL_CLIENT_KEYFILE=/node.key",
    ]
    alias = f"condor_status -pool '<{strict.ip}:9618?alias={strict.hostname}>' -any -af MyType"
    assert "Negotiator" in stranger.sh(alias, env=certified)


@pytest.fixture(scope="module")
def pool(shared: Containers) -> Iterator[Trio]:
    trio = Trio(shared, submit=["-u", "john"])
    trio.admit()
    trio.ready()
    yield trio


def as_node() -> str:
    """Words before a tool that make it speak as its node; on an access point, tools are users'."""
    state, tool = "/var/lib/roost", "_CONDOR_TOOL.AUTH_SSL_CLIENT"
    return f"env {tool}_CERTFILE={state}/node.crt {tool}_KEYFILE={state}/node.key"


def advertise(node: Node, kind: str, name: str, machine: str) -> None:
    """Send the collector an ad; the tool says that it was sent, whatever becomes of it."""
    types = {"SCHEDD": "Scheduler", "STARTD": "Machine", "MASTER": "DaemonMaster"}
    node.sh(
        "cat > /tmp/ad",
        stdin=f'MyType = "{types[kind]}"\nName = "{name}"\nMachine = "{machine}"\n'
        'MyAddress = "<10.9.9.9:9618>"\nState = "Unclaimed"\nActivity = "Idle"\n',
    )
    node.tried(f"{as_node()} condor_advertise UPDATE_{kind}_AD /tmp/ad")


def test_an_executor_is_no_access_point(pool: Trio) -> None:
    control = f"x@{pool.submit.hostname}"
    advertise(pool.execute, "SCHEDD", pool.execute.hostname, pool.execute.hostname)
    advertise(pool.submit, "SCHEDD", control, control)
    listed = "condor_status -schedd -af Name"
    # The control was sent later: once it is there, the other one would be, too.
    eventually(lambda: control in pool.master.sh(listed), 20, pool.master)
    assert pool.execute.hostname not in pool.master.sh(listed)


def test_a_node_speaks_for_itself_alone(pool: Trio) -> None:
    me, other = pool.execute.hostname, pool.submit.hostname
    control = f"slot9@{me}"
    advertise(pool.execute, "STARTD", "slot7@elsewhere", "elsewhere")
    advertise(pool.execute, "STARTD", f"slot8@{me}", "elsewhere")
    advertise(pool.execute, "MASTER", f"x@{other}", other)
    advertise(pool.execute, "STARTD", control, me)
    advertise(pool.submit, "SCHEDD", "elsewhere", "elsewhere")
    advertise(pool.submit, "MASTER", f"y@{me}", me)
    advertise(pool.submit, "MASTER", f"y@{other}", other)

    def names(kind: str) -> set[str]:
        return set(pool.master.sh(f"condor_status {kind} -af Name").split())

    # The controls were sent last: once they are there, the others would be, too.
    eventually(lambda: control in names(""), 20, pool.master)
    eventually(lambda: f"y@{other}" in names("-master"), 20, pool.master)
    assert not {"slot7@elsewhere", f"slot8@{me}"} & names("")
    assert not {f"x@{other}", f"y@{me}"} & names("-master")
    assert "elsewhere" not in names("-schedd")
    # That something was refused, and from where it came, stands in the log.
    refusal = (
        f"COLLECTOR_REQUIREMENTS VIOLATION: requirements do not match ad from <{pool.execute.ip}"
    )
    eventually(lambda: any(refusal in line for line in pool.master.lines()), 20, pool.master)


def address(pool: Trio, kind: str, node: Node) -> str:
    """Where the daemon of that kind on that node answers, quoted for a shell."""
    mine = f'Machine == "{node.hostname}"'
    found = pool.master.sh(f"condor_status -{kind} -constraint '{mine}' -af MyAddress").split()
    assert len(found) == 1, found
    return f"'{found[0]}'"


def test_an_executor_submits_removes_and_commands_nothing(pool: Trio) -> None:
    job = "executable = /bin/true\nhold = true\nqueue\n"
    schedd = address(pool, "schedd", pool.submit)
    collector = address(pool, "collector", pool.master)
    # The control: this address, this job, from the user of the access point.
    pool.submit.sh("cat > held.sub", user="john", stdin=job)
    pool.submit.sh("condor_submit held.sub", user="john")
    pool.execute.sh("cat > held.sub", stdin=job)
    jobs = f"condor_q -addr {schedd} -all -af Owner JobStatus JobPrio"
    before = pool.execute.sh(jobs)
    assert before.split() == ["john", "5", "0"]
    for command in (
        f"condor_submit -addr {schedd} held.sub",
        f"condor_rm -addr {schedd} -all",
        f"condor_off -schedd -addr {schedd}",
        f"condor_off -collector -addr {collector}",
    ):
        status, text = pool.execute.tried(command)
        assert status != 0, f"{command}: {text}"
    assert pool.execute.sh(jobs) == before
    for node in pool.nodes:
        healthy(node)


def levels(node: Node, address: str, user: str) -> set[str]:
    """What an identity may do there, as condor_ping finds out: the node's own for root."""
    who = as_node() if user == "root" else ""
    text = node.tried(f"{who} condor_ping -addr {address} -table ALL", user=user)[1]
    rows = [line.split() for line in text.splitlines() if line.strip()]
    assert rows[0][:2] == ["Instruction", "Authentication"], text
    return {row[0] for row in rows if row[4] == "ALLOW"}


def test_each_identity_may_do_what_its_role_needs(pool: Trio) -> None:
    collector = address(pool, "collector", pool.master)
    schedd = address(pool, "schedd", pool.submit)
    read = {"ALLOW", "READ"}
    for node, user, where, more in (
        (pool.execute, "root", collector, {"ADVERTISE_STARTD", "ADVERTISE_MASTER"}),
        (pool.execute, "root", schedd, set[str]()),
        (pool.submit, "root", collector, {"ADVERTISE_SCHEDD", "ADVERTISE_MASTER"}),
        (pool.submit, "john", collector, set[str]()),
        (pool.submit, "john", schedd, {"WRITE"}),
    ):
        found = levels(node, where, user)
        assert found == read | more, f"{user} of {node.name} at {where}: {found}"
