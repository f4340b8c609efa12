"""What the parts of `nt_residual` cost: `python -m benchmarks`, from the root of a clone.

`suite` has the cases that run on any device, `report` makes README.md of their results. The other
programs measure one part in depth, each run as `python benchmarks/NAME.py`.
"""
