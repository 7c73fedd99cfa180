"""Fixtures that more than one test file needs, and how hypothesis behaves here.

Lives here: certificates, profiles, fixtures over the modules `*_world` beside it. Must never live
here: a helper that one file uses (it belongs there), or a few that go together (a `*_world`), or a
peer or stream double (`trio_ws.testing` has them, users need them too).
"""

from __future__ import annotations

import signal
import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import trio
import trio.testing
import trustme

if TYPE_CHECKING:
    from collections.abc import Callable

    from .examples_world import Running
    from .server_world import Served

TESTS = Path(__file__).parent

# Wall-clock deadlines would make a property fail on a busy machine only.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("default")


def pytest_configure() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, and children inherit that;
    what interrupts do here must not depend on it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What they assert should be explained on failure, as if it stood in the test.
    pytest.register_assert_rewrite(
        *(f"{__package__}.{path.stem}" for path in TESTS.glob("*_world.py"))
    )


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """A certificate authority of this run."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_ssl_context(ca: trustme.CA) -> ssl.SSLContext:
    """The server's side of TLS, for `localhost`, 127.0.0.1 and ::1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1", "::1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_ssl_context(ca: trustme.CA) -> ssl.SSLContext:
    """A client that trusts `ca` and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return context


@pytest.fixture
def running() -> Callable[..., AbstractAsyncContextManager[Running]]:
    """`run_example`: an example as a process of its own."""
    from .examples_world import run_example

    return run_example


@pytest.fixture
def served(nursery: trio.Nursery) -> Served:
    """A server in memory; the test starts it."""
    from .server_world import Served

    return Served(nursery)


@pytest.fixture(params=["memory", "sockets", "tls"])
def pair(
    request: pytest.FixtureRequest,
    server_ssl_context: ssl.SSLContext,
    client_ssl_context: ssl.SSLContext,
) -> Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]:
    """How a server's stream and its client's are made; TLS shakes hands at the first byte."""
    from .attendant_world import sockets

    def tls() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        near, far = trio.testing.memory_stream_pair()
        return (
            trio.SSLStream(near, server_ssl_context, server_side=True, https_compatible=True),
            trio.SSLStream(
                far, client_ssl_context, server_hostname="localhost", https_compatible=True
            ),
        )

    return {"memory": trio.testing.memory_stream_pair, "sockets": sockets, "tls": tls}[
        request.param
    ]
