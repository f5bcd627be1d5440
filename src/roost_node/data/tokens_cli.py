"""`roost-node token`: what `roost data` asks of an access point, by root.

    token login NAME USER      store the token on stdin, once it has been judged
    token logout NAME USER     forget it
    token list USER            what the pool offers, and which of the user's tokens are here

Answers are JSON.
"""

from __future__ import annotations

import difflib
import json
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from roost_node import accounts, files, start
from roost_node.data import entries, tokens
from roost_node.data.entries import Offer
from roost_node.data.onedata import zone
from roost_node.data.shape import Refused, service
from roost_node.errors import BadInput, NodeError
from roost_node.vocab import DATA, STATE_DIR

_USAGE: Final = "token takes login NAME USER, logout NAME USER or list USER"
#: Seconds that HTCondor may take to store or to forget.
_PATIENCE: Final = 60


def main(argv: Sequence[str]) -> int:
    """Raises NodeError."""
    match argv:
        case ["list", user]:
            offer = _offer()
            answer: object = tokens.listed(offer, tokens.found(), _user(user))
        case ["login", name, user]:
            answer = _login(_offer(), name, _user(user), sys.stdin.buffer.read(files.MAX_INPUT + 1))
        case ["logout", name, user]:
            _named(_offer(), name)
            _condor("delete-oauth", name, _user(user))
            answer = {}
        case _:
            raise BadInput(_USAGE)
    print(json.dumps(answer))
    return 0


def _offer() -> Offer:
    if start.who()[0] != "submit":
        raise BadInput("tokens are kept on the access point; run this there")
    path = Path(STATE_DIR) / DATA
    if not path.exists():
        return Offer({})
    return entries.read(path.read_text(), str(path))


def _user(name: str) -> str:
    try:
        found = pwd.getpwnam(name).pw_uid >= accounts.FIRST_UID
    except KeyError:
        found = False
    if not found:
        raise BadInput(f"this access point has no user {name!r}")
    return name


def _named(offer: Offer, name: str) -> None:
    known = tokens.names(offer)
    if name in known:
        return
    if name in offer.entries:
        raise BadInput(f"{name} needs no token: jobs mount it as it is")
    near = difflib.get_close_matches(name, known, n=1)
    there = f"did you mean {near[0]}?" if near else f"with a token: {', '.join(known) or 'none'}"
    raise BadInput(f"this pool has no data called {name!r}; {there}")


def _login(offer: Offer, name: str, user: str, said: bytes) -> dict[str, object]:
    _named(offer, name)
    try:
        token = said.decode().strip()
    except UnicodeDecodeError:
        raise BadInput("what was given is no token: it is not text") from None
    if not token:
        raise BadInput("what was given is no token: it is empty")
    if len(said) > files.MAX_INPUT:
        raise BadInput(f"what was given is no token: it has over {files.MAX_INPUT // 1024} KiB")
    expires, unchecked = _judged(offer, name, token)
    stored = {"access_token": token, **({"expires_at": expires} if expires else {})}
    _condor("add-oauth", name, user, json.dumps(stored).encode())
    _await(name, user)
    return {"expires": expires, "unchecked": unchecked}


def _await(name: str, user: str) -> None:
    """Return once the schedd knows it, so that the next submission is not refused."""
    until = time.monotonic() + _PATIENCE
    asked = ["condor_config_val", "-schedd", "SUBMIT_REQUIREMENT_RoostTokens"]
    while time.monotonic() < until:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_PATIENCE)
        if tokens.knows(done.stdout, user, name):
            return
        time.sleep(0.2)


def _judged(offer: Offer, name: str, token: str) -> tuple[float | None, str]:
    """Until when it is good; why that could not be found out. Raises BadInput if it is not."""
    entry = offer.entries.get(name)
    if entry is None or entry.type != "onedata":
        return None, f"nobody can be asked about a token for {entry.type if entry else name}"
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as authorities:
        authorities.write(str(entry.options.get("ca") or ""))
        authorities.flush()
        believed = authorities.name if entry.options.get("ca") else ""
        try:
            scope = zone.ask(entry.options["host"], token, believed)
            zone.space(scope, entry.options.get("space") or name)
        except zone.Unreachable as away:
            return None, str(away)
        except Refused as refused:
            raise BadInput(f"this token does not open {name}: {refused}") from None
    return scope.until, ""


def _condor(action: str, name: str, user: str, secret: bytes = b"") -> None:
    """Have HTCondor do it, as that user: nobody else may. Raises NodeError."""
    account = pwd.getpwnam(user)
    more = ["-i", "-"] if secret else []
    done = subprocess.run(
        ["condor_store_cred", action, "-s", service(name), *more],
        input=secret, capture_output=True, timeout=_PATIENCE, check=False, cwd="/",
        user=account.pw_uid, group=account.pw_gid, extra_groups=[],
        env={"PATH": "/usr/bin:/usr/sbin:/bin", "HOME": account.pw_dir},
    )  # fmt: skip
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").split("\n")
        said = [line.strip() for line in words if line.strip()] or ["it said nothing"]
        raise NodeError(f"HTCondor's credential store refuses: {said[-1]}")
