"""What is installed: one package and one module, beside whatever else is there, complete and typed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: What a build reads; a copy is built, so that nothing is left in the repository and nothing old gets in.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "service_utils.py", "seawall", "actors", "workers", "supervisor")

SMOKE = """
import actors, workers, supervisor
import seawall, service_utils, seawall.actors.service, seawall.workers, seawall.supervisor.breaker
from seawall.redis_link import load_script
assert actors.MINE and workers.MINE and supervisor.MINE
assert service_utils.ResilientServiceClient is seawall.ResilientServiceClient
assert load_script("seawall.supervisor", "breaker").source
print(seawall.__file__)
"""


def run(*command: str | Path, cwd: Path = Path("/")) -> str:
    """The command's output; the test fails with it when the command does. Never run where the sources lie."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, the wheel made from it, and in `direct/` the wheel made from the sources."""
    sources = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, sources / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, sources / name)
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation"]
    run(*build, "--outdir", out, sources)
    run(*build, "--wheel", "--outdir", out / "direct", sources)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel; what the wheel needs it borrows from this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A line in a .pth file adds the folder alone; the editable install that is announced in it stays out of sight.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip(python, "install", "--no-deps", "--no-index", "--force-reinstall", wheel)
    return python


def pip(python: Path, *arguments: str | Path) -> str:
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *arguments)


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if not name.endswith("/"))


def test_wheel_holds_one_package_and_one_module(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"seawall", "service_utils.py"}


def test_wheel_holds_every_module_script_and_template(wheel: Path) -> None:
    """The files of the repository, found through the links, with no list to keep."""
    wanted = {"service_utils.py"}
    for folder in ("seawall", "seawall/actors", "seawall/workers", "seawall/supervisor"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
                wanted.add(path.relative_to(ROOT).as_posix())
    found = {name for name in names(wheel) if ".dist-info/" not in name}
    assert found == wanted
    assert "seawall/py.typed" in found
    assert "seawall/supervisor/lua/breaker.lua" in found


def test_sdist_builds_the_same_wheel(built: Path, wheel: Path) -> None:
    (direct,) = (built / "direct").glob("*.whl")
    assert names(direct) == names(wheel)


def test_wheel_lives_beside_supervisord_and_a_users_own_folders(installed: Path, tmp_path: Path) -> None:
    """Installed beside PyPI's `supervisor`, which is removed again, and run where the user has our rooms' names."""
    try:
        pip(installed, "install", "--no-deps", "--timeout", "5", "--retries", "1", "supervisor")
    except AssertionError as error:
        pytest.skip(f"PyPI's supervisor cannot be had here: {error}")
    assert "supervisord" in run(installed, "-c", "import supervisor.supervisord as s, seawall; print(s.__name__)")
    pip(installed, "uninstall", "--yes", "supervisor")
    (tmp_path / "actors.py").write_text("MINE = True")
    for name in ("workers", "supervisor"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = True")
    origin = Path(run(installed, "-c", SMOKE, cwd=tmp_path).strip())
    assert origin.is_relative_to(installed.parents[1])


def test_users_program_passes_a_strict_type_checker(installed: Path, tmp_path: Path) -> None:
    program = tmp_path / "consumer.py"
    shutil.copy(ROOT / "tests" / "packaging" / "consumer.py", program)
    options = ["--strict", "--python-executable", installed, "--cache-dir", tmp_path / "cache", "--config-file", ""]
    assert "Success" in run(sys.executable, "-m", "mypy", *options, program, cwd=tmp_path)


def test_command_is_installed(installed: Path) -> None:
    assert "Usage" in run(installed.parent / "seawall", "--help")
