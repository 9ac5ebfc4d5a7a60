"""What a part of the benchmark found: rows of figures, which the report only sets out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.scale import Scale

Value = str | float | None
Row = dict[str, Value]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Section:
    """rows: the figures, by column; a column's name says its unit. trials: what each single
    measurement found, where rows sum up several."""

    name: str
    title: str
    note: str
    rows: list[Row]
    trials: list[Row] = field(default_factory=list)

    def row(self, **wanted: Value) -> Row | None:
        """The first row with these values."""
        return next((row for row in self.rows if wanted.items() <= row.items()), None)


Measure = Callable[[Scale, Tell], Section]


def summed_up(trials: Sequence[Row], keys: Sequence[str], spread: str) -> list[Row]:
    """A row for each combination of the columns `keys`, in the order of their coming: medians of
    what are numbers, and least and most of the column `spread`."""
    groups: dict[tuple[Value, ...], list[Row]] = {}
    for trial in trials:
        groups.setdefault(tuple(trial[key] for key in keys), []).append(trial)
    rows = []
    for values, same in groups.items():
        row: Row = {name: middle(trial[name] for trial in same) for name in same[0]}
        row.pop("round", None)
        row.update(zip(keys, values, strict=True))
        span = numbers(trial[spread] for trial in same)
        rows.append({**row, "trials": len(same), "least": min(span), "most": max(span)})
    return rows


def middle(values: Iterable[Value]) -> float | None:
    """The median of the numbers among them, if there are any."""
    found = numbers(values)
    return median(found) if found else None


def numbers(values: Iterable[Value]) -> list[float]:
    return [value for value in values if isinstance(value, int | float)]


def quantile(ascending: Sequence[float], share: float) -> float:
    """The least value that this share of all is within. At least one value."""
    return ascending[max(0, -int(-share * len(ascending) // 1) - 1)]
