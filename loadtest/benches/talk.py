"""The benchmarks of what devices are told: `make bench-talk`.

    python -m loadtest.benches.talk [SECTION...]

Each figure compares a storm in which devices are told something with the same storm without.
"""

from typing import Final

from loadtest.benches.presence import section_presence
from loadtest.benches.sections import main_of_sections
from loadtest.benches.states import section_state

SECTIONS: Final = {"state": section_state, "presence": section_presence}


if __name__ == "__main__":
    main_of_sections("talk", "Benchmarks of what devices are told.", SECTIONS)
