"""Loading a SQL folder: what becomes of a small project, and which mistakes are refused, with file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mts_dagster.errors import ConfigError, UsageError
from mts_dagster.schemas import Column, Table
from mts_dagster.sql_models import Dependency, Project, SqlModelError, Window, load_project
from mts_dagster.sql_models.project import SAMPLE_WINDOW

Write = Callable[..., Path]

PROJECT = """
name: small
vars: {delay: 60, begin: "2024-01-01"}
models:
  small:
    +schema: marts
    staging: {+schema: staging, +materialized: view}
"""
SOURCES = """
sources:
  - name: exchange
    schema: raw
    tables:
      - name: bars
        config: {event_time: open_time}
        columns: [{name: open_time, data_type: timestamptz}, {name: close, data_type: double}]
      - name: names
        columns: [{name: coin, data_type: varchar}]
"""
STAGING = "{{ config(event_time='open_time') }}\nselect * from {{ source('exchange', 'bars') }}"
MICROBATCH = (
    "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='date', "
    "batch_size='day', begin=var('begin'), meta={'input_lookback_days': 5}) }}\n"
)


def contract(name: str, column: str = "date", data_type: str = "date", extra: str = "") -> str:
    return f"""
models:
  - name: {name}
    description: One row a day.
    data_tests: [unique_grain: {{arguments: {{columns: [{column}]}}}}]
    columns:
      - name: {column}
        data_type: {data_type}
        description: The day.
        data_tests: [not_null]
      - name: close
        data_type: double
        description: The close.
        config: {{meta: {{unit: usd}}}}
{extra}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a small SQL folder; keyword ``files`` adds or replaces files, None removes one."""
    grain = "{% test unique_grain(model, columns) %}select 1 from {{ model }} where {{ columns[0] }} = 1{% endtest %}"
    files = {
        "dbt_project.yml": PROJECT,
        "tests/generic/unique_grain.sql": grain,
        "models/staging/_sources.yml": SOURCES,
        "models/staging/stg_bars.sql": STAGING,
        "models/staging/_models.yml": contract("stg_bars", "open_time", "timestamptz"),
        "models/daily.sql": MICROBATCH + "select 1 as date, 2 as close from {{ ref('stg_bars') }}",
        "models/_daily.yml": contract("daily"),
    }

    def run(changed: dict[str, str | None] | None = None) -> Path:
        for name, text in {**files, **(changed or {})}.items():
            if text is not None:
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        return tmp_path

    return run


@pytest.fixture
def load(write: Write) -> Callable[..., Project]:
    return lambda changed=None: load_project(write(changed))


def render(project: Project, name: str, window: Window | None = SAMPLE_WINDOW) -> str:
    return project.render(project.models[name], window)


def test_model_with_its_contract(load: Callable[..., Project]) -> None:
    """Configuration, dependencies and contract come together in one record."""
    model = load().models["daily"]
    assert (model.schema, model.name, model.kind, model.path) == (
        "marts",
        "daily",
        "incremental",
        "models/daily.sql",
    )
    assert (model.event_time, model.input_lookback_days) == ("date", 5)
    assert model.depends_on == (Dependency("staging", "stg_bars"),)
    assert model.table() == Table(
        schema="marts",
        name="daily",
        columns=(
            Column("date", "DATE", "The day.", nullable=False),
            Column("close", "DOUBLE", "The close.", nullable=True, unit="usd"),
        ),
        key=("date",),
        time_column="date",
        description="One row a day.",
    )


def test_models_come_after_what_they_read(load: Callable[..., Project]) -> None:
    """Names do not decide the order, references do."""
    files = {
        "models/a_last.sql": MICROBATCH + "select * from {{ ref('daily') }}",
        "models/_a.yml": contract("a_last"),
    }
    assert list(load(files).models) == ["stg_bars", "daily", "a_last"]


def test_inner_configuration_wins(load: Callable[..., Project]) -> None:
    """The file's own config() beats its YAML, which beats the project file; meta is merged."""
    files = {
        "models/staging/_models.yml": contract(
            "stg_bars",
            "open_time",
            "timestamptz",
            extra="    config: {schema: other, tags: [yaml], meta: {a: yaml, b: yaml}}",
        ),
        "models/staging/stg_bars.sql": "{{ config(tags=['file'], meta={'b': 'file'}) }} select 1",
    }
    model = load(files).models["stg_bars"]
    assert (model.schema, model.kind, model.tags) == ("other", "view", ("file",))
    assert model.meta == {"a": "yaml", "b": "file"}


