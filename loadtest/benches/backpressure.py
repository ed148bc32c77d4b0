"""The benchmarks of backpressure: `make bench-backpressure`.

python -m loadtest.benches.backpressure [SECTION...]
python -m loadtest.benches.backpressure outage --seconds 60
"""

from typing import Final

from loadtest.benches.deaf_readers import section_deaf
from loadtest.benches.neighbours import section_chatty, section_few, section_flood
from loadtest.benches.outage import section_outage
from loadtest.benches.sections import main_of_sections

SECTIONS: Final = {
    "outage": section_outage,
    "chatty": section_chatty,
    "few": section_few,
    "deaf": section_deaf,
    "flood": section_flood,
}


if __name__ == "__main__":
    main_of_sections("backpressure", "Benchmarks of backpressure.", SECTIONS)
