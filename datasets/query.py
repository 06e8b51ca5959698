"""Asking a store for episodes with one SQL expression: "task = 'lift' and success and started > '2026-11-01'".

SQLite evaluates the expression over a table in memory, made of the labelled rows, that has only the columns it names. The
expression may come from anywhere: it is one balanced pair of parentheses without comments, an authorizer lets it read this
table and call a short list of functions, a second SELECT is refused, and what runs too long is stopped.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

from flywheel.core.errors import FlywheelError
from flywheel.core.registry import nearest
from flywheel.datasets.index import IndexRow

Parameter = str | int | float | bool | None


def _started(row: IndexRow) -> str | None:
    if not row.started_at_ns:
        return None
    return datetime.fromtimestamp(row.started_at_ns // 10**9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


COLUMNS: Mapping[str, Callable[[IndexRow], str | int | float | None]] = {
    "episode": lambda row: row.episode_id,
    "task": lambda row: row.task,
    "robot": lambda row: row.robot,
    "agent": lambda row: row.agent_id,
    "success": lambda row: row.success,
    "invalid": lambda row: row.invalid,
    "length": lambda row: row.length,
    "return": lambda row: row.episode_return,
    "started": _started,
    "policy": lambda row: row.policy_checkpoint,
    "snapshot": lambda row: row.policy_snapshot,
    "detector": lambda row: row.success_detector,
    "experiment": lambda row: row.experiment_id,
    "operator": lambda row: row.operator,
    "seed": lambda row: row.seed,
    "source": lambda row: row.source or None,
    "robot_id": lambda row: row.robot_id,
    "calibration": lambda row: row.calibration_id,
    "controller": lambda row: row.controller or None,
    "environment": lambda row: row.environment_config or None,
    "software": lambda row: row.software or None,
    "safety": lambda row: row.safety_events or None,
    "code": lambda row: row.code_version,
    "trimmed": lambda row: row.trim is not None,
    "labelled": lambda row: row.labels != 0,
}
"""What an expression may name: `started` is ``YYYY-MM-DD HH:MM:SS`` in UTC, `policy` and `snapshot` are the hashes of the policy
that acted and of what it was trained on, yes or no is 1 or 0, and a time or a JSON text that is not known is null."""

FUNCTIONS = frozenset(
    {"abs", "coalesce", "date", "glob", "ifnull", "instr", "iif", "json_extract", "->", "->>", "length", "like", "lower"}
    | {"max", "min", "nullif", "round", "strftime", "substr", "time", "trim", "upper"}
)
_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>'(?:[^']|'')*')|(?P<quoted>"(?:[^"]|"")*")|(?P<comment>--|/\*)"""
    r"""|(?P<word>[^\W\d]\w*)|(?P<number>\d[\w.]*)|(?P<sign>->>|->|[-+*/%<>=!|&~,.()?])""",
)
_REFUSED = frozenset({"select", "values", "with", "over", "raise"})
"""Words of SQL that lead away from the one table; SQLite's own optimiser hides some of them from the authorizer."""
_SECONDS = 20.0
_INSTRUCTIONS = 10_000
"""How many of SQLite's instructions pass between two looks at the clock."""
_HOW = "it is one expression over the columns, like: task = 'lift' and success"


def select(rows: Sequence[IndexRow], expression: str, parameters: Sequence[Parameter] = ()) -> list[IndexRow]:
    """Those rows, in their order, for which an SQL expression holds; `parameters` stand for its question marks.

    Raises `FlywheelError` with one sentence for an expression that cannot be read, that names a column there is not, that
    wants anything but to compare columns, or that runs for longer than 20 s.
    """
    condition = _checked(expression)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection, _explained(expression):
        names = _names_read(connection, condition, parameters)
        _fill(connection, names, rows)
        return [rows[number] for (number,) in _run(connection, condition, parameters, set())]


