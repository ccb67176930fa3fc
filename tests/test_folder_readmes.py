"""The examples in the READMEs of the four folders run as printed; links and tables are whole."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("envs", "teachers", "students", "experiments")
PAGES = (
    "README.md",
    "GLOSSARY.md",
    "llms.txt",
    "experiments/results/README.md",
    *(f"{folder}/README.md" for folder in FOLDERS),
)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_examples_run(folder: str, tmp_path: Path) -> None:
    """Blocks marked ``python`` are one script; those marked ``py`` need what is not here, a robot say."""
    code = "\n\n".join(re.findall(r"```python\n(.*?)```", read(f"{folder}/README.md"), flags=re.DOTALL))
    assert "class " in code, "a README shows how to add something of one's own"
    script = tmp_path / "example.py"
    script.write_text(code.replace("num_envs=256", "num_envs=4"), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", read(page))
    assert links or page == "GLOSSARY.md"
    for link in links:
        if link.startswith("http"):
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in map(anchor, headings), f"{page} links to {link}"


def test_the_tables_name_everything_that_the_commands_know() -> None:
    from tutelage.students.sb3.config import ALGORITHMS
    from tutelage.teachers import TASK_TEACHERS

    for name in TASK_TEACHERS:
        assert f"| `{name}` |" in read("teachers/README.md")
    for name in ALGORITHMS:
        assert f"`{name}`" in read("students/README.md")
    for room in (path for folder in FOLDERS for path in (ROOT / folder).iterdir() if path.is_dir()):
        if room.name != "__pycache__":
            assert f"`{room.name}/" in read(f"{room.parent.name}/README.md"), f"{room} is in no README"
