"""The import for Superset: every view as a dataset, charts that ask for what there is, dashboards that show them."""

import io
import json
import re
import zipfile
from dataclasses import replace
from datetime import date
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pytest
import yaml

from notif_assets.bi_kit import ServingCopy, files_of_kit
from notif_assets.bi_kit.superset import ARCHIVE, BILLS, files, packed
from notif_assets.bi_kit.views import View, ViewColumn
from notif_assets_tests.bi_kit.test_kit import ALL, COPY, GOLDEN

TEXTS = files(ALL, COPY.server, COPY.database, COPY.user)
READ: dict[str, Any] = {path.removeprefix("notif/"): yaml.safe_load(text) for path, text in TEXTS.items()}
GOLDEN_FILES = (
    "datasets/notif/daily_billing.yaml",
    "charts/valor-cobrado.yaml",
    "dashboards/qualidade-da-ingestao.yaml",
)


def of(kind: str) -> dict[str, Any]:
    """The files of a kind by their names."""
    return {PurePosixPath(path).stem: value for path, value in READ.items() if path.startswith(f"{kind}/")}


@pytest.mark.parametrize("path", GOLDEN_FILES)
def test_a_file_is_as_it_was(path: str) -> None:
    """What changes shows in a diff of golden/superset (delete a file to renew it)."""
    golden = GOLDEN / "superset" / PurePosixPath(path).name
    if not golden.exists():
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(TEXTS[f"notif/{path}"], encoding="utf-8")
    assert TEXTS[f"notif/{path}"] == golden.read_text(encoding="utf-8")


def test_every_golden_file_is_compared() -> None:
    assert {f.name for f in (GOLDEN / "superset").iterdir()} == {PurePosixPath(path).name for path in GOLDEN_FILES}


@pytest.mark.parametrize("view", [*ALL, BILLS], ids=lambda view: view.name)
def test_every_view_is_a_dataset_whose_columns_say_what_they_mean(view: View) -> None:
    dataset = of("datasets")[view.name]
    assert dataset["description"] == view.meaning
    assert [(c["column_name"], c["description"]) for c in dataset["columns"]] == [
        (c.name, c.meaning) for c in view.columns
    ]
    moments = [c["column_name"] for c in dataset["columns"] if c["is_dttm"]]
    assert moments == [c.name for c in view.columns if pa.types.is_temporal(c.type)]
    assert dataset["main_dttm_col"] in (None, *moments)


def test_a_new_column_is_in_its_dataset() -> None:
    new = ViewColumn("surcharge", pa.decimal128(18, 2), "what came on top: 50 % 'more'")
    changed = tuple(replace(v, columns=(*v.columns, new)) if v.name == "daily_billing" else v for v in ALL)
    after = files(changed, COPY.server, COPY.database, COPY.user)
    assert [path for path in after if after[path] != TEXTS[path]] == ["notif/datasets/notif/daily_billing.yaml"]
    column = yaml.safe_load(after["notif/datasets/notif/daily_billing.yaml"])["columns"][-1]
    assert (column["column_name"], column["type"], column["description"]) == (new.name, "NUMERIC(18, 2)", new.meaning)


def test_what_charts_ask_for_is_in_their_datasets() -> None:
    datasets = {d["uuid"]: d for d in of("datasets").values()}
    for name, chart in of("charts").items():
        dataset, params = datasets[chart["dataset_uuid"]], chart["params"]
        columns = {c["column_name"] for c in dataset["columns"]}
        metrics = {m["metric_name"] for m in dataset["metrics"]}
        asked = {
            *params.get("metrics", ()),
            *filter(None, [params.get("metric"), params.get("timeseries_limit_metric")]),
        }
        assert asked <= metrics, name
        named = {*params.get("groupby", ()), *params.get("all_columns", ()), *filter(None, [params.get("x_axis")])}
        named |= {json.loads(order)[0] for order in params.get("order_by_cols", ())}
        named |= {condition["subject"] for condition in params.get("adhoc_filters", ())}
        assert named <= columns, name
        assert asked or named
        assert params["viz_type"] == chart["viz_type"]


def test_every_metric_is_of_its_dataset_and_names_its_columns() -> None:
    words = {"case", "when", "count", "distinct", "then", "sum", "end"}
    for name, dataset in of("datasets").items():
        columns = {c["column_name"] for c in dataset["columns"]}
        for metric in dataset["metrics"]:
            assert set(re.findall(r"[a-z_]+", metric["expression"])) - words <= columns, (name, metric)
            assert metric["description"]


def test_money_of_several_currencies_is_never_added() -> None:
    for name, dataset in of("datasets").items():
        money = {c["column_name"] for c in dataset["columns"]} & {"amount", "amount_delta", "unit_price"}
        assert dataset["currency_code_column"] == ("currency" if money else None), name
        for metric in dataset["metrics"]:
            if money.intersection(re.findall(r"\w+", metric["expression"])):
                assert metric["expression"].startswith("case when count(distinct currency) = 1 then sum("), metric
    assert not [path for path, text in TEXTS.items() if "R$" in text]


def test_every_chart_is_shown_by_a_dashboard_under_its_own_name() -> None:
    charts = {chart["uuid"]: chart["slice_name"] for chart in of("charts").values()}
    shown = [part["meta"] for d in of("dashboards").values() for part in d["position"].values() if "CHART" in str(part)]
    shown = [meta for meta in shown if "uuid" in meta]
    assert {meta["uuid"]: meta["sliceName"] for meta in shown} == charts
    assert len(shown) == len(charts)


def test_dashboards_hang_together() -> None:
    dashboards = of("dashboards")
    assert dashboards.keys() == {"painel-do-cliente", "cobranca-do-mes", "qualidade-da-ingestao"}
    for slug, dashboard in dashboards.items():
        assert dashboard["slug"] == slug
        position = {key: part for key, part in dashboard["position"].items() if isinstance(part, dict)}
        for key, part in position.items():
            assert part["id"] == key
            assert all(part["id"] in position[parent]["children"] for parent in part.get("parents", ())[-1:])
            assert set(part.get("children", ())) <= position.keys()
        for row in (part for part in position.values() if part["type"] == "ROW"):
            assert sum(position[child]["meta"]["width"] for child in row["children"]) == 12


def test_every_filter_is_of_a_column_that_there_is() -> None:
    datasets = {d["uuid"]: {c["column_name"] for c in d["columns"]} for d in of("datasets").values()}
    for dashboard in of("dashboards").values():
        filters = dashboard["metadata"]["native_filter_configuration"]
        assert len({f["id"] for f in filters}) == len(filters)
        for target in (target for f in filters for target in f["targets"] if target):
            assert target["column"]["name"] in datasets[target["datasetUuid"]]


def test_no_password_is_in_the_archive_and_names_are_quoted() -> None:
    assert READ["databases/notif.yaml"]["sqlalchemy_uri"] == (
        "postgresql+psycopg2://notif_bi:XXXXXXXXXX@warehouse.example:5432/serving"
    )
    hostile = yaml.safe_load(files((), "h:1", "a/b", "u:p@w")["notif/databases/notif.yaml"])
    assert hostile["sqlalchemy_uri"] == "postgresql+psycopg2://u%3Ap%40w:XXXXXXXXXX@h:1/a%2Fb"


def test_the_archive_of_the_same_kit_has_the_same_bytes() -> None:
    first, again = (files_of_kit(ALL, ServingCopy("h:1", "d"), date(2020, 2, day))[ARCHIVE] for day in (3, 4))
    assert first == again == packed(files(ALL, "h:1", "d", "notif_bi"))
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == set(TEXTS)
