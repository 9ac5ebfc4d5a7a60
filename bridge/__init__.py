"""MQTT to Google Cloud, without losing, doubling or reordering a reading.

    MQTT ──▶ subscriber ──▶ intake ──▶ journal ══▶ delivery (one per sink) ──▶ sink
                 ▲            │ parse     │ commit        │ pending → write → settle
                 └── PUBACK ──┴───────────┘               └─ Pub/Sub · BigQuery · log

One direction, two acknowledgements: the broker is acknowledged when the journal's commit is on
disk, and the journal is settled, per sink, when the service has confirmed. Everything works on
whole batches. Health, metrics, ledger and statistics look on from the side (`snapshot`,
`statistics`, `web`).

To follow a reading: `subscriber` → `intake` → `reading` (`parsing`) → `journal` → `delivery`
(`loading`, `lanes`) → `sinks`. `wiring` makes the parts, `service` starts and stops them.
"""
