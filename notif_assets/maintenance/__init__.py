"""Keeping the lake flat, small and lawful over years: compaction, clean-up, retention, erasure, rebuilding.

No Dagster; the command line and the schedules call these functions. None of them moves a watermark forward, so
ingestion goes on beside them; among themselves they take turns (lock.py).
"""
