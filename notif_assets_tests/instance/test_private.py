"""Which rooms know Dagster's private modules. Belongs here: that one room does. Doesn't: what it uses them for."""

from pathlib import Path

import notif_assets

PACKAGE = Path(notif_assets.__file__).parent


def test_only_the_room_of_the_instance_imports_private_modules_of_dagster() -> None:
    rooms = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if "dagster._" in path.read_text(encoding="utf-8")
    }
    assert rooms == {"instance"}
