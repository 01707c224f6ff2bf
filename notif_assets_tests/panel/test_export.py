"""An export: what it holds while it is read, and its end.

Belongs here: how a download is made. Doesn't: its rows (test_numbers.py), who may have it (test_access.py).
"""

import socket
from collections.abc import MutableMapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, BinaryIO

import anyio
import httpx
import pyarrow as pa
import pytest

from notif_assets.lake import LakeError
from notif_assets.lake.pieces import PIECE_BYTES
from notif_assets.notifications import queries
from notif_assets.panel.access import ExportLimit, Refused
from notif_assets.panel.connections import end_if_stalled
from notif_assets.panel.export import Download, rows_at_once, threads
from notif_assets.panel.tokens import Viewer
from notif_assets_tests.cli.deployment import Deployment, a_free_port, killed_at_the_end, ok, until
from notif_assets_tests.cli.messages import ACME, notification
from notif_assets_tests.conftest import Asked, Deploy
from notif_assets_tests.panel.conftest import Served, now


@pytest.mark.parametrize("at_once", [1, 2, 7, 10**9])
def test_a_report_is_the_same_however_little_is_read_at_once(served: Served, at_once: int) -> None:
    with served.deployment.lake as lake:
        expected = served.deployment.rows("notifications")
        slices, _ = queries.detailed(lake, ACME, at_once=lambda: at_once)
        rows = pa.Table.from_batches(slices).to_pylist()
    assert [row["message_id"] for row in rows] == [
        row["message_id"]
        for row in sorted(expected, key=lambda row: (row["event_datetime"], row["message_id"]))
        if row["customer_id"] == ACME
    ]


@pytest.mark.parametrize("longest", [0, 3, 4])
@pytest.mark.parametrize("whom", [ACME, None])
def test_a_report_is_the_same_whatever_payloads_are_left_where_they_are(
    served: Served, monkeypatch: pytest.MonkeyPatch, longest: int, whom: int | None
) -> None:
    with served.deployment.lake as lake:
        usual, _ = queries.detailed(lake, whom)
        expected = pa.Table.from_batches(usual)
        monkeypatch.setattr(queries, "_BYTES_A_MESSAGE", longest)
        monkeypatch.setattr(queries, "PIECE_BYTES", longest * queries._BATCH)
        found, _ = queries.detailed(lake, whom, at_once=lambda: 4_000)
        assert pa.Table.from_batches(found).equals(expected)


@pytest.fixture(scope="module")
def giants(deploy: Deploy) -> tuple[Deployment, list[int]]:
    """One of 14 MB and some of a megabyte among many of a few bytes, of one customer; and their sizes in order."""
    sizes = [14_000_000 if n == 50 else 1_000_000 if n % 25 == 7 else 3 for n in range(200)]
    deployment = deploy(2, NOTIF_MAX_MESSAGE_BYTES=str(16 * 2**20))
    start = now() - timedelta(minutes=10)
    for n, size in enumerate(sizes):
        payload = f"{n:03}" + "x" * (size - 3)
        deployment.send([notification(start + timedelta(seconds=n), f"{n:03}", payload=payload)])
    ok(deployment.call("ingest", "--until-caught-up"))
    return deployment, sizes


@pytest.mark.parametrize("whom", [ACME, None])
def test_what_is_held_of_a_report_is_bounded_whatever_messages_weigh(
    giants: tuple[Deployment, list[int]], whom: int | None
) -> None:
    deployment, sizes = giants
    with deployment.lake as lake:
        batches, _ = queries.detailed(lake, whom)
        found = []
        for batch in batches:
            assert batch.num_rows == 1 or batch.nbytes <= PIECE_BYTES
            found += [(int(payload[:3]), len(payload)) for payload in batch["payload"].to_pylist()]
    assert found == list(enumerate(sizes))


