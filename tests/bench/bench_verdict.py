"""How long a gateway waits for a verdict: `monitor serve` as a process, a real Redis, an open loop of requests.

    PYTHONPATH=.:tests python tests/bench/bench_verdict.py [--rate 2000] [--seconds 20] [--connections 32]

Each request has the time at which it should be sent; its latency counts from there, so a stall is not hidden by
requests that were never sent. Half of the accounts have a verdict. Prints percentiles, and the processor time of the
server a request.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import servers
from campaign_rows import lone

from monitor.store.redis_link import RedisOptions
from monitor.store.redis_sink import RedisSink

TOKEN = "a-token-of-the-gateways-for-this-bench"
ACCOUNTS = 2_000


async def connection(host: str, port: int, due: list[tuple[float, int]], waits: list[float]) -> None:
    """Send this connection's share, each when it is due; a late answer delays what follows, and that counts."""
    reader, writer = await asyncio.open_connection(host, port)
    loop = asyncio.get_running_loop()
    for at, number in due:
        pause = at - loop.time()
        if pause > 0:
            await asyncio.sleep(pause)
        writer.write(f"GET /v1/verdict/a-{number} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length
        await reader.readexactly(int(length[1]))
        waits.append(loop.time() - at)
    writer.close()


async def drive(url: str, rate: int, seconds: float, connections: int) -> list[float]:
    """Latencies in seconds."""
    parts, waits = urlsplit(url), list[float]()
    begin = asyncio.get_running_loop().time() + 0.5
    share: list[list[tuple[float, int]]] = [[] for _ in range(connections)]
    for i in range(int(rate * seconds)):
        share[i % connections].append((begin + i / rate, i % ACCOUNTS))
    await asyncio.gather(*(connection(str(parts.hostname), int(parts.port or 0), due, waits) for due in share))
    return waits


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    with servers.RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
        sink = RedisSink(RedisOptions(url=redis.url))
        sink.send([lone(1, n, severity="high") for n in range(0, ACCOUNTS, 2)])
        sink.close()
        token = Path(folder) / "token"
        token.write_text(TOKEN)
        environment = {**os.environ, "MONITOR__REDIS__URL": redis.url, "MONITOR__CONSOLE__PORT": "0",
                       "MONITOR__CONSOLE__GATEWAY_TOKEN_FILE": str(token)}  # fmt: skip
        serving = subprocess.Popen(
            [sys.executable, "-m", "monitor", "serve"], env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            assert serving.stderr is not None
            url = next(line.split()[-1] for line in serving.stderr if line.startswith("serving on"))
            asyncio.run(drive(url, options.rate, 2, options.connections))  # warm
            before, begin = cpu_seconds(serving.pid), time.monotonic()
            waits = sorted(asyncio.run(drive(url, options.rate, options.seconds, options.connections)))
            spent, wall = cpu_seconds(serving.pid) - before, time.monotonic() - begin
        finally:
            serving.terminate()
            serving.wait(20)
    count = len(waits)
    shown = ", ".join(f"p{p:g} {1e3 * waits[min(int(count * p / 100), count - 1)]:.2f} ms" for p in (50, 90, 99, 99.9))
    print(f"{count:,} verdicts at {options.rate:,} a second over {options.connections} connections: {shown}")
    print(f"server: {1e6 * spent / count:.0f} us of processor a verdict, {100 * spent / wall:.0f} % of a core; "
          f"load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {redis.version}")  # fmt: skip


if __name__ == "__main__":
    main()
