"""Onezone, asked what a token permits: before it is stored, and before a space is mounted with it.

Needs nothing but the standard library: the access point asks, too, in any image.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from roost_node.data.shape import Refused

#: The oldest Oneprovider that onedatafilerestclient speaks with.
OLDEST: Final = (21, 2, 1)
#: Seconds that an answer may take.
TIMEOUT: Final = 20.0


class Unreachable(Refused):
    """Nobody answered, so nothing is known of the token."""


class BadToken(Refused):
    """The token is not, or no longer, good."""


@dataclass(frozen=True)
class Provider:
    """A Oneprovider that a token can reach."""

    id: str
    domain: str
    version: str
    online: bool

    @property
    def too_old(self) -> bool:
        return tuple(map(int, re.findall(r"\d+", self.version)[:3])) < OLDEST


@dataclass(frozen=True)
class Space:
    """A space that a token can reach, and who has its data."""

    id: str
    name: str
    providers: tuple[Provider, ...]


@dataclass(frozen=True)
class Scope:
    """What a token permits."""

    zone: str
    """The host of the Onezone, with its port if that is not 443."""
    spaces: tuple[Space, ...]
    read_only: bool = False
    until: float | None = None
    """Until when it is good, in seconds since 1970; None if nothing limits it."""
    preferred: str = ""
    """The domain of the provider whose host was named instead of the Onezone's."""


def ask(host: str, token: str, authorities: str = "", timeout: float = TIMEOUT) -> Scope:
    """What the token permits, by the Onezone of `host`: itself one, or one of its Oneproviders.

    `authorities` is a PEM file of the CAs that are believed; the system's if empty. Raises Refused.
    """
    context = ssl.create_default_context(cafile=authorities or None)
    zone, preferred = _zone(host, context, timeout)
    url = f"https://{zone}/api/v3/onezone/tokens/infer_access_token_scope"
    status, answer = _answer(url, context, timeout, {"token": token})
    if status != 200:
        wrong = problem(answer.get("error"))
        raise BadToken(wrong) if wrong else Unreachable(f"{zone} answered with status {status}")
    try:
        return _scope(zone, preferred, answer)
    except (KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{zone} does not answer as a Onezone does: {error!r}") from None


def _zone(host: str, context: ssl.SSLContext, timeout: float) -> tuple[str, str]:
    """The Onezone, and the domain of the provider if `host` is one."""
    status, _ = _answer(f"https://{host}/api/v3/onezone/configuration", context, timeout)
    if status == 200:
        return host, ""
    status, said = _answer(f"https://{host}/api/v3/oneprovider/configuration", context, timeout)
    if status != 200 or "onezoneDomain" not in said:
        raise Refused(f"{host} is neither a Onezone nor a Oneprovider")
    return str(said["onezoneDomain"]), str(said.get("domain", host))


def _answer(
    url: str, context: ssl.SSLContext, timeout: float, body: object = None
) -> tuple[int, Mapping[str, Any]]:
    """Status and JSON. Raises Refused where nobody answers."""
    host = url.split("/")[2]
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    try:
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=context) as got:  # noqa: S310
                status, text = got.status, got.read()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Unreachable(f"the certificate of {host} is not believed: "
                          f"{reason.verify_message}") from None  # fmt: skip
        said = "it does not answer" if isinstance(reason, TimeoutError) else str(reason)
        raise Unreachable(f"{host} cannot be reached: {said}") from None
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        found = {}
    return status, found if isinstance(found, dict) else {}


def _scope(zone: str, preferred: str, answer: Mapping[str, Any]) -> Scope:
    data = answer["dataAccessScope"]
    providers = {
        id_: Provider(id_, said["domain"], str(said["version"]), bool(said["online"]))
        for id_, said in data["providers"].items()
    }
    spaces = (
        Space(id_, said["name"], tuple(providers[by] for by in said["supports"] if by in providers))
        for id_, said in data["spaces"].items()
    )
    until = answer.get("validUntil")
    return Scope(
        zone,
        tuple(sorted(spaces, key=lambda space: space.name)),
        bool(data.get("readonly")),
        None if until is None else float(until),
        preferred,
    )


def space(scope: Scope, name: str) -> Space:
    """The space of that name or id, which a provider can serve. Raises Refused."""
    found = [each for each in scope.spaces if name in (each.name, each.id)]
    if not found:
        known = ", ".join(each.name for each in scope.spaces) or "none"
        raise Refused(f"the token reaches no space {name!r}; it reaches: {known}")
    if len(found) > 1:
        ids = ", ".join(each.id for each in found)
        raise Refused(f"there are {len(found)} spaces {name!r}; name one by its id: {ids}")
    providers = found[0].providers
    if not providers:
        raise Refused(f"no provider has data of the space {name!r}")
    if all(each.too_old for each in providers):
        versions = ", ".join(f"{each.domain} ({each.version})" for each in providers)
        oldest = "{}.{:02}.{}".format(*OLDEST)
        raise Refused(f"every provider of the space {name!r} is older than {oldest}: {versions}")
    if not any(each.online for each in providers if not each.too_old):
        names = ", ".join(each.domain for each in providers)
        raise Refused(f"no provider of the space {name!r} is online: {names}")
    return found[0]


_UNKNOWN: Final = "Onedata does not know this token"
_OTHER_KIND: Final = "this is not an access token for the REST API and Oneclient"
#: What Onedata calls what can be wrong with a token.
_PROBLEMS: Final = {
    "badToken": _UNKNOWN,
    "tokenInvalid": _UNKNOWN,
    "tokenTooLarge": _UNKNOWN,
    "badValueEmpty": _UNKNOWN,
    "tokenRevoked": "the token has been revoked",
    "notAnAccessToken": _OTHER_KIND,
    "tokenServiceForbidden": _OTHER_KIND,
}


def problem(error: object) -> str:
    """What Onedata says is wrong with a token, as a sentence; empty if nothing is."""
    if not isinstance(error, Mapping):
        return ""
    name = str(error.get("id"))
    details = _mapping(error.get("details"))
    if name in ("badValueToken", "unauthorized"):  # around the token's own error
        inner = problem(details.get("tokenError") or details.get("authError"))
        return inner or "Onedata does not accept the token"
    if name == "tokenCaveatUnverified":
        caveat = _mapping(details.get("caveat"))
        if caveat.get("type") == "time":
            return f"the token expired {when(caveat.get('validUntil'))}"
        return f"a caveat of the token ({caveat.get('type', 'unknown')}) forbids it"
    return _PROBLEMS.get(name, "")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def when(seconds: object) -> str:
    """A time in UTC, to the minute."""
    if not isinstance(seconds, int | float):
        return "some time ago"
    return datetime.fromtimestamp(seconds, UTC).strftime("on %Y-%m-%d at %H:%M UTC")
