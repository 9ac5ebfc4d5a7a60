"""The durable journal: SQLite in WAL mode, every commit on disk before it is answered. Settlements
alone may wait for the next flush: a power cut takes back the latest of them, never a part of one
nor anything that came before the last flushed commit.

What is true after every commit, whatever is killed between any two lines (each has a test in
`tests/unit/test_journal_invariants.py` that names it):

 I1  A message that was acknowledged to the broker is in `ids` and `entries`, or in
     `dead_letters`, or it was counted as a duplicate of one that is.
 I2  Within the window of `ids`, no event id is accepted twice.
 I3  Sequence numbers grow in the order of arrival and are never used again.
 I4  The ledger changes in the same transaction as what it counts: per site, received =
     accepted + duplicates + rejected.
 I5  An entry that is not resolved (settled or dead-lettered) for some active sink is never
     pruned, nor is its id; nor the id of one whose PUBACK may not have reached the broker.
 I6  A sink's `position` never passes an entry that is unresolved for it. A lane's position
     never passes an unresolved entry of that lane, except for the ones named in `beyond`, which
     are resolved.
 I7  An append intent is overwritten only when all of its entries are resolved, when a definite
     answer freed its offset (then by one without entries: where the next append goes), or when
     the same entries are put down for a look-up in the table (then by one without a stream).
 I8  A failed transaction changes nothing, on disk or in memory.

Files of this package, in the order in which a reading meets them:

    store.py      connection, schema and its migrations, the lock against a second `run`
    counts.py     the ledger: in memory for reading, written in each transaction
    types.py      what goes in and comes out
    file.py       the open file: transactions, upkeep, fullness
    sink_side.py  who the sinks are, how far they are, what they have settled
    journal.py    append, read, dead letters: the path of a reading
    retention.py  running time, what may be pruned, fullness
    letters.py    dead letters
    handover.py   what a predecessor's journal hands to this one, and this one to another
    salvage.py    setting a damaged file aside and taking over what can be read

Tables: see `store.SCHEMA`.
"""

from bridge.journal.journal import Journal
from bridge.journal.types import AppendIntent, LaneProgress, Resume, Settlement

__all__ = ["AppendIntent", "Journal", "LaneProgress", "Resume", "Settlement"]
