"""A repository of CernVM-FS.

Debian has no package of its client: an image needs CERN's. Written to its documentation, not tried.
"""

from __future__ import annotations

from typing import Final

from roost_node.data.shape import Request, Server

PROGRAM: Final = "cvmfs2"


def server(request: Request) -> Server:
    """The client, with a configuration and a cache of its own."""
    options = request.entry.options
    values = {
        "CVMFS_SERVER_URL": options["server"],
        "CVMFS_HTTP_PROXY": options["proxy"],
        "CVMFS_PUBLIC_KEY": options["key"],
        "CVMFS_CACHE_BASE": request.disk,
        "CVMFS_RELOAD_SOCKETS": request.work,
        "CVMFS_SHARED_CACHE": "no",
        "CVMFS_QUOTA_LIMIT": "4000",
        "CVMFS_CLIENT_PROFILE": "single",
    }
    config = request.work / "cvmfs.conf"
    config.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    return Server((PROGRAM, "-f", "-o", f"config={config}", options["repository"], request.target))
