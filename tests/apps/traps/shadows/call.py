NAME = "own call"
