"""Pools of workers behind one interface (`pool.py`): processes of this machine, actors of a Ray cluster."""
