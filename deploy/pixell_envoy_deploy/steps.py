"""Steps: what a command changes. Each is shown before it is done, and a failed one says what is done, what is not, and the ways on and back."""

from collections.abc import Callable, Iterable

from .aws import Doc
from .say import say

# A change is the lines that plan shows (details begin with a space) and the call that makes them true, so that apply does exactly what
# was shown. A step is a name and a function that returns its changes, which is called when the step runs.
Changes = Iterable[tuple[list[str], Callable[[], object]]]
Step = tuple[str, Callable[[], Changes]]


def difference(name: str, present: Doc, wanted: Doc) -> list[str]:
    return [f"{name}.{key}: {present.get(key, '(none)')} -> {value}" for key, value in wanted.items() if present.get(key) != value]


def show(steps: list[Step]) -> bool:
    """Prints every change. True if there is one."""
    found = [f"    {line}" if line.startswith(" ") else f"  {name}: {line}" for name, changes in steps for lines, _ in changes() for line in lines]
    say("", "CHANGES", *(found or ["  nothing"]))
    return bool(found)


def run(forget: Callable[[], None], steps: list[Step], hold: Callable[[], None], go_on: str, go_back: str) -> None:
    """Performs every step, each by what is there when it begins: others may have changed it at the prompt or during an earlier step. If one
    fails, prints what is done, what is not, how to continue and how to go back."""
    for number, (name, changes) in enumerate(steps):
        try:
            hold()
            forget()
            wanted = list(changes())
            say(f"{name}:" + " as wanted" * (not wanted))
            for lines, act in wanted:
                say(*(f"  {line}" for line in lines if not line.startswith(" ")))
                act()
                forget()
        except (Exception, KeyboardInterrupt):
            done, left = (", ".join(each for each, _ in some) or "nothing" for some in (steps[:number], steps[number + 1 :]))
            say("", f"STOPPED at: {name}", f"  done:     {done}", f"  not done: {left}", f"  continue: {go_on}", f"  go back:  {go_back}")
            raise
