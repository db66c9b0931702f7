"""``mana stack up|down|status [--folder F]``: all of the system's servers on this machine, for trying it.

A Ray head, MLflow with its passwords in PostgreSQL, and SeaweedFS as the S3 store; on loopback, with generated
passwords. Not for work: one machine, one disk.
"""

import os

from mana_dist.arguments import Parser
from mana_dist.errors import UserError
from mana_dist.stack import stack, stack_layout


def main(arguments: list[str]) -> None:
    """Do what the command line says, and tell how to go on."""
    options = _parser().parse_args(arguments)
    folder = stack_layout.resolve(options.folder)
    if options.command == "up":
        made = stack.up(folder, options.cpus)
        store = f"s3://{stack_layout.BUCKET} at {made.url('s3')}"
        print(f"up: Ray {made.url('dashboard')}, MLflow {made.url('mlflow')}, {store}")
        print(f"who you are, for this shell: . {made.environment_file}")
        print("then, for example: ray job submit -- mana train --help")
    elif options.command == "down":
        count = stack.down(folder, options.delete)
        print(f"down: {count} processes ended; {'nothing is left' if options.delete else f'its data stay in {folder}'}")
    else:
        servers = stack.status(folder)
        for name, address, is_up in servers:
            print(f"{name:10} {'up':5} {address}" if is_up else f"{name:10} down")
        if not all(is_up for *_, is_up in servers):
            raise UserError(f"the stack in {folder} is not up; `mana stack up` starts it")


def _parser() -> Parser:
    parser = Parser(prog="mana stack", description="Ray, MLflow, PostgreSQL and S3 on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything, with the data of the time before")
    up.add_argument("--cpus", type=int, default=os.cpu_count(), metavar="N", help="CPUs for Ray (default all)")
    down = commands.add_parser("down", help="end everything")
    down.add_argument("--delete", action="store_true", help="and remove its data")
    status = commands.add_parser("status", help="tell what answers")
    for command in (up, down, status):
        command.add_argument("--folder", default=".stack", metavar="F", help="where all of it lies (default .stack)")
    return parser


if __name__ == "__main__":
    from mana_dist.cli import run

    run("stack")
