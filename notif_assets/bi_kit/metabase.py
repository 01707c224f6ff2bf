"""Metabase: questions as SQL, for its editor.

Belongs here: which files there are, Metabase's variables. Doesn't: the questions themselves (templates/metabase).
"""

from pathlib import PurePosixPath

from notif_assets.bi_kit.templating import filled, templates_in
from notif_assets.bi_kit.views import SCHEMA, View


def files(views: tuple[View, ...]) -> dict[str, str]:
    """The questions, and a query of each view with what its columns mean, by their paths in the kit.

    `[[…]]` is Metabase's for a condition that holds only where its variable has a value.
    """
    bills = filled("sql/bills.sql", schema=SCHEMA).rstrip()
    written = {
        f"metabase/questions/{PurePosixPath(name).name}": filled(name, schema=SCHEMA, bills=bills, variable=_variable)
        for name in templates_in("metabase")
    }
    return written | {f"metabase/views/{view.name}.sql": filled("view.sql", view=view, schema=SCHEMA) for view in views}


def _variable(name: str) -> str:
    return "{{" + name + "}}"
