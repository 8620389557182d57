"""
A real PgBouncer before a PostgreSQL.
"""

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from harness import find_command, free_ports, wait_until

__all__ = ["pool"]


@contextlib.contextmanager
def pool(url: str, mode: str, *, ignored: str = "extra_float_digits") -> Iterator[str]:
    """
    The URL of a PgBouncer in a mode, for the database of a URL; what it ignores of what clients ask
    for at their start, it ignores.
    """
    parts, (port, _) = urlsplit(url), free_ports()
    # It runs as nobody where it is started by root, who may not read what pytest makes.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        config, log = Path(folder) / "pgbouncer.ini", Path(folder) / "log"
        config.write_text(
            f"""
[databases]
app = host=127.0.0.1 port={parts.port} user={parts.username} password={parts.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 2
ignore_startup_parameters = {ignored}
"""
        )
        user = "nobody" if os.geteuid() == 0 else None
        command = [find_command("pgbouncer"), "-q", str(config)]
        with log.open("wb") as told:
            process = subprocess.Popen(command, stdout=told, stderr=told, user=user)
        try:
            wait_until(lambda: _listens(port))
            yield f"postgresql://service:any@127.0.0.1:{port}/app"
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False