def test_lookback_belongs_to_whole_inputs(load: Callable[..., Project]) -> None:
    """An input read whole carries the model's lookback, one cut to the batch none."""
    sql = "select * from {{ ref('stg_bars').render() }} join {{ source('exchange', 'bars') }}"
    model = load({"models/daily.sql": MICROBATCH + sql}).models["daily"]
    assert model.depends_on == (Dependency("staging", "stg_bars", 5), Dependency("raw", "bars", 0))


def test_stored_inputs_look_through_views(load: Callable[..., Project]) -> None:
    """What lies behind a view is an input, with the lookback at which the view is read."""
    project = load({"models/daily.sql": MICROBATCH + "select * from {{ ref('stg_bars').render() }}"})
    assert project.stored_inputs(project.models["daily"]) == (Dependency("raw", "bars", 5),)


def test_references_in_macros_and_unused_branches_count(load: Callable[..., Project]) -> None:
    """A dependency is one wherever it stands."""
    files = {
        "macros/names.sql": "{% macro names() %}{{ source('exchange', 'names') }}{% endmacro %}",
        "models/daily.sql": MICROBATCH
        + "select * from {{ names() }} {% if not is_incremental() %}{{ ref('stg_bars') }}{% endif %}",
    }
    keys = [entry.key for entry in load(files).models["daily"].depends_on]
    assert sorted(keys) == [("raw", "names"), ("staging", "stg_bars")]


