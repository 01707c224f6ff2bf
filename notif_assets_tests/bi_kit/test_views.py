"""What the kit says of the views is what PostgreSQL has, and what it asks them for can be asked.

Belongs here: the kit against a real PostgreSQL, empty. Doesn't: numbers (serving/), a real Superset (try_superset.py).
"""

import re

import psycopg
import pytest
import yaml
from pydantic import SecretStr

from notif_assets.bi_kit import metabase, superset
from notif_assets.serving.postgres import connected
from notif_assets.serving.setup import prepare
from notif_assets.settings import Settings
from notif_assets_tests.bi_kit.test_kit import ALL, ZONE
from notif_assets_tests.postgres import Server, ask
from notif_assets_tests.serving.conftest import server  # noqa: F401 - a fixture

QUESTIONS = metabase.files(ALL)
DATASETS = {
    path: yaml.safe_load(text) for path, text in superset.files(ALL, "h:1", "d", "u").items() if "/datasets/" in path
}
VALUES = {"customer_id": "7494212", "month": "'2020-02-03'", "first_day": "'2020-02-01'", "last_day": "'2020-02-29'"}


@pytest.fixture(scope="module")
def url(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:  # noqa: F811
    """The address of a copy without rows."""
    url = server.create_database("kit")
    settings = Settings(
        data=tmp_path_factory.mktemp("data"), serving_url=SecretStr(url), serving_chatbot=True, timezone=ZONE
    )
    with connected(settings.serving_url) as connection:
        prepare(connection, settings)
    return url


def test_views_have_the_columns_types_and_meanings_that_the_kit_says(url: str) -> None:
    query = (
        "select table_name, column_name, data_type, numeric_scale, "
        "col_description(('bi.' || table_name)::regclass, ordinal_position) from information_schema.columns "
        "where table_schema = 'bi' order by table_name, ordinal_position"
    )
    there = {(name, column): told for name, column, *told in ask(url, query)}
    said = {(view.name, c.name): c for view in ALL for c in view.columns}
    assert there.keys() == said.keys()
    for key, (kind, scale, meaning) in there.items():
        dataset = DATASETS[f"notif/datasets/notif/{key[0]}.yaml"]
        (type_,) = (c["type"] for c in dataset["columns"] if c["column_name"] == key[1])
        assert (type_.lower().partition("(")[0], meaning) == (kind, said[key].meaning), key
        assert not scale or type_.endswith(f", {scale})")


@pytest.mark.parametrize("path", QUESTIONS)
@pytest.mark.parametrize("with_values", [False, True], ids=["all", "some"])
def test_questions_can_be_asked(url: str, path: str, with_values: bool) -> None:
    query = QUESTIONS[path] if with_values else re.sub(r"\[\[.*?\]\]", "", QUESTIONS[path])
    query = re.sub(r"\{\{(\w+)\}\}", lambda match: VALUES[match[1]], query.replace("[[", "").replace("]]", ""))
    with psycopg.connect(url) as connection:
        cursor = connection.execute(query.encode())
        assert cursor.description
        assert len({column.name for column in cursor.description}) == len(cursor.description)


@pytest.mark.parametrize("path", DATASETS)
def test_metrics_can_be_asked(url: str, path: str) -> None:
    dataset = DATASETS[path]
    rows = f"({dataset['sql']}) as q" if dataset["sql"] else f"bi.{dataset['table_name']}"
    metrics = [metric["expression"] for metric in dataset["metrics"]] or ["count(*)"]
    columns = ", ".join(f'"{c["column_name"]}"' for c in dataset["columns"])
    assert len(ask(url, f"select {', '.join(metrics)} from {rows}")) == 1
    assert isinstance(ask(url, f"select {columns} from {rows}"), list)


def test_an_amount_of_several_currencies_is_blank(url: str) -> None:
    """The rule itself, on rows: of one currency a sum, of two none."""
    (metric,) = (
        m["expression"]
        for m in DATASETS["notif/datasets/notif/bills.yaml"]["metrics"]
        if m["metric_name"] == "valor_cobrado"
    )
    for currencies, shown in (("'BRL'", 3), ("'BRL', 'USD'", None)):
        rows = f"(select 3.00 / count(*) over () as amount, currency from unnest(array[{currencies}]) as currency) as q"
        ((value,),) = ask(url, f"select {metric} from {rows}")
        assert value == shown
