"""What outlives a process: the arena of pixels, the journal, the spool, dead letters, names and files.

Nothing below this package may import numpy: the supervisor lives on it within 45 MB.
"""
