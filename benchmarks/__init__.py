import stages  # noqa: F401  (puts the repository's library on the path, and arms signals)
