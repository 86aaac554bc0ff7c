"""Lets `python -m ladcast.cli` be the command `ladcast`, as launchers of several processes need it."""

from ladcast.cli import main

main()
