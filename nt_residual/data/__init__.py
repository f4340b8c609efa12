"""Data sets, as NumPy arrays in a small named structure."""

from nt_residual.data import sphere as sphere
from nt_residual.data.labels import centered_one_hot as centered_one_hot
from nt_residual.data.labels import class_names as class_names
from nt_residual.data.labels import signs as signs
from nt_residual.data.load import NAMES as NAMES
from nt_residual.data.load import Dataset as Dataset
from nt_residual.data.load import load as load
from nt_residual.data.transforms import standardize as standardize
from nt_residual.data.transforms import unit_norm as unit_norm
from nt_residual.data.transforms import zca as zca
