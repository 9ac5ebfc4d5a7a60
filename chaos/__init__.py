"""Proof by breaking things: readings flow through real processes while one fault after the other
is injected; in the end what the sensors were acknowledged is compared with what arrived.

    sensors ──▶ Mosquitto ──▶ proxy ──▶ bridge ──▶ local Pub/Sub and BigQuery
       │                                                  │
       └── acknowledged numbers ──▶ verdict ◀── events and rows held

`python -m chaos --help` lists what can be run.
"""
