"""A second machine joins over TLS: an outside Redis with TLS, and a gateway with HTTPS, both on loopback."""

import shutil
import subprocess

import pytest
import trustme
from helpers import EXAMPLES, running_system, wait_until
from machines import Machine
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from server_groups import free_port

from stoker.service import dying_with_parent

pytestmark = pytest.mark.long

PASSWORD = "of the control plane"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Paths of a CA, and of certificates that it signed for loopback."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("server", "client"):
        made = authority.issue_cert("127.0.0.1", "localhost")
        made.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        for pem in made.cert_chain_pems:
            pem.write_to_path(str(folder / f"{name}.pem"), append=True)
    return folder


@pytest.fixture(scope="module")
def tls_redis(certificates, tmp_path_factory):
    """Port of a Redis that speaks TLS only, and asks for a certificate of its clients."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        pytest.skip("no redis-server or valkey-server with TLS here (Debian: apt-get install redis-server)")
    port = free_port()
    folder = tmp_path_factory.mktemp("tls redis")
    options = {
        "port": 0,
        "tls-port": port,
        "bind": "127.0.0.1",
        "tls-cert-file": certificates / "server.pem",
        "tls-key-file": certificates / "server.key",
        "tls-ca-cert-file": certificates / "ca.pem",
        "tls-auth-clients": "yes",
        "dir": folder,
        "appendonly": "yes",
        "save": "",
    }
    config = folder / "redis.conf"
    config.write_text(
        "\n".join(f'{name} "{value}"' for name, value in options.items()) + f'\nrequirepass "{PASSWORD}"\n'
    )
    process = subprocess.Popen(
        dying_with_parent([binary, str(config)]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_until(lambda: process.poll() is not None or answers(port, certificates), "the Redis with TLS")
        if process.poll() is not None:
            said = process.stdout.read()
            if "tls" in said.lower():
                pytest.skip(f"{binary} has no TLS: {said[-200:]}")
            raise AssertionError(said)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def answers(port, certificates):
    try:
        with Redis(
            port=port,
            password=PASSWORD,
            ssl=True,
            ssl_ca_certs=str(certificates / "ca.pem"),
            ssl_certfile=str(certificates / "client.pem"),
            ssl_keyfile=str(certificates / "client.key"),
        ) as client:
            return client.ping()
    except RedisConnectionError:
        return False


def trust(certificates):
    """The settings of a part that trusts the CA, and shows a certificate of its own."""
    return {
        "STOKER_CA_FILE": str(certificates / "ca.pem"),
        "STOKER_REDIS_CERT_FILE": str(certificates / "client.pem"),
        "STOKER_REDIS_KEY_FILE": str(certificates / "client.key"),
    }


@pytest.fixture(scope="module")
def encrypted(certificates, tls_redis, tmp_path_factory):
    """A whole system whose every connection is encrypted."""
    password = PASSWORD.replace(" ", "%20")
    with running_system(
        tmp_path_factory.mktemp("encrypted") / "data",
        "--workers",
        "1",
        STOKER_REDIS_URL=f"rediss://:{password}@127.0.0.1:{tls_redis}",
        STOKER_TLS_CERT_FILE=str(certificates / "server.pem"),
        STOKER_TLS_KEY_FILE=str(certificates / "server.key"),
        **trust(certificates),
    ) as running:
        yield running


def test_a_machine_joins_over_tls_and_runs_a_task(encrypted, certificates, tmp_path):
    assert encrypted.base_url.startswith("https://")
    encrypted.deploy(EXAMPLES / "echo")
    join = encrypted.cli_json("workers", "enroll", "afar")["join"]
    assert join.startswith("https://")
    machine = Machine(encrypted, "afar", tmp_path / "machine", **trust(certificates))
    try:
        machine.start(join)
        machine.wait_until_idle()
        assert '"redis_url":"rediss://127.0.0.1' in machine.identity_file.read_text()
        done = encrypted.cli(
            "run", "infsh/echo", "--input", '{"message": "over TLS"}', "--worker", "afar-cpu-0"
        )
        assert "over TLS" in done.stdout
    finally:
        machine.stop()


def test_a_machine_that_does_not_trust_the_gateway_keeps_its_token(encrypted, tmp_path):
    join = encrypted.cli_json("workers", "enroll", "doubtful")["join"]
    machine = Machine(encrypted, "doubtful", tmp_path / "machine")
    machine.start(join)
    assert machine.process.wait(60) == 2
    assert "STOKER_CA_FILE" in machine.tail()
    [listed] = [e for e in encrypted.cli_json("workers", "enrolled") if e["name"] == "doubtful"]
    assert listed["state"] == "invited"


def test_the_command_line_says_what_to_do_about_an_unknown_certificate(encrypted):
    refused = encrypted.cli("workers", "list", check=False, STOKER_CA_FILE="")
    assert refused.returncode == 3
    assert "STOKER_CA_FILE" in refused.stderr
