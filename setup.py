"""Builds the optional PNG kernel; everything else stands in setup.cfg.

`optional=True`: without a compiler the install succeeds and the library path serves. No flag ties the build
to the machine it runs on: the kernel asks the processor at run time what it can do.
"""

import sys
from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "luna_farm.imaging._png",
            sources=["luna_farm/imaging/_png.c"],
            depends=sorted(glob("luna_farm/imaging/kernel/*.h")),
            extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-std=c99"],
            optional=True,
        )
    ]
)
