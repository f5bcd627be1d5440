"""Commands about whole pools: up, down, ls, status, scale, doctor, env."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from roost.cli.common import (
    FEW,
    engine_named,
    json_option,
    pool_name,
    pooled,
    print_json,
    print_table,
    selecting,
    shown,
)
from roost.errors import BadInput, PoolNotFound, RoostError
from roost.observe.doctor import Finding
from roost.observe.network import NetworkReport, Pair
from roost.observe.snapshot import NodeView, SlotView, Snapshot
from roost.pool import Pool

limit_option = click.option(
    "--limit",
    metavar="TIME",
    help="How long to wait for running jobs, such as 30m; then they run again elsewhere.",
)


@click.command()
@click.argument("file", required=False, metavar="[POOL.yaml]", type=click.Path(path_type=Path))
@click.option("--executors", type=int, metavar="N", help="How many executors.")
@click.option("--cpus", type=float, metavar="C", help="CPUs of each executor.")
@click.option("--memory", metavar="M", help="Memory of each executor, such as 2GiB.")
@click.option("--release", metavar="R", help="The image: trixie, forky, lts or feature.")
@click.option("--network", metavar="NET", help="A network that the engine knows already.")
@click.option("--url", metavar="URL", help="Where Marathon is, for --engine marathon.")
@limit_option
@click.option("--force", is_flag=True, help="Do not wait for jobs on executors that must go.")
@selecting
def up(
    name: str | None,
    engine: str | None,
    file: Path | None,
    executors: int | None,
    cpus: float | None,
    memory: str | None,
    release: str | None,
    network: str | None,
    url: str | None,
    limit: str | None,
    force: bool,
) -> None:
    """Bring a pool up, or make the one that runs fit POOL.yaml and the flags.

    Returns after a real job ran in it; when that cannot be, it removes what it made and says why.
    Without POOL.yaml the pool is as it was asked for last, at first one executor. Executors that go
    or change are drained first; another release goes from node to node.
    """
    with shown() as progress:
        pool = Pool.up(
            file,
            name=name,
            executors=executors,
            cpus=cpus,
            memory=memory,
            engine=engine,
            release=release,
            network=network,
            url=url,
            limit=limit,
            force=force,
            progress=progress,
        )
    count = len([node for node in pool.observe().nodes if node.role == "execute"])
    said = f"{count} executor" + ("" if count == 1 else "s")
    print(f"The pool {pool.name} is up: {said}, on {pool.engine.name}.")


@click.command()
@click.option(
    "--keep-spool",
    is_flag=True,
    help="Keep the job queue and the users' homes for the next `roost up`.",
)
@click.option("--yes", is_flag=True, help="Do not ask, whatever is in the queue.")
@selecting
def down(name: str | None, engine: str | None, keep_spool: bool, yes: bool) -> None:
    """Take the pool down: its nodes, volumes, network and keys. No pool is no error.

    On a terminal it asks first if there are jobs in the queue.
    """
    chosen = pool_name(name)
    try:
        pool = Pool.attach(chosen, engine=engine)
    except PoolNotFound:
        Pool.forget(chosen)
        print(f"There is no pool {chosen}.")
        return
    # Nobody is there to answer in a script, which says what it means by its flags.
    asks = not (keep_spool or yes) and sys.stdin.isatty() and sys.stderr.isatty()
    if asks and (lost := pool.at_stake()):
        question = f"The pool {chosen} has {lost}. Delete it all, its keys too?"
        if not click.confirm(question, err=True):
            raise RoostError(
                f"the pool {chosen} stays as it is", advice="--keep-spool keeps the queue and keys"
            )
    with shown() as progress:
        pool.down(keep_spool=keep_spool, progress=progress)
    print(f"The pool {chosen} is down" + ("; its job queue is kept." if keep_spool else "."))


@click.command()
@json_option
@selecting
def ls(name: str | None, engine: str | None, as_json: bool) -> None:
    """List the pools on the engine."""
    on = engine_named(engine)
    pools = [on.observe(pool) for pool in on.pools() if name in (None, pool)]
    rows = [
        {
            "name": pool.pool,
            "engine": on.name,
            "nodes": len(pool.nodes),
            "running": sum(node.state == "running" for node in pool.nodes),
            "executors": sum(node.role == "execute" for node in pool.nodes),
        }
        for pool in pools
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table([key.upper() for key in rows[0]], [list(row.values()) for row in rows])
    else:
        print(f"No pools on {on.name}; `roost up` makes one.")


@click.command()
@click.option("--each", is_flag=True, help="Each node in a line of its own, however many.")
@json_option
@pooled
def status(pool: Pool, each: bool, as_json: bool) -> int:
    """Show the pool's nodes, slots and jobs. The exit status is 1 if something does not answer.

    Of more than 100 nodes, those that are alike stand in one line.
    """
    now = pool.status()
    well = now.slots is not None and now.jobs is not None
    if as_json:
        print_json(now.to_json())
        return 0 if well else 1
    head = ("NODE", "ROLE", "STATE", "HEALTH", "ADDRESS", "SLOTS", "CPUS USED")
    rows = [(node.group, _node_row(node, now.slots_of(node.name))) for node in now.nodes]
    short = len(rows) > FEW and not each
    print_table(head, alike(rows) if short else [row for _, row in rows])
    print("\nNodes that are alike stand together; `roost status --each` lists each.\n"
          if short else "")  # fmt: skip
    if now.slots is None:
        print(f"roost: {now.no_slots}", file=sys.stderr)
    else:
        used, total = now.cpus
        print(f"CPUs: {used:g} of {total:g} in use.")
        for node, reason in sorted(
            {slot.node: slot.sick for slot in now.slots if slot.sick}.items()
        ):
            print(f"{node} is sick and takes no more jobs: {reason}.")
    if now.jobs is None:
        print(f"roost: {now.no_jobs}", file=sys.stderr)
    else:
        print(f"Jobs: {now.jobs.idle} idle, {now.jobs.running} running, {now.jobs.held} held.")
    return 0 if well else 1


def _node_row(node: NodeView, own: Sequence[SlotView]) -> tuple[str, ...]:
    shown = [slot for slot in own if slot.kind == "dynamic"] or own
    counts = Counter(f"{slot.state} {slot.activity}" for slot in shown)
    states = ", ".join(
        state if count == 1 else f"{count} × {state}" for state, count in sorted(counts.items())
    )
    used, total = Snapshot("", (), tuple(own), None).cpus
    cpus = f"{used:g}/{total:g}" if own else "-"
    state = node.state if node.exit_code is None else f"{node.state} {node.exit_code}"
    health = "sick" if any(slot.sick for slot in own) else node.health
    address = f"{node.address or '-'} ({node.host})" if node.host else node.address or "-"
    return (node.name, node.role, state, health, address, states or "-", cpus)


def alike(rows: Iterable[tuple[str, Sequence[str]]]) -> list[list[str]]:
    """Rows of nodes with their groups; those that differ in name and address alone become one."""
    together: dict[tuple[str, ...], list[Sequence[str]]] = {}
    for group, row in rows:
        together.setdefault((group, *row[1:4], *row[5:]), []).append(row)
    return [
        list(same[0]) if len(same) == 1
        else [f"{len(same)} of {key[0] or key[1]}", *key[1:4], "-", *key[4:]]
        for key, same in together.items()
    ]  # fmt: skip


@click.command()
@click.option("--network", is_flag=True, help="Try how every pair of nodes reaches each other.")
@json_option
@selecting
def doctor(name: str | None, engine: str | None, network: bool, as_json: bool) -> int:
    """Find out what is wrong with the pool, and what to do.

    The exit status is 1 if there is an error.
    """
    chosen = pool_name(name)
    report = Pool.diagnose_network(chosen, engine=engine) if network else None
    findings = report.findings if report else Pool.diagnose(chosen, engine=engine)
    if as_json:
        print_json(report or findings)
    else:
        if report:
            _print_pairs(report)
        _print_findings(findings, f"{'the network of ' if network else ''}the pool {chosen}")
    return 1 if any(finding.severity == "error" for finding in findings) else 0


def _print_findings(findings: Sequence[Finding], of: str) -> None:
    if not findings:
        print(f"Nothing is wrong with {of}.")
    for finding in findings:
        advice = f"; {finding.advice}" if finding.advice else ""
        print(f"{finding.severity}: {finding.where}: {finding.what}{advice}")


def _print_pairs(report: NetworkReport) -> None:
    print_table(
        ("FROM", "TO", "ADDRESS", "PING", "9618", "9619", "HTCONDOR", "CLOCK", "MTU"),
        (_pair_row(pair) for pair in report.pairs),
    )
    if any(pair.ping_by == "tcp" for pair in report.pairs):
        print("(tcp): no echo came back, so this is the time to a TCP connection.")
    if report.left_out:
        print(f"{report.left_out} more executors were not tried.")
    print()


def _pair_row(pair: Pair) -> tuple[str, ...]:
    tcp = " (tcp)" if pair.ping_by == "tcp" else ""
    trip = "-" if pair.ping is None else f"{pair.ping:.2f} ms{tcp}"
    said = "-" if not pair.levels else "denied" if pair.refused.startswith("DENIED") else "failed"
    condor = "ok" if pair.levels and not pair.refused else said
    mtu = str(pair.mtu or "-")
    return (
        pair.source, pair.target, pair.address, trip, pair.port, pair.admit or "-", condor,
        f"{pair.clock:+.1f} s", mtu,
    )  # fmt: skip


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("counts", nargs=-1, required=True, metavar="[GROUP=]N...")
@limit_option
@click.option("--force", is_flag=True, help="Do not wait for jobs on executors that must go.")
@pooled
def scale(pool: Pool, counts: tuple[str, ...], limit: str | None, force: bool) -> None:
    """Have N executors, or N of each GROUP named.

    Those that go are drained, idle ones first: they get no new jobs, and the running ones finish.
    With --force they go at once, and their jobs run again elsewhere.
    """
    wanted = _counts(counts)
    with shown() as progress:
        pool.scale(wanted, limit=limit, force=force, progress=progress)
    groups = ", ".join(f"{group.name} {group.count}" for group in pool.spec.execute)
    print(f"The pool {pool.name} has: {groups}.")


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@limit_option
@json_option
@pooled
def drain(pool: Pool, nodes: tuple[str, ...], limit: str | None, as_json: bool) -> None:
    """Take executors away once their jobs have finished; they get no new ones.

    Says which jobs it waits for. Interrupted, it lets the executors take jobs again. The group is
    then that much smaller, also for the next `roost up` without a file.
    """
    with shown() as progress:
        done = pool.drain(nodes, limit=limit, progress=progress)
    if as_json:
        print_json(done)
        return
    gone = f"Drained and removed: {', '.join(done.nodes)}."
    if done.vacated:
        gone += f" Back in the queue: {', '.join(done.vacated)}."
    print(gone)


def _counts(words: tuple[str, ...]) -> int | dict[str, int]:
    """`4`, or `cpu=4 gpu=1`. Raises BadInput."""
    counts: dict[str, int] = {}
    for word in words:
        group, equals, number = word.rpartition("=")
        if not number.isdecimal() or (equals and not group) or group in counts:
            raise BadInput(
                f"{word!r} is not a number of executors", advice="write 4, or GROUP=4 for one group"
            )
        counts[group] = int(number)
    if "" not in counts:
        return counts
    if len(counts) > 1:
        raise BadInput(
            "a number without a group stands among others", advice="write GROUP=N for each"
        )
    return counts[""]


@click.command()
@click.option("--user", metavar="U", help="The pool's user; its first by default.")
@json_option
@pooled
def env(pool: Pool, user: str | None, as_json: bool) -> None:
    """Print shell exports with which this machine's own HTCondor tools reach the pool.

    Use it as: eval "$(roost env)"; then condor_status, condor_submit -spool, or the Python
    bindings (pip install htcondor). They act as the pool's user, with a certificate of its own.
    """
    variables = pool.env(user)
    if as_json:
        print_json(variables)
        return
    for key, value in variables.items():
        print(f"export {key}={shlex.quote(value)}")
    print('# To use it:  eval "$(roost env)"  and then  condor_status,  condor_submit -spool FILE,')
    print("# or in Python, after  pip install htcondor:  htcondor2.Schedd().query()")
