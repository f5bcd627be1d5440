"""`roost-node approve | refuse | join-token | revoke | credentials | rotate`: the master's
administrators, at a command line."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, cast

from roost_node import files, pki, register, tokens
from roost_node.errors import BadInput
from roost_node.vocab import IDENTITY_PREFIX, STATE_DIR, Role

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{self.prog}: {message}")


def _parser(name: str, description: str) -> _Parser:
    return _Parser(prog=f"roost-node {name}", description=description, allow_abbrev=False)


def duration(text: str) -> float:
    """Seconds, from text such as `10m`, `1h` or `90s`. Raises BadInput."""
    match = re.fullmatch(r"([0-9]+)([smhd])", text.strip())
    if match is None or int(match[1]) == 0:
        raise BadInput(f"{text!r} is not a time; write 90s, 10m, 1h or 2d")
    return float(int(match[1]) * _UNITS[match[2]])


def approve(argv: Sequence[str]) -> int:
    """Show who waits, or admit them by their ids, or a whole network for a short time."""
    parser = _parser("approve", "Admit nodes that wait; without arguments, list them.")
    parser.add_argument("ids", metavar="ID", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--network", metavar="CIDR")
    parser.add_argument("--for", dest="period", metavar="TIME", default="10m")
    args = parser.parse_args(argv)
    admissions = register.Admissions(Path(STATE_DIR))
    if args.ids and (args.list or args.network):
        raise BadInput("give ids, or --list, or --network, not two of them")
    if args.network:
        admissions.approve_network(args.network, duration(args.period), print)
    elif args.ids:
        admissions.approve(args.ids, print)
    else:
        _list(admissions.list_pending(), as_json=args.json)
    return 0


def _list(waiting: Sequence[register.Request], *, as_json: bool) -> None:
    rows = [
        {
            "id": request.id,
            "name": request.name,
            "role": request.role,
            "address": request.address,
            "fingerprint": request.fingerprint,
            "waits": round(time.time() - request.since),
            "note": request.note,
        }
        for request in waiting
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("nobody waits")
        return
    print(f"{'ID':16}  {'NAME':30}  {'FROM':15}  {'WAITS':>6}  KEY")
    for row in rows:
        print(
            f"{row['id']:16}  {row['name']:30}  {row['address']:15}  {row['waits']:>5}s"
            f"  {row['fingerprint']}{'  ' + str(row['note']) if row['note'] else ''}"
        )
    print("Compare the key with the one in the node's own log, then: roost-node approve ID")


def refuse(argv: Sequence[str]) -> int:
    """Turn nodes away by their ids."""
    parser = _parser("refuse", "Turn away nodes that wait.")
    parser.add_argument("ids", metavar="ID", nargs="+")
    register.Admissions(Path(STATE_DIR)).refuse(parser.parse_args(argv).ids, print)
    return 0


def join_token(argv: Sequence[str]) -> int:
    """Print a new join token, alone, so that it can go straight into a file."""
    parser = _parser("join-token", "Print a token that admits a node at once.")
    parser.add_argument("role", metavar="ROLE")
    parser.add_argument("--expires", metavar="TIME", default="1h")
    parser.add_argument("--uses", metavar="N", default="1")
    parser.add_argument("--own", action="store_true")
    args = parser.parse_args(argv)
    if args.role not in tokens.TOKEN_ROLES:
        raise BadInput(f"role {args.role!r} is unknown; it is {' or '.join(tokens.TOKEN_ROLES)}")
    if not args.uses.isdigit():
        raise BadInput(f"--uses {args.uses!r} is not a number")
    quiet: Callable[[str], None] = lambda _line: None  # noqa: E731
    admissions = register.Admissions(Path(STATE_DIR))
    role, seconds = cast(Role, args.role), duration(args.expires)
    print(admissions.new_token(role, seconds, int(args.uses), quiet, own=args.own))
    return 0


def revoke(argv: Sequence[str]) -> int:
    """Refuse certificates everywhere, sessions that live included."""
    parser = _parser("revoke", "Revoke the certificates of nodes and users.")
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("--undo", action="store_true")
    args = parser.parse_args(argv)
    register.Admissions(Path(STATE_DIR)).revoke(args.names, print, undo=args.undo)
    return 0


def credentials(argv: Sequence[str]) -> int:
    """Who has a certificate from this master, as JSON: since when, until when, last seen when."""
    _parser("credentials", "Show who has a certificate, as JSON.").parse_args(argv)
    seen = _seen()
    rows = register.Admissions(Path(STATE_DIR)).credentials()
    there = {row["name"] for row in rows}
    rows += [{"name": name, "role": "", "id": "", "issued": None, "expires": None, "revoked": None}
             for name in seen if name not in there]  # fmt: skip
    print(json.dumps([row | {"seen": seen.get(row["name"])} for row in rows], indent=2))
    return 0


def rotate(argv: Sequence[str]) -> int:
    """Replace the CA, step by step: begin, switch, finish; JSON says how far it is."""
    parser = _parser("rotate", "Replace the pool's CA; `roost credential rotate` does all of it.")
    parser.add_argument("step", choices=["status", "begin", "switch", "finish"], metavar="STEP")
    parser.add_argument("nodes", metavar="NAME", nargs="*")
    parser.add_argument("--stdin", action="store_true")
    args = parser.parse_args(argv)
    state = Path(STATE_DIR)
    admissions = register.Admissions(state)

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    if args.step == "begin":
        if args.stdin:
            given = sys.stdin.read(files.MAX_INPUT)
            at = given.find("-----BEGIN CERTIFICATE-----")
            new = given[:at].encode(), given[at:].encode()
        else:
            new = pki.new_ca(admissions.pool)
        admissions.announce_authority(*new, say)
    elif args.step == "switch":
        admissions.switch_authority(admissions.master, say)
    elif args.step == "finish":
        admissions.drop_authority(say)
    live = [name for name in _seen() if not name.startswith(IDENTITY_PREFIX["master"])]
    nodes = tuple(IDENTITY_PREFIX.values())
    waited_for = {*args.nodes, *(name for name in live if name.startswith(nodes))}
    print(json.dumps(admissions.rotation(sorted(waited_for))))
    return 0


def _seen() -> dict[str, float]:
    """Identity → when the collector heard of it last."""
    asked = ["condor_status", "-any", "-af", "AuthenticatedIdentity", "Name", "LastHeardFrom"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
    found: dict[str, float] = {}
    for line in done.stdout.splitlines():
        words = line.split()
        who, domain = words[0].partition("@")[::2] if words else ("", "")
        if len(words) >= 3 and domain.endswith(".internal") and words[-1].isdigit():
            names = {who, words[1].partition("@")[0]} if words[1].endswith(domain) else {who}
            for name in names - {"condor"}:
                found[name] = max(found.get(name, 0.0), float(words[-1]))
    return found
