"""`python -m ddpm` is the command `ddpm`."""

from ddpm.cli.main import main

main()
