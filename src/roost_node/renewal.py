"""`roost-node renew`: a new certificate before the present one ends, and what the master announced.

HTCondor reads certificates and keys at every handshake (measured), so files that change under it
are all that renewal needs; who may do what it reads when it is told to.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from roost_node import files, join, notice, pki, register
from roost_node.errors import BadInput, NodeError
from roost_node.notice import Notice
from roost_node.signals import hang_up
from roost_node.vocab import (
    CA_CERT,
    CA_KEY,
    DUE,
    IDENTITY_PREFIX,
    MASTERS_NOTICE,
    NEW_NOTICE,
    NODE_CERT,
    NODE_KEY,
    NOTICE,
    READER_CERT,
    READER_IDENTITY,
    READER_KEY,
    REVOKED,
    STATE_DIR,
    Role,
    identity,
)

Say = Callable[[str], None]

#: Read after everything else, `-c` included.
DENIALS: Final = Path("/etc/condor/config.d/95-revoked.conf")
#: Seconds for which the jobs of those who were revoked are chased.
_CHASE: Final = 30.0
_PAUSE: Final = 1.0


class Refused(NodeError):
    """The master does not renew this node's certificate; the text says why."""


def main(argv: Sequence[str]) -> int:
    """Do what there is to do; 0, also when the master cannot be reached: it is tried again.

    With `--look`, ask the master first whether it has announced something. Raises BadInput.
    """
    from roost_node import keeper, logs, start, whereabouts

    if list(argv) not in ([], ["--look"]):
        raise BadInput("renew takes nothing, or --look")

    role, node, masters = start.who()
    # Of two masters the first admits.
    master = next((name for name in masters.split(",") if name != node), node)
    state = Path(STATE_DIR)
    admits = (state / CA_KEY).exists()

    as_json = b"--json-logs" in Path("/proc/1/cmdline").read_bytes()

    def say(line: str) -> None:
        logs.say(line, daemon="renew", as_json=as_json)
        if argv:  # by `docker exec`: for the container's own log, too
            stamped = line if as_json else time.strftime("%m/%d/%y %H:%M:%S ") + line
            text = (logs.line_as_json if as_json else logs.line_as_text)("renew", stamped)
            with suppress(OSError):
                Path("/proc/1/fd/1").write_bytes(text.encode())

    with files.locked(state):
        if argv:
            with suppress(OSError):
                raw = (
                    (state / MASTERS_NOTICE).read_bytes()
                    if admits
                    else keeper.fetch(whereabouts.addresses(master)[0])
                )
                if raw:
                    files.write(Path(NEW_NOTICE), raw)
        news = take_up(role, node, state, say)
        if admits:
            if _due(state):
                register.own_certificate(state, node, say)
                _next(state)
        elif news or _due(state):
            _renew(role, node, join.Link(master), state, say)
    return 0


def _due(state: Path) -> bool:
    try:
        return float((state / DUE).read_text()) <= time.time()
    except (FileNotFoundError, ValueError):
        return True


def _next(state: Path) -> None:
    cert = files.read(state / NODE_CERT, "the certificate")
    files.write(state / DUE, f"{pki.renewal(cert).timestamp():.0f}\n".encode(), 0o644)


# --- renewing -----------------------------------------------------------------------------------


def _renew(role: Role, node: str, link: join.Link, state: Path, say: Say) -> None:
    """Renew, or say why not and when it is tried again."""
    try:
        renew(role, node, link, state, say)
    except (join.NotYet, NodeError) as error:
        end = pki.expires(files.read(state / NODE_CERT, "the certificate"))
        pause = patience((end - datetime.now(UTC)).total_seconds())
        files.write(state / DUE, f"{time.time() + pause:.0f}\n".encode(), 0o644)
        say(
            f"this node's certificate, good until {end:%F %T} UTC, is not renewed: the master"
            f" {link.where}: {error}; tried again in {pause:.0f} s"
        )


