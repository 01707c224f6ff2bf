"""Maintenance of the lake over years: compaction, clean-up, retention, erasure, rebuilding.

No Dagster; the command line and the schedules call these functions. None of them moves a watermark forward, so
ingestion continues meanwhile; among themselves they run one at a time (lock.py).
"""
