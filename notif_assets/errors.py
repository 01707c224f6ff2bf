"""The errors that the project raises on purpose, as one tree.

Belongs here: the two kinds that a person meets. Doesn't: the errors themselves, each of which stands in the room that
raises it and says in one sentence what is wrong, why, and what helps; LostRace, which never leaves the lake and its
callers.
"""


class NotifError(Exception):
    """Something that the project foresaw; its text is one sentence for a person. The command line prints it."""


class Refusal(NotifError):
    """The request contradicts what is stored, or the rules: a person must decide what to do instead."""


class Unavailable(NotifError):
    """Something that is needed is out of reach or damaged: Kafka, the lake, memory, a webhook."""
