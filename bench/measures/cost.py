"""What Google bills for a billion readings, by the sizes and numbers of the requests measured."""

from __future__ import annotations

from itertools import islice
from statistics import mean

from bench import prices
from bench.generator import Load
from bench.scale import Scale
from bench.section import Row, Section, Tell
from bench.stage import Stage
from bench.subjects import BRIDGE, INSERT_ALL, ORIGINAL, Subject

BILLION = 10**9
ORIGINAL_RATE = 100  # readings a second, which it can do
LOOKED_AT = 1_000  # messages and rows, for their mean size


def measure(scale: Scale, tell: Tell) -> Section:
    rows = []
    for subject, rate, count in (
        (ORIGINAL, ORIGINAL_RATE, scale.original),
        (BRIDGE, ORIGINAL_RATE, scale.original),
        (BRIDGE, scale.live_rate, scale.weighed),
        (INSERT_ALL, scale.live_rate, scale.weighed),
    ):
        rows.append(_billed(subject, rate, count))
        tell(f"{subject.name} at {rate:,}/s: {rows[-1]['usd_per_billion']:,.0f} USD a billion")
    return Section(
        "cost",
        "What a billion readings cost",
        f"By Google's published prices as known on {prices.AS_OF} (bench/prices.py names them), "
        "without storage, queries, reading by subscriptions, and what is free each month.",
        rows,
    )


def _billed(subject: Subject, rate: int, count: int) -> Row:
    with Stage() as stage:
        running = subject.start(stage, count)
        calls = stage.services.calls("pubsub.Publish")
        stage.send(Load(count, rate))
        running.finish(count)
        requests = stage.services.calls("pubsub.Publish") - calls
        events = islice(stage.services.events(stage.settings), LOOKED_AT)
        message = mean(prices.message_bytes(event) for event in events)
        rows = islice(stage.services.rows(stage.settings), LOOKED_AT)
        row = mean(prices.row_bytes(row) for row in rows)
    published = prices.published_bytes(count, message, requests) / count
    if subject is BRIDGE:
        written, price = row, prices.STORAGE_WRITE_USD_A_GIB
    else:
        written, price = prices.streamed_row_bytes(row), prices.STREAMING_USD_A_GIB
    pubsub_usd = published * BILLION / prices.TIB * prices.PUBSUB_USD_A_TIB
    bigquery_usd = written * BILLION / prices.GIB * price
    return {
        "subject": subject.name,
        "rate": rate,
        "messages_per_request": count / requests,
        "message_bytes": message,
        "pubsub_billed_gb_per_billion": published,
        "row_bytes": row,
        "bigquery_billed_gb_per_billion": written,
        "pubsub_usd_per_billion": pubsub_usd,
        "bigquery_usd_per_billion": bigquery_usd,
        "usd_per_billion": pubsub_usd + bigquery_usd,
    }
