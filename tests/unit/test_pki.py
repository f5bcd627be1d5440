"""Certificates: what they say, and one sentence for each way in which they can be wrong."""

from __future__ import annotations

import hashlib
import os
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from roost_node import pki
from roost_node.errors import BadInput

CA_KEY, CA = pki.new_ca("physics")
OTHER_KEY, OTHER_CA = pki.new_ca("physics")
KEY = pki.new_key()
CERT = pki.sign_node(CA_KEY, CA, pki.public_key(KEY), "execute", "ex1")


def purposes(pem: bytes) -> set[x509.ObjectIdentifier]:
    certificate = x509.load_pem_x509_certificate(pem)
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_authority_signs_certificates_and_nothing_signs_below_them() -> None:
    certificate = x509.load_pem_x509_certificate(CA)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert not usage.digital_signature
    assert pki.common_name(CA) == "physics.internal"
    assert pki.pool_of(CA) == "physics"


def test_a_key_that_exists_is_kept_by_a_new_authority() -> None:
    key, cert = pki.new_ca("physics", CA_KEY)
    assert key == CA_KEY
    assert pki.fits(CA_KEY, cert)


def test_a_node_is_server_and_client_under_its_host_name() -> None:
    assert pki.common_name(CERT) == "exec-ex1"
    assert pki.host_names(CERT) == ("ex1",)
    assert purposes(CERT) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert pki.verify(CA, CERT, KEY, "exec-ex1") == "physics"


@pytest.mark.parametrize("reader", [True, False])
def test_users_and_the_reader_are_clients_only(reader: bool) -> None:
    public = pki.public_key(KEY)
    if reader:
        cert = pki.sign_reader(CA_KEY, CA, public)
    else:
        cert = pki.sign_user(CA_KEY, CA, public, "john")
    assert pki.common_name(cert) == ("reader" if reader else "john")
    assert purposes(cert) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert pki.host_names(cert) == ()


@pytest.mark.parametrize(
    "name",
    ["cm-x", "ap-x", "exec-x", "reader", "root", "condor", "condor_pool", "slot1_1", "",
     "John", "a.b", "j/CN=root", "x" * 32, "-a", "a\n"],
)  # fmt: skip
def test_names_that_mean_something_else_are_no_users(name: str) -> None:
    with pytest.raises(BadInput):
        pki.sign_user(CA_KEY, CA, pki.public_key(KEY), name)


@pytest.mark.parametrize(
    "node", ["", "A", "a.b", "a_b", "-a", "a-", "x" * 59, "a\n", "ä", "a/CN=b"]
)
def test_host_names_that_are_no_identity(node: str) -> None:
    with pytest.raises(BadInput, match="cannot name a node"):
        pki.sign_node(CA_KEY, CA, pki.public_key(KEY), "execute", node)


@given(st.from_regex(pki.NODE_PATTERN, fullmatch=True))
def test_every_other_name_gets_a_certificate(node: str) -> None:
    cert = pki.sign_node(CA_KEY, CA, pki.public_key(KEY), "execute", node)
    assert pki.verify(CA, cert, KEY, f"exec-{node}") == "physics"


def test_what_a_request_says_of_itself_does_not_count() -> None:
    cert = pki.sign_node(CA_KEY, CA, pki.csr(KEY, "cm-master"), "execute", "ex1")
    assert pki.common_name(cert) == "exec-ex1"
    assert pki.fits(KEY, cert)


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    request = x509.load_pem_x509_csr(pki.csr(KEY, "exec-ex1"))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(BadInput):
        pki.public_key(forged)


def test_only_keys_on_p256() -> None:
    big = ec.generate_private_key(ec.SECP384R1()).public_key()
    other = rsa.generate_private_key(65537, 2048).public_key()
    for key in (big, other):
        pem = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with pytest.raises(BadInput, match="P-256"):
            pki.public_key(pem)


def test_nothing_outlives_its_authority() -> None:
    cert = pki.sign_node(CA_KEY, CA, pki.public_key(KEY), "execute", "ex1", days=100000)
    assert pki.expires(cert) == pki.expires(CA)


def test_it_is_valid_a_little_before_it_was_made() -> None:
    certificate = x509.load_pem_x509_certificate(CERT)
    assert datetime.now(UTC) - certificate.not_valid_before_utc > timedelta(minutes=5)


