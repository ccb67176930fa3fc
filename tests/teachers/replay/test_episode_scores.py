"""Episodes are scored whole, wherever roll-outs cut them."""

from typing import Any

import numpy as np
import pytest

from tutelage.envs.contract.state import StateError
from tutelage.teachers.replay.episode_scores import EpisodeScores
from tutelage.teachers.replay.regret_scores import mna


def column(*values: Any) -> Any:
    return np.array(values)[:, None]


def rollout(ids: Any, dones: Any, **parts: Any) -> dict[str, Any]:
    """Arguments of `add_rollout`; what is not given is 0."""
    dones = np.asarray(dones, dtype=bool)
    names = ("rewards", "successes", "values", "advantages", "errors")
    return {"ids": np.asarray(ids), "dones": dones, **{n: np.zeros(dones.shape) for n in names}, **parts}


FIRST = rollout(  # one environment: all of episode 7, the beginning of 8
    column(7, 7, 8, 8),
    column(0, 1, 0, 0),
    rewards=column(1.0, 2.0, 3.0, 4.0),
    successes=column(np.nan, 1.0, np.nan, np.nan),
    values=column(0.5, 1.5, 2.0, 1.0),
    advantages=column(1.0, -3.0, 2.0, -1.0),
    errors=column(-1.0, 2.0, 1.0, 1.0),
)
SECOND = rollout(  # the end of 8, all of 9, the beginning of 10
    column(8, 9, 9, 10),
    column(1, 0, 1, 0),
    rewards=column(-1.0, 1.0, 1.0, 1.0),
    successes=column(1.0, np.nan, 0.0, np.nan),
    values=column(3.0, 1.0, 2.0, 9.0),
    advantages=column(5.0, -4.0, 2.0, 9.0),
    errors=column(4.0, 1.0, 0.0, 9.0),
)
# By hand, episode 7: |1|, |-3| -> mean 2; positive (1 + 0) / 2; errors (1 + 2) / 2; values (0.5 + 1.5) / 2;
# return 3, max_mc 3 - 1; solved, so mna 0 + 3.
SEVEN = {"gae_l1": 2, "pvl": 0.5, "td": 1.5, "mean_value": 1, "return": 3, "max_mc": 2, "mna": 3, "steps": 2}
# Episode 8, steps (2, -1, 5): mean |A| 8/3; positive 7/3; errors (1 + 1 + 4) / 3; values (2 + 1 + 3) / 3;
# return 3 + 4 - 1 = 6, max_mc 6 - 2; solved, so mna 1.
EIGHT = {
    "gae_l1": 8 / 3,
    "pvl": 7 / 3,
    "td": 2,
    "mean_value": 2,
    "return": 6,
    "max_mc": 4,
    "mna": 1,
    "steps": 3,
}
# Episode 9, steps (-4, 2), not solved.
NINE = {"gae_l1": 3, "pvl": 1, "td": 0.5, "mean_value": 1.5, "return": 2, "max_mc": 0.5, "mna": 0, "steps": 2}


