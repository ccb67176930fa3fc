"""Names: those that a package offers and imports on first use, and those that a user has mistyped.

Torch, MuJoCo and scikit-learn take seconds to import; a package that offers names of all its rooms must not
import them for whoever needs one. And an unknown name is answered in one way everywhere: with the nearest.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], list[str]]:
    """Make a package's ``__getattr__`` and ``__all__`` from its imports under ``if TYPE_CHECKING:``.

    The block is what type checkers and editors read, so it is the one list there is::

        if TYPE_CHECKING:
            from tutelage.envs.contract.tasks import BoxTasks as BoxTasks

        __getattr__, __all__ = lazy_names(__name__, __file__)

    Args:
        package: the package's ``__name__``.
        file: its ``__file__``.

    Returns:
        ``__getattr__``, which imports a name where it lives, and the sorted names.
    """
    homes: dict[str, str] = {}
    for block in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for statement in block.body:
                if isinstance(statement, ast.ImportFrom) and statement.module:
                    homes |= {a.name: statement.module for a in statement.names if a.asname == a.name}

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:  # a module of the package itself
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(homes[name]), name)

    return __getattr__, sorted(homes)


def load_object(path: str, what: str) -> Any:
    """Import ``module:name``.

    Args:
        path: of that form; nested names are separated by dots.
        what: what it is, for messages, e.g. ``"student"``.

    Raises:
        ValueError: when `path` is not of that form, or there is no such module or name.
    """
    module, separator, name = path.partition(":")
    if not (separator and module and name):
        raise ValueError(f"{what} {path!r} is not of the form module:name")
    try:
        return attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} {path!r} cannot be imported: {error}") from None


def _spelling(name: str) -> str:
    return name.lower().replace("_", "-")


def unknown_name(kind: str, name: str, known: Iterable[str], also: str = "") -> str:
    """The message about a name that does not exist: what was meant, and all that there is.

    Args:
        kind: what the name is of, e.g. ``"task teacher"``.
        name: what the user wrote.
        known: all names, in the order in which they are listed.
        also: what else would do, e.g. ``"module:Class of your own"``.

    Example:
        >>> unknown_name("student", "pppo", ["ppo", "sac"])
        "unknown student 'pppo'; did you mean 'ppo'? Known: ppo, sac"
    """
    known = list(known)
    alike = {_spelling(one): one for one in known}
    near = [alike[one] for one in difflib.get_close_matches(_spelling(str(name)), alike, n=1)]
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}" + (f"; or {also}" if also else "")


def folder_name(name: str) -> str:
    """The folder of something with this name: ``module:Class`` becomes ``module.Class``, ``a/b`` ``a-b``.

    Members of a sweep become ``alp-gmm.fit-rate-50``, ``alp-gmm.fit-rate-50_random-ratio-0.2``. Where values
    hold other signs than letters, digits, ``.``, ``+`` and ``-``, or are long, eight hexadecimal digits
    follow, so that no two values share a folder.
    """
    base, equals, values = name.partition("=")
    plain = base.replace(":", ".").replace("/", "-")
    if not equals:
        return plain
    if re.fullmatch(r"[A-Za-z0-9.+=,-]{1,80}", values):
        return f"{plain}-{values}".replace("=", "-").replace(",", "_")
    readable = re.sub(r"[^A-Za-z0-9.+]+", "-", values)[:80].strip("-.")
    return f"{plain}-{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def base_name(name: str) -> str:
    """The name of a member of a sweep without its values: ``alp-gmm`` of ``alp-gmm:fit-rate=50``."""
    before, equals, _ = name.partition("=")
    return before.rpartition(":")[0] if equals else name


def check_folder_names(kind: str, names: Iterable[str]) -> None:
    """Make sure that no two names have the same folder.

    Args:
        kind: what the names are of, e.g. ``"task teachers"``.
        names: all of them.

    Raises:
        ValueError: when two have.
    """
    folders: dict[str, str] = {}
    for name in names:
        other = folders.setdefault(folder_name(name), name)
        if other != name:
            raise ValueError(
                f"the {kind} {other!r} and {name!r} would share the folder {folder_name(name)}; rename one"
            )
