"""What a knock costs the gateway in CPU time: refused, admitted, and over TLS."""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from loadtest.benches.rig import COLD, REFUSING, Bench, Settings
from loadtest.devices.fleet import Meter
from loadtest.devices.wire import handshake_request, hello
from loadtest.errors import TargetError
from loadtest.servers.baselines import BareServer
from loadtest.servers.certificates import make_certificate
from loadtest.servers.process import Target

_AT_ONCE: Final = 100
_ANSWER_TIMEOUT_S: Final = 20.0
_SETTLE_S: Final = 2.0
_HELLO: Final = hello("b")


Act = Callable[[Sequence[int], Sequence[bytes]], None]
"""What devices do with their requests, at these ports in turn."""


def _connections(ports: Sequence[int], requests: Sequence[bytes]) -> list[socket.socket]:
    made = []
    for request, port in zip(requests, itertools.cycle(ports), strict=False):
        connection = socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_TIMEOUT_S)
        connection.sendall(request)
        made.append(connection)
    return made


def _check_admitted(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 101"):
        raise TargetError(f"not admitted: {answer[:200]!r}")


def knock(ports: Sequence[int], requests: Sequence[bytes]) -> None:
    """Knock all at once and read the answers."""
    for start in range(0, len(requests), _AT_ONCE):
        for connection in _connections(ports, requests[start : start + _AT_ONCE]):
            connection.recv(4_096)
            connection.close()


def come_in(ports: Sequence[int], requests: Sequence[bytes]) -> None:
    """Knock, send hello, read the welcome, leave.

    Raises:
        TargetError: a device was not admitted.
    """
    for start in range(0, len(requests), _AT_ONCE):
        made = _connections(ports, requests[start : start + _AT_ONCE])
        for connection in made:
            _check_admitted(connection.recv(4_096))
            connection.sendall(_HELLO)
        for connection in made:
            connection.recv(4_096)
            connection.close()


def requests_of(bench: Bench, count: int, prefix: str = "veh") -> list[bytes]:
    """The handshakes of so many devices."""
    return [handshake_request(token.encode()) for _, token in bench.credentials(count, prefix)]


async def section_refusal(bench: Bench) -> None:
    """CPU of a refusal, of an admission, and of the least a server can do, in turn."""
    count, rounds, step = 4_000, 5, 10 * _AT_ONCE
    requests = requests_of(bench, count)
    with (
        BareServer(bench.directory / "bare") as bare,
        bench.gateway(**REFUSING) as refuser,
        bench.gateway(**COLD) as admitter,
    ):
        work: dict[str, tuple[Target, Act]] = {
            "bare accept, read, write, close": (bare, knock),
            "refusal": (refuser, knock),
            "admission: handshake, hello, welcome, close": (admitter, come_in),
        }
        cpu_us = dict.fromkeys(work, 0.0)
        first_us = {}
        for name, (target, act) in work.items():  # a signature is checked once: measured apart
            before = target.cpu_s()
            act([target.port], requests)
            first_us[name] = (target.cpu_s() - before) / count * 1e6
        for start in list(range(0, count, step)) * rounds:
            for name, (target, act) in work.items():
                before = target.cpu_s()
                act([target.port], requests[start : start + step])
                cpu_us[name] += (target.cpu_s() - before) / (count * rounds) * 1e6
    least, refusal, admission = cpu_us.values()
    bench.report.table(
        f"CPU a knock, {count * rounds:,} each, {_AT_ONCE} at once",
        ("", "us", "us with a signature to check"),
        [(name, f"{cpu_us[name]:.0f}", f"{first_us[name]:.0f}") for name in work],
    )
    _, first_refusal, first_admission = first_us.values()
    bench.report.console.print(
        f"  with the signature, refusal over admission: {first_refusal / first_admission:.2f}"
    )
    bench.report.at_most("refusal over admission", refusal / admission, 0.2)
    bench.report.at_most("refusal over the least", refusal / least, 2)


def _tls_connection(port: int, context: ssl.SSLContext, request: bytes) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_TIMEOUT_S)
    connection = context.wrap_socket(plain, server_hostname="localhost")
    connection.sendall(request)
    return connection


def _knock_over_tls(port: int, context: ssl.SSLContext, requests: Sequence[bytes]) -> None:
    for request in requests:
        with _tls_connection(port, context, request) as connection:
            connection.recv(4_096)


def _come_in_over_tls(port: int, context: ssl.SSLContext, requests: Sequence[bytes]) -> None:
    for request in requests:
        with _tls_connection(port, context, request) as connection:
            _check_admitted(connection.recv(4_096))
            connection.sendall(_HELLO)
            connection.recv(4_096)


async def section_tls(bench: Bench) -> None:
    """CPU of a refusal and of an admission over TLS, and memory of an idle TLS session.

    The handshake costs far more than what is decided after it, so a refusal cannot be much cheaper
    than an admission; it must not cost more.
    """
    files = make_certificate(bench.directory / "tls")
    tls: Settings = {"tls__cert_file": files.cert, "tls__key_file": files.key}
    context = files.client_context()
    cpu_us = _cpu_over_tls(bench, tls, context)
    kib = {
        "plain": await _idle_kib(bench, {}, None),
        "TLS": await _idle_kib(bench, tls, context),
    }
    bench.report.table(
        "over TLS, a full handshake each",
        ("", ""),
        [
            *((f"CPU of the {name}", f"{us:,.0f} us") for name, us in cpu_us.items()),
            *((f"memory of an idle session, {name}", f"{k:.1f} KiB") for name, k in kib.items()),
        ],
    )
    refusal, admission = cpu_us.values()
    bench.report.at_most("refusal over admission, TLS", refusal / admission, 1.1)
    bench.report.at_most("idle over TLS, KiB", kib["TLS"], 48)


def _cpu_over_tls(bench: Bench, tls: Settings, context: ssl.SSLContext) -> dict[str, float]:
    """Microseconds a knock, of each kind."""
    count, rounds = 300, 3
    requests = requests_of(bench, count, "tls")
    # One device knocks after the other: no slot must come up meanwhile.
    slow = {"admission__rate_per_s": 0.02, "admission__rate_floor_per_s": 0.02}
    with (
        bench.gateway(**{**REFUSING, **slow, **tls}) as refuser,
        bench.gateway(**COLD, **tls) as admitter,
    ):
        work = {
            "refusal over TLS": (refuser, _knock_over_tls),
            "admission over TLS": (admitter, _come_in_over_tls),
        }
        cpu_us = dict.fromkeys(work, 0.0)
        for round_ in range(-1, rounds):  # in turn; signatures are checked in the first round
            for name, (target, act) in work.items():
                before = target.cpu_s()
                act(target.port, context, requests)
                if round_ >= 0:
                    cpu_us[name] += (target.cpu_s() - before) / (count * rounds) * 1e6
    return cpu_us


async def _idle_kib(bench: Bench, settings: Settings, context: ssl.SSLContext | None) -> float:
    """Memory of an idle session."""
    count = 1_000
    with bench.gateway(**COLD, **settings) as gateway:
        fleet = bench.gateway_devices(count, Meter(0), prefix="idle")
        before = gateway.memory_bytes()
        async with fleet.connected(gateway.port, rate_per_s=300, context=context):
            await asyncio.sleep(_SETTLE_S)
            return (gateway.memory_bytes() - before) / count / 1_024
