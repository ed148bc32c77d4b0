"""The raw scan of request heads against the full parser, over heads that are generated.

    python tests/conformance/heads.py [--count N] [--seed N]

A head that the scan accepts must be accepted by the full parser with the same petition; and neither
may raise anything but a refusal. What is read as a head of a known form must be read and answered
by the full parser in the same way. A seed names a run: the same seed makes the same heads.
"""

import argparse
import random
import sys
import time

from gateway.edge.errors import Refusal
from gateway.edge.opening.handshake import negotiate, read_request
from gateway.edge.opening.head import HeadScanner
from gateway.edge.opening.known_heads import KnownHeads
from gateway.edge.opening.petition import petition_of
from gateway.edge.opening.refusal import render_refusal

HEADERS = [
    (b"Host", (b"x", b"tidegate.v1", b"[::1]:80", b"")),
    (b"Upgrade", (b"websocket", b"WebSocket", b"h2c", b"websocket, h2c")),
    (b"Connection", (b"Upgrade", b"upgrade", b"keep-alive, Upgrade", b"close")),
    (
        b"Sec-WebSocket-Key",
        (
            b"dGhlIHNhbXBsZSBub25jZQ==",
            b"AAAA",
            b"dGhlIHNhbXBsZSBub25jZR==",
            b" dGhlIHNhbXBsZSBub25jZ==",
        ),
    ),
    (b"Sec-WebSocket-Version", (b"13", b"8", b"13, 8", b"013")),
    (
        b"Sec-WebSocket-Protocol",
        (b"tidegate.v1", b"TIDEGATE.V1", b"tidegate.v1, bearer.a.b.c", b"other", b"tidegate.v1,"),
    ),
    (
        b"Authorization",
        (
            b"Bearer a.b.c",
            b"Bearer dd.e-_.f",
            b"bearer a.b.c",
            b"Bearer  a.b.c",
            b"Basic dTpw",
            b"Bearer",
        ),
    ),
    (b"Tidegate-Ticket", (b"tick", b'a"b', b"", b"t t", b"\xff")),
]  # fmt: skip
MORE = [
    (b"Origin", (b"a", b"b")),
    (b"User-Agent", (b"t/1", b"tidegate.v1", b"sec-websocket-version: 13")),
    (b"Content-Length", (b"0", b"5", b"-1")),
    (b"Transfer-Encoding", (b"chunked", b"identity")),
    (b"Sec-WebSocket-Extensions", (b"permessage-deflate", b"x; y=z", b";")),
    (b"X-Authorization", (b"Bearer d.e.f",)),
    (b"Cookie", (b"a=b",)),
]
TARGETS = [
    b"/v1/device",
    b"/v1/device?refusal=close",
    b"//[",
    b"http://h/v1/device",
    b"/v1/device#",
]
SPLICES = [
    b"\r\n",
    b"\n",
    b"\r",
    b":",
    b" ",
    b"\t",
    b"\x00",
    b",",
    b"\xff",
    b"A",
    b"=",
    b"\r\n ",
    b"",
]


def generated(rng):
    """A head: nearly always a good one in some order, with a few things odd."""
    lines = []
    for name, values in rng.sample(HEADERS, len(HEADERS)) if rng.random() < 0.5 else HEADERS:
        odd = rng.random()
        if odd < 0.02:
            continue
        value = values[0] if odd < 0.9 else rng.choice(values)
        lines.append((_cased(rng, name), value))
        if rng.random() < 0.02:
            lines.append((_cased(rng, name), rng.choice(values)))
    while rng.random() < 0.3:
        name, values = rng.choice(MORE)
        lines.insert(rng.randrange(len(lines) + 1), (_cased(rng, name), rng.choice(values)))
    target = TARGETS[0] if rng.random() < 0.95 else rng.choice(TARGETS)
    head = b"GET %b HTTP/1.1\r\n" % target
    for name, value in lines:
        space = b" " if rng.random() < 0.97 else rng.choice([b"", b"  ", b"\t"])
        head += b"%b:%b%b\r\n" % (name, space, value)
    head += b"\r\n"
    while rng.random() < 0.25:
        at = rng.randrange(len(head))
        head = head[:at] + rng.choice(SPLICES) + head[at + rng.randrange(3) :]
    return head


def _cased(rng, name):
    return name if rng.random() < 0.9 else rng.choice([name.lower(), name.upper(), name.swapcase()])


def judged(head):
    """What the full parser makes of it: petition and answer, or a refusal that can be rendered."""
    try:
        request = read_request(head)
        upgrade = negotiate(
            request, path="/v1/device", subprotocols=["tidegate.v1"], extensions=None
        )
        return petition_of(request), upgrade
    except Refusal as refusal:
        render_refusal(refusal)
        return None


def disagreements(seed, count):
    """Heads on which the full parser disagrees with the scan, or with the memory of forms; how many
    the scan accepted, and how many were of a known form."""
    rng, scanner, known = random.Random(seed), HeadScanner(), KnownHeads()
    found, accepted, of_known_form = [], 0, 0
    for _ in range(count):
        head = generated(rng)
        petition, read = scanner.scan(head), known.read(head)
        judgement = judged(head)
        if judgement is not None:
            known.learn(head, *judgement)
        accepted += petition is not None
        of_known_form += read is not None
        if (petition is not None and (judgement is None or petition != judgement[0])) or (
            read is not None and read != judgement
        ):
            found.append(head)
    return found, accepted, of_known_form


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="heads (default: a million)")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    began = time.monotonic()
    found, accepted, of_known_form = disagreements(seed, options.count)
    rate = options.count / (time.monotonic() - began)
    print(f"seed {seed}: {options.count:,} heads, {rate:,.0f} a second")
    print(f"{accepted:,} accepted by the scan, {of_known_form:,} of a known form, ", end="")
    print(f"{len(found)} of those refused or read otherwise by the full parser")
    for head in found[:10]:
        print(" ", head)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
