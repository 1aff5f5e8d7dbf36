"""Luna Farm: takes finished images over in a millisecond and saves them in the background.

This package is the farm itself (supervisor, workers, storage, imaging). Programs that hand images over use
`luna_farm_client`. Importing this package must stay free: it loads nothing.
"""

__version__ = "0.1.0"
