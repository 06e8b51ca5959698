"""TorchRL's side of `make bench-peers`: run by the Python of `.venv-peers`, which has TorchRL and not this package.

Speaks as `peer_d3rlpy.py` does, at the same sizes and with the same CQL. Losses, target networks and buffer are TorchRL's own,
put together as the offline scripts of its `sota-implementations` do; their `torch.compile`, off there by default, is off here.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict  # type: ignore[import-not-found]  # it and torchrl live in .venv-peers alone
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential  # type: ignore[import-not-found]
from torchrl import data, modules, objectives  # type: ignore[import-not-found]

OBSERVATION_DIM, ACTION_DIM, HORIZON, BATCH_SIZE = 60, 7, 200, 256
HIDDEN = (256, 256)
LEARNING_RATE, DISCOUNT, TARGET_RATE = 3e-4, 0.99, 0.005
Update = Callable[[Any], None]
"""One update on a batch."""


def main(algorithm: str, transitions: int) -> None:
    """Serve bursts of one algorithm until standard input closes."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")  # as its scripts have it
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # should TorchRL print; answers go alone
    update, buffer = UPDATES[algorithm](), make_buffer(transitions)
    for line in sys.stdin:
        start, count = time.process_time(), 0
        while (elapsed := time.process_time() - start) < float(line):
            update(buffer.sample())
            count += 1
        print(count / elapsed, file=answers, flush=True)


def make_buffer(transitions: int) -> Any:
    """Random episodes of 200 steps in memory."""
    torch.manual_seed(0)
    ends = (torch.arange(1, transitions + 1) % HORIZON == 0)[:, None]
    following = {
        "observation": torch.randn(transitions, OBSERVATION_DIM),
        "reward": torch.randn(transitions, 1),
        "done": ends,
        "terminated": ends,
    }
    content = {
        "observation": torch.randn(transitions, OBSERVATION_DIM),
        "action": torch.rand(transitions, ACTION_DIM) * 2 - 1,
        "next": following,
    }
    # The scripts' sampler, but without their prefetching, whose threads would only share our one core.
    buffer = data.TensorDictReplayBuffer(
        storage=data.LazyTensorStorage(transitions),
        sampler=data.SamplerWithoutReplacement(drop_last=True),
        batch_size=BATCH_SIZE,
    )
    buffer.extend(TensorDict(content, batch_size=[transitions]))
    return buffer


def make_iql() -> Update:
    """Three losses, one backward and one step, as in `iql_offline.py`."""
    value = modules.ValueOperator(mlp(OBSERVATION_DIM, 1), in_keys=["observation"], out_keys=["state_value"])
    loss = objectives.IQLLoss(gaussian_actor(), critic(), value_network=value, temperature=3.0, expectile=0.7, loss_function="l2")
    parts = (loss.actor_network_params, loss.qvalue_network_params, loss.value_network_params)
    return joint_update(loss, [adam(part) for part in parts], ("loss_actor", "loss_value", "loss_qvalue"))


def make_cql() -> Update:
    """As in `cql_offline.py` after its warm-up; the warm-up's loss is computed all the same, as it is there."""
    loss = objectives.CQLLoss(
        gaussian_actor(), critic(), loss_function="l2", min_q_weight=5.0, num_random=10, with_lagrange=False
    )
    optimizers = [adam(loss.actor_network_params), adam(loss.qvalue_network_params)]
    optimizers.append(torch.optim.Adam([loss.log_alpha], lr=LEARNING_RATE))
    return joint_update(loss, optimizers, ("loss_actor", "loss_qvalue", "loss_cql", "loss_alpha"))


def joint_update(loss: Any, optimizers: list[torch.optim.Adam], terms: tuple[str, ...]) -> Update:
    """Backward through the sum of these terms, and a step of the optimizers as one."""
    loss.make_value_estimator(gamma=DISCOUNT)
    optimizer = objectives.group_optimizers(*optimizers)
    targets = objectives.SoftUpdate(loss, tau=TARGET_RATE)

    def update(batch: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        losses = loss(batch)
        sum(losses[term] for term in terms).backward()
        optimizer.step()
        targets.step()

    return update


def make_td3_bc() -> Update:
    """The critics, and at every other update the actor and the targets, each with an optimizer of its own, as in `td3_bc.py`."""
    actor = TensorDictSequential(
        TensorDictModule(mlp(OBSERVATION_DIM, ACTION_DIM), in_keys=["observation"], out_keys=["param"]),
        modules.TanhModule(in_keys=["param"], out_keys=["action"], spec=action_spec()),
    )
    loss = objectives.TD3BCLoss(
        actor, critic(), action_spec=action_spec(), loss_function="l2", delay_actor=True, delay_qvalue=True, alpha=2.5
    )
    loss.make_value_estimator(gamma=DISCOUNT)
    targets = objectives.SoftUpdate(loss, tau=TARGET_RATE)
    actor_optimizer, critic_optimizer = adam(loss.actor_network_params), adam(loss.qvalue_network_params)
    is_actors_turn = False

    def update(batch: Any) -> None:
        nonlocal is_actors_turn
        is_actors_turn = not is_actors_turn
        step(critic_optimizer, loss.qvalue_loss(batch)[0])
        if is_actors_turn:
            step(actor_optimizer, loss.actor_loss(batch)[0])
            targets.step()

    return update


def step(optimizer: torch.optim.Adam, loss: torch.Tensor) -> None:
    """Backward, step, and gradients freed."""
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def adam(parameters: Any) -> torch.optim.Adam:
    """An optimizer of a loss module's networks."""
    return torch.optim.Adam(list(parameters.flatten_keys().values()), lr=LEARNING_RATE)


def gaussian_actor() -> Any:
    """A tanh-Gaussian policy."""
    extractor = NormalParamExtractor(scale_mapping="biased_softplus_1.0", scale_lb=0.1)
    network = torch.nn.Sequential(mlp(OBSERVATION_DIM, 2 * ACTION_DIM), extractor)
    return modules.ProbabilisticActor(
        TensorDictModule(network, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=action_spec(),
        distribution_class=modules.TanhNormal,
        distribution_kwargs={"low": action_spec().space.low, "high": action_spec().space.high, "tanh_loc": False},
    )


def critic() -> Any:
    """Q(s, a), of which the losses make two."""
    return modules.ValueOperator(mlp(OBSERVATION_DIM + ACTION_DIM, 1), in_keys=["observation", "action"])


def mlp(inputs: int, outputs: int) -> Any:
    """A network with our hidden layers."""
    return modules.MLP(in_features=inputs, out_features=outputs, num_cells=HIDDEN, activation_class=torch.nn.ReLU)


def action_spec() -> Any:
    """Actions between -1 and 1."""
    return data.Bounded(-1.0, 1.0, (ACTION_DIM,))


UPDATES = {"iql": make_iql, "td3_bc": make_td3_bc, "cql": make_cql}

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
