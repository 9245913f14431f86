"""Redis and Valkey as they are run in earnest: passwords, users with few rights, full memory, restarts, cluster mode."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from seawall import BrokerRefused, BrokerUnavailable, QueueFull, ResilientServiceClient
from seawall.actors.queue_store import Counts
from seawall.broker_check import COMMANDS, broker_problems
from seawall.redis_link import RedisLink, load_script
from seawall.runtime import Runtime
from seawall.settings import Settings
from seawall.supervisor.leader import Leader
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.configuration_page import PAGE
from tests.support.house import RemoteHouse, caller

PASSWORD = "s3cret:with/every?thing#in@it"
#: Any script of ours.
SCRIPT = load_script("seawall.supervisor", "breaker")
READ = ("read", "seawall", "chroma")

Make = Callable[..., PrivateRedis]


class SystemRedis(PrivateRedis):
    """Redis itself, as the system has it, in the place of Valkey."""

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder, **options)
        self._binary = Path(shutil.which("redis-server") or "")


@pytest.fixture(params=["valkey", "redis"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Starts servers of one kind with further options; `lines` are those of a configuration file."""
    if request.param == "redis" and shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server on this machine")
    kind = SystemRedis if request.param == "redis" else PrivateRedis
    running: list[PrivateRedis] = []
    with tempfile.TemporaryDirectory(prefix="seawall-test-") as folder:

        def start(*lines: str, **options: str) -> PrivateRedis:
            file = Path(folder) / f"{len(running)}.conf"
            file.write_text("\n".join(lines) + "\n")
            server = kind(Path(folder) / str(len(running)), include=str(file), **options)
            running.append(server)
            server.start()
            return server

        try:
            yield start
        finally:
            for server in running:
                server.stop()


def url_for(server: PrivateRedis, user: str = "", password: str = PASSWORD) -> str:
    return server.url.replace("unix://", f"unix://{user}:{quote(password, safe='')}@")


def protected(server: PrivateRedis, password: str = PASSWORD) -> PrivateRedis:
    with server.client() as client:
        client.config_set("requirepass", password)
    return server


def errors(url: str) -> list[str]:
    found = broker_problems(Settings(broker_url=url))
    return [str(problem) for problem in found if problem.severity == "error"]


def add_user(server: PrivateRedis, *rules: str) -> str:
    """A user `app` with these rights; its URL."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", *rules)
    return url_for(server, "app")


def documented_rules() -> list[str]:
    """Those of docs/configuration.md."""
    found = re.search(r"ACL SETUSER app on >PASSWORD (.*)", PAGE.read_text("utf-8"))
    assert found is not None
    return found[1].split()


def refusal_of(link: RedisLink, send: Callable[[RedisLink], object]) -> BrokerRefused:
    try:
        with pytest.raises(BrokerRefused) as caught:
            send(link)
    finally:
        link.close()
    shown = f"{caught.value!r} {caught.value} {caught.value.__cause__}"
    assert not any(part in shown for part in (PASSWORD, quote(PASSWORD, safe=""), "s3cret"))
    return caught.value


def run_script(link: RedisLink) -> object:
    return link.run(SCRIPT, *READ)


def use_all_of_it(url: str, service: CountingService) -> None:
    """A waited-for call, a background call, a failing service's breaker and its announcement, on this broker."""
    service.script("/bad", Answer(500))
    with caller(url) as runtime:
        client = ResilientServiceClient(service.url, key="chroma", backoff=0, max_retries=1, failure_threshold=2)
        with RemoteHouse(url):
            assert client.get("/ready").status_code == 200
            assert client.enqueue("POST", "/later").result(5).status_code == 200
            for _ in range(2):
                client.enqueue("POST", "/bad", rounds=1)
            wait_until(lambda: client.state.value == "open")
            assert runtime.engine.queue.queues() == ["chroma", "chroma.bg"] or runtime.engine.queue.queues()


