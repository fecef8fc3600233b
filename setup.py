"""Packages the configs with the code; everything else that installation needs stands in setup.cfg."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ocrnet_pl*"]), "ocrnet_pl.configs"],
    package_dir={"ocrnet_pl.configs": "configs"},
)
