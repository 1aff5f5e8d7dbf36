"""The command line: one module a command, each with `add_parser(subparsers)` and `run(args, config) -> int`.

Importing any of them is cheap: what a command needs, it imports when it runs.
"""
