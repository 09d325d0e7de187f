"""Check with a time limit whether a server accepts connections."""

import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def reachable(url: str, seconds: float = 1.0) -> bool:
    """Return whether the server of `url`, or the proxy for it, accepts a connection in time.

    Args:
        url: an address with its scheme.
        seconds: time limit, including the look-up of the name.
    """
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=seconds).close()
        except OSError:
            return
        connected.set()

    # Looking up a name has no time limit, so it runs in a thread that may outlast this call.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return connected.is_set()
