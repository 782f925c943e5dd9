"""``monitor rekey``: a topic keyed by anything becomes one keyed by account, as a repartition does.

A consumer and a producer: read, key by a field of the record, write, flush, commit. At least once, or
exactly once with a transactional id. With a sketch function the text stays behind. It reads two fields of
a record and hands its bytes on; what a sketch is, it need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from monitor.errors import BadInput, Problem, SinkBusy
from monitor.records import Expanded, RawBatch, Refused, Reject
from monitor.settings import KafkaSettings
from monitor.source.dead_letters import DeadLetters
from monitor.source.envelope import read_envelope
from monitor.source.kafka_sender import KafkaSender
from monitor.source.kafka_source import KafkaSource

Sketch = Callable[[Sequence[bytes | None]], list[bytes | None]]
"""Values of a batch -> the same with sketches in place of text, None where a value is no request."""


@dataclass(slots=True)
class RekeyResult:
    """What was done: records read, written, written without a key, and dead-lettered instead.

    With another log format ``written`` and ``rejected`` count events, and ``ignored`` items that are no request.
    """

    read: int = 0
    written: int = 0
    unkeyed: int = 0
    rejected: int = 0
    ignored: int = 0


def rekey(
    settings: KafkaSettings,
    source_topic: str,
    target_topic: str,
    *,
    field: str = "account_id",
    expand: Callable[[RawBatch], Expanded] | None = None,
    sketch: Sketch | None = None,
    digest: Callable[[bytes], str] | None = None,
    once: bool = False,
    transactional_id: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_state: Callable[[str], None] = lambda state: None,
    batch_records: int = 5_000,
) -> RekeyResult:
    """Copy ``source_topic`` to ``target_topic`` keyed by ``field``, until ``stop()`` or (``once``) caught up.

    Record timestamps become event time (``completed_at``, else ``ts``, else the record's own), so the target
    topic's retention goes by event time: set its ``retention.ms`` accordingly. A record without the field is
    written without a key, for the monitor to reject where a person sees it. With ``sketch`` (values to
    values, None where one is no request) such a record could hold text, so it is dead-lettered instead;
    ``digest`` must then make the keyed digest of a value. The group is ``{group}.rekey.{source}``.

    ``expand`` opens messages of another log format: each event in them is written as a record of its own, and what is
    none is dead-lettered (so ``digest`` is needed), with the item's index.
    """
    if source_topic == target_topic:
        raise BadInput([Problem("--to", 0, f"{target_topic} is the source itself: give another topic")])
    if (sketch is not None or expand is not None) and digest is None:
        raise ValueError("sketch and expand need digest: dead letters carry a keyed digest")
    result = RekeyResult()
    group = f"{settings.group}.rekey.{source_topic}"
    source = KafkaSource(settings, topic=source_topic, group=group, on_state=on_state)
    sender = KafkaSender(settings, target_topic, transactional_id=transactional_id)
    letters = DeadLetters(KafkaSender(settings, settings.dead_letters), source_topic) if digest else None
    key_of = _key_reader(field)
    try:
        idle = False
        while not stop() and not (once and idle and source.assigned):
            batch = source.poll(batch_records, 1.0)
            idle = not len(batch) and source.caught_up()
            if not batch.next_offsets:
                continue
            if transactional_id is not None:
                sender.begin()
            rejects = _write(batch, sender, key_of, expand, sketch, digest, result)
            try:
                if letters is not None and rejects:
                    letters.put(rejects)
                    letters.flush()
                if transactional_id is not None:
                    sender.commit(source_topic, dict(batch.next_offsets), source.group_metadata())
                else:
                    sender.flush()
                    source.commit(batch.next_offsets)
            except SinkBusy as busy:
                on_state(f"{busy}; reading that batch again")
                _rewind(source, batch)
    finally:
        source.close()
        sender.close()
        if letters is not None and isinstance(letters.sender, KafkaSender):
            letters.sender.close()
    return result


def _write(
    batch: RawBatch,
    sender: KafkaSender,
    key_of: Callable[[bytes], str | None],
    expand: Callable[[RawBatch], Expanded] | None,
    sketch: Sketch | None,
    digest: Callable[[bytes], str] | None,
    result: RekeyResult,
) -> list[Reject]:
    rejects: list[Reject] = []
    result.read += len(batch)
    messages, index = batch.values, None
    if expand is not None:
        made = expand(batch)
        result.ignored += made.ignored
        messages, index = [batch.values[i] for i in made.origin.tolist()], made.index.tolist()
        batch = made.batch
    written: Sequence[bytes | None] = batch.values if sketch is None else sketch(batch.values)
    rows = zip(
        batch.values, written, batch.partition.tolist(), batch.offset.tolist(), batch.timestamp_ms.tolist(), strict=True
    )
    for i, (value, out, partition, offset, stamp) in enumerate(rows):
        if messages[i] is None or value is None:
            continue  # a tombstone is no request
        if isinstance(value, Refused):
            assert digest is not None
            message = messages[i] or b""
            item = None if index is None else index[i]
            rejects.append(Reject(partition, offset, value.reason, len(message), digest(message), value.field, item))
            result.rejected += 1
            continue
        key = key_of(value)
        when = read_envelope(value).time_s
        if out is None:
            assert digest is not None
            message = messages[i] or b""
            item = None if index is None else index[i]
            rejects.append(Reject(partition, offset, _reason(value), len(message), digest(message), index=item))
            result.rejected += 1
            continue
        stamp_ms = round(when * 1000) if when is not None and 0 <= when < 1e11 else stamp
        sender.send(key.encode("utf-8", "replace") if key else None, out, timestamp_ms=max(0, stamp_ms))
        result.written += 1
        result.unkeyed += key is None
    return rejects


def _reason(value: bytes) -> str:
    """The reason of ``fields.REJECT_REASONS`` that decode would give, as far as the encoding goes."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    return "not_json"


def _rewind(source: KafkaSource, batch: RawBatch) -> None:
    firsts: dict[int, int] = {}
    for partition, offset in zip(batch.partition.tolist(), batch.offset.tolist(), strict=True):
        firsts.setdefault(partition, offset)
    for partition, offset in firsts.items():
        if partition in source.assigned:
            source.seek(partition, offset)


def _key_reader(field: str) -> Callable[[bytes], str | None]:
    """Reads one string field of a JSON object, as tolerantly as the envelope does."""
    if field == "account_id":
        return lambda value: read_envelope(value).account
    record = msgspec.defstruct("Record", [("key", str | None, None)], rename={"key": field})
    decoder = msgspec.json.Decoder(record)

    def read(value: bytes) -> str | None:
        try:
            return decoder.decode(value).key or None  # type: ignore[attr-defined]  # the struct is made at run time
        except (ValueError, RecursionError):
            return None

    return read
