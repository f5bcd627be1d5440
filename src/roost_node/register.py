"""The master's side of admission: who asked, who may, and the certificates they got.

A node sends a request to sign its own key. It is admitted at once with a join token, or while an
administrator has opened its network; else it waits until somebody approves it by its id. The state
is files below STATE_DIR/admit, so that `docker exec MASTER roost-node approve` works on the same:

    tokens/<id>.json      join tokens: a hash of the secret, never the secret
    pending/<id>.json     requests that wait
    refused/<id>.json     requests that an administrator refused
    issued/<cn>.json      who holds a name now, and the certificate
    networks.json         networks that are let in, and until when
    revoked.json          who is revoked, and since when
    rotation              there while the authority is being replaced: how far that is
    notice                what every node is to know of this (notice.py)

A request's id stands for one key under one name: neither can be changed after the approval.
"""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from roost_node import files, notice, pki, tokens
from roost_node.errors import BadInput, NodeError
from roost_node.notice import Notice
from roost_node.vocab import (
    CA_CERT,
    CA_KEY,
    DEFAULT_POOL,
    DUE,
    IDENTITY_PREFIX,
    LIFETIME,
    MASTERS_NOTICE,
    NODE_CERT,
    NODE_KEY,
    READER_IDENTITY,
    ROLES,
    Role,
    identity,
)

Say = Callable[[str], None]

#: Requests that may wait at a time; more would be an attack, or nobody looking.
MAX_PENDING: Final = 256
#: A request is forgotten when its node has not asked for so long, in seconds.
PENDING_LIFE: Final = 3600
#: Nodes that join by themselves; a second master is nothing that a request can ask for.
JOIN_ROLES: Final = tokens.TOKEN_ROLES


@dataclass(frozen=True)
class Request:
    """A node that asks to be admitted."""

    id: str
    fingerprint: str
    """Of its key, short."""
    role: Role
    node: str
    csr: str
    address: str
    since: float
    """Unix time of its first asking."""
    note: str = ""
    """Why it is for an administrator to decide, where that is not the plain case."""

    @property
    def name(self) -> str:
        return identity(self.role, self.node)


@dataclass(frozen=True)
class Reply:
    """What a node is told: an HTTP status and a JSON object."""

    status: int
    body: dict[str, str]


def ensure_ca(
    state_dir: Path, pool: str | None, node: str, say: Say, *, now: datetime | None = None
) -> str:
    """The name of the pool whose identity and CA are in `state_dir`; made here if there are none.

    Delivered files are checked and left alone. A master that made its CA itself and comes back
    under another host name gets a certificate for that, too: it keeps the names its nodes know.
    Raises BadInput when what is there does not fit.
    """
    ca_key, ca_cert, cert, key = (
        state_dir / name for name in (CA_KEY, CA_CERT, NODE_CERT, NODE_KEY)
    )
    with files.locked(state_dir):
        if not ca_cert.exists() and not cert.exists():
            old = files.read(ca_key, "the CA key") if ca_key.exists() else None
            key_pem, cert_pem = pki.new_ca(pool or DEFAULT_POOL, old)
            files.write(ca_key, key_pem)
            files.write(ca_cert, cert_pem, 0o644)
            say(f"made the CA of pool {pool or DEFAULT_POOL}, fingerprint"
                f" {pki.fingerprint(cert_pem)}")  # fmt: skip
        ca_pem = files.read(ca_cert, "the CA certificate")
        there = pki.pool_of(ca_pem)
        if pool is not None and pool != there:
            raise BadInput(
                f"the CA in {ca_cert} is that of pool {there!r} and this is to be {pool!r};"
                " give the master that pool's name, or an empty volume"
            )
        if ca_key.exists():
            ca_key_pem = files.read(ca_key, "the CA key")
            pki.check_key(ca_key, ca_key_pem)
            if not any(pki.fits(ca_key_pem, each) for each in pki.authorities(ca_pem)):
                raise BadInput(f"the CA key {ca_key} does not fit the certificate {ca_cert}")
            own_certificate(state_dir, node, say, now=now)
        return pki.check(ca_cert, cert, key, "master", node, now=now)


