"""`docker run IMAGE …` and, inside a node, `roost-node SUBCOMMAND`.

Imports stand inside the functions: each start of this program loads only what it needs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from roost_node import logs
from roost_node.errors import BadInput, NodeError
from roost_node.vocab import ADMIT_PORT, EXIT_STOPPED, STATE_DIR


def _health(argv: Sequence[str]) -> int:
    from roost_node import health, start

    if list(argv) == ["--live"]:
        sentence = health.why_dead()
        print(sentence or "alive")
        return 1 if sentence else 0
    _no_more(argv)
    role, node, master = start.who()
    sentence = health.why_not(role, node, master)
    print(sentence or ("standby" if health.stands_by(role, master) else "healthy"))
    return 1 if sentence else 0


def _greet(argv: Sequence[str]) -> int:
    from roost_node import greet

    _no_more(argv)
    return greet.greet()


def _serve_health(argv: Sequence[str]) -> int:
    from roost_node import health_http, start

    role, node, master = start.who()
    return health_http.serve(int(argv[0]), role, node, master)


def _admit(argv: Sequence[str]) -> int:
    from roost_node import admit

    _no_more(argv)
    return admit.serve(
        Path(STATE_DIR), "", ADMIT_PORT, say=lambda line: logs.say(line, daemon="admit")
    )


def _no_more(argv: Sequence[str]) -> None:
    if argv:
        raise BadInput(f"{argv[0]!r} is one word too many")


def _approve(argv: Sequence[str]) -> int:
    from roost_node import admit_cli

    return admit_cli.approve(argv)


def _refuse(argv: Sequence[str]) -> int:
    from roost_node import admit_cli

    return admit_cli.refuse(argv)


def _join_token(argv: Sequence[str]) -> int:
    from roost_node import admit_cli

    return admit_cli.join_token(argv)


def _revoke(argv: Sequence[str]) -> int:
    from roost_node import admit_cli

    return admit_cli.revoke(argv)


def _credentials(argv: Sequence[str]) -> int:
    from roost_node import admit_cli

    return admit_cli.credentials(argv)


def _rotate(argv: Sequence[str]) -> int:
    from roost_node import admit_cli

    return admit_cli.rotate(argv)


def _renew(argv: Sequence[str]) -> int:
    from roost_node import renewal

    return renewal.main(argv)


def _pace(argv: Sequence[str]) -> int:
    from roost_node import start

    return start.set_pace(argv)


def _drain(argv: Sequence[str]) -> int:
    from roost_node import drain, start

    return drain.run(argv, start.who()[0])


def _masters(argv: Sequence[str]) -> int:
    from roost_node import start

    return start.set_masters(argv)


def _probe(argv: Sequence[str]) -> int:
    from roost_node import probe

    return probe.main(argv)


def _user(argv: Sequence[str]) -> int:
    from roost_node import accounts, start

    return accounts.main(argv, start.who()[0])


def _token(argv: Sequence[str]) -> int:
    from roost_node.data import tokens_cli

    return tokens_cli.main(argv)


def _credmon(argv: Sequence[str]) -> int:
    from roost_node.data import credmon

    _no_more(argv)
    return credmon.main()


_SUBCOMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "health": _health,
    "approve": _approve,
    "refuse": _refuse,
    "join-token": _join_token,
    "revoke": _revoke,
    "credentials": _credentials,
    "rotate": _rotate,
    "renew": _renew,
    "pace": _pace,
    "drain": _drain,
    "masters": _masters,
    "probe": _probe,
    "user": _user,
    "token": _token,
    # Run by condor_master:
    "credmon": _credmon,
    # Run by supervisord:
    "admit": _admit,
    "greet": _greet,
    "serve-health": _serve_health,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand, or become a node; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json-logs" in words
    try:
        if words and words[0] in _SUBCOMMANDS:
            return _SUBCOMMANDS[words[0]](words[1:])
        if words and not words[0].startswith("-"):
            raise BadInput(
                f"{words[0]!r} is unknown; a node is started with -m, -s MASTER or -e MASTER, "
                f"and inside one there are: {', '.join(list(_SUBCOMMANDS)[:9])}"
            )
        from roost_node import start

        # Until supervisord runs, a stop is simply obeyed.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_STOPPED))
        return start.node(words)
    except NodeError as error:
        if words and words[0] in _SUBCOMMANDS:
            print(f"roost-node: {error}", file=sys.stderr)
        else:
            logs.say(str(error), as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
