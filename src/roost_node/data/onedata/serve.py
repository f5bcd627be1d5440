"""The program `roost-onedata`: serves a space to a job (`roost-onedata REQUEST`), or is the plugin.

REQUEST is a file of JSON: see `told` in roost_node.data.types.onedata. Nothing that is secret is
on the command line or in the environment. It ends with status 0 once all that was written is there;
else with 1, and its last line on stderr says what is missing.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from onedatafilerestclient import OnedataFileRESTClient

from roost_node.data import credential
from roost_node.data.onedata import zone
from roost_node.data.onedata.operations import Files
from roost_node.data.onedata.space import FRESH, Space
from roost_node.data.shape import Refused


def mounted(request: Mapping[str, Any]) -> Files:
    """The space that a request is for, before it is mounted. Raises Refused."""
    space = opened(request)
    try:
        root = space.attributes("/")
    except OSError as error:
        raise Refused(f"{request['path'] or 'it'} cannot be read: {error.strerror}") from None
    if not root.directory:
        raise Refused(f"{request['path']} is a file; give the directory that it is in")
    return Files(space, write=request["write"])


def opened(request: Mapping[str, Any]) -> Space:
    """The space, once it is clear that the token reaches it. Raises Refused."""
    token = credential.read(Path(request["token"]))
    try:
        scope = zone.ask(request["host"], token, request["authorities"])
    except zone.BadToken as bad:
        raise Refused(
            f"{bad}; store a good one with `roost data login {request['name']}`"
        ) from None
    found = zone.space(scope, request["space"])
    if request["write"] and scope.read_only:
        raise Refused("the token permits reading only, and the job asks to write")
    client = OnedataFileRESTClient(
        scope.zone,
        token,
        [scope.preferred] if scope.preferred else None,
        # `requests` takes a file of CAs here as well, which the client hands on.
        verify_ssl=cast(bool, request["authorities"] or True),
        timeout=(8, request["timeout"]),
    )
    return Space(client, found, request["path"])


def main(argv: Sequence[str]) -> int:
    """Serve the mount until it is gone, or transfer files."""
    # What goes wrong in an operation is the answer to it, and no traceback on stderr.
    warnings.simplefilter("ignore")
    logging.disable()
    if "-infile" in argv:
        from roost_node.data.onedata import plugin

        return plugin.main(argv)
    request = json.loads(Path(argv[0]).read_text())
    try:
        files = mounted(request)
        _serve(files, request)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    if files.missing:
        more = f" and {len(files.missing) - 3} more" if len(files.missing) > 3 else ""
        print(f"not written: {', '.join(files.missing[:3])}{more}", file=sys.stderr)
        return 1
    return 0


def _serve(files: Files, request: Mapping[str, Any]) -> None:
    """Until it is unmounted. Raises Refused."""
    import mfusepy  # it looks for libfuse, and fails where there is none

    try:
        mfusepy.FUSE(
            files, request["target"], foreground=True, fsname="onedata",
            attr_timeout=FRESH, entry_timeout=FRESH, ro=not request["write"],
        )  # fmt: skip
    except RuntimeError as error:
        raise Refused(f"libfuse ended with status {error}") from None
