"""StumpTracks and HexagonTracks: Box2D walkers over obstacle courses."""

from tutelage.envs.contract.packages import need_package

need_package(
    "Box2D",
    "A Box2D track (StumpTracks, HexagonTracks)",
    "pip install box2d, which has wheels for Python 3.11 to 3.13; stump-walker, over stumps in MuJoCo, does "
    "without it",
)
