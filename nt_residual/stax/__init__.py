# Copyright 2026 The nt_residual Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     https://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Residual layers for `neural_tangents.stax`.

Each factory returns a triple `(init_fn, apply_fn, kernel_fn)` that composes
with every layer of `neural_tangents.stax`.
"""

from nt_residual.stax.frozen import Frozen as Frozen
from nt_residual.stax.networks import ConvResNet as ConvResNet
from nt_residual.stax.networks import (
    FullyConnectedResNet as FullyConnectedResNet,
)
from nt_residual.stax.networks import WideResNet as WideResNet
from nt_residual.stax.relu import ABRelu as ABRelu
from nt_residual.stax.relu import Relu as Relu
from nt_residual.stax.residual import Residual as Residual
from nt_residual.stax.scale import Scale as Scale
from nt_residual.stax.stack import ResidualStack as ResidualStack
