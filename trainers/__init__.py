"""The room that trains: no Optuna, no Ray, no command line."""

import os

# Of a step's threads those that are done spin, for a millisecond, before they sleep. Beside another
# process that wants the core, the one that is waited for does not get it: two threads on two busy
# cores were 80 times slower than one thread. OpenMP reads this when torch is loaded.
SPINS = "GOMP_SPINCOUNT"
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault(SPINS, "1000")
