"""A storm of knocks and closes does not become a storm of log lines."""

from gateway import development
from loadtest.benches.knock_costs import come_in, knock
from loadtest.devices.wire import handshake_request
from support.processes import GatewayProcess

LINES_MAX = 100


def test_ten_thousand_refusals_and_closes_write_a_few_lines(tmp_path):
    gateway = GatewayProcess(
        tmp_path,
        LOG__LEVEL="debug",
        LOG__FORMAT="json",
        ADMISSION__RATE_PER_S="1000",
        ADMISSION__BURST="1000",
        ADMISSION__PARK_MS="0",
    )
    gateway.start()
    try:
        tokens = [
            development.mint(gateway.data_dir, f"veh-{number}", lifetime_s=600, claims={})
            for number in range(300)
        ]
        known = [handshake_request(token.encode()) for token in tokens]
        unknown = [handshake_request(token[:-4].encode() + b"AAAA") for token in tokens]
        come_in([gateway.port], known)  # each says hello, and hangs up
        for _ in range(17):
            knock([gateway.port], known)  # too often: 429
            knock([gateway.port], unknown)  # 401
    finally:
        gateway.stop()
    lines = gateway.log.splitlines()
    assert gateway.events("serving")
    assert gateway.events("stopped")
    assert len(lines) < LINES_MAX, lines[:10]
