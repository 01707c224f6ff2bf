"""Kafka: one interface to read exact ranges, its two clients, an embedded broker and a traffic generator.

Belongs here: whatever speaks Kafka's protocol. Doesn't: which ranges are due (the ledger in defs/assets/), what a
message means (core/), tables (lake/).
"""