class TestPasswords:
    def test_none_given_where_one_is_wanted(self, make: Make) -> None:
        server = protected(make())
        error = refusal_of(RedisLink(server.url), run_script)
        assert not error.written
        assert "wants a user and a password, and the URL names none" in str(error)
        (problem,) = errors(server.url)
        assert "SEAWALL_BROKER_URL names a server that is of no use: " in problem
        assert "wants a user and a password" in problem

    @pytest.mark.parametrize("user", ["", "nobody"])
    def test_a_wrong_one(self, make: Make, user: str) -> None:
        server = protected(make(), "another")
        error = refusal_of(RedisLink(url_for(server, user)), run_script)
        assert "refused the user or the password: " in str(error)

    def test_one_given_where_none_is_wanted(self, make: Make) -> None:
        error = refusal_of(RedisLink(url_for(make())), run_script)
        assert "has no password for the default user, and the URL names one" in str(error)

    def test_the_right_one(self, make: Make, service: CountingService) -> None:
        url = url_for(protected(make()))
        assert errors(url) == []
        use_all_of_it(url, service)

    def test_a_changed_one_counts_as_refused_until_it_is_changed_back(self, make: Make) -> None:
        server = make()
        url = add_user(server, "+@all", "~*", "&*")
        link = RedisLink(url)
        link.run(SCRIPT, *READ)
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "resetpass", ">changed")
            client.execute_command("CLIENT", "KILL", "USER", "app")
        with pytest.raises(BrokerRefused, match="refused the user or the password"):
            link.run(SCRIPT, *READ)
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "app", f">{PASSWORD}")
        link.run(SCRIPT, *READ)
        link.close()


class TestUsers:
    def test_the_documented_rules_are_enough(self, make: Make, service: CountingService) -> None:
        url = add_user(make(), *documented_rules())
        assert broker_problems(Settings(broker_url=url)) == []
        use_all_of_it(url, service)

    def test_forbidden_commands_are_named_all_at_once(self, make: Make) -> None:
        url = add_user(make(), *documented_rules(), "-blpop", "-publish", "-zpopmin")
        (problem,) = errors(url)
        assert "does not let this user run BLPOP, PUBLISH, ZPOPMIN on seawall:*" in problem

    def test_keys_of_another_prefix_and_channels(self, make: Make) -> None:
        url = add_user(make(), "+@all", "~other:*", "&other:*")
        (problem,) = errors(url)
        assert "BLPOP, DEL, GET" in problem
        assert "PUBLISH" in problem
        assert "SUBSCRIBE" in problem
        assert broker_problems(Settings(broker_url=url, namespace="other")) == []

    def test_at_run_time_the_refused_command_is_named(self, make: Make) -> None:
        url = add_user(make(), *documented_rules(), "-evalsha", "-eval", "-smembers")
        error = refusal_of(RedisLink(url), run_script)
        assert not error.written
        assert "does not allow what Seawall needs" in str(error)
        assert "evalsha" in str(error)
        assert "smembers" in str(refusal_of(RedisLink(url), lambda link: link.command("SMEMBERS", "seawall:queues")))

    def test_a_script_that_may_not_go_on_leaves_it_open_what_it_wrote(self, make: Make) -> None:
        url = add_user(make(), *documented_rules(), "-time", "-hget")
        error = refusal_of(RedisLink(url), run_script)
        assert error.written
        assert "`seawall check` names the command" in str(error)

    def test_calls_say_so_and_waited_for_ones_are_made_all_the_same(self, make: Make, service: CountingService) -> None:
        url = add_user(make(), *documented_rules(), "-evalsha", "-eval")
        with caller(url):
            client = ResilientServiceClient(service.url, key="chroma")
            assert client.get("/ready").status_code == 200
            with pytest.raises(BrokerUnavailable, match="does not allow what Seawall needs"):
                client.enqueue("POST", "/later")

    def test_replies_that_cannot_be_read_are_told_of(
        self, make: Make, service: CountingService, caplog: pytest.LogCaptureFixture
    ) -> None:
        url = add_user(make(), *documented_rules(), "-xread")
        with caller(url):
            client = ResilientServiceClient(service.url, key="chroma")
            with RemoteHouse(url), pytest.raises(BrokerUnavailable.__mro__[2]):
                client.get("/ready", deadline=4.0)
        said = [record.message for record in caplog.records if "replies cannot be read" in record.message]
        assert any("xread" in line for line in said)


