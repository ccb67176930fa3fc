from pathlib import Path

import pytest

from tutelage.experiments.tensorboard.run_groups import compile_groups, event_folders, group_runs


@pytest.mark.parametrize(
    ("runs", "groups"),
    [
        (["PPO_1", "PPO_2", "SAC_1"], {"PPO_1": ("PPO", 1), "PPO_2": ("PPO", 2), "SAC_1": ("SAC", 1)}),
        (["ppo/seed-0", "ppo/seed-1"], {"ppo/seed-0": ("ppo", 0), "ppo/seed-1": ("ppo", 1)}),
        (["ant-v4_seed=3/tb"], {"ant-v4_seed=3/tb": ("ant-v4/tb", 3)}),
        (["x/s3", "x/s12"], {"x/s3": ("x", 3), "x/s12": ("x", 12)}),
        (["walker_s3"], {"walker_s3": ("walker", 3)}),
        (["seed1_big"], {"seed1_big": ("big", 1)}),
        (["Ant-v4__ppo__7__1700000000"], {"Ant-v4__ppo__7__1700000000": ("Ant-v4__ppo", 7)}),
        (
            ["rsl/cart/2024-05-01_12-30-45", "rsl/cart/2024-05-01_12-30-46_big"],
            {
                "rsl/cart/2024-05-01_12-30-45": ("rsl/cart", 0),
                "rsl/cart/2024-05-01_12-30-46_big": ("rsl/cart/big", 0),
            },
        ),
        (["24-05-01_12-30-45-123456_PPO"], {"24-05-01_12-30-45-123456_PPO": ("PPO", 0)}),
        (["May01_12-30-45_host"], {"May01_12-30-45_host": ("host", 0)}),
        (["seed-1", "seed-2"], {"seed-1": ("runs", 1), "seed-2": ("runs", 2)}),
        (["lr_1/seed-2"], {"lr_1/seed-2": ("lr_1", 2)}),  # the surer sign
        (["eval", "Ant-v4", "PPO_final", "."], {}),
        (["..seed-1"], {"..seed-1": ("runs", 1)}),  # never above
    ],
)
def test_usual_names_are_understood(runs: list[str], groups: dict[str, tuple[str, int]]) -> None:
    assert group_runs(runs, None, "runs") == groups


@pytest.mark.parametrize(
    ("pattern", "run", "group"),
    [
        ("{group}_{seed}", "a/PPO_1", ("a/PPO", 1)),
        ("{env}-{seed}/{method}", "ant-4/ppo", ("ant/ppo", 4)),
        ("{env}/*/s{seed}", "ant/2024/s4", ("ant", 4)),
        ("**/{method}/{seed}", "a/b/ppo/third", ("ppo", 0)),
        ("run {seed} (old)", "run 5 (old)", ("all", 5)),
        ("{group}/{seed}", "../../etc/5", ("etc", 5)),
        ("{group}.{seed}", "_grid.5", ("all", 5)),
        ("{group}_{seed}", "PPO", None),
    ],
)
def test_patterns(pattern: str, run: str, group: tuple[str, int] | None) -> None:
    assert group_runs([run], compile_groups(pattern)).get(run) == group


@pytest.mark.parametrize(
    ("pattern", "named"),
    [("PPO_*", "write {seed}"), ("{a b}_{seed}", "{a b} must be a name"), ("{seed}_{seed}", "there once")],
)
def test_patterns_that_are_no_good_say_so(pattern: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        compile_groups(pattern)


def test_links_are_not_followed(tmp_path: Path) -> None:
    for name in ("runs/a", "outside/b", "runs/out/c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "events.out.tfevents.1").touch()
    runs = tmp_path / "runs"
    (runs / "link").symlink_to(tmp_path / "outside")
    (runs / "d").mkdir()
    (runs / "d" / "events.out.tfevents.1").symlink_to(tmp_path / "outside/b/events.out.tfevents.1")
    assert event_folders(runs, without=runs / "out") == ["a"]
