"""The copy under kill -9 of its writers and of its server, under two writers at once, and on a full disk."""

import random
import signal
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from threading import Timer

import psycopg
import pytest
from pydantic import SecretStr

from notif_assets.serving.copying import serve
from notif_assets_tests.cli.deployment import Deployment, ended, killed_at_the_end, ok, refusal, until
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.disks import disk
from notif_assets_tests.faults.kills import a_seed
from notif_assets_tests.maintenance.world import START, World
from notif_assets_tests.postgres import Server, ask, programs, running
from notif_assets_tests.serving.truth import assert_equal

AWAY = ("can't be reached", "could not do it")


class Fed:
    """A deployment with a copy, whose lake the test feeds in this process."""

    def __init__(self, deployment: Deployment, url: str) -> None:
        self.deployment, self.url = deployment, url
        deployment.settings["NOTIF_SERVING_URL"] = url
        self.world = World(deployment.home / "data", serving_url=SecretStr(url))

    def feed(self, messages: int) -> None:
        self.world.send(messages, START + timedelta(minutes=7 * self.world.sent % 4000), timedelta(seconds=2))
        self.world.ingest()

    def stands(self) -> frozenset[tuple[str, int]]:
        if ask(self.url, "select to_regclass('serving.watermarks')") == [(None,)]:
            return frozenset()
        return frozenset((n, v) for n, v in ask(self.url, "select table_name, version from serving.watermarks"))

    def finish(self) -> None:
        ok(self.deployment.run("serve"))
        assert_equal(self.url, self.world.settings)


@pytest.mark.timeout(0)  # every process has its own deadline; a soak takes as long as it takes
def test_writers_that_are_killed_two_at_once_leave_whole_versions(
    deploy: Deploy, database: str, request: pytest.FixtureRequest
) -> None:
    chance, fed = random.Random(a_seed()), Fed(deploy(1), database)
    ends: Counter[str] = Counter()
    for number in range(request.config.getoption("--soak") or 12):
        fed.feed(chance.randint(1, 300))
        if number % 4 == 3:
            fed.world.lake.table("prices").append(fed.world.lake.rows(fed.world.lake.table("prices").scan()))
        before = fed.stands()
        writers = [fed.deployment.start("serve") for _ in range(chance.choice((1, 2)))]
        until(lambda: all(w.poll() is not None for w in writers) or _at_work(fed.url), "the work")  # noqa: B023
        time.sleep(chance.uniform(0, 0.15))
        for writer in writers:
            if writer.poll() is None:
                writer.send_signal(signal.SIGKILL)
            answer = ended(writer)
            assert answer.code in (0, -signal.SIGKILL), answer
            ends["killed" if answer.code else "ended"] += 1
        moved = {name for name, _ in fed.stands() - before}
        ends[f"{len(moved)} tables moved"] += 1
        if fed.stands():
            assert_equal(fed.url, fed.world.settings, newest=False)
    print(ends)
    fed.finish()


def _at_work(url: str) -> bool:
    """Whether a writer is in a transaction."""
    busy = "select 1 from pg_stat_activity where application_name = 'notif-assets' and xact_start is not null"
    return bool(ask(url, f"{busy} and datname = current_database()"))


def test_a_server_that_is_killed_costs_one_line_and_what_was_not_committed(deploy: Deploy, own_server: Server) -> None:
    chance = random.Random(a_seed())
    fed = Fed(deploy(1), own_server.create_database("copy"))
    fed.feed(2000)
    for _ in range(5):
        fed.feed(chance.randint(1, 300))
        with killed_at_the_end(fed.deployment.start("serve")) as writer:
            until(lambda: writer.poll() is not None or _at_work(fed.url), "the work")
            time.sleep(chance.uniform(0, 0.1))
            own_server.kill()
            answer = ended(writer)
        if answer.code:
            assert any(words in refusal(answer) for words in AWAY), answer
        own_server.start()
        if fed.stands():
            assert_equal(fed.url, fed.world.settings, newest=False)
    fed.finish()


def test_a_full_disk_of_the_server_costs_one_line_and_nothing_that_was_committed(
    deploy: Deploy,
) -> None:
    chance = random.Random(a_seed())
    folder = Path(tempfile.mkdtemp(prefix="notif-assets-postgres-")) / "disk"
    folder.parent.chmod(0o755)
    with disk(folder, 160) as small, running(folder / "server", programs()) as server:
        fed = Fed(deploy(1), server.create_database("copy"))
        fed.feed(3000)
        ok(fed.deployment.run("serve"))
        for left in (0, 50_000, 200_000):
            fed.feed(4000)
            small.fill(but=left and left + chance.randint(-4096, 4096))
            line = refusal(fed.deployment.run("serve"))
            assert any(words in line for words in AWAY), line
            small.free()
            server.kill()  # it may have ended by itself, when not even its log could be written
            server.start()
            assert_equal(fed.url, fed.world.settings, newest=False)
            fed.finish()


def test_a_writer_waits_for_another_one_and_finds_nothing_left(database: str, tmp_path: Path) -> None:
    world = World(tmp_path, serving_url=SecretStr(database))
    world.send(50, START)
    world.ingest()
    serve(world.lake, world.settings)
    world.send(50, START)
    world.ingest()
    with psycopg.connect(database) as other:
        other.execute("select version from serving.watermarks where table_name = 'minute_aggregates' for update")
        Timer(0.5, other.rollback).start()
        served = {copied.table for copied in serve(world.lake, world.settings)}
    assert served >= {"minute_aggregates"}
    assert serve(world.lake, world.settings) == []
    assert_equal(database, world.settings)