def patience(left: float) -> float:
    """Seconds until a renewal is tried again; the certificate is good for `left` seconds more."""
    return min(3600.0, max(10.0, left / 10))


def renew(role: Role, node: str, link: join.Link, state: Path, say: Say) -> None:
    """Replace this node's key and certificate. Raises NotYet, Refused or NodeError."""
    register.settle(state)
    ca = files.read(state / CA_CERT, "the CA certificate")
    cert = files.read(state / NODE_CERT, "the certificate")
    key = files.read(state / NODE_KEY, "the private key")
    name = identity(role, node)
    new = pki.new_key()
    csr = pki.csr(new, name)
    request: dict[str, object] = {
        "role": role,
        "node": node,
        "csr": csr.decode(),
        "certificate": cert.decode(),
        "signature": pki.signed(key, csr),
        "number": known(state).number,
    }
    reader = b""
    if (state / READER_KEY).exists():
        reader = files.read(state / READER_KEY, "the reader's key")
        request["reader_csr"] = pki.csr(reader, READER_IDENTITY).decode()
    status, answer, _ = link.exchange("POST", "/v1/renew", request, ca)
    if status in (400, 403):
        raise Refused(join.line(answer.get("error", "no reason given")))
    if status != 200:
        raise join.NotYet(f"it answers {status}: {join.line(answer.get('error', ''))}")
    signed, bundle = (str(answer.get(each, "")).encode() for each in ("certificate", "ca"))
    # Over TLS with the CA that is trusted: it may name another beside it, or in its place.
    pki.verify(bundle, signed, new, name)
    if reader:
        theirs = str(answer.get("reader_certificate", "")).encode()
        pki.verify(bundle, theirs, reader, READER_IDENTITY, what="the reader's certificate")
    if bundle != ca:
        files.write(state / CA_CERT, bundle, 0o644)
    if reader:
        files.write(state / READER_CERT, theirs, 0o644)
    register.put_pair(state, new, signed)
    say(f"renewed {name}, good until {pki.expires(signed):%F %T} UTC, key"
        f" {pki.fingerprint(pki.public_key(new))}")  # fmt: skip


# --- what the master announced ------------------------------------------------------------------


def known(state: Path) -> Notice:
    """The notice that this node took up last."""
    try:
        return notice.own((state / NOTICE).read_bytes())
    except FileNotFoundError:
        return Notice()


def take_up(role: Role, node: str, state: Path, say: Say) -> bool:
    """Judge the notice that was fetched and act on it; whether the authorities have changed."""
    try:
        raw = Path(NEW_NOTICE).read_bytes()
    except FileNotFoundError:
        return False
    ca = files.read(state / CA_CERT, "the CA certificate")
    before = known(state)
    try:
        new = notice.read(raw, ca)
        notice.follows(new, before, pki.pool_of(ca))
    except BadInput as error:
        say(f"{error}: it is not taken up")
        return False
    if new == before:
        return False
    admits = (state / CA_KEY).exists()
    changed = new.ca.encode() != ca or (new.ca != before.ca and before.number > 0)
    news = changed and not admits
    if news:
        # First, so that a renewal that is cut off is made up for.
        files.write(state / DUE, b"0\n", 0o644)
        files.write(state / CA_CERT, new.ca.encode(), 0o644)
    files.write(state / NOTICE, raw, 0o644)
    if role == "master" and dropped(before, new):
        # What it let in may hold its connections for ever: they end with the collector, which is
        # back in a few seconds.
        say("the CA of before is dropped: the collector restarts, which ends every session with it")
        _tool(["condor_restart", "-fast", "-daemon", "collector"])
    if new.revoked != before.revoked:
        _deny(role, node, before, new, state, say)
    return news


def dropped(before: Notice, new: Notice) -> bool:
    """Whether an authority that counted does not count any more."""
    if not before.ca:
        return False
    return bool({*pki.authorities(before.ca.encode())} - {*pki.authorities(new.ca.encode())})


