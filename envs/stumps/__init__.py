"""StumpTracks and HexagonTracks: Box2D walkers over obstacle courses."""
