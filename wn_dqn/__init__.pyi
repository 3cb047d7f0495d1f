"""The public names, for type checkers and editors: they do not see what ``__init__.py`` imports when it is asked."""

from wn_dqn import nn as nn
from wn_dqn.api import Policy as Policy
from wn_dqn.api import Run as Run
from wn_dqn.api import evaluate as evaluate
from wn_dqn.api import load as load
from wn_dqn.api import make_env as make_env
from wn_dqn.api import push as push
from wn_dqn.api import register_agent as register_agent
from wn_dqn.api import register_network as register_network
from wn_dqn.api import register_parameterization as register_parameterization
from wn_dqn.api import train as train
from wn_dqn.config.schema import Settings as Settings
from wn_dqn.errors import RunError as RunError
from wn_dqn.errors import UsageError as UsageError
from wn_dqn.interop.trackers import MLflowTracker as MLflowTracker
from wn_dqn.interop.trackers import OptunaPruning as OptunaPruning
from wn_dqn.interop.trackers import TensorBoard as TensorBoard
from wn_dqn.interop.trackers import WandbTracker as WandbTracker
from wn_dqn.runs.callback import Callback as Callback
from wn_dqn.runs.callback import StopTraining as StopTraining
from wn_dqn.runs.callback import View as View

__version__: str
