"""HTCondor configuration for the user's own tools and bindings, outside the pool. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from roost_node import mutual_tls
from roost_node.vocab import pool_domain


def sinful(endpoint: str, node: str, *, sock: str = "") -> str:
    """HTCondor's form of an address: `endpoint` is `host:port`, `node` the name in the certificate.

    `sock` names the daemon behind the shared port; the collector is the one that needs no name.
    """
    return f"<{endpoint}?alias={node}{f'&sock={sock}' if sock else ''}>"


def configuration(
    pool: str, *, collectors: Sequence[str], schedd_file: Path, ca: Path, cert: Path, key: Path
) -> str:
    """What `CONDOR_CONFIG` names: reach the pool's collector and schedd, by mutual TLS alone.

    `collectors` are their addresses, and `schedd_file` holds the schedd's: all as `sinful` makes
    them. Of several, the first that answers is taken.
    """
    domain = pool_domain(pool)
    in_order = "# Ask the collectors in their order.\nHAD_USE_PRIMARY = True\n"
    return f"""\
# Written by `roost env` for the pool {pool}; written anew each time.
CONDOR_HOST = {collectors[0]}
COLLECTOR_HOST = {", ".join(collectors)}
{in_order if len(collectors) > 1 else ""}\
# The schedd that tools and bindings mean when none is named. A name would be looked up in DNS,
# which does not know the nodes; root's tools look for the second file.
SCHEDD_ADDRESS_FILE = {schedd_file}
SCHEDD_SUPER_ADDRESS_FILE = {schedd_file}
UID_DOMAIN = {domain}
TRUST_DOMAIN = {domain}
FILESYSTEM_DOMAIN = $(FULL_HOSTNAME)
# No daemon runs from here, and this machine's own HTCondor configuration does not count.
DAEMON_LIST =
LOCAL_CONFIG_FILE =
LOCAL_CONFIG_DIR =
REQUIRE_LOCAL_CONFIG_FILE = False
LOG = {cert.parent}
{mutual_tls.configuration(ca, cert, key)}"""
