"""Benchmarks of `nt_residual`: run `python -m benchmarks` from the root of a clone.

`suite` holds the families of cases, and the code that checks and times them. `report` writes
README.md from the results.
"""
