"""Readers that make the server work or hold memory: replays of many channels, slow readers."""

import threading
import time

from .kit import Probe, Server, request, row

# As many as a connection may have.
CHANNELS = [f"attack-{n}" for n in range(128)]
EVENTS_EACH = 100
QUERY = "&".join(f"channel={name}" for name in CHANNELS)
REPLAY = f"{QUERY}&last_event_id=earliest"


def fill(server, events_each=EVENTS_EACH, data="x"):
    server.publish_lines((name, data) for _ in range(events_each) for name in CHANNELS)


def read_events(client, count):
    """Reads until this many events have come."""
    mark, seen, tail = b"\ndata:", 0, b""
    while seen < count:
        piece = client.recv(1 << 18)
        assert piece, f"the stream ended after {seen} of {count} events"
        piece = tail + piece
        seen += piece.count(mark)
        # A mark may be cut in two; none is counted twice.
        tail = piece[1 - len(mark) :]


@row("replay of 128 channels", "<= 0.6 us of CPU an event")
def replay_cost(program):
    with Server(program, "--workers", "1") as server:
        fill(server)
        events, rounds = EVENTS_EACH * len(CHANNELS), 40
        began = server.cpu_s()
        for _ in range(rounds):
            with server.subscribe(REPLAY) as client:
                read_events(client, events)
        us = (server.cpu_s() - began) * 1e6 / (rounds * events)
        return f"{us:.2f} us", us <= 0.6


@row("166 replays of 128 channels a second, hung up after 50 bytes", "another's median < 2x")
def replay_flood(program):
    with Server(program, "--workers", "1") as server:
        fill(server)
        with Probe(server) as probe:
            calm = probe.median_ms(3)
            over = threading.Event()
            flood = threading.Thread(target=hang_up_early, args=(server, over))
            flood.start()
            loaded = probe.median_ms(6)
            over.set()
            flood.join()
        return f"{calm:.2f} -> {loaded:.2f} ms", loaded < 2 * calm


def hang_up_early(server, over, per_s=166):
    next_at = time.monotonic()
    while not over.is_set():
        with server.subscribe(REPLAY, receive_buffer=4096) as client:
            client.recv(50)
        next_at += 1 / per_s
        time.sleep(max(0, next_at - time.monotonic()))


@row("150 slow readers of 128 channels, 50 KB/s each", "<= 0.35 cores")
def slow_readers(program):
    readers, bytes_per_s, seconds = 150, 50_000, 8
    with Server(program, "--workers", "1") as server:
        fill(server, data="x" * 100)
        clients = [server.subscribe(REPLAY, receive_buffer=4096) for _ in range(readers)]
        began_s, began, taken = server.cpu_s(), time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < seconds:
            for client in clients:
                taken += len(client.recv(4096))
            time.sleep(max(0, taken / (readers * bytes_per_s) - elapsed))
        cores = (server.cpu_s() - began_s) / elapsed
        for client in clients:
            client.close()
        return f"{cores:.2f} cores at {taken / elapsed / 1e6:.1f} MB/s", cores <= 0.35


@row("40 stalled readers of 128 channels each, empty events", "told, and RSS within twice its bounds")
def stalled_readers(program):
    readers, events_each, bound = 40, 300, 32 << 20
    limits = ("--history-bytes", str(bound), "--worker-replica-bytes", str(bound))
    with Server(program, "--workers", "1", *limits) as server:
        before = server.rss_bytes()
        clients = []
        for reader in range(readers):
            names = [f"stalled-{reader}-{n}" for n in range(len(CHANNELS))]
            query = "&".join(f"channel={name}" for name in names)
            client = server.subscribe(query, receive_buffer=4096)
            client.recv(50)
            clients.append(client)
            server.publish_lines((name, "") for _ in range(events_each) for name in names)
        grown, told = server.rss_bytes() - before, server.metric("pushline_replica_bytes")
        held = server.metric("pushline_history_bytes")
        for client in clients:
            client.close()
        measured = f"RSS +{grown / 1e6:.0f} MB; replicas say {told / 1e6:.0f}, history {held / 1e6:.0f}"
        return measured, grown <= 2 * (bound + bound) and told + held >= grown / 2


@row("48 events of 16 MiB that JSON makes six times as long", "alive, RSS <= 3 GiB")
def large_events(program):
    count, size = 48, 16 << 20
    # Time enough to have all of them but a byte before the first is published.
    limits = ("--max-event-bytes", "16MiB", "--body-time", "5m")
    with Server(program, "--workers", "1", *limits) as server:
        names = [f"large-{n}" for n in range(count)]
        clients = [server.subscribe(f"channel={name}&envelope=json") for name in names]
        for client in clients:
            client.recv(50)
        peak = 0
        publishers = [server.connect() for _ in names]
        body = b"\x01" * size
        for name, publisher in zip(names, publishers):
            head = request("POST", f"/channels/{name}", f"Content-Length: {size}")
            publisher.sendall(head + body[:-1])
        for publisher in publishers:
            publisher.sendall(body[-1:])
        until = time.monotonic() + 5
        while server.lives() and time.monotonic() < until:
            peak = max(peak, server.rss_bytes())
            time.sleep(0.01)
        alive = server.lives()
        return f"{'alive' if alive else 'DEAD'}, RSS {peak / 1e9:.1f} GB", alive and peak <= 3 << 30
