"""Decide which pins move: those whose checks pass with the new bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks import doit_adapter
from tasks.catalogue import load, lockfile, schema
from tasks.catalogue.lockfile import LockFile
from tasks.catalogue.types import Catalogue
from tasks.context import Context
from tasks.errors import RecipeError
from tasks.upgrade import trial
from tasks.upgrade.moves import Move, moves, usable, with_rows
from tasks.upgrade.trial import Steps, Subject, Trial

_FALLBACK = "demo"  # the model that tries an engine which serves no locked model


class Pair(NamedTuple):
    """A model with the old and with the new bytes."""

    subject: Subject
    old: Trial
    new: Trial


class Decision(NamedTuple):
    """What becomes of one move, and why."""

    move: Move
    kept: str  # why it is kept back; empty if it moves
    pairs: tuple[Pair, ...] = ()


class Gate:
    """One run of `doit lock --upgrade --checked`."""

    def __init__(
        self, context: Context, plain: Mapping[str, Any], steps: Steps
    ) -> None:
        """Take the result of `schema.read_catalogue`, and what readies a model."""
        self._context = context
        self._plain = plain
        self._steps = steps
        self.decisions: list[Decision] = []

    def accepted(self, old: LockFile, new: LockFile) -> LockFile:
        """Return the new lock with the old rows of what is kept back.

        Each move is tried with those that were accepted before it, engines first.

        Raises:
            RecipeError: an entry is kept back whose old pin contradicts models.yaml.
            SystemExit: a signal came (128 + signal).
        """
        pending = moves(old, new)
        base = new  # with what is locked for the first time
        for move in pending:
            base = with_rows(base, move.table, move.name, move.old)
        for move in pending:
            candidate = with_rows(base, move.table, move.name, move.new)
            decision = self._decide(move, base, candidate)
            self.decisions.append(decision)
            if not decision.kept:
                base = candidate
                continue
            if move.name in lockfile.contradicted(self._plain, base):
                raise _contradicted(decision)
            text = "%s is kept back: %s"
            doit_adapter.log().warning(text, move.title, decision.kept)
        return base

    def _decide(self, move: Move, base: LockFile, candidate: LockFile) -> Decision:
        """Try one move.

        Args:
            base: the lock without it.
            candidate: the lock with it.

        Raises:
            SystemExit: a signal came (128 + signal).
        """
        before = self._catalogue(usable(base, self._plain))
        after = self._catalogue(usable(candidate, self._plain))
        if move.table == "engines":
            subjects = self._served_by(move.name, after, candidate)
            reason = "no model that it serves has checks"
        else:
            subjects = self._variants(move.name, before, after)
            reason = "it has no checks"
        if not subjects:
            return Decision(move, reason)
        pairs = []
        for subject in subjects:
            doit_adapter.log().info("%s: checking %s", move.title, subject.title)
            found = trial.run(self._context, after, subject, self._steps)
            known = trial.run(self._context, before, subject, self._steps)
            pairs.append(Pair(subject, known, found))
        kept = "; ".join(
            f"{pair.subject.title}: {pair.new.problem}"
            for pair in pairs
            if pair.new.problem
        )
        return Decision(move, kept, tuple(pairs))

    def _catalogue(self, lock: LockFile) -> Catalogue:
        """Return the catalogue with the pins of a lock."""
        where = self._context.catalogue.where
        text = load.decode_yaml(load.read(where), where)
        return Catalogue(schema.compile_catalogue(text, where, lock), where)

    def _variants(
        self, name: str, before: Catalogue, after: Catalogue
    ) -> list[Subject]:
        """Return a model with checks, for each variant whose files differ."""
        if not after.model(name).checks:
            return []
        subjects = [Subject(name, one) for one in after.variants(name) or ("",)]
        moved = [
            one
            for one in subjects
            if self._digests(before, one) != self._digests(after, one)
        ]
        return moved or subjects

    def _digests(self, catalogue: Catalogue, subject: Subject) -> list[str | None]:
        """Return the digests of a model's files; none if it cannot be resolved."""
        try:
            own = trial.context_for(self._context, catalogue, subject)
        except RecipeError:
            return []
        return [file.sha256 for file in trial.job_of(own).files]

    def _served_by(
        self, engine: str, catalogue: Catalogue, lock: LockFile
    ) -> list[Subject]:
        """Return the locked models with checks that an engine serves, else the demo."""
        found = []
        for name in catalogue.names:
            if name not in lock.models or not catalogue.model(name).checks:
                continue
            try:
                own = trial.context_for(self._context, catalogue, Subject(name))
            except RecipeError:  # it is for another system, or needs a variant's name
                continue
            job = trial.job_of(own)
            if job.engine == engine:
                found.append(Subject(name, job.variant))
        names = catalogue.names
        if not found and _FALLBACK in names and catalogue.model(_FALLBACK).checks:
            return [Subject(_FALLBACK, engine=engine)]
        return found


def _contradicted(decision: Decision) -> RecipeError:
    """Return the error for an entry that can neither move nor stay."""
    move = decision.move
    what = f"{move.title} cannot move, and models.yaml contradicts its old pin"
    facts = [("why", decision.kept)]
    fix = f"edit {move.table}.{move.name} in models.yaml"
    return RecipeError(f"nothing was written: {what}", facts, fix=fix)
