"""What the template's launcher runs; the pipeline itself is installed in the image."""

import runpy

runpy.run_module("pipeline.main", run_name="__main__")
