"""`--set`: what is changed, what is refused with one line, and what a sweep makes of a grid."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest

from tutelage.envs.contract.names import folder_name
from tutelage.experiments.compare import CompareConfig, ComparisonError, resolve
from tutelage.experiments.runs.config import CellConfig, GridConfig, hyperparameters
from tutelage.experiments.runs.literals import write_literal
from tutelage.experiments.runs.settings import (
    Setting,
    SettingError,
    apply_to_dataclass,
    constructor_fields,
    dataclass_fields,
    parse_settings,
)
from tutelage.experiments.runs.sweeps import expand, expand_methods, set_student, set_task_teacher
from tutelage.students.sb3.config import ALGORITHMS, StudentConfig
from tutelage.teachers import TASK_TEACHERS, needs_knowledge

GRID = GridConfig(
    env="point-mass-gate",
    task_teachers={"random": {}, "alp-gmm": {"fit_rate": 100, "max_history": 500}},
    students={"ppo": StudentConfig("ppo", kwargs={"n_steps": 64, "policy_kwargs": {"net_arch": [64]}})},
    seeds=(0, 1),
    steps=1000,
    evaluate_every=500,
    baseline="alp-gmm",
)


def expanded(*texts: str) -> GridConfig:
    return expand(GRID, parse_settings(texts))


# ---- what is typed


def test_names_have_dashes_or_underscores_and_modules_have_dots() -> None:
    assert parse_settings(["alp-gmm.fit_rate=1", "my.own.module:Class.a-b.c=2,3"]) == [
        Setting("alp-gmm", ("fit_rate",), ("1",)),
        Setting("my.own.module:Class", ("a_b", "c"), ("2", "3")),
    ]
    assert parse_settings(["ppo.policy=a=b"]) == [Setting("ppo", ("policy",), ("a=b",))]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["x"], "--set x: write NAME.FIELD=VALUE, as in alp-gmm.fit-rate=100"),
        (["fit-rate=3"], "--set fit-rate=3: write NAME.FIELD=VALUE"),
        (["alp-gmm..x=3"], "--set alp-gmm..x=3: write NAME.FIELD=VALUE"),
        ([".x=3"], "write NAME.FIELD=VALUE"),
        (["a.b="], "a.b=: a value is missing"),
        (["a.b=1,,2"], "a.b=1,,2: a value is missing"),
        (["a.b=[1"], "a.b=[1: '[1' lacks a closing ']'"),
        (["a.b-c=1", "a.b_c=2"], "a.b-c is set twice; for a sweep write a.b-c=A,B"),
        (
            ["alp-gm.fit-rate=5"],
            "alp-gm.fit-rate=5: unknown task teacher or student of this grid 'alp-gm'; "
            "did you mean 'alp-gmm'? Known: random, alp-gmm, ppo; or add it to --teachers or --students",
        ),
        (
            ["alp-gmm.fit-rat=5"],
            "alp-gmm.fit-rat=5: unknown field 'fit-rat'; did you mean 'fit-rate'? Known: fit-rate, "
            "random-ratio, min-components, max-components, max-history",
        ),
        (["random.x=5"], "random.x=5: it has no fields"),
        (["alp-gmm.fit-rate=fast"], "alp-gmm.fit-rate is a whole number; 'fast' is not"),
        (
            ["alp-gmm.fit-rate.x=1"],
            "alp-gmm.fit-rate has no fields; alp-gmm.fit-rate itself is a whole number",
        ),
        (["alp-gmm.fit-rate=50,5e1"], "alp-gmm.fit-rate=50,5e1 has the same value twice"),
        (["ppo.learning-rat=1"], "unknown field 'learning-rat'; did you mean 'learning-rate'?"),
        (["ppo.n-env=1"], "unknown field 'n-env'; did you mean 'n-envs'?"),
        (["ppo.clip-range=linear"], "ppo.clip-range is a number; 'linear' is not"),
        (["ppo.normalize-rewards=1"], "ppo.normalize-rewards is true or false; '1' is not"),
        (["ppo.policy-kwargs.net-arc=[8]"], "unknown field 'net-arc'; did you mean 'net-arch'?"),
        (["ppo.policy-kwargs={net-arc:[8]}"], "unknown field 'net-arc'; did you mean 'net-arch'?"),
        (["ppo.policy-kwargs=7"], "ppo.policy-kwargs is a mapping, such as {name:value}; '7' is not"),
        (["ppo.policy-kwargs.net-arch=64,64"], "(commas outside make a sweep); '64' is not"),
        (
            ["ppo.policy-kwargs={net_arch:[8]}", "ppo.policy-kwargs.net-arch=[9]"],
            "ppo.policy-kwargs is set as a whole and in part; keep one of them",
        ),
        (["ppo.policy-kwargs.optimizer-class=Adam"], "no command line can say what it takes; leave it out"),
        (["ppo.rollout-buffer-class=x:Y"], "ppo.rollout-buffer-class is none; 'x:Y' is not"),
        (["ppo.seed=3"], "ppo.seed=3: each run has its own: use --seeds"),
        (["ppo.env=reach"], "ppo.env=reach: the comparison gives it: use --env"),
        (["ppo.tensorboard-log=x"], "use --out"),
        (["ppo.verbose=1"], "each run has a log of its own"),
        (["ppo.algorithm=sac"], "unknown field 'algorithm'"),
        (["ppo._init-setup-model=false"], "unknown field"),
    ],
)
def test_what_cannot_be_set_is_refused_in_one_line(texts: list[str], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        expanded(*texts)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ("alp-gmm.random-ratio=7",),
            "alp-gmm.random-ratio=7: random_ratio is 7.0; it is a fraction from 0 to 1",
        ),
        (("riac.max-region-size=2",), "riac.max-region-size=2: max_region_size is 2; halves need at least 4"),
        (("ppo.n-envs=0",), "ppo.n-envs=0: num_envs is 0"),
        (
            ("ppo.policy-kwargs.activation-fn=ELUU",),
            "ppo.policy-kwargs.activation-fn=ELUU: .* no class of torch.nn",
        ),
    ],
)
def test_values_out_of_range_are_refused_under_their_option(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        resolve(CompareConfig(preset="quick", set=texts))


# ---- dataclasses


@dataclass(frozen=True)
class Inner:
    low: int = 1
    high: int = 2

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low is above high: {self.low}, {self.high}")


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=lambda: Inner(3, 4))
    maybe: Inner | None = None
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0})
    rate: float = 0.5


def test_fields_in_fields_are_set_at_once_and_the_others_stay() -> None:
    choices = {("inner", "low"): "8", ("inner", "high"): "9", ("rate",): "1"}
    assert apply_to_dataclass(Outer(), choices, "x") == Outer(inner=Inner(8, 9), rate=1.0)
    assert apply_to_dataclass(Outer(), {("maybe", "high"): "5"}, "x") == Outer(maybe=Inner(1, 5))
    assert apply_to_dataclass(Outer(maybe=Inner()), {("maybe",): "none"}, "x") == Outer()
    assert apply_to_dataclass(Outer(), {("weights", "b"): "2"}, "x").weights == {"a": 1.0, "b": 2.0}
    assert apply_to_dataclass(Outer(), {("weights",): "{b:2}"}, "x").weights == {"b": 2.0}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({("inner", "low"): "9"}, "x.inner.low=9: low is above high: 9, 4"),
        (
            {("inner", "hig"): "9"},
            "x.inner.hig=9: unknown field 'hig'; did you mean 'high'? Known: low, high",
        ),
        (
            {("inner",): "9"},
            "x.inner is a group of fields, not '9'; set one of them: x.inner.low, x.inner.high",
        ),
        ({("weights", "b"): "much"}, "x.weights.b is a number; 'much' is not"),
    ],
)
def test_dataclasses_refuse_under_the_option(choices: Any, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        apply_to_dataclass(Outer(), choices, "x")
    assert str(caught.value) == message


def other(value: Any) -> Any:
    """A value of the same type that is not the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return tuple(map(other, value))
    return 0.75 if value is None else value + 1


