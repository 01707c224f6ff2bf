"""Names of Dagster that it keeps to itself and other rooms need.

Belongs here: what defs/ may not import from Dagster's private modules, so that an upgrade has one room to look through.
Doesn't: private names that only this room uses, which stand where they are used.
"""

from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob
from dagster._core.storage.dagster_run import FINISHED_STATUSES, IN_PROGRESS_RUN_STATUSES

__all__ = ["FINISHED_STATUSES", "IN_PROGRESS_RUN_STATUSES", "AssetJob"]
