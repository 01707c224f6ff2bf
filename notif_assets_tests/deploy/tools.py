"""Programs of other projects that judge our files.

Belongs here: finding one, running it. Doesn't: what it is asked (the tests).
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def needed(program: str, package: str) -> str:
    """The path of a program. Where nobody promised that it is there, the test is skipped."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None and "CI" not in os.environ:
        pytest.skip(f"needs {program}: apt-get install {package}")
    assert path is not None
    return path


def told(*command: object, code: int = 0) -> str:
    """What a command prints, on both of its outputs, when it ends as it should."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
