"""Whether a server answers, asked without waiting for one that does not."""

import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def reachable(url: str, seconds: float = 1.0) -> bool:
    """Whether the server of `url`, or the proxy in front of it, takes a connection in this time.

    Args:
        url: an address with its scheme.
        seconds: after which the answer is no, looking up the name included.
    """
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=seconds).close()
        except OSError:
            return
        answered.set()

    # A name's look-up knows no time limit, so it has a thread that nobody waits for.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
