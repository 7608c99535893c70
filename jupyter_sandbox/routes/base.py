"""What every route of ours does the same way: who asks, the body, errors as JSON.

``HTTPError`` and status codes live in this package only. Each handler method is an ``@endpoint``,
which answers 401 itself: whatever the server's default is, none is public.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.iostream import StreamClosedError

from .. import fair_turns, metrics
from ..encoded_json import Default, EncodedJson, encode, is_large
from ..errors import (
    AccessError,
    FeatureOff,
    Forbidden,
    InvalidRequest,
    LimitExceeded,
    Misconfigured,
    NotFound,
    SandboxError,
    ToolError,
    Unavailable,
)
from ..fair_turns import in_thread
from ..models import Caller, ConversationRecord, JsonValue
from ..policy.access import decide_chat_access, decide_feature
from ..policy.json_bounds import (
    MESSAGE_DEEPEST,
    MESSAGE_VALUES,
    MOST_DIGITS,
    JsonBoundsError,
    check_json,
)
from ..shortages import shortage_of

if TYPE_CHECKING:
    from ..services import Services

MAX_BODY_BYTES = 16 * 1024 * 1024
_PIECE_CHARACTERS = 128 * 1024

_INTEGER = re.compile(r"-?[0-9]{1,18}")

P = ParamSpec("P")
H = TypeVar("H", bound="SandboxHandler")


def endpoint(
    method: Callable[Concatenate[H, P], Awaitable[None]],
) -> Callable[Concatenate[H, P], Coroutine[Any, Any, None]]:
    """Make a method of a handler an endpoint: authenticated, its errors translated."""

    @functools.wraps(method)
    async def run(self: H, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            if self.current_user is None and not self.public:
                self.answer_error(401, "unauthenticated", "Log in, or send a token.")
                return
            self.services = await self.settings["jupyter_sandbox"].ready()
            if self.needs_access:
                self.require_access()
            if self.current_user is not None or "caller" in vars(self):
                fair_turns.act_for(self.owner)
            if self.ends_with_client and self.request.method == "GET":
                self._reading = asyncio.current_task()
            await method(self, *args, **kwargs)
        except asyncio.CancelledError:
            if not self._is_client_gone:
                raise
        except SandboxError as exc:
            self.answer_sandbox_error(exc)
        except web.HTTPError:
            raise
        except Exception as exc:
            if (shortage := shortage_of(exc)) is not None:
                self.answer_sandbox_error(shortage)
                return
            error_id = uuid.uuid4().hex[:12]
            self.log.exception("internal error %s", error_id)
            self.answer_error(
                500, "internal_error", f"Internal error {error_id}; the server's log has more."
            )

    # The check above takes the place of the server's own (which answers 403, or a login page).
    run.__allow_unauthenticated = True  # type: ignore[attr-defined]
    return cast("Callable[Concatenate[H, P], Coroutine[Any, Any, None]]", run)


@web.stream_request_body
class SandboxHandler(APIHandler):
    """Base of the handlers under ``/sandbox/api``."""

    services: Services
    max_body_bytes = MAX_BODY_BYTES
    needs_access = True
    """Whether the methods are for those with chat access only, while the feature is on."""
    public = False
    """True for a handler that asks for something else than a login."""
    ends_with_client = False
    """Whether a GET is given up when its client goes: it costs much, and changes nothing."""
    _reading: asyncio.Task[None] | None = None
    _is_client_gone = False

    def initialize(self, **kwargs: Any) -> None:
        """Take what the extension passes to each handler."""
        self._body = bytearray()

    async def prepare(self) -> None:  # type: ignore[override]
        """Identify the caller; refuse a body that says it is too large before it is read."""
        self.request.connection.set_max_body_size(self.max_body_bytes)  # type: ignore[union-attr]
        stream = getattr(self.request.connection, "stream", None)
        if stream is not None:
            stream.set_nodelay(True)
        await super().prepare()
        length = self.request.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) > self.max_body_bytes and not self._finished:
            self.set_header("Connection", "close")
            self.answer_error(
                413, "too_large", f"The body is larger than {self.max_body_bytes:,} bytes."
            )

    def on_connection_close(self) -> None:
        """Give up what was to be read by a client that has gone."""
        super().on_connection_close()
        if self._reading is not None and not self._finished:
            self._is_client_gone = True
            self._reading.cancel()

    def data_received(self, chunk: bytes) -> None:
        """Collect the body; its size is bounded by the connection."""
        self._body += chunk

    def set_secure_cookie(self, name: str, value: str | bytes, *args: Any, **kwargs: Any) -> None:
        """Set a cookie, but for clients that send a token: they need no session beside it.

        The server would give each of their requests a new one, under a new random user name.
        """
        if "Authorization" not in self.request.headers:
            super().set_secure_cookie(name, value, *args, **kwargs)

    def compute_etag(self) -> str | None:
        """Give none: answers are never cached, so nobody would compare it."""
        return None

    def check_xsrf_cookie(self) -> None:
        """Check cross-site requests of known users; others get 401 later."""
        if getattr(self, "_jupyter_current_user", None) is not None:
            super().check_xsrf_cookie()

    @functools.cached_property
    def caller(self) -> Caller:
        """Who asks."""
        return self.services.caller_of(self)

    @property
    def owner(self) -> str:
        """The owner that the caller's conversations belong to."""
        return self.caller.owner

    def require_access(self) -> None:
        """Let a call go on if the feature is on and the caller has chat access.

        The order is that of SPEC.md 4, and both are decided before any look-up. Decided once for a
        call: what has begun completes, whatever is switched meanwhile.

        Raises
        ------
        FeatureOff, Forbidden
        """
        policy = self.services.access.current()
        feature = decide_feature(policy)
        if not feature:
            raise FeatureOff(sentence(feature.reason))
        access = decide_chat_access(policy, self.caller)
        if not access:
            raise Forbidden(sentence(access.reason))

    @property
    def has_access(self) -> bool:
        """Whether ``require_access`` would let the caller go on."""
        policy = self.services.access.current()
        return bool(decide_feature(policy) and decide_chat_access(policy, self.caller))

    def require_administrator(self) -> None:
        """Let administrators go on. Raises ``Forbidden`` for others."""
        if not self.caller.is_administrator:
            raise Forbidden("Only administrators of this server may do that.")

    async def find(self, conversation_id: str) -> ConversationRecord:
        """Give the caller's conversation, or raise ``NotFound``."""
        conversations = self.services.conversations
        record = await conversations.find(self.owner, conversation_id)
        conversations.note_caller(self.caller, conversation_id)
        return record

    async def find_for_use(self, conversation_id: str) -> ConversationRecord:
        """Give the caller's conversation for a call of a tool, or raise ``NotFound``."""
        conversations = self.services.conversations
        record = await conversations.find_for_use(self.owner, conversation_id)
        conversations.note_caller(self.caller, conversation_id)
        return record

    def json_body(self, *fields: str) -> dict[str, Any]:
        """Give the body as a JSON object that has no other fields than these.

        Parameters
        ----------
        fields : str
            Allowed names; none given: any.

        Raises
        ------
        InvalidRequest
            400 when it is not JSON in UTF-8 or has too many values, 422 when it is no object or has
            other fields.
        """
        if not self._body:
            return {}
        try:
            check_json(bytes(self._body), MESSAGE_VALUES, MESSAGE_DEEPEST)
            body = json.loads(self._body.decode("utf-8"))
        except JsonBoundsError as exc:
            raise InvalidRequest(
                f"The body has more than {MESSAGE_VALUES:,} values, is nested deeper than "
                f"{MESSAGE_DEEPEST} levels, or has a number of more than {MOST_DIGITS} digits.",
                status=400,
            ) from exc
        except UnicodeDecodeError as exc:
            raise InvalidRequest("The body is not UTF-8.", status=400) from exc
        except (ValueError, RecursionError) as exc:
            raise InvalidRequest("The body is not JSON.", status=400) from exc
        if not isinstance(body, dict):
            raise InvalidRequest("The body must be a JSON object.")
        if fields:
            for name in body:
                if name not in fields:
                    raise InvalidRequest(
                        f"Unknown field {str(name)[:60]!r}; known: {', '.join(fields)}."
                    )
        return body

    def text_field(self, body: dict[str, Any], name: str) -> str | None:
        """Give a field that is a string or absent (or null)."""
        value = body.get(name)
        if value is None or isinstance(value, str):
            return value
        raise InvalidRequest(f"{name}: must be a string.")

    def integer_argument(self, name: str, default: int, low: int, high: int) -> int:
        """Give a query argument that is an integer within bounds."""
        text = self.get_query_argument(name, "")
        if not text:
            return default
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise InvalidRequest(f"{name}: must be an integer from {low} to {high}.")
        return int(text)

    def answer(self, body: JsonValue, status: int = 200) -> None:
        """Answer with JSON; private data is never cached."""
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(body))

    async def answer_large(
        self, body: Mapping[str, Any], status: int = 200, default: Default | None = None
    ) -> None:
        """Answer with JSON that may be large; what is encoded already is sent as it is."""
        text = await self.encoded(body, default)
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        if len(text) > _PIECE_CHARACTERS and text.isascii():
            self.set_header("Content-Type", "application/json")
            self.set_header("Content-Length", str(len(text)))
            with contextlib.suppress(StreamClosedError):  # the client has gone
                await self.write_large(text)
            self.finish()
        else:
            self.finish(text)

    async def write_large(self, text: str) -> None:
        """Write a text that may be long; others have the loop between its pieces."""
        for at in range(0, len(text), _PIECE_CHARACTERS):
            self.write(text[at : at + _PIECE_CHARACTERS])
            await self.flush()
            await asyncio.sleep(0)  # where the client reads as fast as we write

    async def encoded(self, body: object, default: Default | None = None) -> str:
        """Give the JSON of what may be large."""
        if isinstance(body, EncodedJson):
            return body.text
        if is_large(body):
            return await in_thread(encode, body, default)
        return encode(body, default)

    def answer_error(
        self, status: int, code: str, message: str, retry_after_seconds: int | None = None
    ) -> None:
        """Answer with an error in its one shape."""
        if self._finished:
            return
        metrics.count_refusal(code)
        if self._headers_written:  # a stream has begun: it can only end
            self.log.warning("error after the answer had begun: %s %s", code, message)
            super(APIHandler, self).finish()
            return
        if retry_after_seconds is not None:
            self.set_header("Retry-After", str(retry_after_seconds))
        self.answer({"code": code, "message": message}, status)

    def answer_sandbox_error(self, exc: SandboxError) -> None:
        """Translate one of our errors (the table of ARCHITECTURE.md 4)."""
        if exc.detail:
            self.log.warning("%s: %s (%s)", exc.code, exc.message, exc.detail)
        match exc:
            case Misconfigured():
                self._answer_misconfigured(exc)
            case FeatureOff():
                self.answer_error(503, exc.code, exc.message)
            case Forbidden():
                self.answer_error(403, exc.code, exc.message)
            case NotFound() | AccessError():
                self.answer_error(404, exc.code, exc.message)
            case InvalidRequest():
                self.answer_error(exc.status, exc.code, exc.message)
            case LimitExceeded() | Unavailable():
                self.answer_error(exc.status, exc.code, exc.message, exc.retry_after_seconds)
            case ToolError():
                self.answer_error(422, exc.code, exc.message)
            case _:
                self.answer_error(500, exc.code, exc.message)

    def _answer_misconfigured(self, exc: Misconfigured) -> None:
        """Answer the same on every route: the health report of a server that does not work."""
        if self._finished:
            return
        metrics.count_refusal(exc.code)
        shape: dict[str, JsonValue] = {"ok": False, "code": exc.code, "message": exc.message}
        if self.settings["jupyter_sandbox"].is_administrator(self):
            shape["problems"] = [*exc.problems]
        self.set_header("Retry-After", str(exc.retry_after_seconds))
        self.answer(shape, exc.status)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Give errors that tornado found in the same shape."""
        reason = {400: "bad_request", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}
        error = kwargs.get("exc_info", (None, None, None))[1]
        message = getattr(error, "log_message", None) or self._reason
        self.answer_error(status_code, reason.get(status_code, "error"), str(message))


def sentence(reason: str) -> str:
    """Give a reason, which is a clause, as a sentence."""
    return f"{reason[:1].upper()}{reason[1:]}."
