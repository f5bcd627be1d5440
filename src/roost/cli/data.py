"""`roost data`: the tokens with which a user's jobs open the pool's data."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from roost.cli.common import json_option, pooled, print_json, print_table
from roost.errors import BadInput
from roost.pool import Pool
from roost.security import Secret
from roost_node import files
from roost_node.errors import BadInput as NodeBadInput

user_option = click.option("--user", metavar="U", help="The pool's user; its first by default.")


@click.group()
def data() -> None:
    """Store the tokens with which jobs open data, or list what there is."""


@data.command()
@click.argument("entry", metavar="NAME")
@user_option
@click.option("--file", metavar="F", help="Read the token there; `-` is stdin.")
@pooled
def login(pool: Pool, entry: str, user: str | None, file: str | None) -> None:
    """Store a user's token for the data NAME.

    It is read from --file, else from the file that the pool file names, else asked for.
    """
    tokens = pool.tokens(user)
    stored = tokens.login(entry, _token(pool, entry, file))
    print(f"{tokens.user}'s token for {entry} is stored{_until(stored.expires)}.")
    if stored.unchecked:
        print(f"It was not checked: {stored.unchecked}.", file=sys.stderr)


@data.command()
@click.argument("entry", metavar="NAME")
@user_option
@pooled
def logout(pool: Pool, entry: str, user: str | None) -> None:
    """Forget a user's token; jobs that run keep theirs."""
    tokens = pool.tokens(user)
    tokens.logout(entry)
    print(f"{tokens.user} has no token for {entry} here.")


@data.command()
@user_option
@json_option
@pooled
def ls(pool: Pool, user: str | None, as_json: bool) -> None:
    """List what jobs may mount, and whether a user's token is stored."""
    tokens = pool.tokens(user)
    items = tokens.list()
    if as_json:
        print_json(items)
    elif not items:
        print("The pool has no data; `data:` in its pool file names some.")
    else:
        rows = [(item.name, item.type, _state(item.token, item.stored, item.expires))
                for item in items]  # fmt: skip
        print_table(("NAME", "TYPE", f"TOKEN OF {tokens.user.upper()}"), rows)


def _token(pool: Pool, entry: str, file: str | None) -> Secret:
    """The token, from wherever it is. Raises BadInput."""
    if file == "-":
        return Secret(sys.stdin.buffer.read(files.MAX_INPUT + 1))
    path = Path(file).expanduser() if file else pool.token_file(entry)
    if path is not None:
        try:
            return Secret(files.read(path, "the token's file"))
        except NodeBadInput as error:
            raise BadInput(str(error)) from None
    if not sys.stdin.isatty():
        raise BadInput("there is no terminal to ask at", advice="give the token with --file")
    return Secret(click.prompt("Token", hide_input=True, err=True).encode())


def _state(needed: bool, stored: bool, expires: float | None) -> str:
    if not needed:
        return "not needed"
    if not stored:
        return "missing"
    return "expired" if expires and expires < time.time() else f"stored{_until(expires)}"


def _until(expires: float | None) -> str:
    if expires is None:
        return ""
    return f", good until {datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M} UTC"
