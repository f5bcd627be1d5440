"""Commands about those who submit: user add, ls, rm."""

from __future__ import annotations

import time
from pathlib import Path

import click

from roost.cli.common import json_option, pooled, print_json, print_table, stamp
from roost.pool import Pool


@click.group()
def user() -> None:
    """Add, list or remove those who submit."""


@user.command()
@click.argument("user")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
    help="Write all that the user needs elsewhere to this new file.",
)  # fmt: skip
@click.option("--expires", metavar="TIME", help="How long the certificate in it is good: 30d.")
@json_option
@pooled
def add(pool: Pool, user: str, output: Path | None, expires: str | None, as_json: bool) -> None:
    """Let USER submit: as themselves, with an account and a certificate of their own.

    Nothing is restarted. Again with -o, it writes another key and certificate for the same user.
    """
    bundle = pool.add_user(user, bundle=output, expires=expires)
    if as_json:
        print_json({"user": user, "file": None, "expires": None} if bundle is None
                   else {"user": user, "file": bundle.path, "expires": bundle.expires})  # fmt: skip
        return
    print(f"{user} may submit to the pool {pool.name}.")
    if bundle is None:
        said = f"Here: roost submit --name {pool.name} --user {user} FILE.sub"
    else:
        until = time.strftime("%F %R", time.gmtime(bundle.expires))
        said = (
            f"{bundle.path} holds their key, good until {until} UTC: hand it to nobody else. There:"
            f" tar xf {output.name if output else ''} &&"
            f" export CONDOR_CONFIG=$PWD/{pool.name}-{user}/condor_config"
        )
    click.echo(said, err=True)


@user.command()
@json_option
@pooled
def ls(pool: Pool, as_json: bool) -> None:
    """List who may submit, with which certificate and until when."""
    rows = pool.submitters()
    if as_json:
        print_json(rows)
        return
    print_table(
        ["USER", "ACCOUNT", "CERTIFICATE", "ISSUED", "EXPIRES", "REVOKED"],
        [[each.name, "yes" if each.account else "no", each.id or "-", stamp(each.issued),
          stamp(each.expires), stamp(each.revoked)] for each in rows],
    )  # fmt: skip


@user.command()
@click.argument("user")
@click.option("--purge", is_flag=True, help="Delete their files, too.")
@json_option
@pooled
def rm(pool: Pool, user: str, purge: bool, as_json: bool) -> None:
    """Refuse USER from now on: certificates, account and jobs go.

    Their files stay, closed, for the day on which the user is added again.
    """
    pool.remove_user(user, purge=purge)
    if as_json:
        print_json({"removed": user})
    else:
        print(f"{user} may not submit to the pool {pool.name} any more.")
