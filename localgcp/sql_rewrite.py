"""A typed BigQuery tree rewritten so that SQLite computes the same on the stored forms.

What is not known here is refused rather than passed on: SQLite would take much of it and mean
something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp

from localgcp.sql_functions import UNITS

Type = exp.DataType.Type
KINDS = {
    Type.TEXT: "STRING",
    Type.VARCHAR: "STRING",
    Type.BIGINT: "INTEGER",
    Type.INT: "INTEGER",
    Type.DOUBLE: "FLOAT",
    Type.FLOAT: "FLOAT",
    Type.BOOLEAN: "BOOLEAN",
    Type.TIMESTAMPTZ: "TIMESTAMP",
    Type.DATE: "DATE",
    Type.BINARY: "BYTES",
    Type.VARBINARY: "BYTES",
    Type.JSON: "JSON",
}
_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In)
_NUMBERS = frozenset({"INTEGER", "FLOAT"})
_PARTS = ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND", "MICROSECOND")


class Unserved(Exception):
    """Something in the statement that is not served, or is not BigQuery's SQL."""


def kind_of(node: Any) -> str:
    """BigQuery's type of an annotated expression; "" where it is not known."""
    return KINDS.get(node.type.this, "") if node.type is not None else ""


def rewrite(tree: Any, parameters: dict[str, str]) -> Any:
    """`tree` for SQLite, with `:p_<name>` for `@<name>`. `parameters`: the type of each.
    Raises Unserved."""
    for comparison in list(tree.find_all(*_COMPARISONS)):
        _match_types(comparison, parameters)
    # Children before their parents: a rule finds its arguments rewritten already.
    for node in reversed(list(tree.walk(bfs=True))):
        rule = _RULES.get(type(node))
        if rule is not None:
            node.replace(rule(node))
    return tree


# --- types of a comparison ------------------------------------------------------------------------


def _match_types(node: Any, parameters: dict[str, str]) -> None:
    operands = _operands(node)
    kinds = {kind for item in operands if (kind := _operand_kind(item, parameters))}
    if "TIMESTAMP" in kinds and "STRING" in kinds:
        # BigQuery takes a string literal for a timestamp, but no other string.
        for item in operands:
            if isinstance(item, exp.Literal) and item.is_string:
                item.replace(_cast(item.copy(), "STRING", "TIMESTAMP"))
        kinds = {k for item in _operands(node) if (k := _operand_kind(item, parameters))}
    if "DATE" in kinds and all(_is_date_text(item, parameters) for item in operands):
        return
    if len(kinds) > 1 and not kinds <= _NUMBERS:
        raise Unserved(
            f"No matching signature for operator {node.key.upper()} for argument types: "
            + ", ".join(sorted(kinds))
        )


def _operands(node: Any) -> list[Any]:
    items = [node.this, *(node.args.get(key) for key in ("expression", "low", "high"))]
    unnest = node.args.get("unnest")
    return [
        item
        for item in (*items, *node.expressions, *(unnest.expressions if unnest else ()))
        if item is not None
    ]


def _operand_kind(item: Any, parameters: dict[str, str]) -> str:
    if isinstance(item, exp.Parameter):
        return parameters.get(item.name.lower(), "")
    if isinstance(item, exp.Anonymous) and item.name == "bq_cast":
        return str(item.expressions[2].name)
    return kind_of(item)


def _is_date_text(item: Any, parameters: dict[str, str]) -> bool:
    literal = isinstance(item, exp.Literal) and item.is_string
    return literal or _operand_kind(item, parameters) == "DATE"


# --- rules ----------------------------------------------------------------------------------------


def _call(name: str, *arguments: Any) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _text(value: str) -> exp.Literal:
    return exp.Literal.string(value)


def _number(value: int) -> exp.Expression:
    return exp.Literal.number(value)


def _cast(node: Any, source: str, target: str, safe: bool = False) -> exp.Anonymous:
    return _call("bq_cast", node, _text(source), _text(target), _number(int(safe)))


def _parameter(node: Any) -> exp.Expression:
    return exp.Placeholder(this=f"p_{node.name.lower()}")


def _in(node: Any) -> exp.Expression:
    unnest = node.args.get("unnest")
    if unnest is None:
        return exp.In(this=node.this, query=node.args.get("query"), expressions=node.expressions)
    [array] = unnest.expressions
    if isinstance(array, exp.Array):
        return exp.In(this=node.this, expressions=array.expressions)
    if not isinstance(array, exp.Placeholder):
        raise Unserved("IN UNNEST is served for a parameter and for an array literal")
    values = exp.select("value").from_(exp.Table(this=_call("json_each", array)))
    return exp.In(this=node.this, query=exp.Subquery(this=values))


def _unnest(node: Any) -> exp.Expression:
    if isinstance(node.parent, exp.In):
        return node  # type: ignore[no-any-return]
    raise Unserved("UNNEST is served in IN UNNEST(…) only")


