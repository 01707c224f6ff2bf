"""`notif-assets`: the door for people and scripts, a module for each section of `--help`.

Belongs here: names, options, help, exit codes, what is printed. Doesn't: any work; each command calls the functions or
jobs that the assets use too.
"""

from notif_assets.cli.main import main

__all__ = ["main"]
