"""The benchmarks of admission: `make bench-admission`.

    python -m loadtest.benches.admission [SECTION...]

Every figure is a ratio within one run: a refusal against an admission and against the least a
server can do, what was admitted against R, a storm's recovery against N/R.
"""

from typing import Final

from loadtest.benches.cluster import section_cluster
from loadtest.benches.cuts import section_cut
from loadtest.benches.knock_costs import section_refusal, section_tls
from loadtest.benches.sections import main_of_sections
from loadtest.benches.storms import (
    section_plain,
    section_storm,
    section_sustained,
    section_tls_storm,
)
from loadtest.benches.virtual import section_simulate

SECTIONS: Final = {
    "refusal": section_refusal,
    "tls": section_tls,
    "tls-storm": section_tls_storm,
    "sustained": section_sustained,
    "storm": section_storm,
    "cut": section_cut,
    "plain": section_plain,
    "cluster": section_cluster,
    "simulate": section_simulate,
}


if __name__ == "__main__":
    main_of_sections("admission", "Benchmarks of admission.", SECTIONS)