def _cast_to(node: Any) -> exp.Expression:
    target = KINDS.get(node.to.this, "")
    if not target or target == "JSON":
        raise Unserved(f"CAST to {node.to.sql(dialect='bigquery')} is not served")
    return _cast(node.this, kind_of(node.this), target, isinstance(node, exp.TryCast))


def _without_zone(node: Any) -> None:
    if node.args.get("zone") is not None or len(node.expressions) > 0:
        raise Unserved(f"{node.key.upper()} is served with one argument, in UTC")


def _date(node: Any) -> exp.Expression:
    _without_zone(node)
    return _cast(node.this, kind_of(node.this), "DATE")


def _timestamp(node: Any) -> exp.Expression:
    _without_zone(node)
    return _cast(node.this, kind_of(node.this), "TIMESTAMP")


def _unit(node: Any) -> str:
    unit = node.args["unit"].name.upper()
    if unit not in UNITS:
        raise Unserved(f"{unit} is not served; these are: {', '.join(UNITS)}")
    return str(unit)


def _trunc(node: Any) -> exp.Expression:
    _without_zone(node)
    return _call("bq_trunc", node.this, _text(_unit(node)))


def _shift(sign: int) -> Callable[[Any], exp.Expression]:
    def rule(node: Any) -> exp.Expression:
        by = node.expression
        amount = exp.Literal.number(by.name) if isinstance(by, exp.Literal) else by
        step = exp.Mul(this=exp.paren(amount), expression=_number(UNITS[_unit(node)] * sign))
        return exp.paren(exp.Add(this=node.this, expression=exp.paren(step)))

    return rule


def _extract(node: Any) -> exp.Expression:
    part = node.this.name.upper()
    if part == "DATE":
        return _cast(node.expression, "TIMESTAMP", "DATE")
    if part not in _PARTS or kind_of(node.expression) not in ("TIMESTAMP", ""):
        raise Unserved(f"EXTRACT({part} …) is served for {', '.join(_PARTS)} of a TIMESTAMP")
    return _call("bq_extract", _text(part), node.expression)


def _from_unix(node: Any) -> exp.Expression:
    scale = int(node.args["scale"].name) if node.args.get("scale") else 0
    factor = _number(10 ** (6 - scale))
    return exp.paren(exp.Mul(this=exp.paren(node.this), expression=factor))


def _unix(by: int) -> Callable[[Any], exp.Expression]:
    return lambda node: _call("bq_floor_div", node.this, _number(by))


def _format(node: Any) -> exp.Expression:
    moment = node.this.this if isinstance(node.this, exp.TsOrDsToTimestamp) else node.this
    return _call("bq_format", node.args["format"], moment)


def _renamed(name: str) -> Callable[[Any], exp.Expression]:
    return lambda node: _call(name, node.this)


def _digest(node: Any) -> exp.Expression:
    algorithm = f"sha{node.args['length'].name}" if isinstance(node, exp.SHA2Digest) else "md5"
    return _call("bq_digest", node.this, _text(algorithm))


_RULES: dict[type[Any], Callable[[Any], exp.Expression]] = {
    exp.Parameter: _parameter,
    exp.In: _in,
    exp.Unnest: _unnest,
    exp.Cast: _cast_to,
    exp.TryCast: _cast_to,
    exp.Date: _date,
    exp.Timestamp: _timestamp,
    exp.CurrentTimestamp: lambda node: _call("bq_now"),
    exp.CurrentDate: lambda node: _cast(_call("bq_now"), "TIMESTAMP", "DATE"),
    exp.TimestampTrunc: _trunc,
    exp.TimestampAdd: _shift(1),
    exp.TimestampSub: _shift(-1),
    exp.TimestampDiff: lambda node: _call(
        "bq_diff", node.this, node.expression, _text(_unit(node))
    ),
    exp.Extract: _extract,
    exp.UnixToTime: _from_unix,
    exp.UnixMicros: lambda node: node.this,
    exp.UnixMillis: _unix(1_000),
    exp.UnixSeconds: _unix(1_000_000),
    exp.TimeToStr: _format,
    exp.BitwiseXorAgg: _renamed("bq_bit_xor"),
    exp.BitwiseAndAgg: _renamed("bq_bit_and"),
    exp.BitwiseOrAgg: _renamed("bq_bit_or"),
    exp.LowerHex: _renamed("bq_to_hex"),
    exp.Unhex: _renamed("bq_from_hex"),
    # How sqlglot reads TO_HEX(MD5(…)).
    exp.MD5: lambda node: _call("bq_to_hex", _digest(node)),
    exp.MD5Digest: _digest,
    exp.SHA2Digest: _digest,
    exp.StartsWith: lambda node: _call("bq_starts_with", node.this, node.expression),
    exp.ApproxDistinct: lambda node: exp.Count(this=exp.Distinct(expressions=[node.this])),
}
