"""Every check of the project, one session each: `nox -l` lists them, `nox` runs the quick ones.

Lives here: which environment a check needs and the command that runs it. Must never live here: the
checks themselves, or a path of one machine (interpreters are found on PATH).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13"]
ENGINES = ["compiled", "wsproto"]
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]

# Each page and the script that prints it.
GENERATED = {"docs/handshake.md": "docs/generate_handshake_table.py"}

# The lower bounds of pyproject.toml, as exact versions: what they promise is what is tested.
OLDEST = [dependency.replace(">=", "==") for dependency in PROJECT["project"]["dependencies"]]

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = True  # a Python that was not there was not tested
nox.options.error_on_external_run = True
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "docs", "tests"]


def group(name: str) -> list[str]:
    """The requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


def inside(session: nox.Session) -> Path:
    """The folder of the session's environment: what is put there goes when it is made afresh."""
    return Path(session.virtualenv.location).resolve()


def pytest(session: nox.Session, *arguments: str) -> None:
    session.run("python", "-m", "pytest", *arguments, *session.posargs)


def use(session: nox.Session, engine: str) -> None:
    """Build with this engine, whatever the compiler says, and run with it."""
    session.env["TRIO_WS_ENGINE"] = engine


@nox.session(python=PYTHONS)
@nox.parametrize("engine", ENGINES)
@nox.parametrize("deps", ["oldest", "newest"])
def tests(session: nox.Session, deps: str, engine: str) -> None:
    """The test suite against the built wheel."""
    use(session, engine)
    # Not editable: pip builds the wheel and the tests import what users get.
    session.install(".[test]", *(OLDEST if deps == "oldest" else []))
    if deps == "newest":
        session.install("--upgrade", *PROJECT["project"]["dependencies"])
    session.run("python", "-c", "import trio_ws; assert 'site-packages' in trio_ws.__file__")
    pytest(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """Branch coverage of the test suite, where all of the library is Python."""
    use(session, "wsproto")
    session.install(".[test]")
    # Not create_tmp: it moves TMPDIR too deep for the paths of unix sockets.
    session.env["COVERAGE_FILE"] = str(inside(session) / "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and layout."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict and pyright over the package, the examples and the API as users type it."""
    # What an extra imports is checked, too.
    session.install(".[metrics,proxy,redis]", *group("types"))
    session.run("mypy")
    # pyright needs the environment named: it runs on node and does not know which Python called it.
    session.run("pyright", "--pythonpath", shutil.which("python", path=session.bin) or "python")


@nox.session
def docs(session: nox.Session) -> None:
    """Generated pages are what the code generates now. `nox -s docs -- --write` renews them."""
    session.install(".")
    stale = []
    for page, generator in GENERATED.items():
        text = session.run("python", generator, silent=True)
        if "--write" in session.posargs:
            Path(page).write_text(str(text))
        elif Path(page).read_text() != text:
            stale.append(page)
    if stale:
        session.error(f"stale: {', '.join(stale)}")


def wstest(session: nox.Session) -> str:
    """The Autobahn test suite's program, installed in an environment of its own."""
    python2 = shutil.which("python2.7")
    if python2 is None:
        session.error("the Autobahn test suite needs python2.7 on PATH")
    # The last virtualenv that makes environments for Python 2.7.
    session.install("virtualenv==20.21.1")
    environment = inside(session) / "python2"
    if not (environment / "bin" / "wstest").exists():
        session.run("virtualenv", "--quiet", "--python", python2, str(environment))
        # Pinned: the expected results list its cases.
        session.run(
            str(environment / "bin" / "pip"), "install", "-q", "autobahntestsuite==25.10.1",
            external=True,
        )  # fmt: skip
    return str(environment / "bin" / "wstest")


ALL_GROUPS = ["1", "2", "3", "4", "5", "6", "7", "9", "10", "12", "13"]


@nox.session
@nox.parametrize("engine", ENGINES)
def autobahn(session: nox.Session, engine: str) -> None:
    """The Autobahn test suite against the echo server. Arguments: its groups (1 2 ... 13)."""
    use(session, engine)
    program = wstest(session)
    session.install(".")
    session.run(
        "python",
        "tests/conformance/autobahn.py",
        f"--wstest={program}",
        f"--report=reports/autobahn-{engine}",
        *(session.posargs or ALL_GROUPS),
    )


@nox.session
@nox.parametrize("engine", ENGINES)
def autobahn_client(session: nox.Session, engine: str) -> None:
    """Our client against the Autobahn test suite. Arguments: its groups (1 2 ... 13)."""
    use(session, engine)
    program = wstest(session)
    session.install(".")
    session.run(
        "python",
        "tests/conformance/autobahn_client.py",
        f"--wstest={program}",
        f"--report=reports/autobahn-client-{engine}",
        *(session.posargs or ALL_GROUPS),
    )


@nox.session
def interop(session: nox.Session) -> None:
    """Other people's clients against the echo server, our client against other people's servers."""
    session.install(".[test]", *group("interop"))
    if shutil.which("npm") is None:
        session.error("interop needs node and npm on PATH")
    with session.chdir("tests/interop"):
        session.run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", external=True)
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        session.error("interop needs chromium on PATH")
    session.env["CHROMIUM"] = chromium
    # Other people's clients leave sockets to the garbage collector; that is not our failure.
    pytest(session, "tests/interop", "-W", "default::pytest.PytestUnraisableExceptionWarning")


@nox.session
def browser(session: nox.Session) -> None:
    """The chat's pages in a real browser: people talk while servers and Redis go and come back."""
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        session.error("the browser session needs chromium on PATH")
    if shutil.which("redis-server") is None:
        session.error("the browser session needs redis-server on PATH")
    session.install(".[test,redis]", *group("browser"))
    session.env["CHROMIUM"] = chromium
    pytest(session, "tests/browser")


@nox.session
def broker(session: nox.Session) -> None:
    """Rooms over several processes, on a Redis that is killed, frozen and started again."""
    if shutil.which("redis-server") is None:
        session.error("the broker session needs redis-server on PATH")
    session.install(".[test,redis]")
    pytest(session, "tests/broker")


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant one fault per promise; the suite must turn red on each. They are planted in Python."""
    use(session, "wsproto")
    session.install(".[test]")
    session.run("python", "tests/mutants/run.py", *session.posargs)


@nox.session
def sanitize(session: nox.Session) -> None:
    """The compiled engine under the address and the undefined-behaviour sanitizer. Wants gcc."""
    session.install(".[test]")
    session.run("python", "tests/sanitize.py", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Floods, 5,000 idle connections, cut wires; what it cost is printed. Linux, 4 minutes."""
    session.install(".[test]")
    pytest(session, "tests/faults", "--capture=no")


@nox.session
def soak(session: nox.Session) -> None:
    """Half an hour of everything at once; by hand. `nox -s soak -- --minutes 5`; `-- --write`."""
    session.install(".[test]")
    session.run("python", "tests/faults/soak.py", *session.posargs)


@nox.session
def plots(session: nox.Session) -> None:
    """The benchmarks' pictures, drawn from made-up numbers and read again."""
    session.install(".[test]", *group("bench"))
    pytest(session, "tests/drawing.py")


@nox.session(python="3.11")
@nox.parametrize("engine", ENGINES)
def instructions(session: nox.Session, engine: str) -> None:
    """The instructions of a message, under valgrind, as recorded; `-- --write` records."""
    if shutil.which("valgrind") is None:
        session.error("instructions needs valgrind on PATH")
    use(session, engine)
    session.install(".", *group("instructions"))
    session.run("python", "benchmarks/instructions/guard.py", *session.posargs)


@nox.session
@nox.parametrize("engine", ENGINES)
def fuzz(session: nox.Session, engine: str) -> None:
    """Fuzz each target for 20 seconds. Arguments: other seconds, names of targets."""
    use(session, engine)
    session.install(".", *group("fuzz"))
    seconds, *names = session.posargs or ["20"]
    if not names:
        names = ["head", "response", "extensions", "frames", "compressed"]
        names += ["engine"] * (engine == "compiled")
    for target in names:
        found = inside(session) / "found" / target
        found.mkdir(parents=True, exist_ok=True)
        session.run(
            "python",
            f"fuzz/fuzz_{target}.py",
            f"-max_total_time={seconds}",
            "-max_len=800",  # short inputs, many runs; nothing here depends on size
            "-timeout=5",
            "-print_final_stats=1",
            f"-artifact_prefix={found}/",
            str(found),
            f"fuzz/corpus/{'frames' if target == 'engine' else target}",
        )
