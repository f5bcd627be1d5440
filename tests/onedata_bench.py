"""A stub of Onedata in the test's own process, and what speaks with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from onedatafilerestclient import OnedataFileRESTClient

from onedata_stub import SPACE, Stub
from roost_node import pki
from roost_node.data.onedata import zone
from roost_node.data.onedata.space import Space

TOKEN = "a-token-of-johns"


def certificate(directory: Path, *names: str) -> tuple[Path, Path, Path]:
    """A CA of its own; a certificate for these host names, and its key: three files."""
    ca_key, ca = pki.new_ca("onedata")
    key = pki.new_key()
    signed = pki.sign_node(ca_key, ca, pki.csr(key, "stub"), "submit", "stub", also=names)
    files = tuple(directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
    for file, data in zip(files, (ca, signed, key), strict=True):
        file.write_bytes(data)
    return files  # type: ignore[return-value]


@contextmanager
def running(directory: Path) -> Iterator[tuple[Stub, Path]]:
    """The stub, with one token that is good, and the file of the CA that it is believed by."""
    ca, cert, key = certificate(directory, "localhost")
    stub = Stub(cert, key)
    stub.tokens[TOKEN] = None
    try:
        yield stub, ca
    finally:
        stub.close()


def client(stub: Stub, ca: Path, token: str = TOKEN, timeout: float = 5) -> OnedataFileRESTClient:
    return OnedataFileRESTClient(
        stub.domain, token, verify_ssl=cast(bool, str(ca)), timeout=cast(int, (5, timeout))
    )


def space(stub: Stub, ca: Path, *, root: str = "", token: str = TOKEN, timeout: float = 5) -> Space:
    found = zone.space(zone.ask(stub.domain, token, str(ca)), SPACE)
    return Space(client(stub, ca, token, timeout), found, root)
