"""For what asks for a setup.py, Dataflow's ``--setup_file`` above all; everything is in pyproject.toml."""

from setuptools import setup

setup()
