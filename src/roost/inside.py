"""roost-node, asked inside a node: what it refuses is refused here, in its own words."""

from __future__ import annotations

from typing import Final

from roost._run import Completed
from roost.engines.base import Engine
from roost.errors import BadInput, RoostError
from roost.plan import Ref
from roost_node.errors import BadInput as NodeBadInput

#: How long a node may take to answer, in seconds.
PATIENCE: Final = 60.0


def ask(
    engine: Engine, ref: Ref, *argv: str, stdin: bytes = b"", timeout: float = PATIENCE
) -> Completed:
    """Run `roost-node argv…` in a node. Its bad input is BadInput here, in its own words."""
    done = engine.exec(ref, ["roost-node", *argv], stdin=stdin, timeout=timeout)
    if done.status == 0:
        return done
    words = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
    sentence = words[-1].removeprefix("roost-node: ").removeprefix(f"roost-node {argv[0]}: ")
    raise (BadInput if done.status == NodeBadInput.exit_code else RoostError)(sentence)
