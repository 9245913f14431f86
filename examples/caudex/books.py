"""The demo's account: what was accepted and answered, beside what the services' own books say."""

from __future__ import annotations

from collections.abc import Sequence

from click import echo, style

from examples.caudex.fleet import DEMO_PROJECT, DEMO_USER, Fleet
from examples.caudex.load import FALLBACK, Load

__all__ = ["Books"]

#: Credits that one answer costs, as the backend charges them.
CHAT_COST = 2


class Books:
    """Opened before the first user comes, settled after the last call was delivered."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._credits = self._balance()

    def settle(self, load: Load, phases: Sequence[str]) -> bool:
        """Print the account; whether nothing was lost."""
        _print_users(load, phases)
        missing = self._print_calls(load)
        wrong = self._print_chats(load)
        good = not missing and not wrong
        verdict = "Nothing was lost." if good else f"{missing} call(s) and {wrong} of the sums above are LOST or wrong."
        echo(style(f"\n{verdict}", fg="green" if good else "red", bold=True))
        return good

    def _print_calls(self, load: Load) -> int:
        """Each accepted call in its service's own book, by Idempotency-Key; how many are in none."""
        echo("\nBackground calls, by the services' own books")
        _row("", ["accepted", "replaced", "delivered", "twice", "lost"])
        lost = 0
        for key, ids in load.accepted.items():
            book = self._fleet.services[key].ask("GET", "/admin/requests").json()["keys"]
            delivered = {id for id in ids if book.get(id, [0, 0])[1] > 0}
            replaced = load.replaced.intersection(ids) - delivered
            twice = sum(book[id][1] > 1 for id in delivered)
            missing = len(ids) - len(delivered) - len(replaced)
            lost += missing
            _row(key, [len(ids), len(replaced), len(delivered), twice, missing])
        if any(load.replaced):
            echo("  (replaced: a newer snapshot of the same project took its place while it waited)")
        for what, count in load.refused.items():
            echo(f"  {count} not accepted, and their caller was told so: {what}")
        return lost

    def _print_chats(self, load: Load) -> int:
        """Each answered chat was paid once and saved once. Those that failed may have been; how many sums are wrong."""
        answered = sum(seen["chat: chroma"] + seen[f"chat: {FALLBACK}"] for seen in load.seen.values())
        failed = sum(seen["chat"] for seen in load.seen.values()) - answered
        paid = (self._credits - self._balance()) // CHAT_COST
        saved = len([file for file in self._files() if file.startswith("chats/")])
        echo("\nChats, by the books of billing and filesystem")
        _row("", ["answered", "failed", "paid", "saved"])
        _row("chats", [answered, failed, paid, saved])
        return sum(not answered <= count <= answered + failed for count in (paid, saved))

    def _balance(self) -> int:
        return int(self._fleet.services["billing"].ask("GET", f"/balance/{DEMO_USER}").json()["balance"])

    def _files(self) -> list[str]:
        files: list[str] = self._fleet.services["filesystem"].ask("GET", f"/files/{DEMO_PROJECT}").json()["files"]
        return files


def _print_users(load: Load, phases: Sequence[str]) -> None:
    echo("\nWhat users saw")
    _row("", phases)
    seen = [load.seen[phase] for phase in phases]
    _row("answers from chroma", [each["chroma"] for each in seen])
    _row("from the backend's copy", [each[FALLBACK] for each in seen])
    _row("errors", [each["chat"] + each["search"] - each["chroma"] - each[FALLBACK] for each in seen])
    _row("slowest answer", [f"{load.slowest[phase]:.2f} s" for phase in phases])


def _row(name: str, cells: Sequence[object]) -> None:
    echo(f"  {name:<24}" + "".join(f"{cell!s:>15}" for cell in cells))
