"""Renders a trained network's games as a stream of frames."""

from __future__ import annotations

from collections.abc import Iterator

from wn_dqn.config.games import game_of
from wn_dqn.envs.factory import single_game
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.protocols import LONGEST_GAME_FRAMES, EvaluationProtocol, changed_protocol
from wn_dqn.nn.folding import fold
from wn_dqn.render.play import Painter, play
from wn_dqn.render.q_panel import QPanel
from wn_dqn.render.saliency import Method
from wn_dqn.render.video import Frame
from wn_dqn.runs.policy import Policy
from wn_dqn.system.progress import ProgressReporter

_LONG_GAME_FRAMES = 18_000


def watch(
    policy: Policy,
    protocol: EvaluationProtocol,
    num_games: int,
    seed: int,
    saliency: Method | None,
    reporter: ProgressReporter,
) -> Iterator[Frame]:
    """RGB frames of `num_games` games under `protocol`, but with the action set of the network's training."""
    game = game_of(policy.settings)
    protocol = changed_protocol(protocol, full_action_set=policy.settings.environment.full_action_set)
    if protocol.max_game_frames is None:
        protocol = changed_protocol(protocol, max_game_frames=LONGEST_GAME_FRAMES)
    env = single_game(game, protocol.env_rules)
    if env.spec.num_actions != policy.agent.num_actions:
        raise UsageError(
            f"{policy.path}: the network has {policy.agent.num_actions} outputs, but {game.name} has "
            f"{env.spec.num_actions} actions"
        )
    if saliency is not None and not env.spec.is_image:
        raise UsageError(f"{game.name} shows no images: leave out --saliency")
    subtitle = f"{policy.settings.param}, step {policy.steps:,}, epsilon {protocol.epsilon:g}"
    painter = Painter(
        QPanel(game.short_name, subtitle, env.spec.action_names),
        None if saliency is None else fold(policy.agent.online),
        saliency,
    )
    total = num_games * min(protocol.max_game_frames or _LONG_GAME_FRAMES, _LONG_GAME_FRAMES)
    with reporter.task(f"playing {game.name}", total) as task:
        frames = 0
        for step in play(policy.q_values, env, protocol, num_games, seed):
            yield from painter.paint(step)
            frames += env.spec.frames_per_step
            task.update(frames, f"game {step.moment.game + 1}, score {step.moment.score:,.0f}")
            if step.ended:
                reporter.message(
                    f"game {step.moment.game + 1}: score {step.moment.score:,.0f}, {step.moment.step + 1:,} steps"
                )
