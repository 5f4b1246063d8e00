import stages  # noqa: F401  (puts the library beside dvc.yaml on the path, and arms signals)
