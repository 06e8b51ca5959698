"""flywheel eval TASK: success on fixed seeds, never trained on, with its 95 % interval; two policies compared in pairs."""

from __future__ import annotations

from flywheel.cli.console import parse_config, progress, say
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.evaluation_folder import load_evaluation
from flywheel.rollout.results import Evaluation, compare


def run(arguments: list[str]) -> None:
    """Evaluate with a progress bar, then state the result."""
    config = parse_config(EvaluateConfig, arguments, "flywheel eval", __doc__)
    with progress(f"Evaluating {config.policy}", "episodes") as report:
        evaluation = evaluate(config, report)
    say(sentence(evaluation))
    if config.versus is not None:
        pair = compare(evaluation, load_evaluation(config.versus))
        low, high = pair.difference.ci95
        say(
            f"Against {config.versus} on the same {pair.count} initial states: {pair.difference.difference:+.0%} "
            f"(95 % interval {low:+.0%} to {high:+.0%}, McNemar p = {pair.p_value:.2g}); "
            f"{pair.both} both, {pair.only_a} only this, {pair.only_b} only the other, {pair.neither} neither."
        )


def sentence(evaluation: Evaluation) -> str:
    """The result in words."""
    low, high = evaluation.ci95
    return (
        f"{evaluation.successes} of {len(evaluation.results)} succeeded: {evaluation.success:.0%} "
        f"(Wilson 95 % interval {low:.0%} to {high:.0%}), {evaluation.mean_length:.0f} steps on average."
    )
