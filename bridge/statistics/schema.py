"""The statistics file: its tables, and the statement that takes readings in.

`TAKE` goes over new entries of the journal in the order of their numbers and turns each into one
update of its tag's row, all inside SQLite: the row is the tag's state, and the `DO UPDATE` is the
rule by which a reading changes it. The row also holds the sums of the open minute. When a reading
opens another one, the trigger puts the finished one away. So most readings change one row.
"""

from __future__ import annotations

from bridge.statistics.rules import HALF_US, LONGEST_GAP, MEMORY_READINGS

SCHEMA = """
-- A tag: its newest reading, what is known of its habits, and its open minute.
-- half: the open half minute (number since 1970); half / 2 is the open minute. count0, total0:
-- sums of that half minute; count1 to total2: of the two before it.
-- newest_us: the latest event time so far. since_us, same: since when, and in how many readings,
-- the value is what it is. late_us: when the last reading out of time order came, or 0.
CREATE TABLE tags (
    id INTEGER PRIMARY KEY, site TEXT NOT NULL, pi_tag TEXT NOT NULL,
    half INTEGER, count0 INTEGER, total0 REAL, count1 INTEGER, total1 REAL, count2 INTEGER,
    total2 REAL, count INTEGER, total REAL, low REAL, high REAL, late INTEGER,
    value REAL, event_us INTEGER, received_us INTEGER, readings INTEGER, newest_us INTEGER,
    since_us INTEGER, same INTEGER, interval_us REAL, offset_us REAL, late_us INTEGER,
    UNIQUE (site, pi_tag));
-- Finished minutes. By time first: what is written and what is forgotten lies together.
CREATE TABLE minutes (
    minute INTEGER, tag INTEGER, count INTEGER, total REAL, low REAL, high REAL, late INTEGER,
    PRIMARY KEY (minute, tag)) WITHOUT ROWID;
CREATE TRIGGER put_away AFTER UPDATE OF half ON tags WHEN old.half / 2 <> new.half / 2 BEGIN
    INSERT INTO minutes
    VALUES (old.half / 2, old.id, old.count, old.total, old.low, old.high, old.late)
    ON CONFLICT DO UPDATE SET count = count + excluded.count, total = total + excluded.total,
        low = min(low, excluded.low), high = max(high, excluded.high), late = late + excluded.late;
END;
-- With the open ones.
CREATE VIEW all_minutes AS SELECT minute, tag, count, total, low, high, late FROM minutes
    UNION ALL SELECT half / 2, id, count, total, low, high, late FROM tags;
"""

# Dead letters that the journal holds. sink: empty for those refused at the entrance.
LETTERS = """
CREATE TABLE {table} (
    site TEXT NOT NULL, reason TEXT NOT NULL, sink TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (site, reason, sink)) WITHOUT ROWID;
"""

# Whether a reading belongs to the open minute, and how many half minutes on it is.
_SAME = "half / 2 = excluded.half / 2"
_ON = "excluded.half - half"

_TAKE = f"""
INSERT INTO main.tags (
    site, pi_tag, half, count0, total0, count1, total1, count2, total2, count, total, low, high,
    late, value, event_us, received_us, readings, newest_us, since_us, same, interval_us, offset_us,
    late_us)
SELECT
    e.site, e.pi_tag, e.received_us / {HALF_US}, 1, e.value, 0, 0.0, 0, 0.0, 1, e.value, e.value,
    e.value, 0, e.value, i.event_us, e.received_us, 1, i.event_us, e.received_us, 1, 0.0,
    e.received_us - i.event_us, 0
FROM journal.entries e CROSS JOIN journal.ids i ON i.seq = e.seq
WHERE e.seq > :after AND e.seq <= :upto {{only}}
ORDER BY e.seq
ON CONFLICT (site, pi_tag) DO UPDATE SET
    half = excluded.half,
    count0 = iif({_ON} = 0, count0 + 1, 1),
    total0 = iif({_ON} = 0, total0 + excluded.value, excluded.value),
    count1 = CASE {_ON} WHEN 0 THEN count1 WHEN 1 THEN count0 ELSE 0 END,
    total1 = CASE {_ON} WHEN 0 THEN total1 WHEN 1 THEN total0 ELSE 0.0 END,
    count2 = CASE {_ON} WHEN 0 THEN count2 WHEN 1 THEN count1 WHEN 2 THEN count0 ELSE 0 END,
    total2 = CASE {_ON} WHEN 0 THEN total2 WHEN 1 THEN total1 WHEN 2 THEN total0 ELSE 0.0 END,
    count = iif({_SAME}, count + 1, 1),
    total = iif({_SAME}, total + excluded.value, excluded.value),
    low = iif({_SAME}, min(low, excluded.value), excluded.value),
    high = iif({_SAME}, max(high, excluded.value), excluded.value),
    late = iif({_SAME}, late, 0) + (excluded.event_us < newest_us),
    value = excluded.value,
    event_us = excluded.event_us,
    received_us = excluded.received_us,
    readings = readings + 1,
    newest_us = max(newest_us, excluded.event_us),
    since_us = iif(value = excluded.value, since_us, excluded.received_us),
    same = iif(value = excluded.value, same + 1, 1),
    interval_us = interval_us
        + (min(max(0, excluded.received_us - received_us), {LONGEST_GAP}) - interval_us)
        / min(readings, {MEMORY_READINGS}),
    offset_us = offset_us
        + (excluded.offset_us - offset_us) / min(readings + 1, {MEMORY_READINGS}),
    late_us = iif(excluded.event_us < newest_us, excluded.received_us, late_us)
"""
_KNOWN = "EXISTS (SELECT 1 FROM main.tags t WHERE t.site = e.site AND t.pi_tag = e.pi_tag)"

TAKE = _TAKE.format(only="")
TAKE_KNOWN = _TAKE.format(only=f"AND {_KNOWN}")
COUNT_UNKNOWN = f"""
SELECT count(*) FROM (SELECT DISTINCT site, pi_tag FROM journal.entries e
WHERE e.seq > :after AND e.seq <= :upto AND NOT {_KNOWN})"""
