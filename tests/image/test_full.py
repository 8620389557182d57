"""
The image of a service with everything: its processes and commands, with a PostgreSQL beside them.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import postgresql
import pytest
from harness import wait_until

BASE = "docker.io/library/python:3.13-slim-trixie"
# asyncpg, SQLAlchemy, Alembic and what they need are 48 MB of it, error tracker and traces 9 MB.
SIZE_MAX = 100_000_000

Start = Callable[..., Any]


@pytest.fixture(name="admin_url", scope="module")
def _admin_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgresql.server(tmp_path_factory.mktemp("postgresql")) as url:
        yield url


@pytest.fixture(name="start")
def _start(contain: Start, full_image: str, admin_url: str) -> Iterator[Start]:
    """
    Start containers of that service on an empty database.
    """
    with postgresql.database(admin_url) as url:
        yield partial(contain, image=full_image, near=True, ready=False, database_url=url)


@pytest.fixture(name="end")
def _end(start: Start) -> Start:
    """
    Run a command to its end, which must be 0; its container.
    """

    def end(*command: str, options: tuple[str, ...] = (), **settings: object) -> Any:
        container = start(*options, "--no-healthcheck", command=command, **settings)
        assert container.wait() == 0, container.logs()
        return container

    return end


def test_processes_are_live_and_then_ready(start: Start, end: Start) -> None:
    """
    Read-only, without capabilities, in 200 MB and 100 processes, web and worker are live before
    there is a schema, and ready once `migrate up` has made it. Told to stop, both end with 0.
    """
    short = {"drain_seconds": 0, "readiness_period_seconds": 0}
    web, worker = (start(command=(kind,), **short) for kind in ("web", "worker"))

    for container in (web, worker):
        wait_until(container.is_healthy, seconds=30)
    before = web.is_ready(), worker.is_ready()
    end("migrate", "up")
    for container in (web, worker):
        container.wait_until_ready()
    written = web.post_json("/v1/notes", {"text": "Five weeks."})
    for container in (web, worker):
        container.podman("kill", "--signal=TERM", container.id)

    assert before == (False, False)
    assert written.status == 201
    assert (web.wait(), worker.wait()) == (0, 0), web.logs() + worker.logs()


def test_commands_end_with_0(end: Start, admin_url: str) -> None:
    """
    Migrations, preflight and jobs work as hardened as the processes; a new volume can be written to
    by the job, and what it wrote is found by another one.
    """
    end("migrate", "up")
    end("preflight", replicas=1, surge=0)
    listed = end("job", "--list").logs()
    folder = {"backup_dir": "/backups"}
    new = ("--volume=/backups",)
    made = end("job", "backup", options=new, backup_scratch_url=admin_url, **folder)
    found = end("job", "restore", options=(f"--volumes-from={made.id}",), **folder).logs()

    assert listed.split() == ["backup", "restore"]
    run = json.loads(made.logs().splitlines()[-1])
    assert (run["event"], run["outcome"]) == ("run", "success")
    assert run["backup"] in found


def test_is_small(podman: Callable[..., Any], full_image: str) -> None:
    """
    With everything, at most 100 MB come on top of the base image.
    """
    sizes = [
        int(podman("image", "inspect", "--format", "{{.Size}}", name).stdout)
        for name in (full_image, BASE)
    ]

    assert sizes[0] - sizes[1] <= SIZE_MAX, sizes
