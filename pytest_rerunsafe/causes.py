"""What the causes of bad reruns are, found out by trying the same otherwise: without the crash, with a file made whole, alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from .compare.findings import Case, Judge
from .compare.folding import fold
from .explore.damage import Damage, damages
from .explore.scenarios import Trial, at_once, is_first_time
from .model import OF_INTERVALS, CrashKind, Finding, Outcome, Recording, RecoveryKind
from .trials import Ended, Plan, Trials


class Causes:
    """Tells findings from the bad cases of one DAG."""

    def __init__(
        self,
        *,
        judge: Judge,
        reference: Recording,
        trials: Trials,
        has_local: bool,
        without_crash: Callable[[], Sequence[Case]],
        draw: Callable[[], Outcome | None],
    ) -> None:
        self._judge = judge
        self._reference = reference
        self._trials = trials
        self._has_local = has_local
        """Whether workers have files of their own."""
        self._without_crash = without_crash
        """Gives the cases of the check `rerun`."""
        self._draw = draw
        """Gives how a clean run ends that draws the random numbers of reruns; None if it cannot be told."""

    def findings(self, cases: Sequence[Case], trials: Sequence[Trial]) -> tuple[Finding, ...]:
        """What the bad ones of the cases of these trials say, each cause once."""
        blamed = [self.of_crash(case) if case.state is not None and case.is_bad else case for case in cases]
        bad = [case for case in blamed if case.is_bad]
        return fold(
            [
                self._judge.finding(
                    case,
                    _same_day_is_fine(case, cases),
                    is_local=is_local,
                    is_damaged=is_damaged,
                    by_chance=self.by_chance(case),
                )
                for case, is_local, is_damaged in zip(
                    bad, self._are_local(bad, trials), self._are_damaged(bad), strict=True
                )
            ]
        )

    def findings_of_intervals(
        self, judge: Judge, cases: Sequence[Case], trials: Sequence[Trial]
    ) -> tuple[Finding, ...]:
        """The same of several intervals, by their judge."""
        bad = [case for case in cases if case.is_bad]
        # What goes wrong already where nothing dies, or one run is alone, is found there.
        found = [case for case in bad if case.state is None] or self._only_late(bad, trials)
        return fold([judge.finding(case, None, is_order=self._is_order(case)) for case in found])

    def finding(self, judge: Judge, trial: Trial, case: Case) -> Finding:
        """What one bad case says."""
        is_of_reference = judge is self._judge
        return judge.finding(
            case,
            None,
            is_order=self._is_order(case),
            is_local=is_of_reference and self._are_local([case], [trial])[0],
            is_damaged=is_of_reference and self._are_damaged([case])[0],
            by_chance=self.by_chance(case) if is_of_reference else "",
        )

    def of_crash(self, case: Case) -> Case:
        """The case without what the same clear does to other tasks' outputs when nothing has crashed."""
        scenario = case.scenario
        for other in self._without_crash() if scenario.recovery is not RecoveryKind.RETRY else ():
            same = (other.scenario.recovery, other.scenario.task_id or scenario.task_id)
            if same == (scenario.recovery, scenario.task_id):
                return self._judge.without(case, other)
        return case

    def by_chance(self, case: Case) -> str:
        """What differs in a bad case because the rerun drew other random numbers; empty if nothing does."""
        return "" if (drawn := self._draw()) is None else self._judge.by_chance(case, drawn)

    # --- the same otherwise -------------------------------------------------------------------

    def _ended(self, trials: Sequence[Trial], *, same_worker: bool = False) -> list[Ended]:
        """How trials of one run end."""
        if not trials:
            return []
        plan = Plan(trials=tuple(trials), recording=self._reference)
        (ended,) = self._trials.ended([plan], same_worker=same_worker)
        return ended

    def _ends_well(self, trial: Trial, ended: Ended) -> bool:
        if not isinstance(ended, Outcome):
            return False
        return not self._judge.case(trial.scenario, trial.state, ended).is_bad

    def _are_local(self, bad: Sequence[Case], tried: Sequence[Trial]) -> list[bool]:
        """Of each bad case, whether it ends well on the worker that has the local files."""
        if not bad or not self._has_local:
            return [False] * len(bad)
        by_scenario = {trial.scenario: trial for trial in tried}
        trials = [by_scenario[case.scenario] for case in bad]
        ended = self._ended(trials, same_worker=True)
        return [self._ends_well(trial, end) for trial, end in zip(trials, ended, strict=True)]

    def _are_damaged(self, bad: Sequence[Case]) -> list[bool]:
        """Of each bad case, whether it ends well, or at least ends, with what the crash left unfinished made whole."""
        trials = [
            (number, Trial(scenario=case.scenario, state=state, world=state.world))
            for number, case in enumerate(bad)
            if case.state is not None and case.scenario.crash_kind is CrashKind.KILL
            for damage in damages(self._reference, case.state, case.outcome)
            if case.rerun_state != "success" or not _remains(damage, case.outcome)
            for state in damage.whole
        ]
        ended = self._ended([trial for _, trial in trials])
        found = set()
        for (number, trial), outcome in zip(trials, ended, strict=True):
            if isinstance(outcome, Outcome):
                other = self._judge.case(trial.scenario, trial.state, outcome)
                if not other.is_bad or other.rerun_state == "success" != bad[number].rerun_state:
                    found.add(number)
        return [number in found for number in range(len(bad))]

    def _only_late(self, bad: Sequence[Case], tried: Sequence[Trial]) -> list[Case]:
        """Those of recoveries after newer intervals that end well where the run is alone."""
        by_scenario = {trial.scenario: trial for trial in tried}
        alone = [(case, at_once(by_scenario[case.scenario], self._reference)) for case in bad]
        trials = [(case, trial) for case, trial in alone if trial is not None]
        ended = self._ended([trial for _, trial in trials])
        return [case for (case, trial), end in zip(trials, ended, strict=True) if self._ends_well(trial, end)]

    def _is_order(self, case: Case) -> bool:
        """Whether the order is to blame: not for what is bad already where one run alone is cleared."""
        if case.scenario.recovery not in OF_INTERVALS:
            return False
        return case.state is not None or is_first_time(case.scenario) or self._one_rerun_is_fine

    @cached_property
    def _one_rerun_is_fine(self) -> bool:
        clears = (RecoveryKind.CLEAR_RUN, RecoveryKind.CLEAR_RUN_DAY_LATER)
        return not any(case.is_bad for case in self._without_crash() if case.scenario.recovery in clears)


def _same_day_is_fine(case: Case, cases: Sequence[Case]) -> bool | None:
    """Whether the same clear on the same day ended well; None for every other case."""
    if case.scenario.recovery is not RecoveryKind.CLEAR_RUN_DAY_LATER:
        return None
    # Where one clear selects the same tasks as another, only the first was tried: any clear of that state will do.
    same_day = [other for other in cases if other is not case and other.state is case.state]
    clears = [other for other in same_day if other.scenario.recovery is not RecoveryKind.RETRY]
    return not any(other.is_bad for other in clears) if clears else None


def _remains(damage: Damage, outcome: Outcome) -> bool:
    """Whether what the crash left is still there, and more of it at most: then it is an output, and no checkpoint."""
    output = outcome.outputs.get(f"file:{damage.path}")
    if output is None:
        return False
    return output.content.startswith(damage.left) if damage.left else not output.content
