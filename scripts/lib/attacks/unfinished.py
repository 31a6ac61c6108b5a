"""Clients that begin and do not end: messages, lines, and requests to the operator's listener."""

import resource
import selectors
import socket
import time

from .kit import PATIENCE_S, Server, attacker, configured, read_to_end, request, row

CONNECTIONS = 4000
# Within what an event of the default size may grow to in JSON.
SIZE = 190_000
RIGHTS = {
    "may only subscribe": "{ subscribe = ['*'] }",
    "may publish": "{ subscribe = ['*'], publish = ['*'] }",
}


def hold(server, beginning):
    """The most that RSS grew by while many connections sent all but the end of what they began."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before, peak = server.rss_bytes(), 0
    ready, clients = selectors.DefaultSelector(), []
    for _ in range(CONNECTIONS):
        client = server.connect()
        client.setblocking(False)
        clients.append(client)
        ready.register(client, selectors.EVENT_WRITE, memoryview(beginning))
    while ready.get_map():
        # A connection paused by the server holds what it has sent.
        writable = ready.select(timeout=2)
        if not writable:
            break
        for key, _ in writable:
            send_more(ready, key)
        peak = max(peak, server.rss_bytes() - before)
    for client in clients:
        client.close()
    return max(peak, server.rss_bytes() - before)


def send_more(ready, key):
    try:
        rest = key.data[key.fileobj.send(key.data[:65536]) :]
    except BlockingIOError:
        return
    except OSError:
        # The server has closed it.
        rest = b""
    if rest:
        ready.modify(key.fileobj, selectors.EVENT_WRITE, rest)
    else:
        ready.unregister(key.fileobj)


def held_by(program, beginning):
    bound = 64 << 20
    told, met = [], True
    for who, rights in RIGHTS.items():
        with configured(program, f"[auth]\nanonymous = {rights}\n", "--workers", "1") as server:
            grown = hold(server, beginning)
        told.append(f"{who}: RSS +{grown / 1e6:.0f} MB")
        met &= grown <= bound
    return "; ".join(told), met


@row(f"{CONNECTIONS:,} WebSocket messages of {SIZE // 1000} KB without their last byte", "<= 64 MiB a worker")
def messages(program):
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    head = request("GET", "/ws?channel=c", *upgrade, key, "Sec-WebSocket-Protocol: pushline.v1")
    frame = b"\x81\xff" + SIZE.to_bytes(8, "big") + bytes(4)
    return held_by(program, head + frame + b"x" * (SIZE - 1))


@row(f"{CONNECTIONS:,} NDJSON lines of {SIZE // 1000} KB without their end", "<= 64 MiB a worker")
def lines(program):
    head = request("POST", "/publish", f"Content-Length: {2 * SIZE}")
    line = b'{"channel":"c","data":"' + b"x" * SIZE
    return held_by(program, head + line)


def drip(port, connections):
    """Keeps this many connections that send a byte of their head now and then."""
    open_now = []
    while True:
        while len(open_now) < connections:
            open_now.append(socket.create_connection(("127.0.0.1", port)))
        for client in list(open_now):
            try:
                client.send(b"G")
            except OSError:
                open_now.remove(client)
        time.sleep(0.3)


@row("88 operator's clients that drip", "/healthz within 0.5 s, 50 of 50")
def dripping_operators(program):
    with Server(program) as server, attacker(drip, server.admin, 88):
        # They are there, and some were cut already.
        time.sleep(2)
        slowest = 0
        for _ in range(50):
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", server.admin), PATIENCE_S) as admin:
                admin.sendall(request("GET", "/healthz", "Connection: close"))
                assert read_to_end(admin).startswith(b"HTTP/1.1 200")
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.05)
        return f"slowest {slowest * 1000:.0f} ms", slowest < 0.5
