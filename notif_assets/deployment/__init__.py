"""A deployment as a whole: what its parts say now, and whether its numbers hold.

Belongs here: questions that every part has to answer. Doesn't: the parts' own answers (the subjects, instance/), what
is printed (cli/).
"""