class TestRenamedCommands:
    def test_they_are_named(self, make: Make) -> None:
        server = make('rename-command BLPOP ""', "rename-command ZPOPMIN obscure")
        (problem,) = errors(server.url)
        assert "does not let this user run BLPOP, ZPOPMIN on" in problem

    def test_one_that_nothing_works_without(self, make: Make) -> None:
        server = make('rename-command EVALSHA ""')
        error = refusal_of(RedisLink(server.url), run_script)
        assert "does not have a command that Seawall needs: unknown command 'EVALSHA'" in str(error).replace("`", "'")
        (problem,) = errors(server.url)
        assert "EVALSHA" in problem

    def test_the_refusal_does_not_repeat_the_password(self, make: Make) -> None:
        """The server's own text lists the arguments of what it does not know."""
        server = make('rename-command AUTH ""')
        assert "AUTH" in str(refusal_of(RedisLink(url_for(server)), run_script))


class TestClusterMode:
    def test_a_node_of_a_cluster_says_so(self, make: Make) -> None:
        server = make(cluster_enabled="yes")
        for send in (run_script, lambda link: link.command("GET", "seawall:queues")):
            assert "is in cluster mode" in str(refusal_of(RedisLink(server.url), send))


class TestFullMemory:
    def test_new_calls_are_refused_and_what_is_there_drains(self, make: Make, service: CountingService) -> None:
        server = make()
        with caller(server.url) as runtime, server.client() as inside:
            client = ResilientServiceClient(service.url, key="chroma", backoff=0)
            inside.config_set("maxmemory", int(inside.info("memory")["used_memory"]) + 3_000_000)
            accepted = _fill(client)
            with pytest.raises(QueueFull, match="out of memory"):
                client.post("/now", data=b"x" * 200_000)
            assert broker_problems(Settings(broker_url=server.url)) == []
            with RemoteHouse(server.url):
                service.wait_for(accepted, path="/later", timeout=20)
                wait_until(lambda: sum(counts.ready + counts.due + counts.leased for counts in _counts(runtime)) == 0)
                assert client.post("/now", data=b"x" * 200_000).status_code == 200

    def test_breakers_and_the_lead_change_all_the_same(self, make: Make, service: CountingService) -> None:
        """Otherwise a breaker that is open stays open, and what it holds back never drains."""
        server = make()
        service.script("/later", Answer(500))
        with caller(server.url) as runtime, server.client() as inside:
            client = ResilientServiceClient(
                service.url,
                key="chroma",
                backoff=0,
                max_retries=1,
                failure_threshold=2,
                recovery_timeout=0.5,
                health_path="/ready",
                slow_start=0,
            )
            inside.config_set("maxmemory", int(inside.info("memory")["used_memory"]) + 3_000_000)
            accepted = _fill(client)
            inside.config_set("maxmemory", int(inside.info("memory")["used_memory"]) - 500_000)
            assert runtime.engine.link is not None
            leader = Leader(runtime.engine.link, "seawall", "me")
            assert leader.renew()
            leader.report(b"{}")
            service.script("/ready", Answer(500))
            with RemoteHouse(server.url):
                wait_until(lambda: _state(runtime) == "open")
                service.script("/ready", Answer())
                service.script("/later", Answer())
                service.wait_for(accepted, path="/later", timeout=20)
                wait_until(lambda: _state(runtime) == "closed")
            leader.leave()
            leader.resign()


