"""Keys and certificates: values in, values out; the one place that makes or judges them.

A pool has a CA of its own. Every node and user has a certificate; its subject is a CN and nothing
else, because HTCondor's map file turns exactly `/CN=<name>` into an identity. Everything is PEM.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from roost_node import files
from roost_node.errors import BadInput
from roost_node.vocab import IDENTITY_PREFIX, READER_IDENTITY, Role, identity, pool_domain

CA_DAYS: Final = 3650
#: A node's certificate renews itself long before.
NODE_DAYS: Final = 7.0
#: A user's is renewed when `roost` is used.
USER_DAYS: Final = 30.0
#: The part of a certificate's life after which it is renewed.
RENEW_AFTER: Final = 2 / 3
#: How long after its end a certificate may still ask for its successor: a pool that stood still
#: over the holidays starts again.
GRACE: Final = timedelta(days=30)
#: A CA that ends so soon after what it signs is spoken of.
CA_NEAR: Final = timedelta(days=90)
#: How far apart the clocks of two machines may be.
CLOCK_SKEW: Final = timedelta(minutes=10)

#: One label of a host name; with the longest prefix it fits the 64 characters of a CN.
NODE_PATTERN: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,56}[a-z0-9])?")
USER_PATTERN: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
#: Names with a meaning of their own to the pool or to HTCondor.
_RESERVED: Final = re.compile(
    "|".join([*(f"{re.escape(prefix)}.*" for prefix in IDENTITY_PREFIX.values()), "condor.*"])
    + f"|{READER_IDENTITY}|root|daemon|nobody|anonymous|unauthenticated|unmapped|slot[0-9_]+"
)


def new_key() -> bytes:
    """A new private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def new_ca(pool: str, key: bytes | None = None) -> tuple[bytes, bytes]:
    """Key and certificate of a new authority for `pool`; `key` keeps one that exists."""
    key = key or new_key()
    private = _private(key)
    public = private.public_key()
    name = _name(pool_domain(pool))
    now = datetime.now(UTC)
    certificate = (
        _builder(name, name, public, now, CA_DAYS, now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    return key, _pem(certificate)


def csr(key: bytes, name: str) -> bytes:
    """A request for a certificate named `name`, signed by `key` to prove its possession."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    return request.sign(_private(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def public_key(pem: bytes) -> bytes:
    """The public key of a private key, request, certificate or public key.

    Raises BadInput if it is none of them, not on P-256, or a request that its key did not sign.
    """
    return _public(pem).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign_node(
    ca_key: bytes,
    ca_cert: bytes,
    request: bytes,
    role: Role,
    node: str,
    *,
    days: float = NODE_DAYS,
    also: Sequence[str] = (),
) -> bytes:
    """A certificate for a node: server and client, for its host name and those in `also`.

    `request` is a CSR or a public key; only its key counts. Raises BadInput for a host name that
    cannot be an identity.
    """
    names = dict.fromkeys([check_node(node), *also])
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    return _sign(ca_key, ca_cert, request, identity(role, node), days, server=san)


def sign_user(
    ca_key: bytes, ca_cert: bytes, request: bytes, name: str, *, days: float = USER_DAYS
) -> bytes:
    """A client certificate for a user. Raises BadInput for a name that a user may not have."""
    return _sign(ca_key, ca_cert, request, check_user(name), days)


def sign_reader(ca_key: bytes, ca_cert: bytes, request: bytes, *, days: float = NODE_DAYS) -> bytes:
    """A client certificate for the identity that may read the collector, and nothing else."""
    return _sign(ca_key, ca_cert, request, READER_IDENTITY, days)


def check_node(node: str) -> str:
    """`node`, if it can be part of an identity. Raises BadInput."""
    if not NODE_PATTERN.fullmatch(node):
        raise BadInput(
            f"the host name {_shown(node)} cannot name a node; use one label of lower-case letters,"
            " digits and inner hyphens, at most 58 characters"
        )
    return node


def check_user(name: str) -> str:
    """`name`, if a user may have it. Raises BadInput."""
    if not USER_PATTERN.fullmatch(name):
        raise BadInput(
            f"{_shown(name)} is not a user name; use at most 31 lower-case letters, digits,"
            " _ and -, beginning with a letter or _"
        )
    if _RESERVED.fullmatch(name):
        raise BadInput(f"{name!r} means something else to the pool; choose another user name")
    return name


def full_fingerprint(pem: bytes) -> str:
    """SHA-256 in 64 hexadecimal digits: of a certificate, or of the public key in anything else."""
    if b"-----BEGIN CERTIFICATE-----" in pem:
        return _certificate(pem, "the certificate").fingerprint(hashes.SHA256()).hex()
    der = _public(pem).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def fingerprint(pem: bytes) -> str:
    """The first eight bytes of it as people compare them: `a1:b2:c3:…`."""
    return short(full_fingerprint(pem))


def short(full: str) -> str:
    """The short form of a full fingerprint."""
    return ":".join(full[at : at + 2] for at in range(0, 16, 2))


def request_id(role: Role, node: str, key: bytes) -> str:
    """What an administrator approves: this key under this name, and nothing else."""
    asked = f"{identity(role, node)} {full_fingerprint(public_key(key))}"
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def authorities(pem: bytes) -> tuple[bytes, ...]:
    """Each certificate of a CA file: there are two while the authority is being replaced.

    Raises BadInput.
    """
    try:
        return tuple(_pem(each) for each in x509.load_pem_x509_certificates(pem))
    except ValueError:
        raise BadInput("the CA certificate is not a certificate in PEM") from None


def issuing(ca_certs: bytes, ca_key: bytes) -> bytes:
    """The certificate of this key among those of a CA file. Raises BadInput if there is none."""
    for each in authorities(ca_certs):
        if fits(ca_key, each):
            return each
    raise BadInput("the CA key does not fit the CA certificate")


def issuer(ca_certs: bytes, cert: bytes) -> bytes | None:
    """Which of the authorities in a CA file signed a certificate, if any did."""
    certificate = _certificate(cert, "the certificate")
    for each in authorities(ca_certs):
        try:
            certificate.verify_directly_issued_by(_certificate(each, "the CA certificate"))
        except (ValueError, TypeError, InvalidSignature):
            continue
        return each
    return None


def signed(key: bytes, data: bytes) -> str:
    """A signature, in hexadecimal digits."""
    return _private(key).sign(data, ec.ECDSA(hashes.SHA256())).hex()


def vouches(pem: bytes, data: bytes, signature: str) -> bool:
    """Whether the key in `pem` (of any kind) made this signature."""
    try:
        _public(pem).verify(bytes.fromhex(signature), data, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def pool_of(ca_cert: bytes) -> str:
    """The pool whose authority this is. Raises BadInput if it is not a pool's."""
    certificate = _certificate(ca_cert, "the CA certificate")
    name = common_name(ca_cert)
    pool = name.removesuffix(pool_domain(""))
    if not _is_ca(certificate) or not pool or name != pool_domain(pool):
        raise BadInput("the CA certificate is not the authority of a roost pool")
    return pool


def common_name(cert: bytes) -> str:
    """The subject's CN; empty if the subject is anything but one CN."""
    subject = list(_certificate(cert, "the certificate").subject)
    if len(subject) != 1 or subject[0].oid != NameOID.COMMON_NAME:
        return ""
    return str(subject[0].value)


def host_names(cert: bytes) -> tuple[str, ...]:
    """The host names that a certificate is for."""
    try:
        extension = _certificate(cert, "the certificate").extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return ()
    return tuple(extension.value.get_values_for_type(x509.DNSName))


def expires(cert: bytes) -> datetime:
    """The end of a certificate's validity."""
    return _certificate(cert, "the certificate").not_valid_after_utc


def issued(cert: bytes) -> datetime:
    """When a certificate was made."""
    return _certificate(cert, "the certificate").not_valid_before_utc + CLOCK_SKEW


def renewal(cert: bytes) -> datetime:
    """When a certificate is to be renewed."""
    began = issued(cert)
    return began + (expires(cert) - began) * RENEW_AFTER


def serial(cert: bytes) -> str:
    """What people call a certificate: the first 16 hexadecimal digits of its number."""
    return f"{_certificate(cert, 'the certificate').serial_number:040x}"[:16]


def fits(key: bytes, cert: bytes) -> bool:
    """Whether the certificate is for this private key."""
    return public_key(key) == public_key(cert)


def verify(
    ca_cert: bytes,
    cert: bytes,
    key: bytes,
    name: str,
    *,
    now: datetime | None = None,
    what: str = "the certificate",
) -> str:
    """The pool in which `key` with `cert` is `name`.

    Raises BadInput, one sentence, if they do not belong together, to this CA or to this time.
    """
    now = now or datetime.now(UTC)
    certificate, pool = _certificate(cert, what), pool_of(ca_cert)
    if not fits(key, cert):
        raise BadInput(f"{what} is for another key than the one beside it; deliver both anew")
    if (signer := issuer(ca_cert, cert)) is None:
        raise BadInput(
            f"{what} is not signed by the CA of pool {pool!r} beside it; it is another pool's,"
            " or the pool was made anew"
        )
    authority = _certificate(signer, "the CA certificate")
    for part, label in ((authority, "the CA certificate"), (certificate, what)):
        if now < part.not_valid_before_utc:
            raise BadInput(
                f"{label} is not valid before {part.not_valid_before_utc:%F %T} UTC and it is"
                f" {now:%F %T} UTC here; check the clocks of both machines"
            )
        if now > part.not_valid_after_utc:
            raise BadInput(
                f"{label} expired at {part.not_valid_after_utc:%F %T} UTC and it is {now:%F %T} UTC"
                " here; issue a new one, or check this machine's clock"
            )
    if (found := common_name(cert)) != name:
        raise BadInput(
            f"{what} is for {_shown(found)} and this is {name!r}; give the node that host name and"
            " role (docker run --hostname …), or empty its state directory"
        )
    return pool


def check(
    ca_cert: Path, cert: Path, key: Path, role: Role, node: str, *, now: datetime | None = None
) -> str:
    """The pool to which the files of a node's identity belong. Raises BadInput, one sentence."""
    ca_pem = files.read(ca_cert, "the CA certificate")
    cert_pem = files.read(cert, "the certificate")
    key_pem = files.read(key, "the private key")
    _certificate(ca_pem, f"the CA certificate {ca_cert}")
    _certificate(cert_pem, f"the certificate {cert}")
    check_key(key, key_pem)
    return verify(
        ca_pem, cert_pem, key_pem, identity(role, node), now=now, what=f"the certificate {cert}"
    )


def check_key(path: Path, pem: bytes) -> None:
    """Raises BadInput if the file does not hold a private key, or others may read it."""
    _private(pem, f"the private key {path}")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise BadInput(
            f"the private key {path} has mode {mode:04o}: others may read it;"
            f" run chmod 600 on it, and replace it if anybody did"
        )


def _sign(
    ca_key: bytes,
    ca_cert: bytes,
    request: bytes,
    name: str,
    days: float,
    server: x509.SubjectAlternativeName | None = None,
) -> bytes:
    several = len(authorities(ca_cert)) > 1
    authority = _certificate(issuing(ca_cert, ca_key) if several else ca_cert, "the CA certificate")
    private = _private(ca_key)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if server:
        purposes.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(
            _name(name), authority.subject, _public(request), datetime.now(UTC), days,
            authority.not_valid_after_utc,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()),
            critical=False,
        )
    )  # fmt: skip
    if server:
        builder = builder.add_extension(server, critical=False)
    return _pem(builder.sign(private, hashes.SHA256()))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    days: float,
    latest: datetime,
) -> x509.CertificateBuilder:
    """What authority and leaf have in common; nothing outlives the authority (`latest`)."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + timedelta(days=days), latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(pem: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise BadInput(f"{what} is not a certificate in PEM") from None


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _private(pem: bytes, what: str = "the private key") -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise BadInput(f"{what} is not an unencrypted private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput(f"{what} is not on the curve P-256")
    return key


def _public(pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        if b"PRIVATE KEY-----" in pem:
            key: object = _private(pem).public_key()
        elif b"BEGIN CERTIFICATE-----" in pem:
            key = x509.load_pem_x509_certificate(pem).public_key()
        elif b"CERTIFICATE REQUEST-----" in pem:
            request = x509.load_pem_x509_csr(pem)
            if not request.is_signature_valid:
                raise BadInput("the certificate request is not signed by its own key")
            key = request.public_key()
        else:
            key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError):
        raise BadInput("neither a key, a certificate request nor a certificate in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput("the key is not on the curve P-256")
    return key


def _shown(text: str) -> str:
    """Foreign text, safe and short enough for a sentence."""
    return ascii(text if len(text) <= 64 else text[:63] + "…")
