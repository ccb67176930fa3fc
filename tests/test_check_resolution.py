"""What pip is asked for, version by version; pip itself is asked by `make resolve`."""

from check_resolution import requirements

PROJECT = {
    "name": "house",
    "dependencies": ["numpy>=2", "box2d>=2.3; python_version < '3.14'", "zarr[remote]>=3,<4"],
    "optional-dependencies": {
        "bench": ["imageio>=2.14"],
        "dev": ["house[bench]", "ruff; python_version >= '3.14'"],
    },
}


def test_markers_hold_for_the_python_in_question() -> None:
    assert requirements(PROJECT, "3.13", None) == ["numpy>=2", "box2d>=2.3", "zarr[remote]<4,>=3"]
    assert requirements(PROJECT, "3.14", None) == ["numpy>=2", "zarr[remote]<4,>=3"]


def test_extras_of_the_project_are_followed() -> None:
    assert requirements(PROJECT, "3.13", "dev")[3:] == ["imageio>=2.14"]
    assert requirements(PROJECT, "3.14", "dev")[2:] == ["ruff", "imageio>=2.14"]
