"""What the worst inputs of each parser cost beside a plain one of their size: `make bench-worst`.

Prints CPU time and the ratio; exits 1 if one is over its bound.
"""

import sys

from support.strangers import PARSERS, ratio_of

RATIO_MAX = 10.0
ROUNDS = 25


def main() -> int:
    missed = []
    for parser in PARSERS:
        print(f"{parser.name}, {parser.size:,} bytes")
        for name, make in parser.worst.items():
            ratio, plain_us, worst_us = ratio_of(parser, make(parser.size), ROUNDS)
            print(f"    {name:36} {worst_us:8,.0f} us, plain {plain_us:6,.0f} us {ratio:6.1f}")
            if ratio > RATIO_MAX:
                missed.append(f"{parser.name}: {name}, {ratio:.1f}")
    for line in missed:
        print(f"over {RATIO_MAX:.0f} times: {line}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
