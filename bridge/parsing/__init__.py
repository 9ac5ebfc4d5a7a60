"""The rules of a message, one file each; `bridge.reading` applies them in order.

refusal.py      why a message is refused, and the words for it
names.py        topic, site, PI tag, sensor
payload.py      bytes → strict JSON → members
timestamps.py   every accepted form of time → microseconds
identity.py     canonical JSON and the event id
"""
