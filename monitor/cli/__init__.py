"""The commands of ``monitor``, one module a group. Data goes to stdout, everything else to stderr.

Exit codes: 0 done, 1 findings, 2 unusable arguments, settings or rules, 3 a server or the input is not there.
"""