def _deny(role: Role, node: str, before: Notice, new: Notice, state: Path, say: Say) -> None:
    pool = pki.pool_of(new.ca.encode())
    write_denials(new, pool, role)
    me = identity(role, node)
    if me in new.revoked:
        sentence = (
            f"{me} is revoked: the pool refuses this node, so it ends; start it under another host"
            " name with an empty state directory, if it may come back"
        )
        files.write(state / REVOKED, f"{sentence}\n".encode(), 0o644)
    hang_up("condor_master")
    gone = sorted(set(new.revoked) - set(before.revoked))
    back = sorted(set(before.revoked) - set(new.revoked))
    if gone:
        say(f"revoked from now on: {', '.join(gone)}")
    if back:
        say(f"not revoked any more: {', '.join(back)}")
    if gone and me not in new.revoked:
        time.sleep(_PAUSE)
        {"master": _forget, "submit": _take_back, "execute": _put_out}[role](gone, say)


def write_denials(current: Notice, pool: str, role: Role) -> None:
    """HTCondor's configuration against those who are revoked."""
    DENIALS.write_text(notice.denials(current.revoked, pool, role))


def _forget(gone: Sequence[str], say: Say) -> None:
    """On the master: the ads of those who were revoked are no more."""
    mine = " || ".join(f'regexp("^{name}@", AuthenticatedIdentity)' for name in gone)
    for command, kind in (
        ("INVALIDATE_STARTD_ADS", "Machine"),
        ("INVALIDATE_STARTD_ADS", "StartD"),
        ("INVALIDATE_SCHEDD_ADS", "Scheduler"),
        ("INVALIDATE_SUBMITTOR_ADS", "Submitter"),
        ("INVALIDATE_MASTER_ADS", "DaemonMaster"),
    ):
        ad = f'MyType = "Query"\nTargetType = "{kind}"\nRequirements = {mine}\n'
        done = _tool(["condor_advertise", command, "-"], ad)
        if done.returncode:
            say(f"{command} failed: {' '.join((done.stderr or done.stdout).split())}")


def _take_back(gone: Sequence[str], say: Say) -> None:
    """On an access point: jobs on the slots of those who were revoked run elsewhere."""
    machines = notice.machines_of(tuple(gone))
    if not machines:
        return
    there = " || ".join(f'regexp("@{machine}(\\\\.|$)", RemoteHost ?: "")' for machine in machines)
    until = time.monotonic() + _CHASE
    while time.monotonic() < until:
        found = _tool(["condor_q", "-allusers", "-constraint", there, "-af:j", "RemoteHost"])
        jobs = [line.split()[0] for line in found.stdout.splitlines() if line.strip()]
        if not jobs:
            return
        say(f"taken back from {', '.join(machines)}: {' '.join(jobs)}")
        _tool(["condor_vacate_job", "-fast", *jobs])
        time.sleep(2 * _PAUSE)


def _put_out(gone: Sequence[str], say: Say) -> None:
    """On an execution point: the jobs of access points that were revoked end."""
    prefix = IDENTITY_PREFIX["submit"]
    hosts = [name.removeprefix(prefix) for name in gone if name.startswith(prefix)]
    for host in hosts:
        found = _tool(["condor_status", "-constraint",
                       f'regexp("^{host}#", GlobalJobId ?: "") || ClientMachine =?= "{host}"',
                       "-constraint", f'Machine =?= "{os.uname().nodename.split(".")[0]}"',
                       "-af", "Name"])  # fmt: skip
        for slot in found.stdout.split():
            say(f"the job of {host} on {slot} ends")
            _tool(["condor_vacate", "-fast", slot])


def _tool(argv: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, input=stdin, capture_output=True, text=True, check=False, timeout=20
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", "no answer within 20 s")
