"""Reads events on many streams with the package `h2`, which fails on whatever the RFC forbids, and
publishes beside them. Windows are small, so that both sides have to wait for them. Arguments: port, number of
streams, data to wait for, data to publish. Prints `open`, then `published`, then `all`."""

import socket
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, PingAckReceived, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

WINDOW = 1000


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.connection = H2Connection(H2Configuration(client_side=True))
        self.connection.initiate_connection()
        self.connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self.status, self.text, self.ended = {}, {}, set()
        self.pings = 0

    def open(self, method, path, ends):
        stream = self.connection.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "localhost")]
        self.connection.send_headers(stream, head, end_stream=ends)
        self.text[stream] = b""
        return stream

    def send_body(self, stream, body):
        while body:
            room = self.connection.local_flow_control_window(stream)
            size = min(room, self.connection.max_outbound_frame_size, len(body))
            if size == 0:
                self.receive()
                continue
            self.connection.send_data(stream, body[:size], end_stream=size == len(body))
            body = body[size:]
            self.flush()

    def flush(self):
        self.socket.sendall(self.connection.data_to_send())

    def until(self, fact):
        self.flush()
        while not fact():
            self.receive()

    def receive(self):
        received = self.socket.recv(65536)
        assert received, "the server has closed"
        for event in self.connection.receive_data(received):
            self.take(event)
        self.flush()

    def take(self, event):
        if isinstance(event, ResponseReceived):
            self.status[event.stream_id] = dict(event.headers)[b":status"]
        elif isinstance(event, DataReceived):
            self.text[event.stream_id] += event.data
            self.connection.acknowledge_received_data(
                event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, PingAckReceived):
            self.pings += 1
        assert not isinstance(event, StreamReset), event


def main(port, count, awaited, published):
    client = Client(port)
    streams = [client.open("GET", "/sse?channel=c", True) for _ in range(count)]
    client.until(lambda: all(client.status.get(stream) == b"200" for stream in streams))
    print("open", flush=True)
    post = client.open("POST", "/channels/c", False)
    client.send_body(post, published)
    client.until(lambda: post in client.ended)
    assert client.status[post] == b"200", client.status[post]
    print("published", flush=True)
    client.connection.ping(b"in order")
    wanted = [b"data: " + data + b"\n\n" for data in (published, awaited)]
    seen = lambda stream: all(data in client.text[stream] for data in wanted)
    client.until(lambda: client.pings == 1 and all(map(seen, streams)))
    print("all", flush=True)


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4].encode())
