"""Spark for the benchmark: fetched once by pip and Maven into data/spark, and its job run.

Belongs here: what is fetched, the process. Doesn't: the job (spark_job.py), what it is held against (__main__.py).
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.commands import Spent

_HERE = Path(__file__).parent
_HOME = _HERE.parent / "data" / "spark"
_PACKAGES = ("pyspark==4.1.1", "py4j==0.10.9.9")
_DELTA = "delta-spark==4.4.1"  # without its own idea of which Spark it wants


def fetched() -> Path:
    """The folder with a Python that has Spark (`venv`), and the jars it lacks (`jars`). Needs Java 17 and Maven."""
    pom = _HERE / "spark-pom.xml"
    home = _HOME / hashlib.sha256(pom.read_bytes() + repr((_PACKAGES, _DELTA)).encode()).hexdigest()[:12]
    if home.is_dir():
        return home
    _HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_HOME) as folder:
        draft = Path(folder) / "draft"
        subprocess.run([sys.executable, "-m", "venv", f"{draft}/venv"], check=True)
        pip = [f"{draft}/venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *_PACKAGES], check=True)
        subprocess.run([*pip, "--no-deps", _DELTA], check=True)
        copy = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        subprocess.run([*copy, f"-DoutputDirectory={draft}/jars"], check=True, stdin=subprocess.DEVNULL)
        (brought,) = (draft / "venv").glob("lib/python*/site-packages/pyspark/jars")
        known = {_artifact(jar) for jar in brought.glob("*.jar")}
        for jar in (draft / "jars").glob("*.jar"):
            if _artifact(jar) in known:  # two versions of one library are one too many
                jar.unlink()
        shutil.move(draft, home)
    return home


def _artifact(jar: Path) -> str:
    return re.split(r"-\d", jar.name)[0]


def run_peer(home: Path, bootstrap: str, topic: str) -> tuple[Spent, dict[str, int]]:
    """Runs the job on the topic; what it took, session and all, and the rows of its tables."""
    spark = fetched()
    command = [f"{spark}/venv/bin/python", f"{_HERE}/spark_job.py", bootstrap, topic, str(home), f"{spark}/jars"]
    ran = subprocess.run(command, cwd=home, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(ran.stderr[-2000:])
    told = json.loads(ran.stdout.splitlines()[-1])
    return Spent(0, told["wall"], told["cpu"], told["peak"]), told["rows"]
