"""Marathon's REST API v2, as far as an engine needs it; every refusal is explained.

There is a client for it on PyPI, which does not start on any Python that roost runs on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

import httpx

from roost.errors import EngineError, EngineUnavailable, NameTaken

#: Seconds for one answer; Marathon's own limit for a change is 10.
_PATIENCE: Final = 30.0
#: A stream of events has a sign of life more often than this, in seconds.
_SILENCE: Final = 60.0

#: What an app is shown with.
_PARTS: Final = ("tasks", "deployments", "lastTaskFailure")

App = dict[str, Any]


class Locked(EngineError):
    """An app that other deployments are changing."""

    def __init__(self, app: str, deployments: Sequence[str]) -> None:
        super().__init__(
            f"Marathon is still changing the app {app}, by the deployment {', '.join(deployments)}",
            advice="wait until it is done, or cancel it with DELETE /v2/deployments/ID",
        )
        self.deployments = tuple(deployments)


class Client:
    """One Marathon, by its URL. A login is read from ~/.netrc."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # A connection for each question: a change of a pool asks a few, minutes apart.
        once = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(base_url=self.url, timeout=_PATIENCE, auth=_login(), limits=once)

    def version(self) -> str:
        """Marathon's own. Raises EngineUnavailable if none answers."""
        found = self._ask("GET", "/v2/info")
        if not isinstance(found, dict) or found.get("name") != "marathon":
            raise EngineUnavailable(
                f"what answers at {self.url} is not Marathon", advice="look at the URL"
            )
        return str(found["version"])

    def apps(self, label: str) -> list[App]:
        """Apps with this label (`key` or `key==value`), and their tasks in `tasks`."""
        asked = {"label": label, "embed": [f"apps.{part}" for part in _PARTS]}
        found: list[App] = self._ask("GET", "/v2/apps", params=asked)["apps"]
        return found

    def app(self, id: str) -> App | None:
        """An app with its tasks; None if there is none."""
        asked = {"embed": [f"app.{part}" for part in _PARTS]}
        found = self._ask("GET", f"/v2/apps/{id}", params=asked, absent=None)
        return None if found is None else dict(found["app"])

    def create(self, app: App) -> list[str]:
        """Make an app; the deployments that do it. Raises NameTaken, Locked."""
        return _deployments(self._ask("POST", "/v2/apps", app["id"], json=app))

    def update(self, id: str, change: Mapping[str, Any], *, force: bool = False) -> list[str]:
        """Change an app; the deployments that do it. Raises Locked unless it is forced."""
        asked = {"force": json.dumps(force)}
        return _deployments(self._ask("PUT", f"/v2/apps/{id}", id, json=change, params=asked))

    def delete(self, id: str) -> list[str]:
        """Remove an app with its tasks and volumes, also one that is being changed."""
        return _deployments(self._ask("DELETE", f"/v2/apps/{id}", id, absent={}))

    def kill(self, tasks: Sequence[str]) -> list[str]:
        """End exactly these tasks, also of apps that are being changed, and start no others."""
        asked = {"scale": "true", "force": "true"}
        return _deployments(
            self._ask("POST", "/v2/tasks/delete", json={"ids": [*tasks]}, params=asked)
        )

    def deployments(self) -> set[str]:
        """The ids of those that go on."""
        return {each["id"] for each in self._ask("GET", "/v2/deployments")}

    def events(self, kinds: Collection[str]) -> Iterator[dict[str, Any]]:
        """What happens from now on, of these kinds. Ends when Marathon ends the stream."""
        with (
            suppress(httpx.HTTPError),  # who listens asks anyway, only less often
            self._http.stream(
                "GET", "/v2/events", params={"event_type": sorted(kinds)},
                headers={"Accept": "text/event-stream"}, timeout=_SILENCE,
            ) as answer,
        ):  # fmt: skip
            if answer.status_code != httpx.codes.OK:
                return
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    with suppress(ValueError):
                        yield json.loads(line.removeprefix("data:"))

    # --- asking -----------------------------------------------------------------------------

    def _ask(self, method: str, path: str, app: str = "", **asked: Any) -> Any:
        """The JSON of an answer. `absent` is what a 404 means, where it means something."""
        missing = asked.pop("absent", NoReturn)
        try:
            answer = self._http.request(method, path, **asked)
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                f"no Marathon answers at {self.url}: {_cause(error)}",
                advice="look at --url, MARATHON_URL or `marathon: {url: …}`, and at Marathon",
            ) from None
        if answer.status_code == httpx.codes.NOT_FOUND and missing is not NoReturn:
            return missing
        body = _body(answer)
        if answer.is_success and body is not None:
            return body
        raise refusal(self.url, answer.status_code, body, app or path)


