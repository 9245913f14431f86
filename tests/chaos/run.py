"""One chaos run from its start to its evidence: play the plan, let everything settle, end it, and look at what is left."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from tests.chaos.evidence import Evidence, Lag, dead_letters, drained, keys_left, sizes, waiting
from tests.chaos.ledger import read_asked, read_visits
from tests.chaos.members import Member
from tests.chaos.plan import CLIENTS, SERVICES, SUPERVISORS, WORKERS, Plan
from tests.chaos.play import Player
from tests.chaos.trials import Breakers
from tests.chaos.world import NAMESPACE, World, left_running

__all__ = ["run"]

#: Seconds in which the calls of a normal fleet show how many threads and files it needs.
WARM_UP = 2.0
#: Seconds for which clients go on once everything is well again; a breaker is closed within a few of them.
CALM = 6.0
#: Seconds in which the queues must have drained then. A call that has failed in round after round waits up to five minutes
#: for its next one, but here breakers open long before that.
SETTLE = 120.0
#: Seconds within which all processes of a kind must have ended, beyond what the player grants each.
END = 30.0


def run(plan: Plan, folder: Path, say: Callable[[str], None] = lambda text: None) -> Evidence:
    """Play the plan in this folder; what is to be checked."""
    world = World(folder, plan.seed)
    breakers = Breakers(world.redis.url, NAMESPACE)
    evidence = Evidence({service: world.options(service)["recovery_timeout"] for service in SERVICES})
    player, lag = Player(world, plan, say), Lag()
    try:
        world.start()
        breakers.start()
        player.wait(WARM_UP)
        evidence.sizes_before = sizes(world.members[name] for name in WORKERS)
        player.play()
        _settle(world, player, evidence, say)
        evidence.breakers = breakers.stop()
        _end(world, player, evidence)
    finally:
        world.close()
    evidence.processes_left = left_running()
    evidence.sockets_left = [name for name, port in world.ports.items() if _taken(port)]
    evidence.lives = [life for member in world.members.values() for life in member.lives]
    evidence.asked, evidence.visits = read_asked(folder), read_visits(folder)
    evidence.begun, evidence.lag = player.begun, lag.seconds
    return evidence


def _settle(world: World, player: Player, evidence: Evidence, say: Callable[[str], None]) -> None:
    """Everything is well again: clients go on for a while and end, and the fleet works off what there is."""
    player.restore()
    evidence.calm_from = time.monotonic()
    player.wait(CALM)
    _terminate(player, [world.members[name] for name in CLIENTS])
    evidence.drained = player.wait(SETTLE, lambda: drained(world.engine.queue))
    say(f"drained {time.monotonic() - evidence.calm_from:.1f} s after the last disturbance")
    evidence.sizes_after = sizes(world.members[name] for name in WORKERS)


def _end(world: World, player: Player, evidence: Evidence) -> None:
    """Everybody gets a SIGTERM, and what is left lies in Redis."""
    with closing(world.redis.client()) as client:
        evidence.waiting = waiting(client)
        evidence.burials = dead_letters(world.engine.queue)
        for names in (WORKERS, SUPERVISORS, SERVICES):
            _terminate(player, [world.members[name] for name in names])
        evidence.keys_left = keys_left(client)


def _terminate(player: Player, members: Iterable[Member]) -> None:
    members = list(members)
    for member in members:
        player.send_away(member)
    player.wait(END, lambda: not any(member.runs for member in members))


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
