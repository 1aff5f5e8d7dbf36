"""The status feed: WebSocket, dashboard, metrics and health on one port, for people and for programs.

`server.py` listens, `auth.py` decides who may read, `web.py` answers HTTP, `subscriber.py` sends to one
reader, `history.py` keeps the latest events, `metrics.py` counts. The feed never waits for a slow reader and
changes the farm only through the actions that the supervisor passes in.
"""
