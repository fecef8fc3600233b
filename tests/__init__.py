"""Tests of OCRNet-PL; their folders are those of the package."""

import os

# The images of the tests are small: two threads would mostly wait for each other. What tests start takes it over, and
# libraries look for it when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
