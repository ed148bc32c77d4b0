"""The benchmarks of what devices are told: `make bench-talk`.

    python -m loadtest.benches.talk [SECTION...]

Each figure compares devices that are told something with the same devices while nothing is said:
in a storm (`state`, `presence`), or in turns of one run (`commands`).
"""

from typing import Final

from loadtest.benches.commands import section_commands
from loadtest.benches.presence import section_presence
from loadtest.benches.sections import main_of_sections
from loadtest.benches.states import section_state

SECTIONS: Final = {
    "state": section_state,
    "presence": section_presence,
    "commands": section_commands,
}


if __name__ == "__main__":
    main_of_sections("talk", "Benchmarks of what devices are told.", SECTIONS)
