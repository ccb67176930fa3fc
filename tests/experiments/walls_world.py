"""A user's own level world, as a user would write it: rooms of four by four cells, some of them walls."""

import gymnasium
import numpy as np

from tutelage.envs import LevelSpace, TaskError

MOVES = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])


class Rooms(LevelSpace):
    """Rooms: 1 where there is a wall. Start and goal, two opposite corners, are always free."""

    shape, dtype = (4, 4), np.dtype(np.uint8)

    def sample(self, rng, n):
        return self._freed(rng.random((n, 4, 4)) < 0.3)

    def contains(self, tasks):
        tasks = np.asarray(tasks)
        return ((tasks == 0) | (tasks == 1)).all(axis=(1, 2)) & (tasks[:, 0, 0] + tasks[:, 3, 3] == 0)

    def check(self, tasks, source="tasks"):
        tasks = np.asarray(tasks)
        if tasks.shape[1:] != (4, 4) or not self.contains(tasks).all():
            raise TaskError(f"{source} are no rooms")
        return tasks.astype(np.uint8)

    def to_json(self):
        return {"kind": self.kind, "cells": [4, 4]}

    def mutate(self, rng, tasks):
        edited = tasks.copy().reshape(len(tasks), 16)
        edited[np.arange(len(tasks)), rng.integers(1, 15, len(tasks))] ^= 1
        return edited.reshape(-1, 4, 4)

    def encode(self, tasks):
        return tasks.reshape(len(tasks), 16).astype(np.int64)

    def decode(self, tokens):
        return tokens.reshape(-1, 4, 4).astype(np.uint8)

    def features(self, tasks):
        return tasks.reshape(len(tasks), 16).mean(axis=1, keepdims=True)

    def gallery(self, tasks):
        pictures = np.full((len(tasks), 4, 4, 3), 250, np.uint8)
        pictures[tasks == 1] = (60, 40, 20)
        pictures[:, 3, 3] = (0, 200, 0)
        return pictures

    def _freed(self, walls):
        walls = walls.astype(np.uint8)
        walls[:, [0, 3], [0, 3]] = 0
        return walls


class Walls(gymnasium.Env):
    """Walk from one corner of a room to the other within twelve steps."""

    action_space = gymnasium.spaces.Discrete(4)
    observation_space = gymnasium.spaces.Box(0, 1, (32,), np.float32)

    def __init__(self):
        self.task_space = Rooms()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        task = (options or {}).get("task")
        task = self.task_space.sample(self.np_random, 1)[0] if task is None else task
        self.room = self.task_space.check(np.asarray(task)[None])[0]
        self.at, self.steps = np.zeros(2, int), 0
        return self._seen(), {"task": self.room.copy()}

    def step(self, action):
        target = np.clip(self.at + MOVES[int(action)], 0, 3)
        self.at = self.at if self.room[tuple(target)] else target
        self.steps += 1
        there = bool((self.at == 3).all())
        return self._seen(), float(there), there, self.steps == 12, {"success": there}

    def _seen(self):
        place = np.zeros((4, 4))
        place[tuple(self.at)] = 1
        return np.concatenate([self.room.ravel(), place.ravel()]).astype(np.float32)
