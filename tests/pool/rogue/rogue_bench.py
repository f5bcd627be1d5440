"""A stranger's container beside a real pool, and a certificate of every kind to come with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from node_bench import Node, docker
from roost_bench import fresh, taken_down, well, write

from roost import client
from roost.security import PoolKeys, state_home
from roost_node import pki
from roost_node.vocab import CA_CERT, CA_KEY, CONDOR_PORT, Role, identity, pool_domain

#: All that HTCondor has beside SSL: each is offered to pools that want SSL alone.
METHODS: Final = (
    "FS", "FS_REMOTE", "CLAIMTOBE", "PASSWORD", "ANONYMOUS", "MUNGE", "KERBEROS", "SCITOKENS",
    "TOKEN", "IDTOKENS",
)  # fmt: skip

#: Where each daemon is that may be asked: its node, and its name behind the shared port.
WHERE: Final = {
    "collector": ("master", ""),
    "schedd": ("submit", "schedd"),
    "startd": ("execute-1", "startd"),
}


@dataclass(frozen=True)
class Place:
    """A pool that `roost up` made, and a stranger in its network."""

    pool: str
    stranger: Node
    addresses: Mapping[str, str]
    """Of the daemons in `WHERE`."""
    names: Mapping[str, str]
    """What HTCondor calls each principal that has a certificate."""

    def node(self, name: str) -> Node:
        return Node(f"{self.pool}-{name}")

    def tried(self, who: str, command: str, *env: str, stdin: str = "") -> tuple[int, str]:
        """Status and words of a command that the stranger runs as that principal."""
        return self.stranger.tried(command, env=(f"CONDOR_CONFIG=/p/{who}/config", *env),
                                   stdin=stdin)  # fmt: skip


@contextmanager
def place(
    image: str, prefix: str, directory: Path, *, cpus: int = 1, memory: str = "256MiB"
) -> Iterator[Place]:
    """A small pool with the users john and mary, and its stranger; all gone at the end."""
    with taken_down(fresh(prefix)) as pool:
        well("up", write(
            directory / "pool.yaml",
            f"name: {pool}\nsubmit: {{users: [john, mary]}}\n"
            f"execute: [{{name: execute, count: 1, cpus: {cpus}, memory: {memory}}}]\n",
        ))  # fmt: skip
        addresses = {
            daemon: client.sinful(
                f"{Node(f'{pool}-{node}').ip}:{CONDOR_PORT}", f"{pool}-{node}", sock=sock
            )
            for daemon, (node, sock) in WHERE.items()
        }
        certificates = _certificates(pool)
        _equip(directory, pool, addresses, certificates)
        stranger = Node(f"{pool}-stranger")
        try:
            docker("run", "-d", "--name", stranger.name, "--network", pool, "--init",
                   "-v", f"{directory}:/p", "--entrypoint", "sleep", image, "infinity")  # fmt: skip
            yield Place(
                pool, stranger, addresses,
                {who: f"{pki.common_name(cert)}@{pool_domain(pool)}"
                 for who, (cert, _) in certificates.items() if cert},
            )  # fmt: skip
        finally:
            docker("rm", "-f", stranger.name)


def _equip(
    directory: Path,
    pool: str,
    addresses: Mapping[str, str],
    certificates: Mapping[str, tuple[bytes, bytes]],
) -> None:
    """Each principal's files and configuration, in a directory that the stranger has as /p."""
    home = state_home() / pool
    directory.chmod(0o755)  # condor_off looks whether HTCondor's own user can read there
    for who, (cert, key) in certificates.items():
        there = directory / who
        there.mkdir()
        (there / "ca.crt").write_bytes((home / CA_CERT).read_bytes())
        # HTCondor's own form: the address, and the version of whom it is.
        (there / "schedd").write_text(f"{addresses['schedd']}\n")
        if cert:
            (there / "crt").write_bytes(cert)
            (there / "key").write_bytes(key)
            (there / "key").chmod(0o600)
        inside = Path("/p", who)
        config = client.configuration(
            pool, collectors=[addresses["collector"]], schedd_file=inside / "schedd",
            ca=inside / "ca.crt", cert=inside / "crt", key=inside / "key",
        )  # fmt: skip
        if who == "nobody":
            config += f"SEC_CLIENT_AUTHENTICATION_METHODS = SSL, {', '.join(METHODS)}\n"
        (there / "config").write_text(config)


def _certificates(pool: str) -> dict[str, tuple[bytes, bytes]]:
    """Each principal's certificate and key; the names are those of `rights.RIGHTS`."""
    home = state_home() / pool
    ours = (home / CA_KEY).read_bytes(), (home / CA_CERT).read_bytes()
    theirs = pki.new_ca(pool)

    def node(
        role: Role, name: str, days: float = 1, ca: tuple[bytes, bytes] = ours
    ) -> tuple[bytes, bytes]:
        key = pki.new_key()
        return pki.sign_node(*ca, pki.public_key(key), role, f"{pool}-{name}", days=days), key

    def named(name: str) -> tuple[bytes, bytes]:
        """Past all that checks a name: as if the authority itself had gone astray."""
        key = pki.new_key()
        return pki._sign(*ours, pki.public_key(key), name, 1), key

    def user(name: str) -> tuple[bytes, bytes]:
        files = PoolKeys(pool).write_user(name)
        return files.certificate.read_bytes(), files.key.read_bytes()

    return {
        "nobody": (b"", b""),
        "foreign": node("execute", "execute-1", ca=theirs),
        "self-signed": _self_signed(identity("master", f"{pool}-master")),
        "tampered": _renamed(node("execute", "execute-1"), b"execute-1", b"execute-2"),
        "expired": node("execute", "execute-1", days=-60 / 86400),
        "unmapped": named("john doe"),
        "revoked": user("mallory"),
        "reader": named("reader"),
        "user": user("john"),
        "other-user": user("mary"),
        "executor": node("execute", "execute-1"),
        "other-executor": node("execute", "execute-2"),
        "access-point": node("submit", "submit"),
        "other-access-point": node("submit", "submit-2"),
        "master": node("master", "master"),
    }


def _self_signed(name: str) -> tuple[bytes, bytes]:
    key, now = pki.new_key(), datetime.now(UTC)
    private, subject = pki._private(key), pki._name(name)
    builder = pki._builder(subject, subject, private.public_key(), now, 1, now + timedelta(days=1))
    return pki._pem(builder.sign(private, hashes.SHA256())), key


def _renamed(pair: tuple[bytes, bytes], old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """The same with another name of the same length, and the signature that it had."""
    der = x509.load_pem_x509_certificate(pair[0]).public_bytes(serialization.Encoding.DER)
    assert old in der
    return pki._pem(x509.load_der_x509_certificate(der.replace(old, new))), pair[1]