@pytest.mark.parametrize(
    ("name", "of"), [(name, f.name) for name, (_, kind) in TASK_TEACHERS.items() for f in fields(kind)]
)
def test_every_field_of_every_task_teacher_can_be_set(name: str, of: str) -> None:
    from tutelage.experiments.worlds.catalogue import task_env_card

    kind, knowledge = TASK_TEACHERS[name][1], task_env_card("point-mass-gate").knowledge
    config = kind.for_environment(knowledge) if needs_knowledge(name) else kind()
    wanted = other(getattr(config, of))
    [setting] = parse_settings([f"{name}.{of.replace('_', '-')}={write_literal(wanted)}"])
    overrides = set_task_teacher(name, {}, {setting.path: setting.values[0]})
    assert getattr(replace(config, **overrides), of) == wanted
    assert apply_to_dataclass(config, {(of,): write_literal(wanted)}, name) == replace(config, **{of: wanted})


# ---- students


def test_a_students_own_fields_and_its_algorithms_arguments_are_set() -> None:
    grid = expanded(
        "ppo.n-envs=3", "ppo.normalize-rewards=true", "ppo.learning-rate=1e-4",
        "ppo.policy-kwargs.net-arch={pi:[8],vf:[9]}", "ppo.policy-kwargs.log-std-init=-1",
    )  # fmt: skip
    assert grid.students == {
        "ppo": StudentConfig(
            "ppo",
            n_envs=3,
            normalize_rewards=True,
            kwargs={
                "n_steps": 64,  # what is not set stays
                "learning_rate": 1e-4,
                "policy_kwargs": {"net_arch": {"pi": [8], "vf": [9]}, "log_std_init": -1.0},
            },
        )
    }
    assert grid.sweep == {}
    assert grid.baseline == "alp-gmm"