@pytest.mark.parametrize("most", [1, 30, 500])
def test_a_page_of_messages_ends_at_four_mebibytes(giants: tuple[Deployment, list[int]], most: int) -> None:
    deployment, sizes = giants
    after, found = None, []
    pages: list[int] = []
    with deployment.lake as lake:
        while not pages or after:
            page = queries.page(lake, ACME, None, None, None, after, most)
            assert page.rows.num_rows <= most
            assert page.rows.num_rows == 1 or page.rows.nbytes < 4 * 2**20
            pages.append(page.rows.num_rows)
            found += [(int(payload[:3]), len(payload)) for payload in page.rows["payload"].to_pylist()]
            after = page.next
    assert found == list(enumerate(sizes))
    if most == 500:
        assert pages == [50, 1, 106, 43]


@pytest.mark.parametrize("seconds_more", [0, 1, 29, 30, 59])
def test_a_minute_of_many_messages_is_read_in_parts(
    served: Served, monkeypatch: pytest.MonkeyPatch, asked: list[Asked], seconds_more: int
) -> None:
    """Two messages a second: parts of 10 are of five seconds, and the last ones begin behind the end of the period."""
    monkeypatch.setattr(queries, "_PART", 10)
    start = datetime(2020, 2, 3, 8, 0, 30, tzinfo=UTC)
    end = start + timedelta(minutes=3, seconds=seconds_more)
    with served.deployment.lake as lake:
        slices, _ = queries.detailed(lake, ACME, None, start, end, lambda: 25)
        found = pa.Table.from_batches(slices)["event_datetime"].to_pylist()
    read = [question.answer.num_rows for question in asked if question.name == "detailed"]
    assert found == [start + timedelta(seconds=n // 2) for n in range(2 * (180 + seconds_more))]
    assert sum(read) == len(found)
    assert max(read[1:]) <= 25  # the first one has the rest of a minute that began before the period


def test_many_exports_hold_no_more_than_a_few() -> None:
    async def visit() -> None:
        limiter, exports = threads(), [object() for _ in range(20)]
        alone = rows_at_once(limiter)
        for export in exports:
            limiter.acquire_on_behalf_of_nowait(export)
        assert 20 * rows_at_once(limiter) <= 2 * alone
        for export in exports:
            limiter.release_on_behalf_of(export)
        assert rows_at_once(limiter) == alone

    anyio.run(visit)


def test_a_client_that_goes_away_ends_the_writing() -> None:
    sent: list[MutableMapping[str, Any]] = []
    ended = []

    def write(out: BinaryIO) -> None:
        try:
            while True:
                out.write(b"a line\n")
        finally:
            ended.append(len(sent))

    async def visit() -> None:
        gone = anyio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)
            if len(sent) == 5:
                gone.set()

        limiter = threads()
        with anyio.fail_after(30):
            await Download("name", "csv", write)(_request(limiter), receive, send)
        assert limiter.borrowed_tokens == 0

    anyio.run(visit)
    assert ended
    assert ended[0] < 10


def _request(limiter: anyio.CapacityLimiter, limit: ExportLimit | None = None, customer_id: int = 7) -> dict[str, Any]:
    state = SimpleNamespace(export_threads=limiter, export_limit=limit or ExportLimit(1_000))
    viewer = Viewer(customer_id, datetime.now(UTC), "token")
    return {"type": "http", "method": "GET", "app": SimpleNamespace(state=state), "state": {"viewer": viewer}}


def test_a_customer_has_three_exports_at_once_and_the_others_theirs() -> None:
    async def visit() -> None:
        limiter, limit = threads(), ExportLimit(1_000)
        begun, go_on = anyio.Semaphore(0), anyio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                begun.release()
                await go_on.wait()

        async def export(customer_id: int) -> None:
            await Download("name", "csv", lambda _: None)(_request(limiter, limit, customer_id), receive, send)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for customer_id in (7, 7, 7, 8):
                    group.start_soon(export, customer_id)
                for _ in range(4):
                    await begun.acquire()
                with pytest.raises(Refused) as refused:
                    await export(7)
                assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "10"})
                go_on.set()
            await export(7)

    anyio.run(visit)


