"""What is said where a package is missing, by the functions and by the command line."""

import subprocess
import sys

import pytest

from tutelage.envs.contract.packages import MissingPackageError, need_package


def run_without(package: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command where a package is not installed."""
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['tutelage', *{words!r}]\n"
        "from tutelage.experiments.main import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_package_that_is_there_is_not_imported() -> None:
    need_package("turtledemo", "Nothing", "nothing")
    assert "turtledemo" not in sys.modules


def test_a_missing_package_is_named_with_its_cure() -> None:
    for kind in (MissingPackageError, ImportError, RuntimeError):
        with pytest.raises(kind, match=r"^A walker needs no_such_package: pip install it$"):
            need_package("no_such_package", "A walker", "pip install it")


@pytest.mark.parametrize(
    ("package", "words", "message"),
    [
        (
            "Box2D",
            ("compare", "--env", "stump-tracks", "--out", "OUT"),
            "pip install box2d, which has wheels",
        ),
        (
            "pygame",
            ("bench", "envs"),
            "Gymnasium's BipedalWalker needs pygame: pip install 'tutelage[bench]'",
        ),
        ("imageio", ("bench", "sim"), "Gymnasium's Hopper needs imageio: pip install 'tutelage[bench]'"),
    ],
)
def test_the_command_line_says_it_in_one_line(
    package: str, words: tuple[str, ...], message: str, tmp_path: object
) -> None:
    run = run_without(package, *(f"{tmp_path}/grid" if word == "OUT" else word for word in words))
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stderr.startswith("tutelage: ")
    assert run.stderr.count("\n") == 1
