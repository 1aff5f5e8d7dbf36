"""Luna Farm: saves images in the background while the program that made them goes on.

This package is the farm itself (supervisor, workers, storage, imaging). Programs that hand images over use
`luna_farm_client`. Importing this package must stay free: it loads nothing.
"""

__version__ = "0.1.0"
DOCUMENTATION = "https://luna-farm.github.io/luna-farm/"
"""What help and messages refer to."""


def find(words: str = "", **filters: object) -> list[object]:
    """Return the newest saved images that match, as a list of `luna_farm_client.CatalogueRow`.

    words: must all occur in the prompt, the model, the LoRAs, the name or the custom metadata. filters:
    those of `luna_farm_client.FarmClient.find`, such as `model="flux"` and `limit=10`. Through the farm if
    one runs, else from the catalogue in the state folder. Raises InvalidRequest, CatalogueUnavailable.
    """
    from importlib import import_module

    found: list[object] = import_module("luna_farm_client").find(words, **filters)
    return found


def save(pixels: object, path: object, **options: object) -> str:
    """Save one image and return its path once the file is there; a name that exists gets a number.

    pixels: a numpy array or torch tensor, [H, W], [H, W, C] or [1, H, W, C], C = 1, 2 (gray and alpha), 3 or
    4. path: its ending names the format. options: those of `luna_farm_client.SaveRequest`, such as
    `png_compression=9`. Through the farm if one runs, else in this process. Raises InvalidRequest,
    EncodeError, and DiskError where the folder cannot be written: a farm keeps the image then and goes on
    trying.
    """
    from importlib import import_module

    saved: str = import_module("luna_farm_client").save(pixels, path, **options)
    return saved