def _state(runtime: Runtime) -> str:
    """As it is stored, for the whole fleet."""
    record = runtime.engine.breakers.read("chroma")[0]
    return record.state.value if record is not None else ""


def _fill(client: ResilientServiceClient) -> int:
    """Queue calls until the server is out of memory; how many it took."""
    answers = (client.enqueue_many([("POST", "/later", {"data": b"x" * 200_000})])[0] for _ in range(1000))
    refused = next((n, answer) for n, answer in enumerate(answers) if isinstance(answer, Exception))
    assert isinstance(refused[1], QueueFull), refused
    assert "out of memory" in str(refused[1])
    return refused[0]


def _counts(runtime: Runtime) -> list[Counts]:
    queue = runtime.engine.queue
    return queue.counts(queue.queues())


class TestLoading:
    """A server that reads its data after a restart answers everything with LOADING."""

    KEYS = 300

    @pytest.fixture
    def loading(self, make: Make) -> PrivateRedis:
        server = make()
        with server.client() as client:
            client.mset({f"other:{n}": os.urandom(2000) for n in range(self.KEYS)})
            client.bgrewriteaof()
            wait_until(lambda: client.info("persistence")["aof_last_rewrite_time_sec"] >= 0)
        server.kill()
        server._more["key-load-delay"] = "10000"  # microseconds
        server._more["loading-process-events-interval-bytes"] = "1024"
        server._wait_until_ready = lambda: None  # type: ignore[method-assign]
        server.restart()
        wait_until(lambda: _says(server, "LOADING"))
        return server

    def test_it_counts_as_away_until_it_has_its_data(self, loading: PrivateRedis, service: CountingService) -> None:
        link = RedisLink(loading.url)
        with pytest.raises(BrokerUnavailable, match="loading its data after a restart") as caught:
            link.run(SCRIPT, *READ)
        assert not isinstance(caught.value, BrokerRefused)
        assert not caught.value.written
        (problem,) = errors(loading.url)
        assert "loading its data" in problem
        with caller(loading.url):
            client = ResilientServiceClient(service.url, key="chroma")
            assert client.post("/now").status_code == 200, "made by the caller itself"
            with pytest.raises(BrokerUnavailable, match="loading its data"):
                client.enqueue("POST", "/later")
            with RemoteHouse(loading.url, supervised=False):
                wait_until(lambda: _says(loading, "PONG"))
                assert client.enqueue("POST", "/later").result(5).status_code == 200
        link.run(SCRIPT, *READ)
        link.close()


def _says(server: PrivateRedis, word: str) -> bool:
    try:
        with server.client() as client:
            return bool(client.ping()) and word == "PONG"
    except redis.BusyLoadingError:
        return word == "LOADING"
    except redis.ConnectionError:
        return False


def test_every_command_that_is_sent_is_known_to_the_check() -> None:
    """COMMANDS is what the scripts and the code send."""
    root = Path(__file__).resolve().parents[2]
    sent = {"EVAL", "EVALSHA"}
    for folder in ("actors", "supervisor"):
        for script in (root / folder / "lua").glob("*.lua"):
            sent |= set(re.findall(r"redis\.p?call\('([A-Z]+)'", script.read_text("utf-8")))
        for module in (root / folder).glob("*.py"):
            sent |= set(re.findall(r'command\(\s*"([A-Z]+)"', module.read_text("utf-8")))
            sent |= set(re.findall(r'command\("([A-Z]+)" if \S+ == \S+ else "[A-Z]+"', module.read_text("utf-8")))
    known = {line.split()[0] for line in COMMANDS.replace("\n", "|").split("|") if line.strip()}
    assert sent - {"INFO", "CONFIG", "SHUTDOWN"} == known


def test_a_typed_error_comes_in_time(make: Make) -> None:
    began = time.monotonic()
    refusal_of(RedisLink(url_for(make())), run_script)
    assert time.monotonic() - began < 10
