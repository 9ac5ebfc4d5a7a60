"""Handing a journal's unsettled readings on through a Cloud Storage bucket, because the disk of an
App Engine instance is made new with the instance.

Each run of the bridge on a journal (an *instance*) has a record in the bucket:

    heads/<instance>           one small JSON object: what the parts hold, and whose they are
    parts/<instance>/<part>    readings, dead letters and recent ids

Only what the head names counts, and a head is only ever replaced by whoever read its last
generation. So the head is the lock as well: a successor takes a record over by writing its own
name into the head, and a predecessor that is alive after all finds that out at its next write.

What is true at every moment (each has a test that names it):

 H1  A reading that the head names is delivered by one instance alone: by the one that took the
     record, or by its own as long as nobody has.
 H2  Before a successor delivers, the write streams of the predecessor are finalized, and the
     successor looks the readings up in the table before it writes them. Before the predecessor
     uses another stream, the head names it: so none of its appends can come later.
 H3  A record is taken only when it is closed, or when its head has not changed for so long that
     its instance cannot be alive; a living one with parts writes its head every few seconds.
 H4  A record's parts are deleted only when all of it is settled, or in another record.
 H5  With nothing unsettled for longer than a few seconds there is an empty head and no traffic.
 H6  The ledger by day goes on in one journal: a record that is closed holds it, whoever takes the
     record counts on from there, and one that is gone on with holds it no longer.

Files:

    bucket.py     the Cloud Storage client
    record.py     heads and parts as bytes
    own.py        this instance's record
    others.py     taking over the records of others
    handoff.py    both, for the service
"""

from bridge.handoff.handoff import Handoff

__all__ = ["Handoff"]
