"""What business intelligence tools need to read the serving copy, written from the catalogue.

Belongs here: the kit as files and how it gets into a folder (kit.py), the views that it reads (views.py), a module for
each tool, their texts (templates/). Doesn't: the serving copy itself, and any connection to a tool or a database.
"""

from notif_assets.bi_kit.kit import ServingCopy, files_of_kit, find_copy, write_kit

__all__ = ["ServingCopy", "files_of_kit", "find_copy", "write_kit"]
