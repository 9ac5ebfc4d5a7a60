"""What the bridge can do, measured beside a bare MQTT client and the design it replaces.

make bench                       # everything, and charts: bench/results/
python -m bench --quick latency  # some of it, quickly

__main__.py      the command
scale.py         how much is measured
measures/        the parts, one file each; a part answers a `Section`
targets.py       which figures are promised
report.py        tables for the terminal and for people, JSON for programs
chart.py         drawn from the JSON; the only importer of matplotlib

stage.py         broker and local services of one trial
subjects.py      what is measured: ceiling.py, original.py, and the bridge
generator.py     the load; discard.py: what shows its own limit
arrivals.py      when each reading arrived, and that each did once
meter.py, process.py    bytes on the wire; CPU and memory
"""