def test_where_no_export_can_be_written_none_is_begun() -> None:
    """Also while those that may be written have yet to begin."""

    async def visit() -> None:
        limiter, limit, held = threads(), ExportLimit(1_000), ExitStack()
        for customer_id in range(int(limiter.total_tokens)):
            held.enter_context(limit.hold_slot(Viewer(customer_id, datetime.now(UTC), "token")))
        with held, pytest.raises(Refused) as refused:
            await Download("name", "csv", lambda _: None)(_request(limiter, limit, 99), _never, _never)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "10"})

    anyio.run(visit)


def test_who_reads_nothing_has_three_exports_and_the_fourth_no_answer_of_200(
    giants: tuple[Deployment, list[int]],
) -> None:
    """The real process, asked over sockets whose buffers hold a part of the report."""
    deployment, _ = giants
    port = a_free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as opened, (deployment.home / "panel.log").open("wb") as log:
        process = opened.enter_context(killed_at_the_end(deployment.start_python("panel", "--port", port, output=log)))
        until(lambda: _is_up(url) or process.poll() is not None, "the start of the panel", 60)
        # Each with a token of its own, and each spelled in another way.
        tokens = [deployment.call("token", "--customer", ACME).text.strip() + "=" * (n % 2) for n in range(4)]
        statuses = []
        for token in tokens:
            client = opened.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(60)
            client.connect(("127.0.0.1", port))
            address = f"/api/v1/customers/{ACME}/messages/export"
            client.sendall(f"GET {address} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            statuses.append(client.recv(1024))
        assert [answer.split()[1] for answer in statuses] == [b"200", b"200", b"200", b"429"]
        assert b"retry-after: 10\r\n" in statuses[3].lower()
        other = deployment.call("token", "--operator").text.strip()
        others = httpx.get(f"{url}{address}?to=2020-01-01T00:00:00Z", headers={"Authorization": f"Bearer {other}"})
        assert others.status_code == 200


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


async def _never(*_: object) -> Any:
    raise AssertionError


def test_a_limit_counts_the_person_and_not_its_tokens() -> None:
    limit = ExportLimit(2)
    for customer_id, subject in ((7, ""), (None, "ana")):
        for token in ("one", "another"):
            limit.count_start(Viewer(customer_id, datetime.now(UTC), token, subject=subject))
        with pytest.raises(Refused):
            limit.count_start(Viewer(customer_id, datetime.now(UTC), "a third", subject=subject))
    for viewer in (Viewer(8, datetime.now(UTC), "one"), Viewer(None, datetime.now(UTC), "one", subject="rui")):
        limit.count_start(viewer)


@pytest.mark.parametrize(
    ("error", "told"),
    [(LakeError("the disk is gone"), "the disk is gone"), (MemoryError(), "the machine has no memory left for it")],
)
def test_an_export_that_fails_breaks_off_and_is_told_in_one_line(
    caplog: pytest.LogCaptureFixture, error: Exception, told: str
) -> None:
    sent: list[MutableMapping[str, Any]] = []

    def write(out: BinaryIO) -> None:
        out.write(b"a line\n")
        raise error

    async def visit() -> None:
        async def receive() -> MutableMapping[str, Any]:
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        with anyio.fail_after(30):
            await Download("name", "csv", write)(_request(threads()), receive, send)

    anyio.run(visit)
    assert [message.get("more_body") for message in sent] == [None, True]  # and never False
    assert [record.getMessage() for record in caplog.records] == [f"an export failed midway: {told}"]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_a_client_that_takes_nothing_is_closed() -> None:
    """It never reads, and answers that its buffers are full: without the limit that goes on for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        end_if_stalled(listening, 1)
        with socket.create_connection(listening.getsockname()):
            connection, _ = listening.accept()
            with connection, pytest.raises(TimeoutError, match="Connection timed out"):
                connection.sendall(b"x" * 2**26)
