"""A broker over TLS: an authority of one's own, certificates of clients, and everything that can be wrong with them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from seawall import BrokerRefused, BrokerUnavailable, ConfigurationError, ResilientServiceClient
from seawall.broker_check import broker_problems
from seawall.redis_link import RedisLink
from seawall.settings import Settings
from tests.support import CountingService, PrivateRedis, wait_until
from tests.support.certificates import Authority
from tests.support.house import RemoteHouse, caller
from tests.support.ports import free_port

KEY_PASSWORD = "of-the-key"


def _with_tls() -> str:
    """Why there is no server that speaks TLS here; empty when there is one."""
    if not Authority.available:
        return "the program openssl is not there to make certificates"
    program = shutil.which("redis-server")
    if program is None:
        return "there is no redis-server on this machine"
    tried = subprocess.run([program, "--tls-port", "x"], capture_output=True, text=True, timeout=10)
    return "" if "argument" in tried.stdout + tried.stderr else "this redis-server was built without TLS"


WHY_NOT = _with_tls()
needs_server = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
needs_openssl = pytest.mark.skipif(not Authority.available, reason="needs the program openssl")


@dataclass
class Guarded:
    """A server that asks for certificates; `url` adds options to the right ones, None takes one away."""

    tls_port: int
    plain_port: int
    authority: Authority
    certificate: Path
    key: Path

    def url(self, host: str = "localhost", *, scheme: str = "rediss", port: int = 0, **options: object) -> str:
        own = {
            "ssl_ca_certs": self.authority.certificate,
            "ssl_certfile": self.certificate,
            "ssl_keyfile": self.key,
        }
        given = {name: value for name, value in (own | options).items() if value is not None}
        return f"{scheme}://{host}:{port or self.tls_port}/0?{urlencode(given)}"


class _SystemRedis(PrivateRedis):
    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder, **options)
        self._binary = Path(shutil.which("redis-server") or "")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with tempfile.TemporaryDirectory(prefix="seawall-test-") as name:
        folder = Path(name)
        authority = Authority(folder)
        server_certificate, server_key = authority.issue("server")
        certificate, key = authority.issue("client")
        tls, plain = free_port(), free_port()
        server = _SystemRedis(
            folder,
            port=str(plain),
            tls_port=str(tls),
            tls_cert_file=str(server_certificate),
            tls_key_file=str(server_key),
            tls_ca_cert_file=str(authority.certificate),
        )
        server.start()
        try:
            yield Guarded(tls, plain, authority, certificate, key)
        finally:
            server.stop()


def refusal_of(url: str, *, certain: bool | None = None) -> str:
    """`certain`: it is clear that waiting does not help. None: that depends on who was faster."""
    patience = 10 if certain else 1.5  # only a refusal that may be silence is waited for
    link = RedisLink(url, connect_timeout=patience, answer_timeout=patience)
    try:
        with pytest.raises(BrokerUnavailable) as caught:
            link.command("PING")
    finally:
        link.close()
    assert not caught.value.written
    assert certain is None or isinstance(caught.value, BrokerRefused) is certain
    (problem,) = broker_problems(Settings(broker_url=url))
    assert problem.severity == "error"
    return str(caught.value)


@needs_server
def test_calls_over_tls_with_a_certificate_of_the_clients_own(guarded: Guarded, service: CountingService) -> None:
    """Answers that span several records of TLS, blocking reads and announcements included."""
    body = "x" * 100_000
    url = guarded.url()
    assert [problem for problem in broker_problems(Settings(broker_url=url)) if problem.severity == "error"] == []
    with caller(url):
        client = ResilientServiceClient(service.url, key="chroma", backoff=0, max_retries=1, failure_threshold=2)
        with RemoteHouse(url):
            for n in range(20):
                assert client.post(f"/{n}", data=body).status_code == 200
            assert len(service.requests[-1].body) == len(body)
            handles = client.enqueue_many([("POST", "/many", {"data": body, "keep_result": 60})] * 20)
            assert {handle.result(10).status_code for handle in handles} == {200}
            service.stop()
            for _ in range(2):
                client.enqueue("POST", "/away", rounds=1)
            wait_until(lambda: client.state.value == "open")


@needs_server
class TestRefusals:
    def test_a_server_that_nobody_vouches_for(self, guarded: Guarded) -> None:
        text = refusal_of(guarded.url(ssl_ca_certs=None), certain=True)
        assert "cannot be reached over TLS: certificate verify failed" in text
        assert "ssl_ca_certs=/path" in text

    def test_a_server_under_another_authority(self, guarded: Guarded, tmp_path: Path) -> None:
        assert "certificate verify failed" in refusal_of(
            guarded.url(ssl_ca_certs=Authority(tmp_path).certificate), certain=True
        )

    def test_a_server_that_is_another_host(self, guarded: Guarded) -> None:
        assert "certificate verify failed: IP address mismatch" in refusal_of(guarded.url("127.0.0.1"), certain=True)

    def test_a_client_without_a_certificate(self, guarded: Guarded) -> None:
        text = refusal_of(guarded.url(ssl_certfile=None, ssl_keyfile=None))
        assert "ssl_certfile=/path and ssl_keyfile=/path" in text

    def test_a_client_under_another_authority(self, guarded: Guarded, tmp_path: Path) -> None:
        certificate, key = Authority(tmp_path).issue("stranger")
        assert "ssl_certfile" in refusal_of(guarded.url(ssl_certfile=certificate, ssl_keyfile=key))

    def test_tls_where_none_is_spoken(self, guarded: Guarded) -> None:
        assert "its URL begins with redis://" in refusal_of(guarded.url(port=guarded.plain_port), certain=False)


@needs_openssl
class TestFiles:
    """What is wrong with the files is said before anything is connected to."""

    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Authority, Path, Path]:
        authority = Authority(tmp_path)
        return authority, *authority.issue("client")

    def refused(self, **options: object) -> str:
        with pytest.raises(ConfigurationError) as caught:
            RedisLink(f"rediss://localhost/0?{urlencode(options)}")
        assert "rediss://localhost/0?" in str(caught.value)
        return str(caught.value)

    def test_good_ones(self, pair: tuple[Authority, Path, Path]) -> None:
        authority, certificate, key = pair
        options = {"ssl_ca_certs": authority.certificate, "ssl_certfile": certificate, "ssl_keyfile": key}
        RedisLink(f"rediss://localhost/0?{urlencode(options)}")

    @pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path"])
    def test_relative_and_missing_ones(self, option: str, tmp_path: Path) -> None:
        assert f"{option} must be an absolute path, not 'ca.pem'" in self.refused(**{option: "ca.pem"})
        kind = "folder" if option == "ssl_ca_path" else "file"
        missing = tmp_path / "missing.pem"
        assert f"{option} names {missing}, which is no {kind}" in self.refused(**{option: missing})

    def test_files_that_hold_something_else(self, pair: tuple[Authority, Path, Path], tmp_path: Path) -> None:
        authority, _, key = pair
        garbage = tmp_path / "garbage.pem"
        garbage.write_text("no certificate")
        assert "ssl_ca_certs holds no certificates" in self.refused(ssl_ca_certs=garbage)
        assert "do not fit together" in self.refused(ssl_certfile=garbage, ssl_keyfile=key)
        assert "key values mismatch" in self.refused(ssl_certfile=authority.certificate, ssl_keyfile=key)
        assert "ssl_keyfile needs ssl_certfile" in self.refused(ssl_keyfile=key)

    def test_a_key_behind_a_password_is_not_asked_for_at_the_terminal(
        self, pair: tuple[Authority, Path, Path], tmp_path: Path
    ) -> None:
        authority, certificate, key = pair
        locked = authority.lock(key, KEY_PASSWORD)
        assert "do not fit together" in self.refused(ssl_certfile=certificate, ssl_keyfile=locked)
        text = self.refused(ssl_certfile=certificate, ssl_keyfile=locked, ssl_password="wrong-one")
        assert "wrong-one" not in text
        options = {"ssl_certfile": certificate, "ssl_keyfile": locked, "ssl_password": KEY_PASSWORD}
        link = RedisLink(f"rediss://localhost/0?{urlencode(options)}")
        assert KEY_PASSWORD not in repr(link)


def test_options_of_tls_on_a_plain_url() -> None:
    with pytest.raises(ConfigurationError, match="ssl_ca_certs is an option of rediss:// only"):
        RedisLink("redis://localhost/0?ssl_ca_certs=/etc/ca.pem")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa/ss@host:6379/0",
        "redis://:12/ss@host:6379/0",
        "redis://:12#ss@host:6379/0",
        "redis://:12?ss@host:6379/0",
        "redis://user:pa[ss@host:6379/0",
        "redis://:pass\u2100word@host:6379/0",
        "redis://:pass@host:port/0",
    ],
)
def test_a_url_that_falls_apart_elsewhere_than_its_author_thinks_shows_no_part_of_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisLink(url)
    assert "in a password / is written as %2F" in str(caught.value)
    assert "ss" not in str(caught.value).replace("password", "").replace("redis://", "")
