"""`python -m notif_assets` is `notif-assets`."""

from notif_assets.cli import main

main(prog_name="notif-assets")
