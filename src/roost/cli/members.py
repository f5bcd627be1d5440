"""Commands about who belongs to the pool: join, approve, credential."""

from __future__ import annotations

import re
import time

import click

from roost.cli.common import ago, json_option, pooled, print_json, print_table, shown, stamp
from roost.errors import BadInput
from roost.pool import Pool
from roost.progress import Stage


@click.command()
@click.argument("role")
@click.option("--expires", default="1h", metavar="TIME", help="How long the line is good: 1h.")
@click.option("--uses", type=click.IntRange(1, 10000), default=1, metavar="N", help="Nodes: 1.")
@click.option(
    "--address", default="", metavar="HOST", help="Where the other host reaches the master."
)
@json_option
@pooled
def join(pool: Pool, role: str, expires: str, uses: int, address: str, as_json: bool) -> None:
    """Print the line that starts a node of this pool on another host.

    ROLE is submit or execute. The line holds a secret: whoever has it may join, once by default.
    """
    if address and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}", address):
        raise BadInput(f"{address!r} is neither a host name nor an address")
    asked = pool.members.invite(role, expires=expires, uses=uses, address=address)
    if as_json:
        print_json(vars(asked))
        return
    print(asked.line)
    several = f"; {uses} nodes may use it" if uses > 1 else ""
    ports = " and ".join(map(str, asked.ports))
    for line in (
        f"Good until {asked.expires}{several}. Keep it secret: it admits whoever has it.",
        f"That host must reach {asked.address} on the TCP ports {ports}, and all nodes each other"
        f" on {asked.ports[0]}; it needs the image {asked.image}.",
        *(
            [f"Another --hostname will do, but names that begin with {pool.name}- wait for"
             " `roost approve`."] if asked.node else []
        ),
    ):  # fmt: skip
        click.echo(line, err=True)


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--list", "listing", is_flag=True, help="Who waits; also without arguments.")
@click.option("--network", metavar="CIDR", help="Whoever asks from there, for a time.")
@click.option("--for", "period", default="10m", metavar="TIME", help="For how long: 10m.")
@click.option("--refuse", is_flag=True, help="Turn these away instead.")
@json_option
@pooled
def approve(
    pool: Pool,
    ids: tuple[str, ...],
    listing: bool,
    network: str | None,
    period: str,
    refuse: bool,
    as_json: bool,
) -> None:
    """Admit nodes that wait, by their ids; without any, list them.

    Compare each key with the one in the node's own log first.
    """
    if bool(ids) + listing + bool(network) > 1:
        raise BadInput("give ids, or --list, or --network, not two of them")
    if refuse and not ids:
        raise BadInput("--refuse needs the ids of those to turn away")
    members = pool.members
    if ids or network:
        if network:
            said = members.open_network(network, period)
        else:
            said = (members.refuse if refuse else members.approve)(ids)
        if as_json:
            print_json({"done": said})
        else:
            print("\n".join(said))
        return
    waiting = members.waiting()
    if as_json:
        print_json(waiting)
    elif not waiting:
        print("Nobody waits.")
    else:
        print_table(
            ["ID", "NAME", "FROM", "WAITS", "KEY", "NOTE"],
            [[each.id, each.name, each.address, ago(each.waits), each.fingerprint, each.note]
             for each in waiting],
        )  # fmt: skip
        click.echo("Compare the key with the one in the node's own log, then: roost approve ID",
                   err=True)  # fmt: skip


@click.group()
def credential() -> None:
    """List, revoke or replace certificates."""


@credential.command("ls")
@json_option
@pooled
def listing(pool: Pool, as_json: bool) -> None:
    """List who has a certificate, until when, and who was seen when."""
    rows = pool.members.credentials()
    if as_json:
        print_json(rows)
        return
    now = time.time()
    print_table(
        ["ID", "NAME", "ROLE", "ISSUED", "EXPIRES", "SEEN", "REVOKED"],
        [[each.id or "-", each.name, each.role, stamp(each.issued), stamp(each.expires),
          "-" if each.seen is None else f"{ago(now - each.seen)} ago", stamp(each.revoked)]
         for each in rows],
    )  # fmt: skip


@credential.command()
@click.argument("who", nargs=-1, required=True, metavar="WHO...")
@click.option("--undo", is_flag=True, help="Let them in again.")
@json_option
@pooled
def revoke(pool: Pool, who: tuple[str, ...], undo: bool, as_json: bool) -> None:
    """Refuse nodes or users everywhere, within a minute, sessions that live included.

    WHO is a node, a user, or a certificate's id from `roost credential ls`.
    """
    names = pool.members.revoke(who, undo=undo)
    if as_json:
        print_json({"counts again" if undo else "revoked": names})
    elif undo:
        print(f"{', '.join(names)}: counts again, with the certificates of before.")
    else:
        print(f"{', '.join(names)}: revoked; every node refuses it within 60 s.")


@credential.command()
@json_option
@pooled
def rotate(pool: Pool, as_json: bool) -> None:
    """Replace the pool's CA and every certificate, while jobs run.

    It may be run again after an interruption: it goes on where it was.
    """
    began = time.monotonic()
    with shown() as progress:
        pool.members.rotate(lambda text: progress(Stage(text)))
    if as_json:
        print_json({"rotated": pool.name, "seconds": round(time.monotonic() - began, 1)})
    else:
        print(f"The pool {pool.name} has a new CA; nothing of the old one counts any more.")
