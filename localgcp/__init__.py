"""Google Pub/Sub and BigQuery on this machine: for tests, the demo and benchmarks.

The servers speak the real wire protocols, so that Google's own client libraries are used against
them unchanged, and they are as strict as the services, never laxer. They keep no promise of
speed or scale beyond that, and are not part of the bridge.

    faults.py          which call is to fail next, and how (grpc_faults.py: applying it)
    pubsub.py          Pub/Sub over gRPC (topics.py: what is delivered, and when again)
    tables.py          BigQuery's tables, rows and streams in SQLite (schema.py: what fits a column)
    bigquery_rest.py   BigQuery over REST (insert_all.py, bigquery_jobs.py, http_answers.py)
    sql.py             BigQuery's SELECT as SQLite's (sql_rewrite.py, sql_functions.py)
    bigquery_write.py  the Storage Write API over gRPC (write_rows.py: rows out of protobuf)
    server.py          all of it in one process, with a control port (control.py)
"""
