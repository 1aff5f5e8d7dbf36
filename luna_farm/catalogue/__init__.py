"""The catalogue: a row for each saved image, in one SQLite file of the state folder, to be searched.

Derived data only. It is written after the journal, from images that are finished; a lost one is made again
from the files (`rebuild.py`). Nothing in the farm may depend on what it says.
"""
