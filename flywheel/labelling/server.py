"""The page on which a person labels episodes, served to this machine alone under an address that nobody can guess."""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from flywheel.core.errors import FlywheelError
from flywheel.labelling.session import Session

_LOOPBACK = "127.0.0.1"
_LARGEST_BODY = 10_000
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ANSWERS = {"yes": True, "no": False, "skip": None}


class LabelServer(ThreadingHTTPServer):
    """Serves one session; `serve_forever` until `shutdown`."""

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        """Bind a port of this machine, any free one where it is 0; raises `FlywheelError` if it is taken."""
        self.session, self._token = session, secrets.token_urlsafe(16)
        try:
            super().__init__((_LOOPBACK, port), _Handler)
        except OSError as error:
            raise FlywheelError(f"Port {port} cannot be used ({error.strerror}); give another --port, or none.") from None

    @property
    def root(self) -> str:
        """The path below which everything lies."""
        return f"/{self._token}/"

    @property
    def host(self) -> str:
        """The host and port as a browser names them."""
        return f"{_LOOPBACK}:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{self.host}{self.root}"


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer

    def do_GET(self) -> None:
        """The page, the state, or a picture."""
        match self._path():
            case [""]:
                page = files("flywheel.labelling").joinpath("page.html").read_bytes()
                self._send(page, "text/html; charset=utf-8")
            case ["state"]:
                self._send_json(self.server.session.state())
            case ["picture", episode_id, camera, step] if step.isdecimal():
                self._send_picture(episode_id, camera, int(step))
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """An answer, or its undoing."""
        path, body = self._path(), self._body()
        match path, body:
            case ["answer"], {"id": str(episode_id), "answer": "yes" | "no" | "skip" as given}:
                self._act(lambda: self.server.session.answer(episode_id, _ANSWERS[given]))
            case ["undo"], {}:
                self._act(self.server.session.undo)
            case _:
                self.send_error(HTTPStatus.BAD_REQUEST if path else HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def _path(self) -> list[str]:
        """The parts of the path below the root; empty for any other request."""
        # Another name for this machine is a page from elsewhere that was given our address (DNS rebinding).
        if self.headers.get("Host") != self.server.host or not self.path.startswith(self.server.root):
            return []
        return [unquote(part) for part in self.path.removeprefix(self.server.root).split("/")]

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LARGEST_BODY or self.headers.get("Content-Type") != "application/json":
            self.close_connection = True
            return None
        try:
            return json.loads(self.rfile.read(int(length)))
        except ValueError:
            return None

    def _act(self, act: Any) -> None:
        try:
            self._send_json(act())
        except FlywheelError as error:
            self._send_json({"error": str(error)}, HTTPStatus.CONFLICT)

    def _send_picture(self, episode_id: str, camera: str, step: int) -> None:
        try:
            picture = self.server.session.picture(episode_id, camera, step)
        except FlywheelError:
            picture = None
        if picture is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            kind = "image/jpeg" if picture.startswith(b"\xff\xd8") else "image/png"
            self._send(picture, kind, {"Cache-Control": "private, max-age=3600"})

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status=status)

    def _send(self, data: bytes, kind: str, headers: dict[str, str] | None = None, *, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        given = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": "no-store"}
        for name, value in (_HEADERS | given | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
