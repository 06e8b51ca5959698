from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.labelling.server import LabelServer
from flywheel.labelling.session import Session
from tests.lamp import make_store


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LabelServer]:
    store = make_store(tmp_path, ("red",), range(3))
    with LabelServer(Session(store, store.rows(), "anna")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def request(server: LabelServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(server.host, timeout=30)
    data = None if body is None else json.dumps(body).encode()
    kind = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, data, kind | headers)
    reply = connection.getresponse()
    found = reply.status, reply.getheader("Content-Type", ""), reply.read()
    connection.close()
    return found


def test_the_page_and_its_pictures_are_served_under_the_token_alone(server: LabelServer) -> None:
    status, kind, page = request(server, "GET", server.root)
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert b"http" not in page.replace(b"http-equiv", b"")  # nothing from elsewhere
    for path in ("/", "/state", "/guess/state", server.root + "nothing", server.root + "../etc/passwd"):
        assert request(server, "GET", path)[0] == 404
    episode = json.loads(request(server, "GET", server.root + "state")[2])["episode"]
    picture = f"{server.root}picture/{quote(episode['id'])}/camera/{episode['steps']}"
    status, kind, data = request(server, "GET", picture)
    assert (status, kind, data[:4]) == (200, "image/png", b"\x89PNG")
    for wrong in (f"picture/{episode['id']}/camera/99", f"picture/{episode['id']}/wrist/0", "picture/none/camera/0"):
        assert request(server, "GET", server.root + wrong)[0] == 404


def test_another_host_is_refused(server: LabelServer) -> None:
    assert request(server, "GET", server.root + "state", Host="evil.example")[0] == 404
    assert request(server, "POST", server.root + "undo", {}, Host="evil.example")[0] == 404


def test_answers_come_as_json_and_nothing_else_does_anything(server: LabelServer) -> None:
    store = server.session.store
    name = server.session.state()["episode"]["id"]
    state = json.loads(request(server, "POST", server.root + "answer", {"id": name, "answer": "no"})[2])
    assert state["labelled"] == 1
    assert store.history(name)[-1].value is False
    assert json.loads(request(server, "POST", server.root + "undo", {})[2])["labelled"] == 0
    for body in ({"id": name, "answer": "perhaps"}, {"id": 3, "answer": "yes"}, [], "yes"):
        assert request(server, "POST", server.root + "answer", body)[0] == 400
    plain = {"Content-Type": "text/plain"}  # what a form of another page could send
    assert request(server, "POST", server.root + "answer", {"id": name, "answer": "yes"}, **plain)[0] == 400
    assert len(store.history(name)) == 2


def test_what_cannot_be_stored_is_said(server: LabelServer) -> None:
    name = server.session.state()["episode"]["id"]
    (server.session.store.path / ".meta" / "labels.jsonl").mkdir()
    status, _, data = request(server, "POST", server.root + "answer", {"id": name, "answer": "yes"})
    assert status == 409
    assert "no label was changed" in json.loads(data)["error"]
    assert server.session.state()["episode"]["id"] == name


def test_a_port_that_is_taken_is_named(server: LabelServer) -> None:
    with pytest.raises(FlywheelError, match="cannot be used"):
        LabelServer(server.session, server.server_address[1])
