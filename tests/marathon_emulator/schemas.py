"""Marathon's published schemas, where they can be had."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator

#: They are no part of this repository: they lie in a folder `shared` beside a checkout or above it.
SCHEMAS = next(
    (
        found
        for up in Path(__file__).parents
        if (found := up / "shared" / "marathon-schema").is_dir()
    ),
    None,
)
ABSENT = "Marathon's schemas are not here: no folder shared/marathon-schema beside this"


@cache
def validator(version: str) -> Draft4Validator:
    """Of the schema that Marathon published with this version. Raises LookupError without it."""
    if SCHEMAS is None:
        raise LookupError(ABSENT)
    return Draft4Validator(json.loads((SCHEMAS / f"AppDefinition-{version}.json").read_text()))


def wrong(app: Any, version: str) -> list[tuple[str, str]]:
    """Path and message of everything in which a definition breaks the schema."""
    return [
        ("/" + "/".join(map(str, error.absolute_path)), error.message)
        for error in validator(version).iter_errors(app)
    ]
