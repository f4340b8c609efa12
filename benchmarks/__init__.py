"""The cost of the parts of `nt_residual`: `python -m benchmarks`, from the root of a clone.

`suite` has the families of cases and what checks and times them. `report` makes README.md of the
results.
"""
