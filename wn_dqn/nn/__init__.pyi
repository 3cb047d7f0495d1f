"""The names that parts of your own are made with, for type checkers and editors."""

from wn_dqn.nn.layers import Layer as Layer
from wn_dqn.nn.layers import LayerKit as LayerKit
from wn_dqn.nn.networks import QNetwork as QNetwork
from wn_dqn.nn.standard import Conv2d as Conv2d
from wn_dqn.nn.standard import Linear as Linear
