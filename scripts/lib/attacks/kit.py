"""What attacks are made of: a server of their own, requests, and a probe that feels them.

A row is a function that takes the program to start and returns what it measured, as text, and
whether that meets the target:

    @row("bad tokens", "the probe's median <= 2x")
    def bad_tokens(program):
        with Server(program, "--workers", "2") as server, Probe(server) as probe:
            calm = probe.median_ms(3)
            ...
            return f"{calm:.2f} -> {loaded:.2f} ms", loaded <= 2 * calm
"""

import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Event, Pipe, Process
from typing import Callable

# Long enough for a machine that is busy with other work.
PATIENCE_S = 60


@dataclass
class Row:
    name: str
    target: str
    run: Callable


ROWS = []


def row(name, target):
    """Adds the function to the table."""

    def add(run):
        ROWS.append(Row(name, target, run))
        return run

    return add


def free_ports():
    """Two free ports, held together so that they differ."""
    with socket.socket() as one, socket.socket() as other:
        for taken in one, other:
            taken.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


class Server:
    """The program with its default settings and `options`, on ports of its own."""

    def __init__(self, program, *options):
        self.port, self.admin = free_ports()
        addresses = ["--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"]
        self.log = tempfile.TemporaryFile()
        command = [program, "serve", *addresses, *options]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + PATIENCE_S
        while not self.listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command} does not listen: {self.said()}")
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        except OSError:
            return False

    def said(self):
        """What it has written so far."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def lives(self):
        return self.process.poll() is None

    def cpu_s(self):
        """Seconds of CPU it has used."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def metric(self, name):
        """The sum of a metric over all its labels."""
        with socket.create_connection(("127.0.0.1", self.admin), PATIENCE_S) as admin:
            admin.sendall(request("GET", "/metrics", "Connection: close"))
            text = read_to_end(admin).decode()
        of_name = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in of_name)

    def connect(self, receive_buffer=None):
        """A connection; with a small receive buffer the peer feels at once that nothing is read."""
        client = socket.socket()
        client.settimeout(PATIENCE_S)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def subscribe(self, query, receive_buffer=None):
        """An SSE stream whose head is still unread."""
        client = self.connect(receive_buffer)
        client.sendall(request("GET", f"/sse?{query}"))
        return client

    def publish_lines(self, lines):
        """Publishes (channel, data) pairs as NDJSON on one connection, and waits for its answer."""
        events = "".join(
            json.dumps({"channel": channel, "data": data}) + "\n" for channel, data in lines
        ).encode()
        with self.connect() as publisher:
            length = f"Content-Length: {len(events)}"
            publisher.sendall(request("POST", "/publish", length, "Connection: close") + events)
            answer = read_to_end(publisher)
        assert answer.startswith(b"HTTP/1.1 200"), answer


@contextmanager
def configured(program, text, *options):
    """A server with this configuration file."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(text)
        config.flush()
        with Server(program, "--config", config.name, *options) as server:
            yield server


@contextmanager
def attacker(act, *args):
    """An attack in a process of its own, which gives way to the server and the probe."""
    process = Process(target=lambda: (os.nice(10), act(*args)), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def request(method, target, *headers):
    """The bytes of a request's head."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_to_end(client):
    pieces = []
    while piece := client.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


class Probe:
    """An honest subscriber and its publisher, in a process of their own: how late are events?"""

    PER_S = 100

    def __init__(self, server):
        self.latencies, told = Pipe(duplex=False)
        self.over = Event()
        self.process = Process(target=probe, args=(server, told, self.over), daemon=True)

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.process.join(PATIENCE_S)

    def during(self, seconds):
        """Sorted latencies, in milliseconds, of the events of the next `seconds`."""
        self.drain()
        time.sleep(seconds)
        return sorted(self.drain())

    def median_ms(self, seconds):
        return statistics.median(self.during(seconds) or [float("inf")])

    def drain(self):
        seen = []
        while self.latencies.poll():
            seen.append(self.latencies.recv())
        return seen


def probe(server, told, over):
    reader = server.subscribe("channel=attacks-probe")
    with reader, server.connect() as publisher:
        reader.recv(1 << 16)
        while not over.is_set():
            began = time.monotonic()
            head = request("POST", "/channels/attacks-probe", "Content-Length: 1")
            publisher.sendall(head + b"x")
            event = b""
            while b"data: x\n" not in event:
                event += reader.recv(1 << 16)
            told.send((time.monotonic() - began) * 1000)
            publisher.recv(1 << 16)
            time.sleep(1 / Probe.PER_S)