def test_fingerprints() -> None:
    assert pki.full_fingerprint(KEY) == pki.full_fingerprint(pki.public_key(KEY))
    assert pki.full_fingerprint(KEY) == pki.full_fingerprint(pki.csr(KEY, "exec-ex1"))
    certificate = ssl.PEM_cert_to_DER_cert(CA.decode())
    assert pki.full_fingerprint(CA) == hashlib.sha256(certificate).hexdigest()
    assert pki.fingerprint(CA).replace(":", "") == pki.full_fingerprint(CA)[:16]
    assert len(pki.fingerprint(CA).split(":")) == 8


def test_a_requests_id_stands_for_key_and_name() -> None:
    ids = {
        pki.request_id("execute", "ex1", KEY),
        pki.request_id("execute", "ex2", KEY),
        pki.request_id("submit", "ex1", KEY),
        pki.request_id("execute", "ex1", pki.new_key()),
    }
    assert len(ids) == 4
    assert pki.request_id("execute", "ex1", pki.csr(KEY, "x")) in ids


class Files:
    """A node's identity on disk."""

    def __init__(self, where: Path) -> None:
        where.mkdir(exist_ok=True)
        self.ca, self.cert, self.key = (where / name for name in ("ca.crt", "n.crt", "n.key"))
        self.ca.write_bytes(CA)
        self.cert.write_bytes(CERT)
        self.key.write_bytes(KEY)
        self.key.chmod(0o600)

    def check(self, now: datetime | None = None, node: str = "ex1") -> str:
        return pki.check(self.ca, self.cert, self.key, "execute", node, now=now)


@pytest.fixture
def there(tmp_path: Path) -> Files:
    return Files(tmp_path)


def refusal(there: Files, now: datetime | None = None, node: str = "ex1") -> str:
    with pytest.raises(BadInput) as caught:
        there.check(now, node)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert caught.value.exit_code == 2
    return sentence


def test_what_fits_is_accepted(there: Files) -> None:
    assert there.check() == "physics"


def test_missing(there: Files) -> None:
    there.key.unlink()
    assert "does not exist" in refusal(there)


def test_a_directory(there: Files) -> None:
    there.cert.unlink()
    there.cert.mkdir()
    assert "is a directory" in refusal(there)


def test_unreadable(there: Files) -> None:
    there.key.chmod(0)
    me = os.geteuid()
    if me == 0:  # nothing is unreadable to root
        os.seteuid(65534)
    try:
        assert "is unreadable" in refusal(there)
    finally:
        os.seteuid(me)


@pytest.mark.parametrize("which", ["ca", "cert", "key"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x00\xff", CA[: len(CA) // 2], b"x" * 10**6])
def test_not_pem(there: Files, which: str, content: bytes) -> None:
    path: Path = getattr(there, which)
    path.write_bytes(content)
    sentence = refusal(there)
    assert "PEM" in sentence or "larger" in sentence
    assert str(path) in sentence


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_key_that_others_may_read(there: Files, mode: int) -> None:
    there.key.chmod(mode)
    assert "others may read it; run chmod 600" in refusal(there)


def test_another_key(there: Files) -> None:
    there.key.write_bytes(pki.new_key())
    assert "is for another key" in refusal(there)


def test_another_pools_certificate(there: Files) -> None:
    there.ca.write_bytes(OTHER_CA)
    assert "another pool's" in refusal(there)


def test_a_certificate_that_another_node_signed(there: Files) -> None:
    """A node's key signs; nobody believes it."""
    there.cert.write_bytes(pki.sign_node(KEY, CA, pki.public_key(KEY), "execute", "ex1"))
    assert "not signed by the CA" in refusal(there)
    there.ca.write_bytes(CERT)
    assert "not the authority of a roost pool" in refusal(there)


def test_expired(there: Files) -> None:
    sentence = refusal(there, now=datetime.now(UTC) + timedelta(days=366))
    assert "expired at" in sentence
    assert "clock" in sentence


def test_not_yet_valid(there: Files) -> None:
    sentence = refusal(there, now=datetime.now(UTC) - timedelta(days=1))
    assert "not valid before" in sentence
    assert "clocks" in sentence


def test_another_name(there: Files) -> None:
    sentence = refusal(there, node="ex2")
    assert "is for 'exec-ex1' and this is 'exec-ex2'" in sentence


def test_openssl_agrees_under_its_strictest_rules(there: Files) -> None:
    """A handshake in memory, with the checks that Python 3.13 makes by default."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_verify_locations(there.ca)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(there.ca))
    for context in (server, client):
        context.load_cert_chain(there.cert, there.key)
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(down, up, server_hostname="ex1")
    two = server.wrap_bio(up, down, server_side=True)
    for side in (one, two, one, two):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert one.version() == "TLSv1.3"
    assert two.getpeercert() == one.getpeercert()
