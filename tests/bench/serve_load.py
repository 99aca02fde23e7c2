"""A load of HTTP requests, in a process of its own: closed loops of clients, or arrivals at a rate (Poisson).

    python tests/bench/serve_load.py '{"port": 8080, "path": "/...", "bodies": "FILE", "seconds": 5, "clients": 64}'
    python tests/bench/serve_load.py '{..., "rate": 200, "clients": 512}'

bodies: a file with one JSON body a line, sent in turn. A client is a connection that is kept; with a rate, `clients` is
how many requests may be under way. The last line of output is the result as JSON: requests, statuses, latencies in ms
(of answers with status 200), bytes. Written for little processor time, for the server needs the same cores: a bare
asyncio protocol, one parse of the status line and the content length an answer.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0


class Client(asyncio.Protocol):
    """One connection: a request at a time, answered through a future."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._left = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(0)

    def data_received(self, data: bytes) -> None:
        self._left += data
        head, found, body = self._left.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        place = lower.find(b"content-length:")
        length = int(lower[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(body) >= length and self._answer is not None:
            self._left = body[length:]
            answer, self._answer = self._answer, None
            answer.set_result(int(head[9:12]))

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        if self.transport.is_closing():
            self._answer.set_result(0)
            return self._answer
        self.transport.write(request)
        return self._answer


class Load:
    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        lines = Path(task["bodies"]).read_bytes().splitlines()
        if task.get("method") == "GET":  # the lines are query strings
            head = f"GET {task['path']}?".encode()
            self.requests = [head + line + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" for line in lines]
        else:
            post = f"POST {task['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            self.requests = [f"{post}Content-Length: {len(line)}\r\n\r\n".encode() + line for line in lines]
        self.random = random.Random(SEED)
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.next = self.random.randrange(len(self.requests))
        self.idle: list[Client] = []

    async def connect(self) -> Client:
        _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", self.task["port"])
        return client

    async def one(self, client: Client) -> Client:
        self.next = (self.next + 1) % len(self.requests)
        begin = time.perf_counter()
        status = await client.ask(self.requests[self.next])
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(1000 * (time.perf_counter() - begin))
        if status == 0 or (client.transport is not None and client.transport.is_closing()):
            return await self.connect()
        return client

    async def closed(self) -> float:
        clients = [await self.connect() for _ in range(self.task["clients"])]
        begin = time.perf_counter()
        end = begin + self.task["seconds"]

        async def loop(client: Client) -> None:
            while time.perf_counter() < end:
                client = await self.one(client)

        await asyncio.gather(*(loop(client) for client in clients))
        return time.perf_counter() - begin

    async def open(self) -> float:
        self.idle = [await self.connect() for _ in range(min(64, self.task["clients"]))]
        begin = time.perf_counter()
        due, under_way, missed = begin, set(), 0
        while due < begin + self.task["seconds"]:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due += self.random.expovariate(self.task["rate"])
            if len(under_way) >= self.task["clients"]:
                missed += 1
                continue
            answer = asyncio.ensure_future(self.arrival())
            under_way.add(answer)
            answer.add_done_callback(under_way.discard)
        took = time.perf_counter() - begin
        if under_way:
            await asyncio.wait(under_way, timeout=60)
        self.statuses[-1] = missed
        return took

    async def arrival(self) -> None:
        client = self.idle.pop() if self.idle else await self.connect()
        if client.transport is None or client.transport.is_closing():  # the server ends connections that are idle
            client = await self.connect()
        self.idle.append(await self.one(client))


def main() -> None:
    task = json.loads(sys.argv[1])
    load = Load(task)
    seconds = asyncio.run(load.open() if "rate" in task else load.closed())
    latencies = np.array(load.latencies or [0.0])
    quantiles = {f"p{q}": round(float(np.percentile(latencies, q)), 3) for q in (5, 50, 95, 99)}
    answered = load.statuses[200]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "per_s": answered / seconds,
                "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
                "ms": quantiles | {"max": round(float(latencies.max()), 3)},
            }
        )
    )


if __name__ == "__main__":
    main()
