"""`pystack help`: commands, and what no single command's help has room for."""

from __future__ import annotations

import click

STATES = {
    "pending": "it waits: for a node, for what it depends on, or for its turn",
    "pulling": "its image is on the way",
    "created": "it is made and not started (`create`, or its turn comes)",
    "starting": "the container is being started",
    "running": "the first process runs; with a health check: (starting), (healthy), (unhealthy)",
    "paused": "its processes are frozen (`pause`)",
    "restarting": "it ended and is started again, later each time (`restart:`)",
    "stopping": "it was asked to end and has until `stop_grace_period`",
    "exited": "it ended, and its restart policy leaves it so; the exit code is beside it",
    "failed": "it could not be started, or ended with an error that nothing mends: `pystack logs TASK`",
}
EXIT_STATUSES = {
    "0": "done",
    "1": "failed, or refused: the last line on standard error gives the reason",
    "2": "usage; with `plan --exit-code`: there are changes",
    "130": "interrupted with Ctrl-C; nothing half-applied stays",
    "other": "of `exec` and `run`: the process's own",
}
TOPICS: dict[str, str] = {
    "states": "States of a task, as `pystack ps` shows them:\n\n"
    + "".join(f"  {state:<12} {words}\n" for state, words in STATES.items())
    + "\n`pystack why TASK` explains why a task is on its node, `pystack why-not SERVICE` why there are not more.\n",
    "errors": """\
An error says what failed, where (file:line:column, or node and task), why, and what to do; all mistakes of a file together.
It is the last thing on standard error; `--debug` adds a traceback. Exit statuses:

"""
    + "".join(f"  {code:<6} {words}\n" for code, words in EXIT_STATUSES.items())
    + """
What is often met:

  no pystack server answers      nobody listens there: `pystack up` starts one; PYSTACK_HOST names another
  no permission to use …         you are neither root nor in the socket's group
  … is not installed             `pystack doctor --host` lists all that is missing, with packages
  does not answer over SSH       try `ssh HOST true`; the reason is ssh's own
  the host key … changed         another machine may answer: `pystack node rm` it and add it again, if it was reinstalled
  the state moved since          a saved plan is of an older state: plan again
  does not fit                   no node takes the task: each one's reasons follow
  another server leads           of several servers this one waits: PYSTACK_HOST may name all of them
""",
    "formats": """\
--format chooses how rows are shown:

  table            columns for people; cut to the width of a terminal, whole in a pipe
  json             one JSON array with stable keys; streams: one object a line
  TEMPLATE         each row as a template of Go's language words it: '{{.task}} on {{.node}}'
  table TEMPLATE   the same in columns under heads: 'table {{.task}}\\t{{.state}}'

Names are those of the JSON, as it has them or as Go does: .node_name, .NodeName. Functions: json, join, split, lower, upper,
title, pad, truncate, println, printf, index, len, eq, ne, and, or, not; {{if}}, {{range}} and {{with}} … {{else}} … {{end}}.

  pystack ps --format '{{.task}}: {{upper .state}}'
  pystack ps --format '{{json .}}'
  pystack node ls --format 'table {{.name}}\\t{{.state}}'

NO_COLOR or --ansi never: no colours; without a terminal there are none. --progress plain|json|quiet: for scripts.
""",
}


@click.command("help")
@click.argument("words", nargs=-1, metavar="[TOPIC | COMMAND…]")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Help on a command, or on a topic: states, errors, formats."""
    if len(words) == 1 and words[0] in TOPICS:
        return click.echo(TOPICS[words[0]], nl=False)
    found = context.parent
    assert found is not None
    for word in words:
        group = found.command
        command = group.get_command(found, word) if isinstance(group, click.Group) else None
        if command is None:
            raise click.UsageError(f"no command or topic {' '.join(words)}; topics: {', '.join(TOPICS)}")
        found = click.Context(command, parent=found, info_name=word)
    click.echo(found.get_help())
    if not words:
        click.echo(f"\nTopics: pystack help {' | '.join(TOPICS)}")
