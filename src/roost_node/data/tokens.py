"""The users' tokens on an access point: HTCondor keeps them, and gives each job those it needs.

`roost data login` ─▶ condor_store_cred ─▶ condor_credd ─▶ `NAME.top` ─▶ credmon ─▶ `NAME.use`,
which the shadow sends to the job's own `_CONDOR_CREDS`. NAME is `service` of the entry's name. A
job need not say which it needs: the schedd knows from what it mounts and transfers.

What is here decides and looks; `credmon` is the process, `tokens_cli` what is asked of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roost_node.data.entries import SCHEMES, Offer
from roost_node.data.shape import service
from roost_node.vocab import CONDOR_USER, HOME_DIR

#: Root's and HTCondor's alone; on the volume of the users' homes, which outlives the node.
DIRECTORY: Final = Path(HOME_DIR) / ".tokens"
#: What the schedd is told of those that are stored.
CONF: Final = Path("/etc/condor/config.d/45-tokens.conf")

#: The name of the token with which URLs of each scheme are opened that needs one.
_URL_TOKENS: Final = {"onedata"}


@dataclass(frozen=True)
class Stored:
    """A token that is there."""

    user: str
    service: str
    expires: float | None = None
    """In seconds since 1970; None if it is not known, or never."""


def names(offer: Offer) -> tuple[str, ...]:
    """The names for which users store tokens: entries, and what opens URLs."""
    urls = {SCHEMES[scheme] for scheme in offer.urls} & _URL_TOKENS
    return tuple(sorted({name for name, entry in offer.entries.items() if entry.token} | urls))


def configuration(offer: Offer) -> str:
    """What the access point needs so that jobs get tokens; empty if no entry needs one."""
    known = names(offer)
    if not known:
        return ""
    needed = ", ".join(_needed(name, offer) for name in known)
    return f"""\
# --- tokens: kept for the users, and brought to the jobs that need them --------------------------
DAEMON_LIST = $(DAEMON_LIST) CREDD CREDMON_OAUTH
SEC_CREDENTIAL_DIRECTORY_OAUTH = {DIRECTORY}
CREDD_ARGS = -f -sock credd
# Users find it there: the logs are closed to them.
CREDD_ADDRESS_FILE = /run/condor/credd_address
CREDMON_OAUTH = /usr/bin/roost-node
CREDMON_OAUTH_ARGS = credmon
CREDMON_OAUTH_LOG = $(LOG)/CredMonOAuthLog
# Users store their own, in this container, as the account they are.
CREDD.SEC_DEFAULT_AUTHENTICATION_METHODS = FS, SSL
CREDD.SEC_WRITE_AUTHENTICATION_METHODS = FS
# The collector takes no ad of it, and nobody asks for one.
CREDD.UPDATE_INTERVAL = 86400
# Tokens of users without jobs stay until they log out.
SEC_CREDENTIAL_SWEEP_DELAY = 2147483647
# A job that says itself what it needs (use_oauth_services) is left alone.
JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES:) RoostTokens RoostTokensNeeded
JOB_TRANSFORM_RoostTokens @=end
  REQUIREMENTS OAuthServicesNeeded is undefined && (RoostMounts isnt undefined || \\
    regexp("onedata://", strcat({_TRANSFERS})))
  EVALSET RoostTokens strcat({needed})
@end
JOB_TRANSFORM_RoostTokensNeeded @=end
  REQUIREMENTS (RoostTokens ?: "") != ""
  EVALSET OAuthServicesNeeded substr(RoostTokens, 1)
@end
# What is stored stands in {CONF.name}: a job whose token is missing is refused, with what to do.
SUBMIT_REQUIREMENT_NAMES = $(SUBMIT_REQUIREMENT_NAMES:) RoostTokens
"""


#: What a job transfers, as one text.
_TRANSFERS: Final = (
    'TransferInput ?: "", ",", TransferOutputRemaps ?: "", ",", OutputDestination ?: ""'
)


def _needed(name: str, offer: Offer) -> str:
    """An expression: `,SERVICE` if a job needs this token, else nothing."""
    if name in offer.entries:
        mounted = name
        transferred = f'regexp("onedata://{name}/", strcat({_TRANSFERS}))'
    else:  # that of URLs which name no entry
        mounted = f"{name}_url"
        entries = "|".join(offer.entries) or "-"
        others = f'replaceAll("onedata://({entries})/", strcat({_TRANSFERS}), "")'
        transferred = f'regexp("{name}://", {others})'
    asked = f'stringListMember("{mounted}", RoostMounts ?: "")'
    return f'ifThenElse({asked} || {transferred}, ",{service(name)}", "")'


def found(directory: Path = DIRECTORY) -> list[Stored]:
    """What is stored, by user and service. Only root can look."""
    tokens = []
    for file in sorted(directory.glob("*/*.top")):
        try:
            until = json.loads(file.read_bytes()).get("expires_at")
        except (OSError, ValueError, AttributeError):
            until = None
        expires = float(until) if isinstance(until, int | float) else None
        tokens.append(Stored(file.parent.name, file.stem, expires))
    return tokens


def requirement(stored: Sequence[Stored], now: float) -> str:
    """What the schedd asks of a submission, as configuration: the tokens are there, and good."""
    by_user: dict[str, list[str]] = {}
    for token in stored:
        if token.expires is None or token.expires > now:
            by_user.setdefault(token.user, []).append(token.service)
    theirs = '""'
    for user, services in sorted(by_user.items(), reverse=True):
        theirs = f"ifThenElse({_of(user, services)}, {theirs})"
    return f"""\
# Written by roost-node whenever a token is stored, removed, or expires.
SUBMIT_REQUIREMENT_RoostTokens = OAuthServicesNeeded is undefined || \\
  stringListSubsetMatch(OAuthServicesNeeded, {theirs})
SUBMIT_REQUIREMENT_RoostTokens_REASON = strcat("it needs a token of ", Owner, "'s that is not \\
stored here, or has expired: run `roost data login NAME`, for each NAME of ", \\
  replaceAll("_", OAuthServicesNeeded, "-"))
"""


def _of(user: str, services: Sequence[str]) -> str:
    return f'Owner == "{user}", "{",".join(services)}"'


def knows(said: str, user: str, name: str) -> bool:
    """Whether a schedd whose requirement is `said` lets this user's jobs have this token."""
    services = re.search(re.escape(_of(user, ["?"])).replace(r"\?", '([^"]*)'), said)
    return services is not None and service(name) in services[1].split(",")


def prepare(directory: Path = DIRECTORY) -> None:
    """The directory that HTCondor keeps tokens in, with the rights that it insists on."""
    directory.mkdir(exist_ok=True)
    os.chown(directory, 0, int(CONDOR_USER.partition(":")[2]))
    directory.chmod(0o2770)


def listed(offer: Offer, stored: Sequence[Stored], user: str) -> list[Mapping[str, object]]:
    """What the pool offers, and which of this user's tokens are there."""
    theirs = {token.service: token for token in stored if token.user == user}
    kinds = {name: entry.type for name, entry in offer.entries.items()}
    kinds |= {name: name for name in names(offer) if name not in kinds}
    needs = set(names(offer))
    rows: list[Mapping[str, object]] = []
    for name, kind in sorted(kinds.items()):
        token = theirs.get(service(name)) if name in needs else None
        rows.append({
            "name": name, "type": kind, "token": name in needs, "stored": token is not None,
            "expires": token.expires if token else None,
        })  # fmt: skip
    return rows
