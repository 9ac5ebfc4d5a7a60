"""Figures of the plant beside the path of a reading: what the operators' page and `watch` show.

Two kinds, and neither costs Python per reading or memory per tag:

- of each tag: SQLite goes over the journal's newest entries every few seconds and keeps a row a
  tag in a file of its own, `<journal>.statistics`. It is derived: thrown away and made anew from
  the journal at each start, and whenever it is damaged or has no room.
- of the daemon: a sample every ten seconds of what the ledger and the sinks count anyway.

Files, in the order in which to read them:

    rules.py      what counts as stale, flat, … and over how long averages go
    schema.py     the file: its tables, and the one statement that takes readings in
    file.py       the file being written: made, brought up to date, thrown away
    collector.py  the thread that does it, and what is to be said when it cannot
    tags.py       asking the file: pages of tags, one tag, counts
    series.py     samples of counters: rates, differences, trends
    latency.py    percentiles out of histograms
    sampler.py    taking the samples, once a second and every ten
    statistics.py the whole, as the service starts it and the web side asks it
"""

from bridge.statistics.statistics import Statistics

__all__ = ["Statistics"]