def test_version_follows_the_code(load: Callable[..., Project], write: Write) -> None:
    """The code version changes with a macro or variable that the model uses, not with a comment elsewhere."""
    files: dict[str, str | None] = {
        "macros/two.sql": "{% macro two() %}2{% endmacro %}",
        "models/daily.sql": MICROBATCH + "select {{ two() }} as date, {{ var('delay') }} as close",
    }
    before = load(files).models
    assert load(files).models["daily"].code_version == before["daily"].code_version
    changed = load_project(write(files), {"delay": 61}).models
    assert changed["daily"].code_version != before["daily"].code_version
    assert changed["stg_bars"].code_version == before["stg_bars"].code_version
    files["macros/two.sql"] = "{% macro two() %}3{% endmacro %}"
    assert load(files).models["daily"].code_version != before["daily"].code_version


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"models/daily.sql": MICROBATCH + "\nselect {{ ref('nope') }}"},
            "models/daily.sql, line 3: there is no model nope",
        ),
        (
            {"models/daily.sql": MICROBATCH + "{{ source('exchange', 'nope') }}"},
            "models/daily.sql, line 2: there is no source exchange.nope",
        ),
        (
            {"models/daily.sql": MICROBATCH + "{{ ref('daily') }}"},
            "models/daily.sql: models read one another in a circle: daily <- daily",
        ),
        ({"models/extra.sql": "select 1"}, "models/extra.sql: model extra has no contract"),
        ({"models/other/daily.sql": "select 1"}, "models/other/daily.sql: a model called daily is already in"),
        ({"models/_more.yml": contract("daily")}, "model daily is described twice"),
        (
            {"models/_more.yml": contract("ghost")},
            "models/_more.yml: describes model ghost, but there is no ghost.sql",
        ),
        (
            {"models/daily.sql": MICROBATCH + "\n\n{{ adapter.dispatch('x') }}"},
            "models/daily.sql, line 4: 'adapter' is not known here",
        ),
        ({"models/daily.sql": MICROBATCH + "{{ 1 | nope }}"}, "models/daily.sql, line 2: No filter named 'nope'"),
        ({"models/daily.sql": MICROBATCH + "{% if %}"}, "models/daily.sql, line 2: Expected an expression"),
        (
            {"models/daily.sql": MICROBATCH + "{% include 'x' %}"},
            "models/daily.sql, line 2: templates do not include",
        ),
        ({"models/daily.sql": MICROBATCH + "{{ ref(var('x')) }}"}, "models/daily.sql, line 2: write ref('model')"),
        (
            {"models/daily.sql": MICROBATCH + "{{ var('nope') }}"},
            "models/daily.sql, line 2: variable 'nope' is not set",
        ),
        ({"models/daily.sql": MICROBATCH + "{{ model.nope }}"}, "models/daily.sql, line 2: "),
        ({"models/daily.sql": MICROBATCH + "\n{{ config() }}"}, "models/daily.sql, line 3: config() stands once"),
        ({"models/daily.sql": "{% if false %}{{ config() }}{% endif %}"}, "line 1: config() stands at the top"),
        (
            {"models/daily.sql": "{{ config(materialised='view') }}"},
            "models/daily.sql: materialised: Extra inputs",
        ),
        (
            {"models/daily.sql": "{{ config(materialized='incremental') }}"},
            "needs incremental_strategy, event_time",
        ),
        (
            {"models/daily.sql": MICROBATCH.replace("'date'", "'day'")},
            "model daily has no column day, its event_time",
        ),
        (
            {"models/daily.sql": MICROBATCH.replace("5", "-5")},
            "meta.input_lookback_days is a number of days, not -5",
        ),
        ({"dbt_project.yml": PROJECT.replace("+schema: marts", "")}, "models/daily.sql: no schema; set +schema"),
        (
            {"models/_daily.yml": contract("daily", data_type="datetime")},
            "data_type datetime is not used in the lake",
        ),
        ({"models/_daily.yml": "models: [{name: daily}]"}, "model daily has no columns in its contract"),
        (
            {"models/_daily.yml": "models: [{name: daily, columns: [{name: date, data_type: date}]}]"},
            "model daily does not state its grain",
        ),
        (
            {"models/_daily.yml": contract("daily").replace("[date]", "[nope]")},
            "unique_grain needs columns of the model",
        ),
        (
            {"models/_daily.yml": contract("daily").replace("name: close", "name: date")},
            "describes column date twice",
        ),
        ({"models/_daily.yml": contract("daily").replace("not_null", "not_nil")}, "there is no data test not_nil"),
        (
            {"models/_daily.yml": contract("daily").replace("description:", "desciption:", 1)},
            "desciption: Extra inputs",
        ),
        ({"models/_daily.yml": "models: [{name: daily"}, "models/_daily.yml, line 1: not YAML"),
        ({"models/staging/_more.yml": SOURCES}, "source exchange.bars is declared twice"),
        (
            {"models/staging/_sources.yml": SOURCES.replace("event_time: o", "event_time: x")},
            "has no column xpen_time",
        ),
        (
            {"macros/again.sql": "{% macro ref() %}{% endmacro %}"},
            "macros/again.sql, line 1: the name ref is already taken",
        ),
        ({"tests/lonely.sql": "select 1"}, "tests/lonely.sql: a data test reads at least one model"),
        (
            {"models/_daily.yml": contract("daily").replace("{columns: [date]}", "{columns: [date], x: 1}")},
            "data test unique_grain_daily: ",
        ),
    ],
)
def test_mistakes_are_refused(load: Callable[..., Project], changed: dict[str, str | None], message: str) -> None:
    """A wrong folder never loads, and the error says where and what."""
    with pytest.raises(SqlModelError) as caught:
        load(changed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_circle_of_models_is_named(load: Callable[..., Project]) -> None:
    """A longer circle is told with all its members."""
    files = {
        "models/daily.sql": MICROBATCH + "select * from {{ ref('other') }}",
        "models/other.sql": MICROBATCH + "select * from {{ ref('daily') }}",
        "models/_other.yml": contract("other"),
    }
    with pytest.raises(SqlModelError, match=r"circle: (daily <- other <- daily|other <- daily <- other)"):
        load(files)


def test_missing_folder(tmp_path: Path) -> None:
    """A folder without a project file is a configuration mistake of the user."""
    with pytest.raises(ConfigError, match=r"dbt_project.yml: the file does not exist in .*nowhere"):
        load_project(tmp_path / "nowhere")


def test_unknown_variable_is_refused(write: Write) -> None:
    """A value for a variable that the project does not have is a misspelling."""
    with pytest.raises(SqlModelError, match="has no variable 'dela'; there are begin, delay"):
        load_project(write(), {"dela": 1})


def test_unit_tests_are_left_to_dbt(load: Callable[..., Project]) -> None:
    """A folder with dbt's unit tests loads."""
    assert load({"models/_units.yml": "unit_tests: [{name: x, model: daily, given: [], expect: {rows: []}}]"}).models


def test_batch_filter_is_a_subquery(load: Callable[..., Project]) -> None:
    """Inputs with an event time yield the window, half-open; others and render() yield everything."""
    sql = (
        "{{ source('exchange', 'bars') }}|{{ ref('stg_bars').render() }}|{{ source('exchange', 'names') }}|"
        "{{ ref('stg_bars') }}"
    )
    start, end = "timestamptz '2024-01-02 00:00:00+00:00'", "timestamptz '2024-01-03 00:00:00+00:00'"
    window = f"where open_time >= {start} and open_time < {end})"
    assert render(load({"models/daily.sql": MICROBATCH + sql}), "daily").split("|") == [
        f"(select * from raw.bars {window}",
        "staging.stg_bars",
        "raw.names",
        f"(select * from staging.stg_bars {window}",
    ]


def test_days_are_compared_as_days(load: Callable[..., Project]) -> None:
    """An event time that is a DATE is compared with dates, so that no session zone can shift it."""
    files = {
        "models/next.sql": MICROBATCH + "select * from {{ ref('daily') }}",
        "models/_next.yml": contract("next"),
    }
    condition = "date >= date '2024-01-02' and date < date '2024-01-03'"
    assert render(load(files), "next") == f"select * from (select * from marts.daily where {condition})"


def test_names_in_templates(load: Callable[..., Project]) -> None:
    """Batch, lookback, variables and the rest have their values."""
    sql = (
        "{{ model.batch.event_time_start }}|{{ model.batch.event_time_end.strftime('%Y') }}|{{ model.name }}|"
        "{{ model.config.meta.input_lookback_days }}|{{ var('delay') }}|{{ var('nope', 7) }}|"
        "{{ is_incremental() }}|{{ this }}|{{ this.identifier }}|{{ target.name }}"
    )
    assert render(load({"models/daily.sql": MICROBATCH + sql}), "daily").split("|") == [
        "2024-01-02 00:00:00+00:00", "2024", "daily", "5", "60", "7", "True", "marts.daily", "daily", "lake",
    ]  # fmt: skip


def test_views_are_whole(load: Callable[..., Project]) -> None:
    """A view reads everything, whether or not a window is at hand."""
    project = load()
    for window in (None, SAMPLE_WINDOW):
        assert render(project, "stg_bars", window) == "select * from raw.bars"


def test_incremental_needs_a_window(load: Callable[..., Project]) -> None:
    """Without a window it is unknown which days to compute."""
    with pytest.raises(UsageError, match="model daily is incremental"):
        render(load(), "daily", None)


def test_macros_call_one_another(load: Callable[..., Project]) -> None:
    """Macros see the others, whatever file they are in, and the model's own names."""
    files = {
        "macros/a.sql": "{% macro outer(x) %}<{{ inner(x) }}>{% endmacro %}",
        "macros/b.sql": "{% macro inner(x) %}{{ x }} {{ model.name }}{% endmacro %}",
        "models/daily.sql": MICROBATCH + "{{ outer(1) }}",
    }
    assert render(load(files), "daily") == "<1 daily>"


def test_error_in_a_macro_names_the_macros_line(load: Callable[..., Project]) -> None:
    """The line is the one where it went wrong, not the call."""
    files = {
        "macros/a.sql": "\n{% macro outer() %}\n{{ 1 / 0 }}{% endmacro %}",
        "models/daily.sql": MICROBATCH + "{{ outer() }}",
    }
    with pytest.raises(SqlModelError, match=r"macros/a.sql, line 3: division by zero"):
        load(files)


def test_templates_cannot_reach_python(load: Callable[..., Project]) -> None:
    """Templates see values, not the interpreter."""
    with pytest.raises(SqlModelError, match="unsafe"):
        load({"models/daily.sql": MICROBATCH + "{{ this.__class__.__mro__ }}"})
