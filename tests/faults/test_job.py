"""
Jobs: never two at once, never for ever, never unnoticed.
"""

import re
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from harness import slack, wait_until
from readers import stalled
from receivers import receiver
from runs import begun, ended

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/__main__.py",
    "template/src/{{ package_name }}/chassis/job.py",
    "template/src/{{ package_name }}/chassis/lock.py",
    "template/src/{{ package_name }}/chassis/logs.py",
    "template/src/{{ package_name }}/chassis/process.py",
)

Run = Callable[..., Any]


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"processes": ["job"]}


@pytest.fixture(name="job")
def _job(start: Callable[..., Any], tmp_path: Path) -> Run:
    """
    Start a run; all of a test have their locks in one folder.
    """
    locks = tmp_path / "locks"
    locks.mkdir()

    def job(name: str, **settings: Any) -> Any:
        return start("job", name, ready=False, **{"job_lock_dir": locks} | settings)

    return job


@pytest.mark.promise("J1")
def test_no_overlap(job: Run) -> None:
    """
    A second start ends with 75 and one line at once, and the first goes on; another job may run.
    """
    first = begun(job("wait"))
    second = job("wait")
    line = ended(second)

    assert (line["outcome"], line["exit_code"]) == ("overlap", 75)
    assert [event["event"] for event in second.lines()] == ["run"]
    assert line["duration_ms"] < 1000
    assert ended(job("succeed"))["exit_code"] == 0
    assert first.process.poll() is None


@pytest.mark.promise("J1")
def test_killed_holder_frees_the_lock(job: Run) -> None:
    """
    After SIGKILL the next start runs.
    """
    first = begun(job("wait"))
    first.process.kill()
    first.process.wait()

    second = begun(job("wait"))

    assert second.process.poll() is None


@pytest.mark.promise("J1")
def test_lock_behind_a_link(job: Run, tmp_path: Path) -> None:
    """
    What lies where the lock should be is not opened if it is a link: one line, 78.
    """
    (tmp_path / "locks" / "order-desk-succeed.lock").symlink_to(tmp_path / "precious")

    line = ended(job("succeed"))

    assert line["exit_code"] == 78
    assert "APP_JOB_LOCK_DIR" in line["cause"]
    assert not (tmp_path / "precious").exists()


@pytest.mark.promise("J2")
@pytest.mark.parametrize(
    ("name", "code"), [("succeed", 0), ("fail", 70), ("break", 70), ("leave", 70), ("miss", 69)]
)
def test_pings(job: Run, name: str, code: int) -> None:
    """
    Start, then success or the exit code, in order, with one id, to the URL of the job.
    """
    with receiver() as switch:
        line = ended(job(name, job_ping_url=f"{switch.endpoint}/ping/key/{{job}}"))

    assert line["exit_code"] == code
    url = f"/ping/key/{name}"
    assert switch.paths == [f"{url}/start", f"{url}/{code}" if code else url]
    assert {path.partition("?")[2] for path, _, _ in switch.received} == {f"rid={line['run_id']}"}


@pytest.mark.promise("J2")
@pytest.mark.parametrize("behaviour", ["hanging", "dripping", "unreachable", "refusing", "500"])
@pytest.mark.parametrize(("name", "code"), [("succeed", 0), ("fail", 70)])
def test_dead_switch(job: Run, behaviour: str, name: str, code: int) -> None:
    """
    A dead ping server changes neither the exit code nor, by more than two seconds, the duration.
    """
    with receiver(behaviour) as switch:
        line = ended(job(name, job_ping_url=switch.endpoint))
        after = time.time() - datetime.fromisoformat(line["timestamp"]).timestamp()

    assert line["exit_code"] == code
    # The first ping holds up nothing, the last one the end, which comes after the line.
    assert line["duration_ms"] < 750
    assert after < 2


@pytest.mark.promise("J2")
def test_overlap_is_no_success(job: Run) -> None:
    """
    A start that finds another run at work pings nobody: the other one will.
    """
    with receiver() as switch:
        begun(job("wait"))
        ended(job("wait", job_ping_url=switch.endpoint))

    assert switch.paths == []


def test_refused_ping_is_told(job: Run) -> None:
    """
    A wrong URL does not stay unnoticed.
    """
    with receiver("404") as switch:
        service = job("succeed", job_ping_url=switch.endpoint)
        assert ended(service)["exit_code"] == 0

    assert {event["cause"] for event in service.events("ping_failed")} == {
        "HTTP Error 404: Not Found"
    }


