"""python -m scheduler_api: the same as the command scheduler-api."""

from scheduler_api.cli.main import main

main(prog_name="scheduler-api")