def _checked(expression: str) -> str:
    """The expression in one balanced pair of parentheses, with "text" as 'text'."""
    parts, depth, position = [], 0, 0
    while position < len(expression):
        token = _TOKEN.match(expression, position)
        if token is None or token.lastgroup == "comment" or token[0].lower() in _REFUSED:
            raise FlywheelError(
                f"The query cannot have {expression[position : position + 8]!r} at letter {position + 1}; {_HOW}."
            )
        text, position = token[0], token.end()
        depth += (text == "(") - (text == ")")
        if depth < 0:
            break
        # SQLite would take an unknown "name" for a text, and a known one for a column; here it is always a text.
        parts.append("'" + text[1:-1].replace('""', '"').replace("'", "''") + "'" if token.lastgroup == "quoted" else text)
    if depth:
        raise FlywheelError(f"The parentheses of the query {expression!r} do not match; {_HOW}.")
    if not "".join(parts).strip():
        raise FlywheelError(f"The query is empty; {_HOW}.")
    return f"({''.join(parts)})"


def _names_read(connection: sqlite3.Connection, condition: str, parameters: Sequence[Parameter]) -> list[str]:
    """The columns that a condition reads: found by running it on a table of all columns and no rows."""
    _create(connection, list(COLUMNS))
    read: set[str] = set()
    list(_run(connection, condition, parameters, read))
    connection.execute("DROP TABLE episodes")
    return [name for name in COLUMNS if name in read]


def _create(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    columns = "".join(f', "{name}"' for name in names)
    connection.execute(f"CREATE TABLE episodes (number INTEGER PRIMARY KEY{columns})")


def _fill(connection: sqlite3.Connection, names: Sequence[str], rows: Sequence[IndexRow]) -> None:
    _create(connection, names)
    values = zip(range(len(rows)), *(map(COLUMNS[name], rows) for name in names), strict=True)
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO episodes VALUES ({', '.join('?' * (len(names) + 1))})", values)
    connection.execute("COMMIT")


def _run(connection: sqlite3.Connection, condition: str, parameters: Sequence[Parameter], read: set[str]) -> Iterator[tuple[int]]:
    """Run the one statement there is, guarded; the columns that it names are added to `read`."""
    deadline = time.monotonic() + _SECONDS
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200)
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _INSTRUCTIONS)
    connection.set_authorizer(_authorizer(read))
    try:
        yield from connection.execute(f"SELECT number FROM episodes WHERE {condition} ORDER BY number", tuple(parameters))
    finally:
        connection.set_authorizer(None)
        connection.set_progress_handler(None, 0)


def _authorizer(read: set[str]) -> Callable[..., int]:
    """Allows one SELECT, reading columns of the one table, and the functions of the list; anything else makes SQLite refuse."""
    selects = 0

    def allow(action: int, first: str | None, second: str | None, *_: Any) -> int:
        nonlocal selects
        if action == sqlite3.SQLITE_SELECT:
            selects += 1
            return sqlite3.SQLITE_OK if selects == 1 else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_READ and first == "episodes":
            read.add(second or "")
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and second in FUNCTIONS:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    return allow


@contextmanager
def _explained(expression: str) -> Iterator[None]:
    """Tell what SQLite does not like in words for a person."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError) as error:
        raise FlywheelError(_explanation(expression, str(error))) from None


def _explanation(expression: str, error: str) -> str:
    if (column := re.fullmatch(r"no such column: (.+)", error)) is not None:
        return f"There is no column '{column[1]}';{nearest(column[1], tuple(COLUMNS))} columns: {', '.join(COLUMNS)}."
    if (function := re.fullmatch(r"(?:no such function|not authorized to use function): (.+)", error)) is not None:
        return f"A query cannot call '{function[1]}'; functions: {', '.join(sorted(FUNCTIONS - {'->', '->>'}))}."
    if "not authorized" in error or "prohibited" in error:
        return f"The query {expression!r} asks for more than columns of episodes; {_HOW}."
    if error == "interrupted":
        return f"The query {expression!r} ran for more than {_SECONDS:g} s and was stopped; ask for less."
    if "binding" in error:
        return f"The query {expression!r} needs one value for each of its question marks ({error.rstrip('.')})."
    return f"The query {expression!r} cannot be read ({error}); {_HOW}."
