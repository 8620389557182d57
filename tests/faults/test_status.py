"""
What `status` shows of a running process, in a shell that knows nothing of the service's settings.
"""

import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import slack

Start = Callable[..., Any]
Run = Callable[..., tuple[int, str, str]]

# Nobody listens there: a process is live without its database.
DATABASE = "postgresql://service@127.0.0.1:1/app"


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"processes": ["web", "worker"]}


@pytest.fixture(name="run")
def _run(project: Path) -> Run:
    """
    `status` with these arguments and variables, and no others: its exit code and what it printed.
    """

    def run(*arguments: str, **variables: object) -> tuple[int, str, str]:
        ended = subprocess.run(
            [project / ".venv" / "bin" / "order-desk", "status", *arguments],
            env={name: str(value) for name, value in variables.items()},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=slack(60),
        )
        return ended.returncode, ended.stdout, ended.stderr

    return run


@pytest.fixture(name="serve")
def _serve(start: Start) -> Start:
    """
    Start a process type and wait until its admin port answers.
    """

    def serve(*arguments: str, **settings: Any) -> Any:
        service = start(*arguments, ready=False, database_url=DATABASE, **settings)
        service.wait_for("started")
        return service

    return serve


@pytest.fixture(name="silent")
def _silent() -> Iterator[Callable[[bytes], int]]:
    """
    The port of a listener that answers each connection with these bytes, whatever is asked.
    """
    listeners = []

    def listen(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            accepted, _ = listener.accept()
            with accepted:
                accepted.recv(4096)
                accepted.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield listen
    for listener in listeners:
        listener.close()


@pytest.mark.promise("L9")
def test_needs_no_settings(serve: Start, run: Run, project: Path) -> None:
    """
    The admin port is enough: what answers comes first, with the version of the template.
    """
    service = serve(revision="abc123")
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())

    code, shown, told = run(APP_ADMIN_PORT=service.admin_port)
    metrics = service.get("/metrics", admin=True).body.decode()

    assert (code, told) == (0, "")
    first = dict(line.split() for line in shown.splitlines()[:7])
    assert [*first] == [
        *("service", "process_type", "version", "revision", "template"),
        *("uptime_seconds", "ready"),
    ]
    assert (first["service"], first["process_type"]) == ("order-desk", "web")
    assert (first["revision"], first["ready"]) == ("abc123", "0")
    assert first["template"] == answers["_commit"]
    (build,) = re.findall(r"^app_build_info{(.*)}", metrics, re.MULTILINE)
    assert f'template="{answers["_commit"]}"' in build
    assert re.search(r"^check_up +0 check=database$", shown, re.MULTILINE)


@pytest.mark.promise("L9")
def test_asks_the_right_process(serve: Start, run: Run) -> None:
    """
    With a process type, another one that answers is no answer, and the message names both.
    """
    web, worker = serve(), serve("worker")

    right = run("worker", "--admin-port", str(worker.admin_port))
    wrong = run("worker", "--port", str(web.admin_port))

    assert right[0] == 0
    assert re.search(r"^process_type +worker$", right[1], re.MULTILINE)
    assert wrong[:2] == (69, "")
    where = f"127.0.0.1 port {web.admin_port}"
    assert wrong[2].startswith(
        f"another_process: web of order-desk answers on {where}, not worker of order-desk.\n"
    )


@pytest.mark.promise("L9")
def test_there_but_silent(serve: Start, run: Run) -> None:
    """
    A process that is stopped is not one that is gone: each has its own message and what to do.
    """
    service = serve()
    port = service.admin_port

    service.send_signal(signal.SIGSTOP)
    stopped = run(APP_ADMIN_PORT=port)
    service.send_signal(signal.SIGCONT)
    assert run(APP_ADMIN_PORT=port)[0] == 0
    service.stop()
    gone = run(APP_ADMIN_PORT=port)

    assert stopped[:2] == gone[:2] == (69, "")
    assert stopped[2].startswith(f"no_answer: a process listens on 127.0.0.1 port {port} but does")
    assert "SIGUSR1" in stopped[2]
    assert gone[2].startswith(f"nothing_listens: no process listens on 127.0.0.1 port {port} (")
    assert "--admin-port" in gone[2]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"", "no_answer"),
        (b"220 mail.example.com\r\n", "another_process"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "another_process"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xff", "another_process"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup 1\n", "another_process"),
    ],
)
def test_something_else(run: Run, silent: Callable[[bytes], int], answer: bytes, word: str) -> None:
    """
    Whatever else has the port is not taken for the service, and no traceback is shown.
    """
    code, shown, told = run("--port", str(silent(answer)))

    assert (code, shown) == (69, "")
    assert told.startswith(f"{word}: ")
    assert "Traceback" not in told


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1", "::1"])  # noqa: S104  # the point
def test_where_it_listens(serve: Start, run: Run, host: str) -> None:
    """
    A process that binds every address is found on this machine.
    """
    if ":" in host and not socket.has_ipv6:
        pytest.skip("there is no IPv6 on this machine")
    service = serve(host=host)

    assert run(APP_HOST=host, APP_ADMIN_PORT=service.admin_port)[0] == 0
    assert run("--host", host, "--port", str(service.admin_port))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        ([], {"APP_ADMIN_PORT": "x"}, "must be a number from 1 to 65535, got 'x'"),
        ([], {"APP_ADMIN_PORT": "65536"}, "must be a number from 1 to 65535, got '65536'"),
        ([], {"APP_ADMIN_PORT": ""}, "must be a number from 1 to 65535, got ''"),
        ([], {"APP_HOST": "order-desk.internal"}, "'order-desk.internal'"),
        (["--port", "0"], {}, "must be a number from 1 to 65535, got '0'"),
        (["job"], {}, "'job' (choose from"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], variables: dict[str, str], told: str) -> None:
    """
    A value that can't be right is named, and the exit code is that of wrong usage.
    """
    code, shown, said = run(*arguments, **variables)

    assert (code, shown) == (64, "")
    assert told in said


def test_another_service(run: Run, silent: Callable[[bytes], int]) -> None:
    """
    A service of the same template, but of another name, is another process.
    """
    labels = 'service="invoice-desk",process_type="web"'
    body = f"# TYPE app_build_info gauge\napp_build_info{{{labels}}} 1.0\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
    port = silent((head + body).encode())

    code, _, told = run("--port", str(port))

    assert code == 69
    assert f"web of invoice-desk answers on 127.0.0.1 port {port}, not a process of" in told
