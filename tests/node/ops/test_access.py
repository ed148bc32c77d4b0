"""Tokens and certificate of the operators' port: read at the start, and again at SIGHUP."""

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from gateway.edge.errors import TlsError
from gateway.node.ops.access import OperatorAccess
from gateway.ops.access import Role
from gateway.ops.errors import BadTokenFile, Denied
from gateway.settings import Ops
from loadtest.servers.certificates import make_certificate

OLD, NEW = "old-" + "x" * 24, "new-" + "y" * 24


def access_of(**settings):
    return OperatorAccess(Ops(**settings), wall=lambda: 0.0, clock=lambda: 0.0)


def who(access, token):
    return access.access.judge(Role.OPERATE, {"Authorization": f"Bearer {token}"}, "10.0.0.1")


def test_tokens_are_read_again_and_a_broken_file_leaves_the_old_in_force(tmp_path):
    file = tmp_path / "operators"
    file.write_text(f"alice operate {OLD}")
    access = access_of(token_file=file)
    assert who(access, OLD) == "alice"
    for break_it in (lambda: file.write_text("alice"), file.unlink):
        break_it()
        with capture_logs() as logs:
            access.reload()
        assert [line["event"] for line in logs] == ["operator_tokens_reload_failed"]
        assert str(file) in logs[0]["error"]
        assert who(access, OLD) == "alice"
    file.write_text(f"bob operate {NEW}")
    with capture_logs() as logs:
        access.reload()
    assert logs[0]["names"] == ["bob"]
    assert who(access, NEW) == "bob"
    with pytest.raises(Denied):
        who(access, OLD)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"alice operate short"])
def test_a_token_file_that_cannot_be_used_keeps_the_gateway_from_starting(tmp_path, content):
    file = tmp_path / "operators"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadTokenFile, match=str(file)):
        access_of(token_file=file)


def test_without_files_there_is_nothing_to_read_again():
    access = access_of()
    access.reload()
    assert access.tls is None


def test_a_certificate_that_cannot_be_used_keeps_the_gateway_from_starting(tmp_path):
    with pytest.raises(TlsError):
        access_of(tls_cert_file=tmp_path / "cert", tls_key_file=tmp_path / "key")


async def test_a_listener_that_is_bound_once_serves_the_new_certificate(tmp_path):
    files = make_certificate(tmp_path)
    access = access_of(tls_cert_file=files.cert, tls_key_file=files.key)

    def close(_reader, writer):
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0, ssl=access.tls) as server:
        port = server.sockets[0].getsockname()[1]

        async def trusts(made):
            _reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=made.client_context()
            )
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        await trusts(files)
        renewed = make_certificate(tmp_path)
        access.reload()
        await trusts(renewed)
