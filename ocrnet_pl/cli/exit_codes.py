"""The statuses that the command line exits with."""

from __future__ import annotations

EXIT_ERROR = 1
"""The data, the checkpoint or the setup is wrong."""

EXIT_USAGE = 2
"""The command line or the config is wrong."""

EXIT_SKIPPED = 3
"""The work is done, but some files were left out."""

EXIT_INTERRUPTED = 130
"""The run was interrupted with Ctrl-C; this is what a shell reports for a process that SIGINT ended."""

EXIT_TERMINATED = 143
"""The run was terminated by SIGTERM."""
