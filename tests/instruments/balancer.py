"""
A real haproxy with the configuration of docs/how-to/haproxy.md.
"""

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import ROOT, find_command, free_ports, wait_until

__all__ = ["balance", "configuration"]


def configuration(
    port: int, servers: Sequence[tuple[int, int]], *, check: str = "1s", retries: bool = True
) -> str:
    """
    The document's, with these ports and this interval between checks; without retries it trusts
    the servers as much as most balancers do.
    """
    text = (ROOT / "docs" / "how-to" / "haproxy.md").read_text()
    block = "\n".join(re.findall(r"^    (.*)$|^$", text.partition("\n\n\n")[0], re.MULTILINE))
    assert "timeout queue 500ms" in block
    lines = [line for line in block.splitlines() if not line.startswith("    server ")]
    text = "\n".join(lines).replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    text = text.replace("inter 1s", f"inter {check}")
    if not retries:
        text = re.sub(r"(?m)^ +(retries|option redispatch|retry-on) .*\n", "", text)
        text = text.replace("defaults\n", "defaults\n    retries 0\n")
    names = ("one", "two")
    for name, (public, admin) in zip(names, servers, strict=False):
        text += f"\n    server {name} 127.0.0.1:{public} port {admin}"
    return text + "\n"


@contextlib.contextmanager
def balance(
    folder: Path, servers: Sequence[tuple[int, int]], *, check: str = "1s", retries: bool = True
) -> Iterator[tuple[int, int]]:
    """
    Put haproxy before the servers, each a public and an admin port; its own port and process id.
    """
    port, _ = free_ports()
    file = folder / f"haproxy-{port}.cfg"
    file.write_text(configuration(port, servers, check=check, retries=retries))
    process = subprocess.Popen([find_command("haproxy"), "-db", "-q", "-f", file])
    try:
        wait_until(lambda: _listens(port))
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False
