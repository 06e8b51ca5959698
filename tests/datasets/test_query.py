"""Queries find what they ask for, and can do nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.datasets import query
from flywheel.datasets.index import IndexRow
from flywheel.datasets.query import COLUMNS, select
from flywheel.datasets.store import EpisodeStore
from tests.point import SCHEMA, episode, make_store

ROWS = [
    IndexRow(
        episode_id=f"e{seed}",
        agent_id="iql" if seed % 2 else "o'neill",
        task="lift" if seed < 5 else "stack",
        robot="panda",
        seed=seed,
        success=seed % 3 == 0,
        policy_checkpoint="3fa8" * 8 if seed % 2 else "",
        started_at_ns=(1_750_000_000 + 86_400 * seed) * 10**9 if seed else 0,
        source='{"kind": "rlds"}' if seed == 4 else "",
        length=10 * seed,
        episode_return=seed / 2,
        shard="s",
        offset=seed,
        crc=seed,
    )
    for seed in range(10)
]


def seeds(expression: str, *parameters: query.Parameter) -> list[int]:
    return [row.seed for row in select(ROWS, expression, parameters)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("task = 'lift' and success", [0, 3]),
        ('task = "lift" AND SUCCESS', [0, 3]),
        ("task='stack' and not success", [5, 7, 8]),
        ("agent = 'o''neill' and length between 20 and 60", [2, 4, 6]),
        ('agent = "o\'neill" and return > 3', [8]),
        ("policy glob '3fa*' and seed in (1, 2, 3)", [1, 3]),
        ("policy = ''", [0, 2, 4, 6, 8]),
        ("started >= '2025-06-20' and started < '2025-06-22'", [5, 6]),
        ("started is null", [0]),
        ("source is not null", [4]),
        ("source ->> '$.kind' = 'rlds'", [4]),
        ("json_extract(source, '$.kind') like 'RL%'", [4]),
        ("success = true", [0, 3, 6, 9]),
        ("case when seed > 8 then 1 else 0 end", [9]),
        ("max(seed, 8) = seed\n", [8, 9]),
        ("task like '%' and (seed % 4 = 1)", [1, 5, 9]),
        ("false", []),
        ("(true)", list(range(10))),
    ],
)
def test_expressions(expression: str, expected: list[int]) -> None:
    assert seeds(expression) == expected


def test_parameters_are_values_and_never_sql() -> None:
    assert seeds("task = ? and success = ?", "lift", True) == [0, 3]
    assert seeds("agent = ?", "o'neill") == [0, 2, 4, 6, 8]
    assert seeds("agent = ?", "x' or '1'='1") == []
    assert seeds("return >= ? and ? is null", 4.5, None) == [9]


def test_every_column_can_be_asked_for() -> None:
    for name in COLUMNS:
        assert seeds(f"{name} is null or {name} is not null") == list(range(10))


def test_the_store_answers_with_labelled_rows(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(4))
    first = store.rows()[0]
    store.label([first.episode_id], "task", "push", by="anna")
    assert store.query("task = 'push' and labelled") == [store.rows()[0]]
    assert store.snapshot("task = 'push'").entries == store.snapshot(lambda row: row.task == "push").entries
    assert len(EpisodeStore.open(store.path).query("task = ?", "reach")) == 3


def test_nobody_answers_in_an_empty_store(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path, "point", SCHEMA)
    assert store.query("success") == []
    with store.writer() as writer:
        writer.append(episode(1))
        assert len(store.query("success")) == 1


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sucess", "no column 'sucess'; did you mean 'success'\\? columns: episode, task, robot"),
        ("task = lift", "no column 'lift'"),
        ("sqlite_master.name = 'x'", "no column 'sqlite_master.name'"),
        ("success and", "cannot be read"),
        ("", "The query is empty"),
        (" \n", "The query is empty"),
        ("()", "cannot be read"),
        ("success)", "parentheses of the query 'success\\)' do not match"),
        ("(success", "do not match"),
        ("'open", 'cannot have "\'open" at letter 1'),
        ("success -- all", "cannot have '-- all' at letter 9"),
        ("success /* all", "cannot have"),
        ("success; drop table episodes", "cannot have '; drop t' at letter 8"),
        ("`task` = 1", "cannot have"),
        ("[task] = 1", "cannot have"),
        ("task = :x", "cannot have"),
        ("task = @x", "cannot have"),
        ("\x00", "cannot have"),
        ("1, 2", "row value misused"),
        ("success order by seed", "cannot be read"),
        ("success limit 1", "cannot be read"),
        ("count(*) > 1", "cannot call 'count'; functions: abs, "),
        ("seed = ?", "one value for each of its question marks"),
        ("json_extract(task, '$.a')", "malformed JSON"),
    ],
)
def test_mistakes_get_one_sentence(expression: str, message: str) -> None:
    with pytest.raises(FlywheelError, match=message) as caught:
        select(ROWS, expression)
    assert "\n" not in str(caught.value)


def test_values_of_another_kind_are_refused() -> None:
    with pytest.raises(FlywheelError, match="question marks"):
        select(ROWS, "task = ?", [["a"]])  # type: ignore[list-item]
    with pytest.raises(FlywheelError, match="cannot be read"):
        select(ROWS, "seed = ?", [2**80])


@pytest.mark.parametrize(
    "expression",
    [
        "1) union select number from episodes --",
        "1) or (1",
        "(select 1)",
        "exists (select 1 from sqlite_master)",
        "seed in (select number from episodes)",
        "seed in (values (1))",
        "seed in episodes",
        "seed in sqlite_master",
        "seed in json_each('[1]')",
        "seed in pragma_table_info('episodes')",
        "(with recursive t(n) as (select 1 union all select n + 1 from t) select n from t)",
        "load_extension('evil')",
        "readfile('/etc/passwd')",
        "writefile('x', 'y')",
        "randomblob(1000000000)",
        "zeroblob(1000000000)",
        "printf('%1000000000d', 1)",
        "replace(task, 'l', 'xxxxxxxxx')",
        "sqlite_version()",
        "fts3_tokenizer('x')",
        "raise(abort, 'x')",
        "row_number() over ()",
        "sum(seed) filter (where success)",
        "task match 'x'",
        "task regexp 'x'",
        "attach database 'x' as y",
        "pragma query_only",
    ],
)
def test_nothing_but_columns_and_a_few_functions_can_be_reached(expression: str) -> None:
    with pytest.raises(FlywheelError):
        select(ROWS, expression)


def test_a_long_or_deep_expression_is_refused_and_does_no_harm() -> None:
    assert seeds(" or ".join(["seed = 3"] * 500)) == [3]
    for expression in (" or ".join(["seed = 3"] * 50_000), "(" * 5_000 + "1" + ")" * 5_000, "not " * 50_000 + "1"):
        with pytest.raises(FlywheelError):
            select(ROWS, expression)
    with pytest.raises(FlywheelError):
        select(ROWS, "task like '" + "%a" * 5_000 + "'")


def test_a_runaway_expression_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "_SECONDS", -1.0)
    rows = [replace(ROWS[1], offset=number) for number in range(5_000)]
    with pytest.raises(FlywheelError, match="was stopped; ask for less"):
        select(rows, "length + length * 2 > 7 and task like '%l%'")


_WORDS = st.sampled_from(
    [
        *COLUMNS,
        *("select", "from", "episodes", "union", "in", "and", "or", "not", "limit", "pragma", "sqlite_master", "load_extension"),
        *("(", ")", "'", '"', ";", "--", "/*", "*/", "=", ",", "1", "'a'", "?", "->", "||", "\x00", "é", "\ud800"),
    ]
)


@given(st.lists(_WORDS, max_size=12).map(" ".join) | st.text(max_size=30))
def test_any_text_selects_rows_or_gets_a_sentence(expression: str) -> None:
    try:
        found = select(ROWS, expression)
    except FlywheelError:
        found = []
    assert all(row in ROWS for row in found)
