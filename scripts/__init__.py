import stages  # noqa: F401  (puts the library of this repository on the path; Ctrl-C prints no traceback)
