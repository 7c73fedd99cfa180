"""The command line: one file for each command, and what they share.

Lives here: nothing. `main` puts the commands together; `python -m trio_ws` and the script
``trio-ws`` call it. Must never live here: anything the library needs; it does not know that there
is a command line.
"""