def refusal(url: str, status: int, body: Any, what: str) -> EngineError:
    """What an answer that is none means, with advice."""
    said = body if isinstance(body, dict) else {}
    text = str(said.get("message") or f"status {status}").strip().rstrip(".")
    locks = [each["id"] for each in said.get("deployments") or ()]
    error: EngineError
    match status:
        case 401 | 403 if "deployments" not in text:
            error = EngineUnavailable(
                f"Marathon at {url} does not let you in: {text}",
                advice="put the login for that host into ~/.netrc, as for curl -n",
            )
        case 403:
            error = EngineError(
                f"Marathon has too many deployments going on: {text.partition('.')[0]}",
                advice="wait until some are done",
            )
        case 409 if locks:
            error = Locked(what, locks)
        case 409:
            error = NameTaken(
                f"the app {what} exists on Marathon and is not this pool's",
                advice="remove it, or give the pool another name with --name",
            )
        case 400 | 422:
            error = EngineError(
                f"Marathon does not accept {what}: {text}{_details(said)}",
                advice="`roost render marathon` shows what it was given; an administrator of that "
                "Marathon may have forbidden it",
            )
        case _ if httpx.codes.is_success(status):
            error = EngineUnavailable(
                f"what answers at {url} is not Marathon", advice="look at the URL"
            )
        case _:
            error = EngineError(f"Marathon refused {what}: {text}")
    return error


def _details(said: Mapping[str, Any]) -> str:
    """` (/id: must fully match …)`, or nothing."""
    found = [
        f"{each.get('path')}: {', '.join(map(str, each.get('errors') or ()))}"
        for each in said.get("details") or ()
        if isinstance(each, dict)
    ]
    return f" ({'; '.join(found)})" if found else ""


def _login() -> httpx.Auth | None:
    try:
        return httpx.NetRCAuth(None)
    except (OSError, SyntaxError):  # there is none, or none that can be read
        return None


def _cause(error: httpx.HTTPError) -> str:
    """The innermost reason, in the system's words."""
    reason: BaseException = error
    while (inner := reason.__cause__ or reason.__context__) is not None:
        reason = inner
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return text[:1].lower() + text[1:]


def _body(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _deployments(body: Mapping[str, Any]) -> list[str]:
    """In both shapes: a new app's, and a changed one's."""
    if "deploymentId" in body:
        return [str(body["deploymentId"])]
    return [str(each["id"]) for each in body.get("deployments") or ()]


class Bell:
    """Rings whenever something of these kinds has happened: then it is worth a look.

    Without events, where Marathon gives none, nobody rings, and who waits looks now and then.
    """

    def __init__(self, listen: Callable[[], Iterator[object]]) -> None:
        self._rung = threading.Condition()
        self._times = 0
        self._listen = listen
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(EngineError):
            for _ in self._listen():
                with self._rung:
                    self._times += 1
                    self._rung.notify_all()

    def wait(self, seconds: float) -> None:
        """Until it rings, or for so long."""
        with self._rung:
            before = self._times
            self._rung.wait_for(lambda: self._times != before, seconds)