@pytest.mark.promise("J3")
@pytest.mark.parametrize("name", ["wait", "finish", "ignore", "block"])
def test_max_runtime(job: Run, name: str) -> None:
    """
    A run that takes too long ends with 70 and its stacks, whatever it does; one ping tells.
    """
    with receiver() as switch:
        began = time.monotonic()
        limits: dict[str, Any] = {"job_max_runtime_seconds": 1, "request_deadline_seconds": 0.5}
        limits |= {"grace_seconds": 1, "job_ping_url": switch.endpoint}
        service = job(name, **limits)
        line = ended(service)
        took = time.monotonic() - began

    assert (line["outcome"], line["exit_code"]) == ("too_long", 70)
    (told, *_) = service.events("run_too_long")
    assert "tasks.py" in str(told["threads"]) or f"job {name}" in str(told["tasks"])
    assert took < slack(8)
    assert switch.paths == ["/start", "/70"]
    cleaned = (service.stdout.parent / "cleaned").exists()
    assert cleaned == (name == "wait")


@pytest.mark.promise("J3")
def test_max_runtime_without_python(job: Run) -> None:
    """
    A run in which no Python runs any more is ended by a signal, with its stacks.
    """
    limits = {"job_max_runtime_seconds": 0.5, "request_deadline_seconds": 0.5, "grace_seconds": 0.5}
    service = begun(job("hold", **limits))

    assert service.wait(seconds=20) == -signal.SIGALRM
    assert "in hold" in service.stderr.read_text()


@pytest.mark.promise("L4")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(job: Run, number: signal.Signals) -> None:
    """
    The run is cancelled, cleans up, and ends with 75 and a ping.
    """
    with receiver() as switch:
        service = begun(job("wait", job_ping_url=switch.endpoint))
        service.send_signal(number)
        line = ended(service)

    assert (line["outcome"], line["exit_code"]) == ("stopped", 75)
    assert (service.stdout.parent / "cleaned").exists()
    assert switch.paths == ["/start", "/75"]


def test_done_all_the_same(job: Run) -> None:
    """
    Who was told to stop and gets done is done.
    """
    service = begun(job("finish"))
    service.send_signal(signal.SIGTERM)
    line = ended(service)

    assert (line["outcome"], line["exit_code"], line["rows"]) == ("success", 0, 4)


@pytest.mark.promise("L4")
@pytest.mark.parametrize("name", ["ignore", "block"])
def test_grace_is_a_bound(job: Run, name: str) -> None:
    """
    What does not let itself be cancelled ends after the grace with 75, with its stacks.
    """
    service = begun(job(name, grace_seconds=0.5, request_deadline_seconds=0.5))
    service.send_signal(signal.SIGTERM)
    line = ended(service, seconds=6)

    assert (line["outcome"], line["exit_code"]) == ("stopped", 75)
    told = service.events("grace_exceeded")[0]
    assert "tasks.py" in str(told["threads"]) or f"job {name}" in str(told["tasks"])


def test_second_signal(job: Run) -> None:
    """
    Who asks twice means it.
    """
    service = begun(job("ignore"))
    service.send_signal(signal.SIGTERM)
    service.wait_for("stopping")
    service.send_signal(signal.SIGTERM)

    assert service.wait(seconds=5) == 128 + signal.SIGTERM


def test_stopped_before_it_began(job: Run) -> None:
    """
    While a run waits its random time it has no lock, and a signal ends it at once.
    """
    day = {"job_jitter_seconds": 80_000, "job_interval_seconds": 604_800}
    service = job("succeed", **day)
    wait_until(lambda: _is_waiting(service.process.pid))
    assert ended(job("succeed"))["exit_code"] == 0
    service.send_signal(signal.SIGTERM)

    assert service.wait(seconds=5) == 75
    assert [event["event"] for event in service.lines()] == ["stopped"]


def _is_waiting(pid: int) -> bool:
    """
    Whether its event loop runs: the one that opened an epoll.
    """
    links = Path(f"/proc/{pid}/fd")
    try:
        return any("eventpoll" in str(link.readlink()) for link in links.iterdir())
    except FileNotFoundError:
        return False


def test_line_of_a_run(job: Run) -> None:
    """
    One line tells what ran, how it ended, how long it took, and what the job returned.
    """
    service = job("succeed")
    line = ended(service)

    assert (line["job"], line["outcome"], line["rows"]) == ("succeed", "success", 3)
    assert [event["event"] for event in service.lines()] == ["run"]