def check(scores: dict[str, Any], row: int, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert scores[name][row] == pytest.approx(value, rel=1e-14), name


def test_episodes_that_cross_rollouts_are_scored_when_they_end() -> None:
    episodes = EpisodeScores(1)
    ids, scores = episodes.add_rollout(**FIRST)
    assert ids.tolist() == [7]
    check(scores, 0, {**SEVEN, "initial_value": 0.5})
    ids, scores = episodes.add_rollout(**SECOND)
    assert ids.tolist() == [8, 9]
    check(scores, 0, {**EIGHT, "initial_value": 2.0})
    check(scores, 1, {**NINE, "initial_value": 1.0})


def test_an_episode_may_take_several_rollouts() -> None:
    episodes = EpisodeScores(1)
    parts = {"advantages": column(1.0, 2.0), "rewards": column(1.0, 1.0), "values": column(4.0, 2.0)}
    for _ in range(3):
        ids, _ = episodes.add_rollout(**rollout(column(3, 3), column(0, 0), **parts))
        assert ids.tolist() == []
    ids, scores = episodes.add_rollout(**rollout(column(3, 4), column(1, 0), **parts))
    # seven steps: advantages 3 x (1 + 2) + 1 = 10, values 3 x (4 + 2) + 4 = 22, return 7
    assert ids.tolist() == [3]
    check(scores, 0, {"gae_l1": 10 / 7, "mean_value": 22 / 7, "return": 7, "steps": 7, "initial_value": 4})


def test_pieces_can_be_scored_by_themselves() -> None:
    episodes = EpisodeScores(1, score_pieces=True)
    ids, scores = episodes.add_rollout(**FIRST)
    assert ids.tolist() == [7, 8]
    check(scores, 0, SEVEN)
    check(scores, 1, {"gae_l1": 1.5, "pvl": 1, "td": 1, "mean_value": 1.5, "steps": 2})  # (2, -1)
    for name in ("return", "max_mc", "mna"):
        assert np.isnan(scores[name][1])
    ids, scores = episodes.add_rollout(**SECOND)
    assert ids.tolist() == [8, 9, 10]
    # the last step of 8 alone, but its whole return, 6, and max_mc 6 - 3
    check(scores, 0, {"gae_l1": 5, "pvl": 5, "steps": 1, "return": 6, "max_mc": 3, "initial_value": 2})


def test_resumes_exactly() -> None:
    episodes, again = EpisodeScores(1), EpisodeScores(1)
    episodes.add_rollout(**FIRST)
    again.load_state_dict(episodes.state_dict())
    (ids, scores), (other_ids, other) = episodes.add_rollout(**SECOND), again.add_rollout(**SECOND)
    np.testing.assert_array_equal(ids, other_ids)
    for name in scores:
        np.testing.assert_array_equal(scores[name], other[name])
    with pytest.raises(StateError, match="shape"):
        EpisodeScores(2).load_state_dict(episodes.state_dict())


def test_episodes_cut_off_by_a_reset_are_forgotten() -> None:
    episodes = EpisodeScores(1)
    episodes.add_rollout(**FIRST)  # 8 goes on, but 30 comes
    ids, scores = episodes.add_rollout(**rollout(column(30), column(1), advantages=column(1.5)))
    assert ids.tolist() == [30]
    check(scores, 0, {"gae_l1": 1.5, "return": 0, "steps": 1, "initial_value": 0})


def test_success_that_is_not_defined_leaves_mna_undefined() -> None:
    _, scores = EpisodeScores(1).add_rollout(**rollout(column(0), column(1), successes=column(np.nan)))
    assert np.isnan(scores["mna"][0])
    assert scores["pvl"][0] == 0


def test_ids_of_successors_are_refused() -> None:
    with pytest.raises(ValueError, match="ids from before each step"):
        EpisodeScores(1).add_rollout(**rollout(column(1, 2), column(0, 1)))


def random_rollouts(rng: np.random.Generator, count: int, steps: int, envs: int) -> list[dict[str, Any]]:
    running = np.arange(envs)
    following, result = envs, []
    for _ in range(count):
        dones = rng.random((steps, envs)) < 0.2
        ids = np.empty((steps, envs), dtype=np.int64)
        for step in range(steps):
            ids[step] = running
            ended = np.flatnonzero(dones[step])
            running[ended] = following + np.arange(len(ended))
            following += len(ended)
        parts = {n: rng.normal(size=(steps, envs)) for n in ("rewards", "values", "advantages", "errors")}
        successes = (rng.random((steps, envs)) < 0.5).astype(float)
        result.append({"ids": ids, "dones": dones, "successes": successes, **parts})
    return result


def test_scores_are_those_of_whole_episodes_whatever_runs_beside_them() -> None:
    rollouts = random_rollouts(np.random.default_rng(0), count=6, steps=9, envs=5)
    together = EpisodeScores(5)
    results = [together.add_rollout(**part) for part in rollouts]
    # in order of their ends: by step, then by environment
    for part, (ids, _) in zip(rollouts, results, strict=True):
        np.testing.assert_array_equal(ids, part["ids"][part["dones"]])
    by_id = {
        int(i): {n: v[row] for n, v in scores.items()} for ids, scores in results for row, i in enumerate(ids)
    }
    for env in range(5):  # alone: the same numbers, to the last bit
        alone = EpisodeScores(1)
        for part in rollouts:
            ids, scores = alone.add_rollout(**{n: v[:, env : env + 1] for n, v in part.items()})
            for row, i in enumerate(ids):
                assert by_id[int(i)] == {n: v[row] for n, v in scores.items()}
    # and against the definition, from episodes put together by hand
    flat = {n: np.concatenate([part[n] for part in rollouts]).T.reshape(-1) for n in rollouts[0]}
    for i, scores in by_id.items():
        rows = np.flatnonzero(flat["ids"] == i)
        advantages, solved = flat["advantages"][rows], flat["successes"][rows[-1]]
        expected = {
            "gae_l1": np.abs(advantages).mean(),
            "pvl": np.maximum(advantages, 0).mean(),
            "td": np.abs(flat["errors"][rows]).mean(),
            "max_mc": flat["rewards"][rows].sum() - flat["values"][rows].mean(),
            "mna": mna(advantages, np.array([len(rows)]), [solved])[0],
            "initial_value": flat["values"][rows[0]],
        }
        assert {n: scores[n] for n in expected} == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert len(by_id) > 30
