"""Make doit's tasks for one command line from the creators of dodo.py.

Only tasks that the command line reaches are made: a catalogue of 10,000 entries stays
fast. A group such as `download` depends on the models that were asked for; doit's own
groups would depend on the whole catalogue.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.task import Task

from tasks import command_line, context, doit_adapter, doit_reporter, endpoint_tasks
from tasks.catalogue.endpoints import all_jobs
from tasks.catalogue.engine_release import pinned_programs
from tasks.command_line import Kind, TaskRequest, UnknownWordError, Verb
from tasks.console import formatting
from tasks.console.program import as_typed, set_program
from tasks.context import Context
from tasks.options import Option

if TYPE_CHECKING:
    from tasks.planning import preflight

TaskDict = dict[str, Any]
# (context, model, program or request) → task
Creator = Callable[[Any, Any], TaskDict]
DoitCreator = Callable[[], Iterator[Task]]
Decorator = Callable[[Creator], DoitCreator]
Expand = Callable[[str, Creator], Iterator[Task]]
# (purpose, usage, options) of one of doit's own commands
Command = tuple[str, str, Sequence[Option]]


class Recipe:
    """The verbs of dodo.py, and the tasks that one command line needs of them."""

    def __init__(self, default: str) -> None:
        """Take the verb that a `doit` without arguments means."""
        self.verbs: dict[str, Verb] = {}
        self._default = default
        self._is_checked = False  # what this command line needs
        self._creators: list[tuple[str, Expand, Creator]] = []
        self._typed = "doit"
        self._plain_doit = True  # doit parses the command line, too (docs/adr/0015)

    def doit_config(self) -> dict[str, Any]:
        """Return DOIT_CONFIG."""
        return {
            "default_tasks": [self._default],
            "reporter": doit_reporter.reporter(os.environ),
            # not used: what is on disk is the truth, see docs/adr/0001
            "backend": "sqlite3",
            "dep_file": ":memory:",
            "verbosity": 2,
        }

    @property
    def typed(self) -> str:
        """The command that the user typed; llamafile_recipe.py sets it."""
        return self._typed

    @typed.setter
    def typed(self, name: str) -> None:
        self._typed = name
        set_program(name, (*self.verbs, *command_line.DOIT_COMMANDS))

    def task_names(self, argv: Sequence[str]) -> list[str]:
        """Return the tasks that a command line asks for; doit needs no more of it."""
        self._plain_doit = False

        def names() -> list[str]:
            try:
                asked = command_line.parse(argv, self.verbs).tasks
            except UnknownWordError as error:
                raise context.word_error(error) from None
            return [request.task_name for request in asked]

        return list(doit_adapter.as_load_error(names))

    def help(
        self, words: Sequence[str], commands: Mapping[str, Command], program: str
    ) -> str:
        """Return the text of `doit help WORDS`.

        Args:
            commands: doit's own ones.
            program: the name of the command that was typed.
        """
        from tasks.verbs import help_text

        table = help_text.Table(self.verbs, commands, program)
        return str(doit_adapter.as_load_error(lambda: help_text.page(words, table)))

    def step(self, params: Sequence[Option]) -> Decorator:
        """Register a step of the chain: the creator is called for each model."""
        return self._register(Kind.STEP, params, "", self._model_tasks)

    def endpoint(self, params: Sequence[Option]) -> Decorator:
        """Register a step of endpoints: the creator is called for each."""
        return self._register(Kind.STEP, params, "", self._preset_tasks)

    def server(self, params: Sequence[Option], pos_arg: str) -> Decorator:
        """Register a verb that starts an engine: the creator is called for each model.

        `check` in its dictionary is an action that runs before anything is downloaded.
        """
        return self._register(Kind.SERVER, params, pos_arg, self._server_tasks)

    def program(self, params: Sequence[Option]) -> Decorator:
        """Register the step that installs the engine's program."""
        return self._register(Kind.PROGRAM, params, "", self._program_tasks)

    def plan(self, params: Sequence[Option]) -> Decorator:
        """Register a report on models: it takes the options of the verbs that serve."""
        return self._register(Kind.PLAN, params, "", self._report_tasks)

    def report(self, params: Sequence[Option], pos_arg: str = "") -> Decorator:
        """Register a report: the creator is called for each request."""
        return self._register(Kind.REPORT, params, pos_arg, self._report_tasks)

    def files(self, params: Sequence[Option], names: Sequence[str]) -> Decorator:
        """Register a verb that writes files, which also exists as `VERB:NAME`.

        The creator is called once, with all requests; it returns a dictionary for each
        name, or for "", the verb itself, if that has actions of its own.
        """
        return self._register(Kind.REPORT, params, "", self._file_tasks, names)

    def _register(
        self,
        kind: Kind,
        params: Sequence[Option],
        pos_arg: str,
        expand: Expand,
        names: Sequence[str] = (),
    ) -> Decorator:
        def decorate(creator: Creator) -> DoitCreator:
            verb = creator.__name__.removeprefix("task_").replace("_", "-")
            about = (creator.__doc__ or doit_adapter.docstring(creator)).strip()
            self.verbs[verb] = Verb(kind, about, params, pos_arg, names)
            self._creators.append((verb, expand, creator))

            @functools.wraps(creator)
            def create() -> Iterator[Task]:
                def tasks() -> list[Task]:
                    return list(expand(verb, creator))

                yield from doit_adapter.as_load_error(tasks)

            return create

        return decorate

    def load_tasks(self) -> list[Task]:
        """Return the tasks of the command line, as doit gets them from the creators."""
        return list(doit_adapter.as_load_error(lambda: list(self.tasks(self._context))))

    def tasks(self, context: Context) -> Iterator[Task]:
        """Make the tasks of one command line, in the order of dodo.py."""
        self._context = context
        for verb, expand, creator in self._creators:
            yield from expand(verb, creator)

    @functools.cached_property
    def _context(self) -> Context:
        """Read the command line and the catalogue, once for all creators."""
        return context.read(self.verbs, plain_doit=self._plain_doit)

    def _model_tasks(self, verb: str, creator: Creator) -> Iterator[Task]:
        """Make `verb`, and `verb:MODEL` for each model that is reached."""
        reached = self._is_reached(verb)
        yield self._model_group(verb, reached)
        if not reached:
            return
        owners: dict[str, str] = {}
        for name, resolved in self._context.resolution.by_name.items():
            fields: TaskDict = {
                "doc": formatting.task_line(resolved.model.title, resolved.model.size)
            }
            fields |= creator(self._context, resolved)
            if verb == "download":
                fields = self._planned(
                    doit_adapter.unshared(f"{verb}:{name}", fields, owners)
                )
            yield self._sub_task(verb, name, fields)
        for endpoint in self._context.endpoints.values():
            fields = endpoint_tasks.fields(
                verb, self.verbs[verb].kind, creator, self._context, endpoint
            )
            yield self._sub_task(verb, endpoint.name, fields)
        for alias, name in self._context.resolution.aliases.items():
            yield self._alias(verb, alias, name)

    def _preset_tasks(self, verb: str, creator: Creator) -> Iterator[Task]:
        """Make `verb`, and `verb:ENDPOINT` for each endpoint."""
        reached = self._is_reached(verb)
        yield self._model_group(verb, reached)
        for name, endpoint in self._context.endpoints.items() if reached else ():
            fields = creator(self._context, endpoint)
            yield self._sub_task(verb, name, {"doc": endpoint.title, **fields})

    def _server_tasks(self, verb: str, creator: Creator) -> Iterator[Task]:
        """Make the tasks of a verb that starts an engine, each with its check."""
        if self._context.server and self._last_verb() == verb:
            yield from self._attached_tasks(verb, creator)
            return
        checks: list[Task] = []

        def with_check(context: Context, job: Any) -> TaskDict:
            fields = creator(context, job)
            name = f"_check_{verb}:{job.name}"
            actions = [
                (self._refuse_plan, []),
                fields.pop("check"),
                (self._check_plan, []),
            ]
            checks.append(doit_adapter.action_task(name, {"actions": actions}))
            return {**fields, "task_dep": [name, *fields["task_dep"]]}

        yield from self._model_tasks(verb, with_check)
        yield from checks

    def _attached_tasks(self, verb: str, creator: Creator) -> Iterator[Task]:
        """Make the task that uses a server which is already running."""
        request = self._context.command_line.tasks[-1]
        fields = {**creator(self._context, None), "meta": {"report": True}}
        if request.model:
            yield self._group(verb, [])
            yield self._sub_task(verb, request.model, fields)
        else:
            yield self._task(verb, fields)

    def _program_tasks(self, verb: str, creator: Creator) -> Iterator[Task]:
        """Make the engines' task, if the command line reaches it.

        A catalogue in which no model needs a program need not say where it is.
        """
        jobs = all_jobs(self._context.resolution, self._context.endpoints)
        programs = [resolved.exe for resolved in jobs if resolved.exe]
        if next(self._requests(verb), None):
            programs += pinned_programs(
                self._context.catalogue, self._context.environment
            )
        if programs:
            fields = creator(self._context, tuple(dict.fromkeys(programs)))
            yield self._task(verb, self._planned(fields))
        else:
            yield self._group(verb, [])

    def _planned(self, fields: TaskDict) -> TaskDict:
        """Return a task that downloads, with the check of the whole command before."""
        return {**fields, "actions": [(self._check_plan, []), *fields["actions"]]}

    @functools.cached_property
    def _needs(self) -> preflight.Needs:
        """What the command line needs; refuse what cannot work, once per run."""
        from tasks.planning import preflight

        return preflight.refuse(self._context.planned_command())

    def _refuse_plan(self) -> None:
        """Refuse what cannot work."""
        _ = self._needs

    def _check_plan(self) -> None:
        """Refuse what cannot work, and ask before a large download; once per run."""
        from tasks.planning import preflight

        if not self._is_checked:
            preflight.ask(self._context.planned_command(), self._needs)
        self._is_checked = True

    def _report_tasks(self, verb: str, creator: Creator) -> Iterator[Task]:
        """Make `verb` and each `verb:MODEL`, as far as they are asked for."""
        requests = {request.model: request for request in self._requests(verb)}
        plain = requests.pop(None, None)
        if plain is None:
            yield self._group(verb, [])
        else:
            fields = creator(self._context, plain)
            yield self._task(verb, {**fields, "meta": {"report": True}})
        for model, request in requests.items():
            fields = creator(self._context, request)
            yield self._sub_task(verb, str(model), {**fields, "meta": {"report": True}})

    def _file_tasks(self, verb: str, creator: Creator) -> Iterator[Task]:
        """Make `verb` and each `verb:NAME`, as far as they are asked for."""
        requests = tuple(self._requests(verb))
        tasks: dict[str, TaskDict] = {}
        if requests:
            tasks = creator(self._context, requests)
        own = tasks.pop("", None)
        if own is None:
            yield self._group(verb, [f"{verb}:{name}" for name in tasks])
        else:
            yield self._task(verb, {**own, "meta": {"report": True}})
        for name, fields in tasks.items():
            yield self._sub_task(verb, name, fields)

    def _requests(self, verb: str) -> Iterator[TaskRequest]:
        """Yield what the command line asks of a verb; doit's commands name tasks."""
        args = self._context.command_line
        kind = self.verbs[verb].kind
        yield from (request for request in args.tasks if request.verb == verb)
        for word in args.words:
            if word == verb:
                yield TaskRequest(verb, None, {}, kind=kind)
            elif word.startswith(f"{verb}:"):
                yield TaskRequest(verb, word.removeprefix(f"{verb}:"), {}, kind=kind)
        if verb == self._default and not (args.tasks or args.command):
            yield TaskRequest(verb, None, {}, kind=kind)

    def _is_reached(self, verb: str) -> bool:
        """Whether the tasks `verb:MODEL` have to exist."""
        args = self._context.command_line
        if args.command == "list":
            return self._is_listed(verb)
        asked = {request.verb for request in args.tasks}
        return bool(args.command or asked & self._dependents(verb))

    def _is_listed(self, verb: str) -> bool:
        """Whether `doit list` lists models below a verb: one line per model."""
        words = self._context.command_line.words
        named = [word for word in words if word.partition(":")[0] in self.verbs]
        return verb in (named or ["serve"]) or any(":" in word for word in named)

    def _dependents(self, verb: str) -> set[str]:
        """Return the verb and those whose tasks depend on its tasks."""
        if self.verbs[verb].kind is Kind.SERVER:
            return {verb}
        kinds = (Kind.STEP, Kind.SERVER)
        chain = [name for name, entry in self.verbs.items() if entry.kind in kinds]
        return set(chain[chain.index(verb) :])

    def _model_group(self, verb: str, reached: bool) -> Task:
        """Make the task `verb`, which depends on the models that it was asked for."""
        resolution = self._context.resolution
        names: Sequence[str] = resolution.of(verb)
        if reached and self._context.command_line.command == "list":
            # `doit list --all VERB` lists what it depends on
            names = [*resolution.by_name, *self._context.endpoints]
        return self._group(verb, [f"{verb}:{name}" for name in names])

    def _task(self, verb: str, fields: Mapping[str, Any]) -> Task:
        about = {"doc": self.verbs[verb].help, "params": self.verbs[verb].params}
        return doit_adapter.action_task(
            verb, {**about, "pos_arg": self._pos_arg(verb), **fields}
        )

    def _sub_task(self, verb: str, name: str, fields: Mapping[str, Any]) -> Task:
        about = {
            "params": self.verbs[verb].model_params,
            "pos_arg": self._pos_arg(verb),
        }
        task = doit_adapter.action_task(f"{verb}:{name}", {**about, **fields})
        task.subtask_of = verb
        return task

    def _group(self, verb: str, names: Sequence[str]) -> Task:
        entry = self.verbs[verb]
        about = {"doc": as_typed(entry.help), "params": entry.params}
        return doit_adapter.group_task(
            verb, names, **about, pos_arg=self._pos_arg(verb)
        )

    def _alias(self, verb: str, alias: str, name: str) -> Task:
        """Make the task `verb:ALIAS`, which depends on the model's own task."""
        task = doit_adapter.group_task(
            f"{verb}:{alias}",
            [f"{verb}:{name}"],
            params=self.verbs[verb].model_params,
            pos_arg=self._pos_arg(verb),
        )
        task.subtask_of = verb
        return task

    def _pos_arg(self, verb: str) -> str | None:
        """Return the name of what follows the verb: only the last verb takes it."""
        if self._last_verb() != verb:
            return None
        return self.verbs[verb].pos_arg or None

    def _last_verb(self) -> str:
        requests = self._context.command_line.tasks
        if not requests:
            return ""
        return requests[-1].verb
