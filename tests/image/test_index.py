"""
An organisation's package index: asked by lock and build, its credentials in neither.
"""

import base64
import io
import re
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytestmark = pytest.mark.covers(
    "questions/organisation.jinja",
    "template/Dockerfile.jinja",
    "template/pyproject.toml.jinja",
)

USERNAME, PASSWORD = "canary of@the-user", "canary$of 'the\" %40password:"  # made up
BASIC = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode())
WHEEL = "greeting-1.0-py3-none-any.whl"
TAG = "localhost/fiveweeks/order-desk:index"
SECRETS = [
    "--secret=id=index_username,env=UV_INDEX_INTERNAL_USERNAME",
    "--secret=id=index_password,env=UV_INDEX_INTERNAL_PASSWORD",
]

Run = Callable[..., subprocess.CompletedProcess[str]]


def wheel() -> bytes:
    """
    A package with one function.
    """
    info = "greeting-1.0.dist-info"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("greeting.py", "def greet(): return 'Hello'\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return content.getvalue()


class Index(BaseHTTPRequestHandler):
    """
    One package, for those who know the password; it does not say when it was uploaded.
    """

    pages: ClassVar = {
        "/simple/greeting/": f'<a href="/{WHEEL}">{WHEEL}</a>'.encode(),
        f"/{WHEEL}": wheel(),
    }

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Basic {BASIC.decode()}":
            status, page = 401, b""
        else:
            page = self.pages.get(self.path, b"")
            status = 200 if page else 404
        self.send_response(status)
        self.send_header("WWW-Authenticate", 'Basic realm="index"')
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page)

    do_HEAD = do_GET  # noqa: N815  # as http.server wants it

    def log_message(self, *_: object) -> None:
        """
        Say nothing.
        """


@pytest.fixture(name="index")
def _index() -> Iterator[str]:
    """
    The address of an index on this machine.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


@pytest.fixture(name="indexed")
def _indexed(
    copy: Callable[..., Path], uv: Run, index: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """
    A project of which all dependencies come from that index, locked.
    """
    example = "https://packages.example.com/simple"
    project = copy(sync=False, package_index_url=example)
    path = project / "pyproject.toml"
    text = path.read_text()
    assert f'url = "{example}"' in text
    for name, value in (("dependencies", '["greeting"]'), ("dev", "[]")):
        text = re.sub(rf"(?ms)^{name} = \[.*?^\]", f"{name} = {value}", text)
    path.write_text(text.replace(example, index))
    monkeypatch.delenv("UV_EXCLUDE_NEWER", raising=False)
    monkeypatch.setenv("UV_INDEX_INTERNAL_USERNAME", USERNAME)
    monkeypatch.setenv("UV_INDEX_INTERNAL_PASSWORD", PASSWORD)
    uv("lock", "--quiet", cwd=project)
    return project


def test_credentials_stay_out(
    indexed: Path, index: str, podman: Run, build: Any, tmp_path: Path
) -> None:
    """
    With the credentials as build secrets the build passes; no layer, history, lock or log has them.
    """
    built = build(indexed, TAG, *SECRETS)

    lock = (indexed / "uv.lock").read_bytes()
    podman("save", "--quiet", "--output", tmp_path / "image.tar", TAG)
    archive = (tmp_path / "image.tar").read_bytes()
    history = podman("history", "--no-trunc", TAG).stdout + podman("inspect", TAG).stdout
    assert index.encode() in lock
    assert b"greeting.py" in archive
    for place in (lock, archive, history.encode(), (built.stdout + built.stderr).encode()):
        for canary in (USERNAME.encode(), PASSWORD.encode(), BASIC):
            assert canary not in place


def test_without_credentials(indexed: Path, build: Any) -> None:
    """
    Without them the build fails: one line says that there were none, one what the index said.
    """
    ended = build(indexed, TAG, check=False)

    assert ended.returncode != 0
    lines = ended.stderr.splitlines()
    assert (
        "No secret index_username or index_password: the index is asked without credentials"
        in lines
    )
    assert any("401 Unauthorized" in line and WHEEL in line for line in lines)


def test_wrong_index(indexed: Path, index: str, build: Any) -> None:
    """
    An index without the package fails the build; one line has the address that was asked.
    """
    for path in (indexed / "uv.lock", indexed / "pyproject.toml"):
        text = path.read_text()
        text = text.replace(f"/{WHEEL}", f"/wrong/{WHEEL}").replace(index, f"{index}/wrong")
        path.write_text(text)
    ended = build(indexed, TAG, *SECRETS, check=False)

    assert ended.returncode != 0
    lines = ended.stderr.splitlines()
    assert any("404 Not Found" in line and f"/wrong/{WHEEL}" in line for line in lines)
    assert not [line for line in lines if line.startswith("No secret")]


def test_dates_are_not_asked_for(indexed: Path, uv: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The index says of no release when it was uploaded: the cool-down would find none.
    """
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2099-01-01T00:00:00Z")

    with pytest.raises(AssertionError, match="greeting"):
        uv("lock", "--upgrade", cwd=indexed)
    assert "exclude-newer =" not in (indexed / "pyproject.toml").read_text()
