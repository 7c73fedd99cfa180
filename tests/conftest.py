"""Fixtures that more than one test file needs, and how hypothesis behaves here.

Lives here: certificates and profiles. Must never live here: a helper that only one file uses (it
belongs there), or a peer or stream double (`trio_ws.testing` has them, users need them too).
"""

from __future__ import annotations

import ssl

import hypothesis
import pytest
import trustme

# Wall-clock deadlines would make a property fail on a busy machine only.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("default")


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
