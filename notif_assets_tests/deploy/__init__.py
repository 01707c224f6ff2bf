"""Tests of deploy/: that the files people copy are right, as far as a machine without systemd and engines can tell."""
