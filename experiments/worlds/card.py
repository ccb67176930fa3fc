"""An environment as experiments see it: how it is made, tested and described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tutelage.envs.batched.worlds.catalogue import VEC_TASKS
from tutelage.envs.contract.recipe import TaskKnowledge, WorldRecipe
from tutelage.envs.contract.tasks import Tasks, TaskSpace

if TYPE_CHECKING:
    import gymnasium as gym

    from tutelage.envs.contract.vector import BatchedTaskVecEnv


@dataclass(frozen=True)
class TaskEnvCard:
    """An environment as experiments see it, made by `tutelage.experiments.worlds.catalogue.task_env_card`.

    Attributes:
        name: on the command line.
        recipe: what its author says of it.
        make: makes one environment; takes the render mode.
        tests: returns the test sets, name -> fixed test tasks, of an environment.
        make_batch: makes a natively batched environment of so many, or None.
        renders: whether it can draw itself into arrays.
        options: of its constructor.
    """

    name: str
    recipe: WorldRecipe
    make: Callable[[str | None], gym.Env[Any, Any]]
    tests: Callable[[Any], dict[str, Tasks]]
    make_batch: Callable[[int], BatchedTaskVecEnv] | None = None
    renders: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _environment(self) -> tuple[TaskSpace, dict[str, Tasks], TaskKnowledge | None]:
        """Task space, test sets and knowledge, as one environment tells them."""
        env = self.make(None)
        try:
            space: TaskSpace = env.get_wrapper_attr("task_space")
            bare, knowledge = env.unwrapped, self.recipe.knowledge
            return space, self.tests(bare), knowledge(bare) if callable(knowledge) else knowledge
        finally:
            env.close()

    def task_space(self) -> TaskSpace:
        """The task space of the environment."""
        return self._environment[0]

    def test_sets(self) -> dict[str, Tasks]:
        """Name -> fixed test tasks; the first is the set that task teachers are compared on."""
        return self._environment[1]

    @property
    def knowledge(self) -> TaskKnowledge | None:
        """Expert knowledge for task teachers that need it, or None."""
        return self._environment[2]

    @property
    def primary_test_set(self) -> str:
        """The test set that task teachers are compared on."""
        return next(iter(self.test_sets()))

    @property
    def picture_test_set(self) -> str:
        """The test set that the mastery pictures show."""
        return self.recipe.picture_test_set or self.primary_test_set

    @property
    def return_range(self) -> tuple[float, float] | None:
        """Nominal range of returns, for the axes of plots, or None."""
        return self.recipe.return_range or (self.knowledge.return_range if self.knowledge else None)

    @property
    def summary(self) -> str:
        """The environment in one line."""
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return self.recipe.summary + (f" ({options})" if options else "")

    @property
    def mastered(self) -> str:
        """What counts as mastering a task, in words."""
        return self.recipe.mastered

    @property
    def env_id(self) -> str:
        """Where it comes from: a Gymnasium id, or ``module:name``."""
        batched = f"tutelage.envs.batched:{self.name}" if self.name in VEC_TASKS else self.name
        return self.recipe.gymnasium_id or batched
