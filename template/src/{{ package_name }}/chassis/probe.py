"""
Ask the process on this machine whether it is alive; exit 0 or 1.

The image's HEALTHCHECK starts it every few seconds, for as long as a container lives: it imports
no more than a socket takes.
"""

import os
import socket
import sys
from collections.abc import Mapping

__all__ = ["is_live"]


def is_live(environment: Mapping[str, str]) -> bool:
    """
    Whether /livez answers 200 in time; the defaults are those of the settings.
    """
    # To connect to 0.0.0.0 or :: is to connect to this machine.
    host = environment.get("APP_HOST", "127.0.0.1")
    port = environment.get("APP_ADMIN_PORT", "8001")
    seconds = float(environment.get("APP_LIVENESS_TIMEOUT_SECONDS", "25"))
    try:
        with socket.create_connection((host, int(port)), timeout=seconds) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not is_live(os.environ))
