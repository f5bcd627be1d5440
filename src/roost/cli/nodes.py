"""Commands that look into nodes: logs, exec, shell."""

from __future__ import annotations

import sys

import click

from roost._run import attached
from roost.cli.common import coloured, pooled
from roost.errors import BadInput
from roost.pool import Pool

_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan")


@click.command()
@click.argument("node", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come, until Ctrl-C.")
@click.option("--daemon", metavar="D", help="Only this daemon: schedd, negotiator, starter, …")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only each node's last N.")
@pooled
def logs(pool: Pool, node: str | None, follow: bool, daemon: str | None, tail: int | None) -> None:
    """Show what the daemons of NODE log, or of all nodes.

    All nodes' lines come in the order of their times, each behind its node's name.
    """
    names = [each.name for each in pool.observe().nodes]
    width = max(map(len, names), default=0)
    prefixes = {name: f"{name.ljust(width)}  " for name in names}
    if coloured():
        prefixes = {
            name: click.style(prefix, fg=_COLOURS[number % len(_COLOURS)])
            for number, (name, prefix) in enumerate(prefixes.items())
        }
    lines = pool.logs(node, follow=follow, daemon=daemon, tail=tail)
    for name, line in lines:
        print(line if node else f"{prefixes.get(name, name)}{line}", flush=follow)


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.option("--user", metavar="U", help="As this user instead of the node's own.")
@click.option("-i", "forward", is_flag=True, help="Hand this command's own input on.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pooled
def exec_(pool: Pool, node: str, user: str | None, forward: bool, command: tuple[str, ...]) -> int:
    """Run COMMAND in NODE; its exit status is this one's.

    NODE is a node's name, or what follows the pool's name in it: submit, execute-1.
    Example: roost exec submit --user john -- condor_q
    """
    if sys.stdin.isatty() and sys.stdout.isatty():
        return _attached(pool, node, command, user)
    stdin = sys.stdin.buffer.read() if forward else b""
    done = pool.exec(node, command, user=user, stdin=stdin)
    sys.stdout.flush()
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    sys.stderr.write(done.stderr)
    return done.status


@click.command()
@click.argument("node", default="submit")
@click.option("--user", metavar="U", help="As this user instead of the node's own.")
@pooled
def shell(pool: Pool, node: str, user: str | None) -> int:
    """Open a shell in NODE, the access point by default."""
    if not sys.stdin.isatty():
        raise BadInput("a shell needs a terminal", advice="use `roost exec NODE -- COMMAND`")
    return _attached(pool, node, ("bash", "--login"), user)


def _attached(pool: Pool, node: str, command: tuple[str, ...], user: str | None) -> int:
    """Run a command with this terminal; the terminal's Ctrl-C is the command's own."""
    return attached(pool.interactive(node, command, user=user))