def test_tuples_are_lists_as_json_gives_them_back() -> None:
    student = set_student(
        "sac", StudentConfig("sac"), {("train_freq",): "[1,episode]", ("ent_coef",): "auto"}
    )
    assert student.kwargs == {"train_freq": [1, "episode"], "ent_coef": "auto"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_algorithms_name_their_arguments(algorithm: str) -> None:
    student = set_student(
        algorithm, StudentConfig(algorithm), {("learning_rate",): "3e-4", ("gamma",): "0.9"}
    )
    assert student.kwargs == {"learning_rate": 3e-4, "gamma": 0.9}


USERS_CLASSES = """
from stable_baselines3 import A2C

class Mine(A2C):
    def __init__(self, *args, extra=1, label: str = "x", **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = extra

class Curriculum:
    def __init__(self, space, rng, *, width=0.5, rounds: int = 3):
        self.space, self.rng, self.width, self.rounds = space, rng, width, rounds
    def propose(self, n): return self.space.sample(self.rng, n)
    def observe(self, episodes): pass
    def metrics(self): return {}
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
"""


def test_a_users_own_classes_are_set_by_their_constructors(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_classes.py").write_text(USERS_CLASSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    teacher, student = "users_classes:Curriculum", "users_classes:Mine"
    words = (f"{teacher}.width=0.25", f"{teacher}.rounds=1,2", f"{student}.extra=2", f"{student}.gamma=0.9")
    config = CompareConfig(
        env="point-mass-gate", teachers=("random", teacher), students=(student,), steps=1000, set=words
    )
    grid = resolve(config)
    assert grid.task_teachers == {
        "random": {},
        f"{teacher}:rounds=1": {"width": 0.25, "rounds": 1},
        f"{teacher}:rounds=2": {"width": 0.25, "rounds": 2},
    }
    assert grid.students[student].kwargs == {"extra": 2, "gamma": 0.9}
    for word, message in {
        f"{teacher}.rng=3": "unknown field 'rng'",
        f"{teacher}.widht=3": "did you mean 'width'",
        f"{student}.policy-kwarg=3": "did you mean 'policy-kwargs'",
    }.items():
        with pytest.raises(ComparisonError, match=message):
            resolve(replace(config, set=(word,)))


def test_a_constructor_that_passes_nothing_on_ends_there() -> None:
    class Base:
        def __init__(self, space: int, rng: int, deep: int = 1) -> None: ...

    class Passes(Base):
        def __init__(self, *args: Any, top: bool = False, **kwargs: Any) -> None: ...

    class Ends(Base):
        def __init__(self, space: int, rng: int, top: bool = False) -> None: ...

    assert constructor_fields(Passes, given=2) == {"top": bool, "deep": int}
    assert constructor_fields(Ends, given=2) == {"top": bool}


# ---- sweeps


def test_a_sweep_is_every_combination_in_the_place_of_what_is_swept() -> None:
    grid = expanded("alp-gmm.fit-rate=50,1e2", "alp-gmm.random-ratio=0.1,0.2", "ppo.n-steps=8,16")
    assert grid.task_teachers == {
        "random": {},
        "alp-gmm:fit-rate=50,random-ratio=0.1": {"fit_rate": 50, "max_history": 500, "random_ratio": 0.1},
        "alp-gmm:fit-rate=50,random-ratio=0.2": {"fit_rate": 50, "max_history": 500, "random_ratio": 0.2},
        "alp-gmm:fit-rate=100,random-ratio=0.1": {"fit_rate": 100, "max_history": 500, "random_ratio": 0.1},
        "alp-gmm:fit-rate=100,random-ratio=0.2": {"fit_rate": 100, "max_history": 500, "random_ratio": 0.2},
    }
    assert {name: config.kwargs["n_steps"] for name, config in grid.students.items()} == {
        "ppo:n-steps=8": 8,
        "ppo:n-steps=16": 16,
    }
    assert grid.baseline == "alp-gmm:fit-rate=50,random-ratio=0.1"
    cells = grid.cells()
    assert len(cells) == len({cell.folder for cell in cells}) == 2 * 5 * 2
    cell = cells[1]
    assert cell.folder == "ppo.n-steps-8/alp-gmm.fit-rate-50_random-ratio-0.1/seed-0"
    assert (cell.task_teacher_name, cells[0].task_teacher_name) == ("alp-gmm", "random")
    assert CellConfig.from_json(cell.to_json()) == cell
    assert hyperparameters(cell) == {
        "env": "point-mass-gate",
        "task_teacher": "alp-gmm:fit-rate=50,random-ratio=0.1",
        "student": "ppo:n-steps=8",
        "seed": 0,
        "n_envs": 8,
        "task_teacher.fit_rate": 50,
        "task_teacher.max_history": 500,
        "task_teacher.random_ratio": 0.1,
        "student.n_steps": 8,
        "student.policy_kwargs": "{'net_arch': [64]}",
    }


def test_swept_fields_of_the_student_itself_are_hyperparameters() -> None:
    grid = expanded("ppo.normalize-rewards=true,false", "ppo.policy-kwargs.net-arch=[8],[8,8]")
    found = [hyperparameters(cell) for cell in grid.cells()[::2][:4]]
    assert [(h["student.normalize_rewards"], h["student.policy_kwargs.net_arch"]) for h in found] == [
        (True, "[8]"), (True, "[8, 8]"), (False, "[8]"), (False, "[8, 8]"),
    ]  # fmt: skip


def test_without_settings_a_cell_is_described_as_ever() -> None:
    cell = GRID.cells()[1]
    assert expand(GRID, []) == GRID
    assert list(cell.to_json()) == [
        "env", "task_teacher", "student", "student_config", "seed", "steps", "evaluate_every",
        "task_teacher_config", "clips",
    ]  # fmt: skip
    assert CellConfig.from_json(cell.to_json()) == cell
    set_once = expanded("alp-gmm.fit-rate=50").cells()[1]  # no sweep: the name and the folder stay
    assert set_once == replace(cell, task_teacher_config={"fit_rate": 50, "max_history": 500})


def test_no_two_values_share_a_folder() -> None:
    assert folder_name("alp-gmm") == "alp-gmm"
    assert folder_name("stump/my.module:Class") == "stump-my.module.Class"
    assert folder_name("alp-gmm:fit-rate=50") == "alp-gmm.fit-rate-50"
    assert folder_name("ppo:ent-coef=-1e-05") == "ppo.ent-coef--1e-05"
    texts = [
        "a/b",
        "a b",
        "a.b",
        "a_b",
        "a-b",
        "a=b",
        "a,b",
        "ä",
        "a:b",
        "[1]",
        "[1,1]",
        "[11]",
        "{a:1}",
        "../x",
    ]
    texts += [letter * n for letter in "xy" for n in (100, 300)]
    names = [folder_name(f"ppo:x={write_literal(text)}") for text in texts]
    assert len({name.lower() for name in names}) == len(texts)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-+") for name in names)
    assert max(map(len, names)) < 120
    pairs = [("x", "y_g-z"), ("x_g-y", "z")]
    assert len({folder_name(f"m:f={a},g={b}") for a, b in pairs}) == 2


# ---- methods of distillation


def test_methods_are_set_and_swept_by_their_configs() -> None:
    from tutelage.students.distillation.dagger import DaggerConfig
    from tutelage.students.distillation.kickstarting import KickstartingConfig
    from tutelage.students.distillation.machinery.progress import Budget

    kinds: dict[str, Any] = {"dagger": DaggerConfig, "kickstarting": KickstartingConfig}
    budget = Budget(frames=77)

    def config_of(name: str) -> Any:
        return kinds[name](budget=budget)

    given = {"budget": "use --frames or --seconds", "learning.threads": "use --threads"}

    def found(*texts: str) -> dict[str, Any]:
        made = expand_methods(kinds, config_of, parse_settings(texts), given)
        return {variant.label: variant.config for variant in made}

    assert found() == {
        "dagger": DaggerConfig(budget=budget),
        "kickstarting": KickstartingConfig(budget=budget),
    }
    made = found("dagger.beta-end=0", "dagger.learning.batch-size=512", "kickstarting.ppo.epochs=3,5")
    assert list(made) == ["dagger", "kickstarting:ppo.epochs=3", "kickstarting:ppo.epochs=5"]
    assert (made["dagger"].beta_end, made["dagger"].learning.batch_size) == (0.0, 512)
    five = made["kickstarting:ppo.epochs=5"]
    assert asdict(five.ppo) == {**asdict(KickstartingConfig().ppo), "epochs": 5}
    for text, message in {
        "dagger.beta=cubic": "dagger.beta is one of indicator, linear, exponential; 'cubic' is not",
        "dagger.beta-end=2": "dagger.beta-end=2: need beta_rounds >= 0",
        "dagger.ppo.epochs=2": "unknown field 'ppo'",
        "dagger.budget.frames=2": "dagger.budget.frames=2: use --frames or --seconds",
        "dagger.learning.threads=2": "use --threads",
        "dager.beta-end=1": "unknown method of this grid 'dager'; did you mean 'dagger'?",
        "kickstarting.target-kl=big": "kickstarting.target-kl is a number or none; 'big' is not",
    }.items():
        with pytest.raises(SettingError) as caught:
            found(text)
        assert message in str(caught.value)


def test_annotations_that_are_imported_for_type_checkers_alone_do_not_hide_the_others() -> None:
    from tutelage.students.distillation.machinery.learner import LearningConfig

    known = dataclass_fields(LearningConfig)
    assert (known["batch_size"], known["loss"]) == (int, str)
    assert list(known) == [f.name for f in fields(LearningConfig)]


def test_settings_reach_the_task_teacher() -> None:
    from tutelage.experiments.worlds.catalogue import build_task_teacher, task_env_card

    grid = expanded("alp-gmm.fit-rate=50,100")
    card = task_env_card("point-mass-gate")
    rates = []
    for name, overrides in list(grid.task_teachers.items())[1:]:
        made: Any = build_task_teacher(
            grid.built_name(name), card, card.task_space(), np.random.default_rng(0), overrides
        )
        rates.append(made.config.fit_rate)
    assert rates == [50, 100]
