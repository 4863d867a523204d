"""`python -m scheduler_api` runs the command `scheduler-api`."""

from scheduler_api.cli.main import main

main(prog_name="scheduler-api")
