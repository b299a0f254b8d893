"""The command `hybridgen`: look, check, run, fit, predict, augment, simulate, verify, report.

Nothing heavy is imported before a command needs it, so that `hybridgen --help` answers at once.
A mistake of the user's is one sentence on standard error and exit code 2; an interruption is
exit code 130 and the command to go on with.
"""

# importing a module adds its commands, in the order of `hybridgen --help`
from hybridgen.cli import fitting, studies  # noqa: F401  # isort: skip
from hybridgen.cli import stores, sweeps  # noqa: F401  # isort: skip
from hybridgen.cli import checks  # noqa: F401  # isort: skip
from hybridgen.cli.console import app

__all__ = ["app"]
