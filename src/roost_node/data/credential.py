"""The secret in HTCondor's file of a job's credential."""

from __future__ import annotations

import json
from pathlib import Path

from roost_node.data.shape import Refused


def read(path: Path) -> str:
    """What was stored, as it was stored. Raises Refused."""
    try:
        return str(json.loads(path.read_text())["access_token"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused("its token cannot be read; store it anew with `roost data login`") from None
