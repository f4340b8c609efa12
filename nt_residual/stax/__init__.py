# Copyright 2026 The nt_residual Authors
# SPDX-License-Identifier: Apache-2.0

"""Residual layers for `neural_tangents.stax`.

Each factory returns a triple `(init_fn, apply_fn, kernel_fn)` that composes
with every layer of `neural_tangents.stax`.
"""

from nt_residual.stax.convolutional import ConvResNet as ConvResNet
from nt_residual.stax.convolutional import WideResNet as WideResNet
from nt_residual.stax.frozen import Frozen as Frozen
from nt_residual.stax.fully_connected import (
    FullyConnectedResNet as FullyConnectedResNet,
)
from nt_residual.stax.relu import ABRelu as ABRelu
from nt_residual.stax.relu import Relu as Relu
from nt_residual.stax.residual import Residual as Residual
from nt_residual.stax.scale import Scale as Scale
from nt_residual.stax.stack import ResidualStack as ResidualStack