def own_certificate(state_dir: Path, node: str, say: Say, *, now: datetime | None = None) -> None:
    """Issue the master's own certificate, unless it still serves for a while."""
    ca_key = files.read(state_dir / CA_KEY, "the CA key")
    ca_pem = files.read(state_dir / CA_CERT, "the CA certificate")
    cert = state_dir / NODE_CERT
    settle(state_dir)
    also: Sequence[str] = ()
    if cert.exists():
        old = files.read(cert, "the certificate")
        try:
            pki.expires(old)
        except BadInput:
            return  # not one at all, for `pki.check` to say
        theirs = pki.issuing(ca_pem, ca_key) == pki.issuer(ca_pem, old)
        fresh = (now or datetime.now(UTC)) < pki.renewal(old)
        named = pki.common_name(old) == identity("master", node)
        if pki.issuer(ca_pem, old) is None or (theirs and fresh and named):
            return  # another authority's: for `pki.check` to say so
        if not named and not (state_dir / "admit" / "self").exists():
            return  # delivered for another host name: that too
        also = pki.host_names(old)
    else:
        made_here = state_dir / "admit" / "self"
        made_here.parent.mkdir(mode=0o700, exist_ok=True)
        made_here.touch()
    new = pki.new_key()
    signed = pki.sign_node(
        ca_key, ca_pem, pki.public_key(new), "master", node, days=lifetime(state_dir), also=also
    )
    put_pair(state_dir, new, signed)
    say(f"issued the master's own certificate, {identity('master', node)}")


def lifetime(state_dir: Path) -> float:
    """How long the certificates of this master are good, in days."""
    try:
        return float((state_dir / LIFETIME).read_text()) / 86400
    except (FileNotFoundError, ValueError):
        return pki.NODE_DAYS


def put_pair(state_dir: Path, key: bytes, cert: bytes) -> None:
    """Replace a node's key and certificate, so that they fit after whatever happens (`settle`)."""
    new_cert = state_dir / f"{NODE_CERT}.next"
    files.write(new_cert, cert, 0o644)
    files.write(state_dir / NODE_KEY, key)
    new_cert.replace(state_dir / NODE_CERT)
    files.write(state_dir / DUE, f"{pki.renewal(cert).timestamp():.0f}\n".encode(), 0o644)


def settle(state_dir: Path) -> None:
    """End a replacement that was cut off between its two files."""
    new_cert, key = state_dir / f"{NODE_CERT}.next", state_dir / NODE_KEY
    if new_cert.exists() and key.exists():
        if pki.fits(files.read(key, "the private key"), files.read(new_cert, "the certificate")):
            new_cert.replace(state_dir / NODE_CERT)
        else:
            new_cert.unlink()


