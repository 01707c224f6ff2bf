"""Kafka: one interface to read exact ranges, and its two clients, each in this process or in one of its own.

Belongs here: whatever speaks Kafka's protocol. Doesn't: which ranges are due (the ledger in notifications/),
what a message means (notifications/validity.py), tables (lake/).
"""
