"""Row 21: a fork with connections open. Stock: parent and child share them: one wrong response in 398.

Here a child makes its own; nothing of its parent's is used or closed. As gunicorn's preload and Celery's prefork do it.
"""

from __future__ import annotations

import pytest

from seawall import ResilientServiceClient
from tests.resilience.scene import calling, run_child
from tests.support import Answer, CountingService

CHILDREN, CALLS = 4, 60

#: Forks after use and in the middle of it, and lets parent and children call at once; fails where an answer is another's.
FORKING = """
import os, sys, threading
from seawall import ResilientServiceClient
url, children, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = ResilientServiceClient(url, "Echo", backoff=0)

def wrong(name):
    paths = [f"/{name}-{number}" for number in range(calls)]
    return sum(client.get(path).text != path for path in paths)

found = []
assert wrong("before") == 0
busy = [threading.Thread(target=lambda name=name: found.append(wrong(name))) for name in ("one", "two")]
for thread in busy:
    thread.start()
pids = []
for number in range(children):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = wrong(f"child-{number}")
        finally:
            os._exit(code)
    pids.append(pid)
for thread in busy:
    thread.join()
assert found == [0, 0], found
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * children
assert wrong("after") == 0
"""


@pytest.mark.parametrize("mode", ["broker", "memory"])
def test_no_answer_is_anybody_elses(mode: str, redis_url: str, service: CountingService) -> None:
    """In memory mode the connections to the service are in this very process, with a broker those to the broker are."""
    service.script("*", lambda request: Answer(body=request.path))
    arguments = (service.url, str(CHILDREN), str(CALLS))
    if mode == "memory":
        run_child(FORKING, *arguments)
    else:
        with calling(redis_url, supervised=False):
            ResilientServiceClient(service.url, "Echo", backoff=0)
            run_child(FORKING, *arguments, environ={"SEAWALL_BROKER_URL": redis_url})
    # A child makes links of its own, and where one is slow to answer the child makes its GET itself as well.
    assert len({request.path for request in service.requests}) == CALLS * (1 + 2 + CHILDREN + 1)