class Admissions:
    """The register of who asked and who was let in; safe from several threads and processes.

    Every method may raise BadInput when the state directory does not hold a pool's CA.
    """

    def __init__(self, state_dir: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._state = state_dir
        self._dir = state_dir / "admit"
        self._clock = clock
        if not (state_dir / CA_KEY).exists():
            raise BadInput(
                f"the CA key {state_dir / CA_KEY} does not exist: of two masters the first has it,"
                " and admits nodes"
            )
        self.pool = pki.pool_of(self._ca_cert)
        pki.issuing(self._ca_cert, self._ca_key)
        self.master = pki.common_name(
            files.read(state_dir / NODE_CERT, "the certificate")
        ).removeprefix(identity("master", ""))
        for part in ("", "tokens", "pending", "refused", "issued"):
            (self._dir / part).mkdir(mode=0o700, exist_ok=True)
            _inherit_owner(self._dir / part)

    # Read each time: both may be replaced while the master runs.

    @property
    def _ca_cert(self) -> bytes:
        return files.read(self._state / CA_CERT, "the CA certificate")

    @property
    def _ca_key(self) -> bytes:
        return files.read(self._state / CA_KEY, "the CA key")

    @property
    def ca_cert(self) -> bytes:
        """The authority that signs now."""
        return pki.issuing(self._ca_cert, self._ca_key)

    # --- what nodes ask -----------------------------------------------------------------------

    def request(self, asked: dict[str, Any], address: str, say: Say) -> Reply:
        """Decide on one request. Says each decision once; a node that asks again is not news."""
        try:
            role, node, csr = _valid(asked)
        except BadInput as error:
            return Reply(400, {"error": str(error)})
        key = pki.public_key(csr)
        request = Request(
            pki.request_id(role, node, key), pki.fingerprint(key), role, node, csr.decode(),
            address, self._clock(),
        )  # fmt: skip
        who = f"{address}: {role} {request.name}, key {request.fingerprint}, id {request.id}"
        with files.locked(self._dir):
            return self._decide(request, asked, who, say)

    def _decide(self, request: Request, asked: dict[str, Any], who: str, say: Say) -> Reply:
        if request.name in self._revoked():
            say(f"{who}: refused: {request.name} is revoked")
            return Reply(403, {"error": _is_revoked(request.name)})
        if self._path("refused", request.id).exists():
            say(f"{who}: refused before by an administrator")
            return Reply(403, {"error": f"the master's administrator refused {request.name}"})
        held = self._held(request.name)
        if held is not None and held["id"] == request.id:
            return self._admitted(request, held["certificate"], asked)
        note = ""
        text = asked.get("token")
        if self._is_own(text):
            pass  # it may have any name of its role
        elif held is not None:
            note = f"{request.name} is already issued to the key {held['fingerprint']}"
        elif self._delivered() and request.node.startswith(f"{self.pool}-"):
            note = f"names that begin with {self.pool}- are those of nodes that roost itself makes"
        how = ""
        if text is not None and not note:
            try:
                how = self._spend(text, request)
            except BadInput as error:
                say(f"{who}: refused: {error}")
                return Reply(403, {"error": str(error)})
        elif not note and (network := self._open_network(request.address)):
            how = f"the open network {network}"
        if how:
            reply = self._admitted(request, self._issue(request), asked)
            say(f"{who}: admitted by {how}")
            return reply
        return self._wait(request, note, who, say)

    def _wait(self, request: Request, note: str, who: str, say: Say) -> Reply:
        path = self._path("pending", request.id)
        if not path.exists():
            if len(self._pending()) >= MAX_PENDING:
                say(f"{who}: turned away: {MAX_PENDING} requests are waiting already")
                return Reply(503, {"error": "too many requests wait for the master's approval"})
            record = asdict(request) | {"note": note}
            files.write(path, json.dumps(record).encode())
            say(f"{who}: waits for `roost-node approve {request.id}`" + (note and f" ({note})"))
        os.utime(path, (self._clock(), self._clock()))
        message = f"waits for an administrator{note and ': ' + note}"
        return Reply(
            202, {"id": request.id, "fingerprint": request.fingerprint, "message": message}
        )

    def _is_own(self, text: Any) -> bool:
        """Whether this is a token for the pool's own nodes; `_spend` says whether it is good."""
        with suppress(BadInput):
            token = tokens.parse(text if isinstance(text, str) else "")
            record = tokens.load(self._dir / "tokens", token.id)
            return record is not None and record.own and record.matches(token)
        return False

    def _spend(self, text: Any, request: Request) -> str:
        """Use a token for a request. Raises BadInput, saying why not."""
        token = tokens.parse(text if isinstance(text, str) else "")
        record = tokens.load(self._dir / "tokens", token.id)
        if record is None or not record.matches(token):
            raise BadInput(
                "the join token is not known to this master; make one there:"
                f" roost-node join-token {request.role}"
            )
        tokens.check(record, request.role, self._clock())
        spent = record.spent_on(request.id)
        if spent.uses < 0:
            raise BadInput(
                "the join token is used up; make a new one on the master:"
                f" roost-node join-token {request.role}"
            )
        # Before the certificate: a crash in between leaves a token that the same key may repeat.
        tokens.save(self._dir / "tokens", spent)
        return f"join token {token.id}"

    def _issue(self, request: Request, previous: str = "", heeded: int | None = None) -> str:
        """`previous` is the key that asked for this one; `heeded` the notice that it knows."""
        certificate = pki.sign_node(
            self._ca_key, self._ca_cert, request.csr.encode(), request.role, request.node,
            days=lifetime(self._state),
        ).decode()  # fmt: skip
        record = asdict(request) | {
            "certificate": certificate,
            "issued": self._clock(),
            "previous": previous,
            "heeded": self.notice.number if heeded is None else heeded,
        }
        files.write(self._path("issued", request.name), json.dumps(record).encode())
        self._path("pending", request.id).unlink(missing_ok=True)
        return certificate

    def _admitted(self, request: Request, certificate: str, asked: dict[str, Any]) -> Reply:
        body = {
            "certificate": certificate,
            "ca": self._ca_cert.decode(),
            "pool": self.pool,
            "master": self.master,
        }
        if request.role == "submit" and (reader := asked.get("reader_csr")):
            body["reader_certificate"] = pki.sign_reader(
                self._ca_key, self._ca_cert, reader.encode(), days=lifetime(self._state)
            ).decode()
        return Reply(200, body)

    def _held(self, name: str) -> dict[str, Any] | None:
        """Who holds a name, if their certificate is still valid."""
        record = _load(self._path("issued", name))
        if record is None:
            return None
        end = pki.expires(record["certificate"].encode()).timestamp()
        return record if end > self._clock() else None

    # --- renewal ------------------------------------------------------------------------------

    def renew(self, asked: dict[str, Any], address: str, say: Say) -> Reply:
        """A new certificate for who has one: the new key's request, signed by the present key.

        The present certificate may have ended not long ago, and must be the latest of its name.
        """
        try:
            role, node, csr = _valid(asked, ROLES)
            old = _proved(asked, identity(role, node), csr)
        except BadInput as error:
            return Reply(400, {"error": str(error)})
        heeded = asked.get("number")
        key = pki.public_key(csr)
        request = Request(
            pki.request_id(role, node, key), pki.fingerprint(key), role, node, csr.decode(),
            address, self._clock(),
        )  # fmt: skip
        with files.locked(self._dir):
            why = self._not_renewed(request.name, old)
            if why:
                say(f"{address}: {request.name}: not renewed: {why}")
                return Reply(403, {"error": why})
            certificate = self._issue(
                request, pki.fingerprint(pki.public_key(old)),
                heeded if type(heeded) is int else 0,
            )  # fmt: skip
            end = pki.expires(certificate.encode())
            say(f"{address}: renewed {request.name}, key {request.fingerprint}, until"
                f" {end:%F %T} UTC")  # fmt: skip
            if (self_end := pki.expires(self.ca_cert)) - end < pki.CA_NEAR:
                say(f"the pool's CA ends at {self_end:%F %T} UTC: replace it in time, with"
                    " `roost credential rotate`")  # fmt: skip
            return self._admitted(request, certificate, asked)

    def _not_renewed(self, name: str, old: bytes) -> str:  # noqa: PLR0911 - one for each reason
        """Why this certificate has no successor; empty if it may have one."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        if name in self._revoked():
            return _is_revoked(name)
        if pki.issuer(self._ca_cert, old) is None:
            return "its certificate is not from this pool's CA"
        if now > pki.expires(old) + pki.GRACE:
            return f"its certificate expired at {pki.expires(old):%F %T} UTC, too long ago"
        if now < pki.issued(old) - pki.CLOCK_SKEW:
            return (
                f"its certificate is not valid before {pki.issued(old):%F %T} UTC and it is"
                f" {now:%F %T} UTC here; check the clocks of both machines"
            )
        record = _load(self._path("issued", name))
        if record is None:
            return ""
        current = record["certificate"].encode()
        known = (record["fingerprint"], record.get("previous", ""))
        if pki.fingerprint(pki.public_key(old)) in known or pki.issued(old) > pki.issued(current):
            return ""
        return f"{name} has a newer certificate, for the key {record['fingerprint']}"

    # --- notices ------------------------------------------------------------------------------

    @property
    def notice(self) -> Notice:
        """What was announced last."""
        try:
            return notice.own((self._state / MASTERS_NOTICE).read_bytes())
        except FileNotFoundError:
            return Notice()

    def _revoked(self) -> dict[str, float]:
        found: dict[str, float] = _load(self._dir / "revoked.json") or {}
        return found

    def _announce(self) -> int:
        """Publish the present state; the notice's number."""
        # Above any number before, also if the register was lost.
        number = max(self.notice.number + 1, int(self._clock()))
        new = Notice(number, tuple(sorted(self._revoked())), self._ca_cert.decode())
        files.write(self._state / MASTERS_NOTICE, notice.dump(new, self._ca_key), 0o644)
        return number

    def revoke(self, names: Sequence[str], say: Say, *, undo: bool = False) -> list[str]:
        """Refuse these identities everywhere from now on, or (`undo`) no more. Raises BadInput."""
        with files.locked(self._dir):
            there = self._revoked()
            found = [self._identity(name) for name in names]
            for name in found:
                if undo and name not in there:
                    raise BadInput(f"{name} is not revoked")
            for name in found:
                if undo:
                    del there[name]
                    say(f"{name} counts again")
                elif name not in there:
                    there[name] = self._clock()
                    say(f"revoked {name}")
                else:
                    say(f"{name} is revoked already")
            files.write(self._dir / "revoked.json", json.dumps(there).encode())
            self._announce()
        return found

    def _identity(self, who: str) -> str:
        """The identity that somebody means: itself, a node's name, or a certificate's id."""
        records = {path.stem: _load(path) for path in (self._dir / "issued").glob("*.json")}
        matching = [
            name
            for name, record in records.items()
            if record["node"] == who or pki.serial(record["certificate"].encode()) == who
        ]
        if len(matching) > 1:
            raise BadInput(f"{who} means {' and '.join(sorted(matching))}; say which")
        name = matching[0] if matching else who
        role = next((role for role in JOIN_ROLES if name.startswith(IDENTITY_PREFIX[role])), None)
        if name == READER_IDENTITY or name.startswith(IDENTITY_PREFIX["master"]):
            raise BadInput(f"{name} cannot be revoked: the pool stands on it; rotate instead")
        if role is not None:
            pki.check_node(name.removeprefix(IDENTITY_PREFIX[role]))
        else:
            pki.check_user(name)
        return name

    def credentials(self) -> list[dict[str, Any]]:
        """Every certificate that this master issued last under a name, and who is revoked."""
        with files.locked(self._dir):
            revoked = self._revoked()
            rows: dict[str, dict[str, Any]] = {}
            for path in sorted((self._dir / "issued").glob("*.json")):
                record = _load(path)
                cert = record["certificate"].encode()
                rows[path.stem] = {
                    "name": path.stem,
                    "role": record["role"],
                    "id": pki.serial(cert),
                    "issued": pki.issued(cert).timestamp(),
                    "expires": pki.expires(cert).timestamp(),
                }
            own = files.read(self._state / NODE_CERT, "the certificate")
            rows[pki.common_name(own)] = {
                "name": pki.common_name(own),
                "role": "master",
                "id": pki.serial(own),
                "issued": pki.issued(own).timestamp(),
                "expires": pki.expires(own).timestamp(),
            }
            for name in revoked:
                rows.setdefault(name, {"name": name, "role": "", "id": "", "issued": None,
                                       "expires": None})  # fmt: skip
            return [row | {"revoked": revoked.get(row["name"])} for row in rows.values()]

    # --- another authority --------------------------------------------------------------------

    def rotation(self, live: Sequence[str]) -> dict[str, Any]:
        """How far the replacement of the CA is, and which of `live` it waits for."""
        with files.locked(self._dir):
            stage = self._stage()
            number, waiting = self.notice.number, []
            for name in sorted(set(live) - set(self._revoked()) if stage else []):
                record = _load(self._path("issued", name))
                if (
                    record is None
                    or record.get("heeded", 0) < number
                    or pki.issuer(self.ca_cert, record["certificate"].encode()) is None
                ):
                    waiting.append(name)
            return {
                "stage": stage,
                "waiting": waiting,
                "ca": [pki.full_fingerprint(each) for each in pki.authorities(self._ca_cert)],
                "signs": pki.full_fingerprint(self.ca_cert),
            }

    def announce_authority(self, key: bytes, cert: bytes, say: Say) -> None:
        """Let every node trust another authority beside the present one. Raises BadInput."""
        with files.locked(self._dir):
            if not pki.fits(key, cert) or pki.pool_of(cert) != self.pool:
                raise BadInput(f"this is not an authority of the pool {self.pool!r}")
            if self._stage():
                raise BadInput("the CA is being replaced already; go on with that")
            bundle = self.ca_cert + pki.authorities(cert)[0]
            files.write(self._dir / "next.key", key)
            files.write(self._state / CA_CERT, bundle, 0o644)
            files.write(self._dir / "rotation", b"announced\n")
            say(f"announced the new CA, fingerprint {pki.fingerprint(cert)}: `{self._announce()}`")

    def switch_authority(self, node: str, say: Say) -> None:
        """Sign with the new authority from now on; every node renews. Raises BadInput."""
        with files.locked(self._dir):
            if self._stage() == "switched":
                return
            if self._stage() != "announced":
                raise BadInput("no new CA has been announced")
            key = files.read(self._dir / "next.key", "the new CA key")
            new = pki.issuing(self._ca_cert, key)
            old = b"".join(each for each in pki.authorities(self._ca_cert) if each != new)
            files.write(self._state / CA_KEY, key)
            files.write(self._state / CA_CERT, new + old, 0o644)
            files.write(self._dir / "rotation", b"switched\n")
            (self._dir / "next.key").unlink()
            own_certificate(self._state, node, say)
            self._announce()
            say(f"the new CA signs now, fingerprint {pki.fingerprint(new)}")

    def drop_authority(self, say: Say) -> None:
        """Trust the new authority alone. Raises BadInput."""
        with files.locked(self._dir):
            if self._stage() != "switched":
                raise BadInput("the new CA does not sign yet")
            files.write(self._state / CA_CERT, self.ca_cert, 0o644)
            (self._dir / "rotation").unlink()
            self._announce()
            say("the old CA does not count any more")

    def _stage(self) -> str:
        """`announced`, `switched`, or nothing while there is one authority."""
        try:
            return (self._dir / "rotation").read_text().strip()
        except FileNotFoundError:
            return ""

    def _delivered(self) -> bool:
        """Whether the CA came from outside: then names were issued that are not in `issued`."""
        return not (self._dir / "self").exists()

    # --- what administrators do ---------------------------------------------------------------

    def list_pending(self) -> list[Request]:
        """The requests that wait, the oldest first."""
        with files.locked(self._dir):
            return self._pending()

    def approve(self, ids: Sequence[str], say: Say) -> list[Request]:
        """Admit these requests, waiting or refused; all of them or, with BadInput, none."""
        with files.locked(self._dir):
            requests = [self._request(id, "pending", "refused") for id in ids]
            for request in requests:
                held = self._held(request.name)
                self._issue(request)
                self._path("refused", request.id).unlink(missing_ok=True)
                replaces = ""
                if held is not None and held["id"] != request.id:
                    replaces = f", instead of the key {held['fingerprint']}"
                say(f"approved {request.name}, key {request.fingerprint}{replaces}")
        return requests

    def refuse(self, ids: Sequence[str], say: Say) -> list[Request]:
        """Turn these requests away for good; all of them or, with BadInput, none."""
        with files.locked(self._dir):
            requests = [self._request(id, "pending") for id in ids]
            for request in requests:
                self._path("pending", request.id).replace(self._path("refused", request.id))
                say(f"refused {request.name}, key {request.fingerprint}")
        return requests

    def approve_network(self, cidr: str, seconds: float, say: Say) -> None:
        """Let in whoever asks from a network for so long, but not under a name that is taken.

        Behind an engine's published port every node may have the engine's own address.
        Raises BadInput.
        """
        try:
            network = ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            raise BadInput(
                f"{cidr!a} is not a network; write it as 172.17.0.0/16, or one address"
            ) from None
        if not 0 < seconds <= 86400:
            raise BadInput("a network is opened for more than no time and at most 24h; try 10m")
        until = self._clock() + seconds
        with files.locked(self._dir):
            opened = [*self._networks(), {"network": str(network), "until": until}]
            files.write(self._dir / "networks.json", json.dumps(opened).encode())
        say(f"opened {network} until {tokens.stamp(until)}")

    def new_token(
        self, role: Role, lifetime: float, uses: int, say: Say, *, own: bool = False
    ) -> str:
        """The text of a new join token; `lifetime` in seconds. Raises BadInput.

        `own`: for the pool's own nodes, whose names others may not have, and which begin anew.
        """
        if not 0 < uses <= 10000:
            raise BadInput("a join token is for 1 to 10000 uses")
        token = tokens.new(self.pool, role, pki.full_fingerprint(self._ca_cert), lifetime)
        with files.locked(self._dir):
            tokens.prune(self._dir / "tokens", self._clock())
            tokens.save(self._dir / "tokens", token.record(uses, own=own))
        say(f"made join token {token.id} for {role}{' of the pool' if own else ''}, {uses} uses,"
            f" until {tokens.stamp(token.expires)}")  # fmt: skip
        return token.text

    # --- files --------------------------------------------------------------------------------

    def _path(self, kind: str, id: str) -> Path:
        return self._dir / kind / f"{id}.json"

    def _request(self, id: str, *kinds: str) -> Request:
        id = id.strip().lower()
        if len(id) == 16 and set(id) <= set("0123456789abcdef"):
            for kind in kinds:
                if (record := _load(self._path(kind, id))) is not None:
                    return Request(**record)
        raise BadInput(
            f"no request {id[:64]!a} waits; `roost-node approve --list` shows those that do"
        )

    def _pending(self) -> list[Request]:
        requests = []
        for path in (self._dir / "pending").glob("*.json"):
            if path.stat().st_mtime + PENDING_LIFE < self._clock():
                path.unlink(missing_ok=True)
            elif (record := _load(path)) is not None:
                requests.append(Request(**record))
        return sorted(requests, key=lambda request: request.since)

    def _networks(self) -> list[dict[str, Any]]:
        networks = _load(self._dir / "networks.json") or []
        return [entry for entry in networks if entry["until"] > self._clock()]

    def _open_network(self, address: str) -> str:
        """The open network that the address is in; empty if none."""
        here = ipaddress.ip_address(address)
        for entry in self._networks():
            if here in ipaddress.ip_network(entry["network"]):
                return str(entry["network"])
        return ""


def _valid(asked: dict[str, Any], roles: Sequence[Role] = JOIN_ROLES) -> tuple[Role, str, bytes]:
    """Role, node and request for a signature. Raises BadInput."""
    role = next((each for each in roles if each == asked.get("role")), None)
    node, csr = asked.get("node"), asked.get("csr")
    if role is None:
        raise BadInput("only the roles submit and execute are admitted here")
    if not isinstance(node, str) or not isinstance(csr, str):
        raise BadInput("a request has role, node and csr")
    pki.check_node(node)
    for pem in (csr, asked.get("reader_csr", csr)):
        if not isinstance(pem, str) or "CERTIFICATE REQUEST-----" not in pem:
            raise BadInput("what is to be signed is not a certificate request in PEM")
        pki.public_key(pem.encode(errors="replace"))
    return role, node, csr.encode(errors="replace")


def _proved(asked: dict[str, Any], name: str, csr: bytes) -> bytes:
    """The certificate with whose key a renewal is signed. Raises BadInput."""
    cert, signature = asked.get("certificate"), asked.get("signature")
    if not isinstance(cert, str) or not isinstance(signature, str):
        raise BadInput("a renewal has certificate and signature")
    old = cert.encode(errors="replace")
    if "BEGIN CERTIFICATE-----" not in cert or not pki.vouches(old, csr, signature):
        raise BadInput("the request is not signed by the certificate's key")
    if pki.common_name(old) != name:
        raise BadInput(f"the certificate is not that of {name}")
    return old


def _is_revoked(name: str) -> str:
    return f"{name} is revoked; give the node another host name, or ask the pool's administrator"


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise NodeError(f"{path} is damaged; remove it") from None


def _inherit_owner(path: Path) -> None:
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
