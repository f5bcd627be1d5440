"""One task in its job: what was pickled into a file is called, what came of it is pickled."""

import sys
import traceback
from pathlib import Path
from typing import Any

import cloudpickle


def run(task: str, result: str) -> None:
    """`result` then holds what the function returned or raised, and if so its traceback's text."""
    came: tuple[Any, str | None]
    try:
        function, arguments, named = cloudpickle.loads(Path(task).read_bytes())
        came = function(*arguments, **named), None
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told to who waits for it
        came = error, traceback.format_exc()
    try:
        pickled = cloudpickle.dumps(came)
    except Exception:  # noqa: BLE001 - objects raise what they like
        said = f"what the task gave back cannot be pickled: {came[0]!r:.200}"
        pickled = cloudpickle.dumps((TypeError(said), traceback.format_exc()))
    Path(result).write_bytes(pickled)


run(*sys.argv[1:])
