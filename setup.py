"""Builds the PNG kernel; everything else stands in setup.cfg.

The kernel is optional: without a compiler the install succeeds and libraries write PNG files. Whoever builds
wheels sets LUNA_FARM_REQUIRE_KERNEL, so that a wheel without kernel is never made by accident. No flag ties
the build to the machine it runs on: the kernel asks the processor at run time what it can do.
"""

import os
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
            optional=not os.environ.get("LUNA_FARM_REQUIRE_KERNEL"),
        )
    ]
)
