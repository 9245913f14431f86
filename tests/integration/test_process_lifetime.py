"""What a process of the user's own goes through: import, fork, a host with Dramatiq of its own, exit."""

from __future__ import annotations

import time

from seawall import ResilientServiceClient
from seawall import runtime as runtimes
from seawall.settings import load_settings
from tests.support import Answer, CountingService
from tests.support.house import RemoteHouse, caller, no_services
from tests.support.scripts import run_script

#: Notes what Seawall's own modules do; what the libraries do when they are imported (urllib3 tries whether there is
#: IPv6, Dramatiq reads its settings) is theirs.
WATCH = """
    import os, sys, threading

    met = []

    def note(what):
        frame = sys._getframe(2)
        while frame is not None and "/site-packages/" not in frame.f_code.co_filename:
            if frame.f_globals.get("__name__", "").startswith(("seawall", "service_utils")):
                met.append(f"{what} in {frame.f_code.co_filename}")
            frame = frame.f_back

    class Watched(type(os.environ)):
        def __getitem__(self, key):
            note(f"environment {key}")
            return super().__getitem__(key)

    os.environ.__class__ = Watched
    sys.addaudithook(lambda event, _: note(event) if event.startswith("socket.") else None)
    HERE
    assert met == [], met
    assert threading.enumerate() == [threading.main_thread()]
"""


class TestImport:
    def test_starts_no_thread_opens_no_socket_reads_no_environment(self) -> None:
        modules = "seawall.testing, seawall.cli, seawall.workers.worker, seawall.memory, seawall.supervisor.trials"
        done = run_script(WATCH.replace("HERE", f"import seawall, service_utils, {modules}"))
        assert (done.stdout, done.stderr) == ("", "")

    def test_making_a_client_starts_nothing_either(self) -> None:
        client = "seawall.ResilientServiceClient('http://git:6005', 'Git Server')"
        code = f"import seawall; {client}; met = [each for each in met if 'environment' not in each]"
        run_script(WATCH.replace("HERE", code), SEAWALL_BROKER_URL="redis://127.0.0.1:1")


#: Seconds that a process may go on at its exit, for those that must not: more than a busy machine needs to start and end one.
LONG = 30.0

EXIT = """
    import logging, sys, time
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    from seawall import ResilientServiceClient
    git = ResilientServiceClient(sys.argv[1], "Git Server", backoff=0.05, jitter=0, failure_threshold=1)
    {}
"""


class TestExit:
    def test_finishes_what_was_queued(self, service: CountingService) -> None:
        service.script("*", Answer(500), Answer(200, delay=0.1))
        done = run_script(EXIT.format("git.fire('POST', '/snapshot/42'); git.fire('POST', '/snapshot/7')"), service.url)
        assert service.count() == 3
        assert "lost" not in done.stderr

    def test_logs_what_was_lost(self, service: CountingService) -> None:
        code = EXIT.format("[git.fire('POST', f'/snapshot/{n}', delay=600) for n in range(3)]; git.get('/ready')")
        started = time.monotonic()
        done = run_script(code, service.url, SEAWALL_EXIT_DRAIN=str(LONG))
        assert "ERROR [Git Server] 3 call(s) were still waiting when the process ended; they are lost" in done.stderr
        assert time.monotonic() - started < LONG / 2, "it waits for nothing that cannot happen"

    def test_does_not_wait_for_a_breaker_that_stays_open(self, service: CountingService) -> None:
        service.script("*", Answer(500))
        code = EXIT.format("git.enqueue('POST', '/a', rounds=1).exception(10); git.fire('POST', '/b')")
        started = time.monotonic()
        done = run_script(code, service.url, SEAWALL_EXIT_DRAIN=str(LONG))
        assert "1 call(s) were still waiting" in done.stderr
        assert time.monotonic() - started < LONG / 2

    def test_gives_up_after_the_drain_time(self, service: CountingService) -> None:
        service.script("*", Answer(delay=30))
        done = run_script(
            EXIT.format("git.fire('POST', '/slow'); print(time.time())"), service.url, SEAWALL_EXIT_DRAIN="0.3"
        )
        assert "1 call(s) were still waiting" in done.stderr
        assert time.time() - float(done.stdout) < 5


FORK = """
    import os, sys, threading
    from seawall import ResilientServiceClient
    client = ResilientServiceClient(sys.argv[1], "Git Server", backoff=0)

    def use(name):
        assert client.get("/" + name).status_code == 200
        assert client.enqueue("POST", "/" + name).result(10).status_code == 200
        assert client.state.value == "closed"
        assert ResilientServiceClient(sys.argv[1], "Git Server", backoff=0, timeout=9).get("/again").status_code == 200
        assert ResilientServiceClient(sys.argv[1], "Other", backoff=0).get_status()["state"] == "closed"

    use("parent-before")
    busy = [threading.Thread(target=use, args=("meanwhile",)) for _ in range(8)]
    for thread in busy:
        thread.start()
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            try:
                ResilientServiceClient(sys.argv[1], "Made By A Child")
                assert threading.active_count() == 1, "nothing of the parent's is at work here"
                use(f"child-{number}")
                use(f"child-{number}")
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    for thread in busy:
        thread.join()
    use("parent-after")
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
"""


class TestFork:
    """As gunicorn's preload and Celery's prefork children do: after use, and with other threads in the middle of it."""

    def check(self, service: CountingService) -> None:
        assert service.count("/parent-after") == 2
        assert [service.count(f"/child-{number}") for number in range(3)] == [4, 4, 4]

    def test_in_memory_mode(self, service: CountingService) -> None:
        run_script(FORK, service.url)
        self.check(service)

    def test_over_a_broker(self, service: CountingService, redis_url: str) -> None:
        with caller(redis_url):
            ResilientServiceClient(service.url, "Git Server", backoff=0)
            with RemoteHouse(redis_url, supervised=False):
                run_script(FORK, service.url, SEAWALL_BROKER_URL=redis_url)
        self.check(service)


def test_a_host_with_dramatiq_of_its_own_is_left_alone(service: CountingService) -> None:
    run_script(
        """
        import sys, dramatiq
        from dramatiq.brokers.stub import StubBroker
        from dramatiq.encoder import JSONEncoder, PickleEncoder

        theirs = StubBroker()
        dramatiq.set_broker(theirs)
        encoder = PickleEncoder()
        dramatiq.set_encoder(encoder)

        from seawall import ResilientServiceClient
        git = ResilientServiceClient(sys.argv[1], "Git Server")
        git.get("/ready")
        git.enqueue("POST", "/snapshot/42", json=1).result(5)

        done = []
        @dramatiq.actor
        def own(number):
            done.append(number)

        assert dramatiq.get_broker() is theirs and dramatiq.get_encoder() is encoder
        assert set(theirs.actors) == {"own"} and "git-server.waited" not in theirs.queues
        worker = dramatiq.Worker(theirs, worker_timeout=50, worker_threads=1)
        worker.start()
        own.send(42)
        theirs.join("default", timeout=5000)
        worker.join()
        worker.stop()
        assert done == [42]
        git.get("/ready")
        """,
        service.url,
    )
    assert service.count() == 3


def test_closing_a_runtime_twice_does_no_harm(service: CountingService) -> None:
    runtime = runtimes.Runtime(load_settings())
    before = runtimes.replace(runtime)
    with no_services():
        ResilientServiceClient(service.url, "Git Server").get("/ready")
    runtimes.replace(before)
    runtime.close()
    runtime.close()
