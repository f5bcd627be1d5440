"""HTCondor's answers: ClassAds, asked for with HTCondor's own tools inside a node."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from roost.engines.base import Engine
from roost.errors import PoolNotReady
from roost.plan import Ref

Ad = Mapping[str, Any]


def ask(
    engine: Engine,
    ref: Ref,
    argv: Sequence[str],
    *,
    user: str | None = None,
    timeout: float = 60,
) -> tuple[Ad, ...]:
    """The ads that a tool such as `condor_q -json` prints in the node `ref`.

    `timeout` is in seconds. Raises PoolNotReady, with the tool's own first sentence, when the
    daemon that it asks does not answer.
    """
    done = engine.exec(ref, argv, user=user, timeout=timeout)
    if done.status != 0:
        raise PoolNotReady(
            f"{argv[0]} on {ref.name} failed: {sentence(done.stderr or done.text)}",
            advice="see `roost doctor`",
        )
    return read(done.text)


def read(text: str) -> tuple[Ad, ...]:
    """The ads in a tool's JSON output; some tools print nothing at all when there are none."""
    return tuple(json.loads(text)) if text.strip() else ()


def sentence(text: str) -> str:
    """What a tool complains about, in one line: what it calls ERROR, else its first lines."""
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", text) if block.strip()]
    blamed = [block for block in blocks if re.match(r"error\b", block, re.IGNORECASE)]
    said = (blamed or blocks or ["it said nothing"])[0]
    return re.sub(r"^ERROR:\s*", "", said).rstrip(" .")


def number(value: Any) -> float | None:
    """A plain number; None for anything else, such as an expression."""
    return float(value) if isinstance(value, (int, float)) and value is not True else None


def sickness(slot: Ad) -> str:
    """Why the node of this slot found itself sick; empty if it did not."""
    return str(slot.get("RoostSickReason") or "no reason given") if slot.get("RoostSick") else ""
