"""The panel: the page that customers open, the operator's page, and the API beneath both.

Belongs here: routes, who may see what, pages. Doesn't: which rows a report holds (queries.py), layouts and formats of
reports (reports/). It reads the lake and writes nothing anywhere.
"""
