"""What keeps the panel's process small. Its size is measured elsewhere (`make bench-panel`)."""

import subprocess
import sys
from pathlib import Path

_PANEL = """
import sys
import uvicorn
from notif_assets import cli

def told(_server, sockets):
    import pyarrow
    print(pyarrow.default_memory_pool().backend_name, *{name.partition(".")[0] for name in sys.modules})

uvicorn.Server.run = told
cli.main(["panel"], standalone_mode=False)
"""


def _python(program: str, data: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program], env={"NOTIF_DATA": str(data)}, capture_output=True, text=True, check=False
    )


def test_the_panel_s_process_imports_little_and_arrow_keeps_nothing_for_itself(tmp_path: Path) -> None:
    told = _python(_PANEL, tmp_path)
    assert told.returncode == 0, told.stderr
    allocator, *imported = told.stdout.split()
    assert allocator == "system"
    assert {"pyarrow", "duckdb", "notif_assets"} <= set(imported)
    assert not {"dagster", "grpc", "pandas", "sqlalchemy"} & set(imported)


def test_who_chooses_the_allocator_too_late_is_told(tmp_path: Path) -> None:
    told = _python("import pyarrow; from notif_assets.panel import memory; memory.limit_allocators()", tmp_path)
    assert "pyarrow has chosen its allocator already" in told.stderr
