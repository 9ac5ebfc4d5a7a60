"""Google Pub/Sub and BigQuery on this machine: for tests, the demo and benchmarks.

The servers speak the real wire protocols, so that Google's own client libraries are used against
them unchanged, and they are as strict as the services, never laxer. They keep no promise of
speed or scale beyond that, and are not part of the bridge.

    faults.py          which call is to fail next, and how
    pubsub.py          Pub/Sub over gRPC
    tables.py          BigQuery's tables, rows and streams (SQLite)
    bigquery_rest.py   BigQuery over REST
    bigquery_write.py  the Storage Write API over gRPC
    server.py          all of it in one process, with a control port (python -m localgcp)
"""
