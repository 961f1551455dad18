"""The least that any such daemon must do: take one POST, forward one signed POST on an open connection, answer.

No checks, no record, no thought. What the daemon needs beyond this is what it costs.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import sys
import time

import uvloop

KEY, SECRET = "k" * 64, "s" * 64


class Floor:
    def __init__(self, exchange_port: int) -> None:
        self._exchange_port = exchange_port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._ids = itertools.count()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        await self._forward()
        body = b'{"success":true}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async def _forward(self) -> None:
        reader, writer = (
            self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._exchange_port)
        )
        stamp = int(time.time() * 1000)
        body = (
            f"newClientOrderId=floor{next(self._ids)}&newOrderRespType=FULL&quoteOrderQty=10&recvWindow=5000"
            f"&side=BUY&symbol=BTCUSDT&timestamp={stamp}&type=MARKET"
        )
        body += "&signature=" + hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
        writer.write(
            f"POST /api/v3/order HTTP/1.1\r\nHost: exchange\r\nX-MBX-APIKEY: {KEY}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await read_message(reader)
        self._idle.append((reader, writer))


async def read_message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    return await reader.readexactly(length)


async def main(port: int, exchange_port: int) -> None:
    server = await asyncio.start_server(Floor(exchange_port).serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
