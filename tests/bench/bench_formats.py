"""Decode of other log formats, one thread, processor time: events a second, beside the native log of the same traffic.

    PYTHONPATH=.:tests python tests/bench/bench_formats.py [--events N] [--rounds N] [SAMPLE...]

Processor time, best of the rounds: other work on the machine adds to it least. ``mapping`` is the part before decode.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import foreign
from otlp_protobuf import as_protobuf

from monitor.decode import DecodeOptions, decode, expander


def best(work: Callable[[], object], rounds: int) -> float:
    """Least processor seconds of ``work``."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", nargs="*", default=sorted(foreign.CARRIES))
    parser.add_argument("--events", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    native = DecodeOptions(digest_key=b"bench")
    cases = {"native": ("native", foreign.lines("native")), "native by auto": ("auto", foreign.lines("native"))}
    for sample in args.samples:
        cases[sample] = (foreign.FORMAT_OF[sample], foreign.lines(sample))
        if sample == "otlp":
            cases["otlp protobuf"] = ("otlp", [as_protobuf(line) for line in foreign.lines(sample)])
    print(f"{'sample':<20} {'bytes an event':>14} {'mapping us':>11} {'all us':>8} {'events/s':>10}")
    for name, (format_, lines) in cases.items():
        values = lines * (args.events // 8)
        batch = foreign.batch(values)
        options, mapping = native, 0.0
        if format_ != "native":
            expand = expander(foreign.reader(format_), "bench", 1 << 20)
            mapping = best(lambda expand=expand, batch=batch: expand(batch), args.rounds)  # type: ignore[misc]
            options = DecodeOptions(digest_key=b"bench", expand=expand)
        events = decode(batch, options).frame.height
        all_ = best(lambda batch=batch, options=options: decode(batch, options), args.rounds)  # type: ignore[misc]
        size = sum(map(len, values)) / events
        each = f"{mapping / events * 1e6:>11.1f} {all_ / events * 1e6:>8.1f}"
        print(f"{name:<20} {size:>14.0f} {each} {events / all_:>10,.0f}")


if __name__ == "__main__":
    main()