def test_failure_is_no_crash(job: Run) -> None:
    """
    A job that says why it failed gets no traceback; one with a bug is a crash.
    """
    failed, broken = job("fail"), job("break")

    assert ended(failed)["cause"] == "nothing to do it with; get some"
    assert failed.events("crash") == []
    assert ended(broken)["outcome"] == "failed"
    (crash,) = broken.events("crash")
    assert "RuntimeError" in str(crash["exception"])


@pytest.mark.promise("M9")
@pytest.mark.parametrize(("name", "code"), [("tell", 0), ("shatter", 70), ("refuse", 75)])
def test_run_without_measure(job: Run, name: str, code: int) -> None:
    """
    What a job returns or fails with fits the line of its run, which names the exception.
    """
    service = job(name)
    if name == "refuse":
        begun(service).send_signal(signal.SIGTERM)
    line = ended(service)

    assert line["exit_code"] == code
    assert max(map(len, service.stdout.read_bytes().splitlines())) < 65_536
    assert "tasks.py" in line.get("error", line.get("cause", "tasks.py"))
    assert line.get("left_out", {}).get("characters", 0) > 9_000_000 or name != "tell"


@pytest.mark.promise("M8")
@pytest.mark.parametrize(("name", "code"), [("succeed", 0), ("fail", 70), ("hold", None)])
def test_reader_that_stalls(job: Run, name: str, code: int | None) -> None:
    """
    A run ends in time, whatever it does, although nobody reads its log.
    """
    limits = {"grace_seconds": 0.1, "request_deadline_seconds": 0.05}
    service = job(name, prefix=stalled(full=True), job_max_runtime_seconds=1, **limits)

    assert service.wait(seconds=20) == (-signal.SIGALRM if code is None else code)


@pytest.fixture(name="metrics")
def _metrics(tmp_path: Path) -> Path:
    """
    The folder of node_exporter's textfile collector.
    """
    folder = tmp_path / "metrics"
    folder.mkdir()
    return folder


def moments(folder: Path, name: str) -> dict[str, float]:
    """
    The times of a job's last start, success and failure, as node_exporter would find them.
    """
    text = "".join(path.read_text() for path in folder.glob("*.prom"))
    labels = re.escape(f'{{job="{name}",service="order-desk"}}')
    found = re.findall(rf"^app_job_last_(\w+)_timestamp_seconds{labels} (\S+)$", text, re.MULTILINE)
    return {what: float(when) for what, when in found}


def test_last_success_stays(job: Run, metrics: Path) -> None:
    """
    The times of the last success, start and failure are files for Prometheus; none erases another,
    and the success has the name that it always had.
    """
    before = time.time()
    ended(job("once", job_metrics_dir=metrics))
    first = moments(metrics, "once")
    ended(job("once", job_metrics_dir=metrics))
    second = moments(metrics, "once")

    assert before <= first["start"] <= first["success"] <= second["start"] <= second["failure"]
    assert "failure" not in first
    assert second["success"] == first["success"]
    assert (metrics / "order-desk_once.prom").exists()


@pytest.mark.promise("J8")
@pytest.mark.parametrize("name", ["fail", "break", "leave", "miss", "wait"])
def test_failure_is_measured(job: Run, metrics: Path, name: str) -> None:
    """
    However a run fails, Prometheus hears of it within a scrape.
    """
    limits = {"job_max_runtime_seconds": 1, "request_deadline_seconds": 0.5, "grace_seconds": 1}
    code = ended(job(name, job_metrics_dir=metrics, **limits))["exit_code"]
    found = moments(metrics, name)

    assert code in {69, 70}
    assert found.keys() == {"start", "failure"}
    assert found["start"] <= found["failure"]


@pytest.mark.promise("J8")
def test_run_that_did_not_finish_is_measured(job: Run, metrics: Path) -> None:
    """
    A run that was killed or told to stop has begun and has no end; one that met another run has
    not even begun.
    """
    killed = begun(job("wait", job_metrics_dir=metrics))
    found = moments(metrics, "wait")
    overlap = ended(job("wait", job_metrics_dir=metrics))
    killed.process.kill()
    killed.process.wait()
    after = moments(metrics, "wait")
    stopped = begun(job("wait", job_metrics_dir=metrics))
    stopped.send_signal(signal.SIGTERM)

    assert (overlap["outcome"], ended(stopped)["outcome"]) == ("overlap", "stopped")
    assert found == after
    assert found.keys() == moments(metrics, "wait").keys() == {"start"}
    assert moments(metrics, "wait")["start"] > found["start"]
