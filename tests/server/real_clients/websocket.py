"""Reads events in envelopes with the package `websockets`, reconnects with the last id whenever
the connection ends, and prints one JSON line per event. Arguments: URL, number of events."""

import asyncio
import json
import sys

import websockets


async def main(url, count):
    last_id, seen = "", 0
    while seen < count:
        try:
            async with websockets.connect(
                f"{url}&last_event_id={last_id}", subprotocols=["pushline.v1"], proxy=None
            ) as socket:
                assert socket.subprotocol == "pushline.v1"
                while seen < count:
                    event = json.loads(await socket.recv())
                    last_id = event["id"]
                    print(json.dumps({"id": last_id, "data": event["data"]}), flush=True)
                    seen += 1
        except (websockets.ConnectionClosed, websockets.InvalidHandshake, OSError):
            await asyncio.sleep(0.02)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
