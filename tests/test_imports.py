"""How modules depend on each other: no circles, and no room with too many files.

Which room may import which is said by the contracts in pyproject.toml (`make check`). Those compare rooms;
circles between the modules of one room, or of rooms of one layer, are found here.
"""

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest
from reading_size import import_graph, product_modules, reachable

ROOT = Path(__file__).resolve().parents[1]
MOST_FILES = 15  # about fifteen; envs/contract has 19
"""Modules of a folder's own, its ``__init__`` not counted."""

UNTIL_REWRITTEN = {  # to be emptied with the last circle between a command and its training
    f"tutelage.experiments.{name}"
    for name in ("distill", "data", "specialists", "trainings.distill_pictures")
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_there_are_no_circles_lazy_imports_and_those_for_types_included() -> None:
    graph = import_graph(product_modules(ROOT))
    for name in UNTIL_REWRITTEN & set(graph):
        graph[name] = {}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = error.args[1][::-1]
        lines = [f"{a}, line {graph[a][b]}, imports {b}" for a, b in pairwise(circle)]
        pytest.fail("a circle: move what both need below them\n" + "\n".join(lines))


def test_no_folder_has_too_many_files() -> None:
    files = [path.parent for path in product_modules(ROOT).values() if path.name != "__init__.py"]
    crowded = {str(folder): n for folder, n in Counter(files).items() if n > MOST_FILES}
    assert not crowded, f"divide these folders into rooms of at most {MOST_FILES} modules: {crowded}"


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "envs/a.py": "import torch\nfrom tutelage.envs.room import Thing, b\n",
            "envs/room/__init__.py": (
                "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
                "    from tutelage.envs.room.thing import Thing as Thing\n"
            ),
            "envs/room/b.py": "def f():\n    import tutelage.students.c\n",
            "envs/room/thing.py": (
                "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tutelage.envs import a\n"
            ),
            "students/c.py": "import tutelage.envs.room\n",
        },
    )
    graph = import_graph(product_modules(root))
    assert graph == {
        "tutelage.envs.a": {"tutelage.envs.room.thing": 2, "tutelage.envs.room.b": 2},
        "tutelage.envs.room": {},
        "tutelage.envs.room.b": {"tutelage.students.c": 2},
        "tutelage.envs.room.thing": {"tutelage.envs.a": 3},
        "tutelage.students.c": {"tutelage.envs.room": 1},
    }
    with pytest.raises(CycleError):  # a and thing
        list(TopologicalSorter(graph).static_order())
    assert reachable(graph, ["tutelage.envs.a", "tutelage.no.such"], ["students.*"]) == [
        *("tutelage.envs.a", "tutelage.envs.room.b", "tutelage.envs.room.thing"),
    ]
