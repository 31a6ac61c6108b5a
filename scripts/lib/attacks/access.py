"""Clients that show bad tokens, and clients that publish as fast as they can."""

import base64
import json
import selectors
import time
from contextlib import ExitStack
from pathlib import Path

from .kit import Probe, Server, attacker, configured, request, row

KEY = Path(__file__).parents[3] / "tests/fixtures/keys/ec_p256_public.pem"
ANYBODY = "anonymous = { subscribe = ['*'], publish = ['*'] }"


def guarded_by_es256(program):
    """A server that anyone may use, and that checks tokens where they are sent."""
    return configured(program, f"[auth]\npublic_keys = [{{ file = '{KEY}' }}]\n{ANYBODY}\n")


def forged_es256():
    part = lambda bytes_: base64.urlsafe_b64encode(bytes_).rstrip(b"=").decode()
    return f"{part(json.dumps({'alg': 'ES256'}).encode())}.{part(b'{}')}.{part(bytes(64))}"


def show_bad_tokens(server, connections):
    """Keeps this many connections busy with bad tokens; one that is closed is opened again."""
    bad = request("GET", "/channels/a", f"Authorization: Bearer {forged_es256()}") * 4
    open_now = selectors.DefaultSelector()

    def begin():
        client = server.connect()
        client.sendall(bad)
        open_now.register(client, selectors.EVENT_READ)

    for _ in range(connections):
        begin()
    while True:
        for key, _ in open_now.select():
            try:
                more = key.fileobj.recv(1 << 16)
            except OSError:
                more = b""
            if not more:
                open_now.unregister(key.fileobj)
                key.fileobj.close()
                begin()


@row("400 connections of bad ES256 tokens", "another's median < 2x")
def bad_tokens(program):
    with guarded_by_es256(program) as server, Probe(server) as probe:
        calm = probe.median_ms(3)
        with attacker(show_bad_tokens, server, 400):
            loaded = probe.median_ms(6)
        return f"{calm:.2f} -> {loaded:.2f} ms", loaded < 2 * calm


def flood_websockets(server, connections):
    """This many WebSockets, each of which publishes to its channel without waiting for anything; one
    that is closed for it comes back."""
    frames = (b"\x81\x81" + bytes(4) + b"x") * 512
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    ready = selectors.DefaultSelector()

    def begin(n):
        client = server.connect()
        client.sendall(request("GET", f"/ws?channel=flood-{n}", *upgrade, key))
        client.setblocking(False)
        ready.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE, n)

    for n in range(connections):
        begin(n)
    while True:
        for key_of, events in ready.select():
            client = key_of.fileobj
            try:
                if events & selectors.EVENT_READ and not client.recv(1 << 18):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    client.send(frames)
            except BlockingIOError:
                pass
            except OSError:
                ready.unregister(client)
                client.close()
                begin(key_of.data)


def flood_lines(server):
    """One body of lines without an end, to channels that one connection reads all of."""
    channels = [f"flood-{n}" for n in range(128)]
    reader = server.subscribe("&".join(f"channel={name}" for name in channels))
    lines = "".join(json.dumps({"channel": name, "data": "x"}) + "\n" for name in channels * 8)
    chunk = f"{len(lines):x}\r\n{lines}\r\n".encode()
    publisher = server.connect()
    publisher.sendall(request("POST", "/publish", "Transfer-Encoding: chunked"))
    reader.setblocking(False)
    while True:
        publisher.sendall(chunk)
        try:
            while reader.recv(1 << 20):
                pass
        except BlockingIOError:
            pass


def refused_share(server, publishes=100):
    """How many of these publishes, one after the other, to a channel with readers are refused."""
    refused = 0
    with ExitStack() as held:
        # On every worker, whichever they come to.
        for _ in range(8):
            held.enter_context(server.subscribe("channel=honest")).recv(1 << 16)
        publisher = held.enter_context(server.connect())
        for _ in range(publishes):
            publisher.sendall(request("POST", "/channels/honest", "Content-Length: 1") + b"x")
            refused += publisher.recv(1 << 16).startswith(b"HTTP/1.1 503")
    return refused, publishes


def refused_during(program, attack, *args):
    with Server(program, "--workers", "2") as server, attacker(attack, server, *args):
        while server.metric("pushline_events_published_total") < 1000:
            time.sleep(0.1)
        refused, publishes = refused_share(server)
        return f"{refused} of {publishes} refused", refused == 0


@row("70 WebSockets that publish without waiting", "another's publishes: none refused")
def websocket_flood(program):
    return refused_during(program, flood_websockets, 70)


@row("one body of lines without an end", "another's publishes: none refused")
def lines_flood(program):
    return refused_during(program, flood_lines)
