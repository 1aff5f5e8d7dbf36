"""The pure core: decides what happens to a job, and knows no sockets, clocks, processes or files."""
