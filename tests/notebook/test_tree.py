"""The turns of one conversation, whatever order cells run in."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbllm.core import Message
from nbllm.errors import InvalidRequestError
from nbllm.notebook.tree import Tree, Turn


def run(tree: Tree, cell: str | None, execution: int, question: str | None = None) -> Turn:
    """What a cell does: find its place, ask, be answered."""
    parent = tree.place(cell, execution)
    text = question or f"{cell}{execution}"
    return tree.add(
        Message("user", text), Message("assistant", text.lower()), parent=parent, cell=cell, execution=execution
    )


def said(tree: Tree, parent: Turn | None) -> list[str]:
    return [message.content for message in tree.messages(parent)]


def path(tree: Tree) -> list[str]:
    return [turn.question.content for turn in tree.path()]


def test_cells_follow_each_other() -> None:
    tree = Tree("chat-1", "Be brief.")
    run(tree, "A", 1)
    last = run(tree, "B", 2)
    assert tree.head is last
    assert said(tree, last) == ["Be brief.", "A1", "a1", "B2", "b2"]
    assert [turn.number for turn in tree.turns] == [1, 2]
    assert said(tree, None) == ["Be brief."]


def test_cell_that_runs_again_continues_from_what_stood_before_it() -> None:
    tree = Tree("chat-1")
    first, second, third = (run(tree, cell, number) for number, cell in enumerate("ABC", 1))
    again = run(tree, "B", 4)
    assert again.parent is first
    assert path(tree) == ["A1", "B4"]
    assert [tree.is_stale(turn) for turn in (first, second, third, again)] == [False, True, True, False]
    assert len(tree.turns) == 4


def test_stale_cell_that_runs_again_follows_the_head() -> None:
    tree = Tree("chat-1")
    for number, cell in enumerate("ABC", 1):
        run(tree, cell, number)
    run(tree, "A", 4)
    run(tree, "C", 5)
    assert path(tree) == ["A4", "C5"]


def test_asks_of_one_run_follow_each_other() -> None:
    tree = Tree("chat-1")
    for question in "abc":
        run(tree, "A", 1, question)
    assert path(tree) == ["a", "b", "c"]
    for question in "de":
        run(tree, "A", 2, question)
    assert path(tree) == ["d", "e"]


def test_without_cell_ids_the_conversation_is_linear() -> None:
    tree = Tree("chat-1")
    for execution in (1, 2, 1):
        run(tree, None, execution)
    assert path(tree) == ["None1", "None2", "None1"]


def test_to_find_a_place_changes_nothing() -> None:
    tree = Tree("chat-1")
    head = run(tree, "A", 1)
    tree.place("A", 2)
    assert tree.head is head
    assert tree.turns == (head,)


def test_two_answers_to_the_same_place_both_stay() -> None:
    tree = Tree("chat-1")
    parent = run(tree, "A", 1)
    places = [tree.place(cell, execution) for cell, execution in (("B", 2), ("C", 3))]
    turns = [tree.add(Message("user", "?"), Message("assistant", "!"), parent=place) for place in places]
    assert [turn.parent for turn in turns] == [parent, parent]
    assert tree.path() == [parent, turns[1]]


def test_undo_steps_back_and_keeps_the_turn() -> None:
    tree = Tree("chat-1")
    first, second = run(tree, "A", 1), run(tree, "B", 2)
    assert tree.undo() is second
    assert tree.head is first
    assert tree.is_stale(second)
    assert tree.undo() is first
    with pytest.raises(InvalidRequestError, match="nothing to undo in the conversation 'chat-1'"):
        tree.undo()
    assert tree.turns == (first, second)


def test_longer_answer_takes_the_place_of_the_last() -> None:
    tree = Tree("chat-1")
    first = run(tree, "A", 1)
    cut = tree.add(
        Message("user", "count"),
        Message("assistant", "1, 2"),
        parent=first,
        cell="B",
        execution=2,
        finish_reason="interrupted",
        model="toy",
    )
    longer = tree.replace_last(Message("assistant", "1, 2, 3"))
    assert (longer.parent, longer.question, longer.cell, longer.execution) == (first, cut.question, "B", 2)
    assert (longer.finish_reason, longer.model) == ("stop", "toy")
    assert tree.path() == [first, longer]
    assert tree.is_stale(cut)
    assert tree.place("B", 3) is first


def test_longer_answer_keeps_what_followed() -> None:
    rest = [Message("user", "a"), Message("assistant", "b"), Message("tool", "c")]
    tree = Tree.of_messages("old", rest)
    longer = tree.replace_last(Message("assistant", "b, b"))
    assert said(tree, longer) == ["a", "b, b", "c"]


def test_nothing_to_continue() -> None:
    with pytest.raises(InvalidRequestError, match="no answer to continue"):
        Tree("chat-1").replace_last(Message("assistant", "more"))


def test_parent_of_another_tree_is_refused() -> None:
    stranger = run(Tree("other"), "A", 1)
    tree = Tree("chat-1")
    for _ in range(2):
        with pytest.raises(ValueError, match="another tree"):
            tree.add(Message("user", "?"), Message("assistant", "!"), parent=stranger)
        run(tree, "A", 1)


@pytest.mark.parametrize("system", [None, ""], ids=["none", "empty"])
def test_no_system_message(system: str | None) -> None:
    tree = Tree("chat-1", system)
    assert tree.system is None
    assert tree.messages(None) == []


def test_new_beginning_leaves_the_old_branches_as_they_were() -> None:
    tree = Tree("bob", "Be brief.")
    old = run(tree, "A", 1)
    draft = tree.restarted("Be loud.")
    assert (tree.head, tree.system) == (old, "Be brief.")
    assert said(draft, None) == ["Be loud."]
    tree.restart(draft)
    assert (tree.head, tree.system) == (None, "Be loud.")
    new = run(tree, "B", 2)
    assert said(tree, new) == ["Be loud.", "B2", "b2"]
    assert said(tree, old) == ["Be brief.", "A1", "a1"]
    late = tree.add(Message("user", "late"), Message("assistant", "ok"), parent=old)
    assert said(tree, late) == ["Be brief.", "A1", "a1", "late", "ok"]
    assert tree.restarted().system == "Be loud."
    assert tree.restarted("").system is None


def test_messages_that_are_no_turns_keep_their_places() -> None:
    roles = ["system", "developer", "assistant", "user", "user", "assistant", "system"]
    roles += ["user", "assistant", "assistant", "tool", "user"]
    messages = [Message(role, str(number)) for number, role in enumerate(roles)]  # type: ignore[arg-type]
    tree = Tree.of_messages("old", messages)
    assert [(turn.question.content, turn.answer.content) for turn in tree.turns] == [("4", "5"), ("7", "8")]
    assert tree.system == "0"
    assert tree.messages(tree.head) == messages
    tree.undo()
    assert tree.messages(tree.head) == messages[:7]


@pytest.mark.parametrize("roles", ["", "user", "system system", "assistant"])
def test_messages_without_a_turn(roles: str) -> None:
    messages = [Message(role, "x") for role in roles.split()]  # type: ignore[arg-type]
    tree = Tree.of_messages("old", messages)
    assert (tree.head, tree.turns) == (None, ())
    assert tree.messages(None) == messages


@pytest.mark.parametrize("role", ["developer", "user"])
def test_only_a_system_message_is_the_system_message(role: str) -> None:
    assert Tree.of_messages("old", [Message(role, "x")]).system is None  # type: ignore[arg-type]


def test_long_conversations_are_no_deep_recursion() -> None:
    tree = Tree("chat-1")
    for execution in range(3000):
        run(tree, None, execution)
    assert len(tree.path()) == 3000
    assert len(repr(tree.head)) < 1000


# ---- branches


def test_siblings_follow_the_same_turn() -> None:
    tree = Tree("chat-1")
    first, second = run(tree, "A", 1), run(tree, "B", 2)
    again = run(tree, "B", 3)
    assert tree.siblings(second) == tree.siblings(again) == (second, again)
    assert tree.siblings(first) == (first,)
    root = run(tree, "A", 4)
    assert tree.siblings(root) == (first, root)


def test_goto_goes_on_from_the_newest_turn_below() -> None:
    tree = Tree("chat-1")
    first, old = run(tree, "A", 1), run(tree, "B", 2)
    last_of_old = run(tree, "C", 3)
    new = run(tree, "B", 4)
    assert tree.goto(old) is tree.head is last_of_old
    assert tree.goto(first) is tree.head is new
    assert tree.goto(last_of_old) is last_of_old
    assert tree.goto(first, exactly=True) is tree.head is first
    assert len(tree.turns) == 4


def test_goto_refuses_the_turn_of_another_tree() -> None:
    tree, other = Tree("chat-1"), Tree("chat-2")
    run(tree, "A", 1)
    foreign = [run(other, "A", 1), run(other, "B", 2)]
    for turn in foreign:
        with pytest.raises(ValueError, match="another tree"):
            tree.goto(turn)


def test_changed_beginning_is_sent_from_its_turn_on() -> None:
    tree = Tree("chat-1", "Be brief.")
    first = run(tree, "A", 1)
    beginning = [Message("system", "Be loud.")]
    assert [message.content for message in tree.messages(first, beginning)] == ["Be loud.", "A1", "a1"]
    assert tree.messages(None, ()) == []
    loud = tree.add(Message("user", "B"), Message("assistant", "b"), parent=first, beginning=beginning)
    assert said(tree, run(tree, "C", 2)) == ["Be loud.", "A1", "a1", "B", "b", "C2", "c2"]
    assert said(tree, first) == ["Be brief.", "A1", "a1"]
    assert tree.replace_last(Message("assistant", "bb"), turn=loud).beginning == (beginning[0],)
    assert tree.system == "Be brief."


# ---- watching


def test_watchers_are_told_of_every_change_outside_of_the_lock() -> None:
    tree = Tree("chat-1")
    told: list[Turn | None] = []

    def tell() -> None:
        def look() -> None:
            with tree.changing():  # where the lock is held, this waits for ever
                told.append(tree.head)

        other = threading.Thread(target=look, daemon=True)
        other.start()
        other.join(20)

    unwatch = tree.watch(tell)
    first = run(tree, "A", 1)
    second = run(tree, "B", 2)
    longer = tree.replace_last(Message("assistant", "longer"))
    tree.undo()
    tree.goto(second)
    tree.restart(tree.restarted())
    tree.tell()
    assert told == [first, second, longer, first, second, None, None]
    unwatch()
    unwatch()
    run(tree, "A", 3)
    assert len(told) == 7


def test_refused_change_tells_nobody() -> None:
    tree = Tree("chat-1")
    told: list[int] = []
    tree.watch(lambda: told.append(1))
    with pytest.raises(InvalidRequestError):
        tree.undo()
    with pytest.raises(InvalidRequestError):
        tree.replace_last(Message("assistant", "x"))
    assert told == []


def test_changes_made_together_are_told_once_also_when_they_end_in_an_error() -> None:
    tree = Tree("chat-1")
    told: list[int] = []
    tree.watch(lambda: told.append(len(tree.turns)))
    with tree.changing():
        run(tree, "A", 1)
        run(tree, "B", 2)
        assert told == []
    with pytest.raises(ValueError, match="another tree"), tree.changing():
        _add_and_fail(tree)
    assert told == [2, 3]


def _add_and_fail(tree: Tree) -> None:
    tree.goto(run(Tree("other"), "A", run(tree, "C", 3).number))


def test_watcher_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    tree = Tree("chat-1")
    told: list[int] = []
    tree.watch(lambda: told.append(1 // 0))
    tree.watch(lambda: told.append(2))
    assert run(tree, "A", 1) is tree.head
    assert told == [2]
    assert "a watcher of the conversation 'chat-1' failed" in caplog.text


class _Cells(RuleBasedStateMachine):
    """Cells in any order, again and again, with steps back in between."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Tree("chat-1", "Be brief.")
        self.execution = 0
        self.made: list[Turn] = []

    @rule(cell=st.sampled_from([*"ABCDE", None]), asks=st.integers(1, 3), fails=st.booleans())
    def run_cell(self, cell: str | None, asks: int, fails: bool) -> None:
        self.execution += 1
        for _ in range(asks):
            before = (self.tree.head, self.tree.turns)
            parent = self.tree.place(cell, self.execution)
            sent = self.tree.messages(parent)
            assert sent[0].content == "Be brief."
            if cell is None:
                assert parent is self.tree.head
            else:
                runs = {message.name for message in sent if message.content == cell}
                assert runs <= {str(self.execution)}
            if fails:
                assert (self.tree.head, self.tree.turns) == before
                continue
            question = Message("user", str(cell), name=str(self.execution))
            turn = self.tree.add(
                question, Message("assistant", "ok"), parent=parent, cell=cell, execution=self.execution
            )
            assert turn.parent is parent
            assert self.tree.head is turn
            self.made.append(turn)

    @precondition(lambda self: self.tree.head)
    @rule()
    def undo(self) -> None:
        head = self.tree.head
        assert self.tree.undo() is head

    @precondition(lambda self: self.tree.head)
    @rule()
    def go_on(self) -> None:
        self.made.append(self.tree.replace_last(Message("assistant", "ok, and more")))

    @precondition(lambda self: self.made)
    @rule(data=st.data(), exactly=st.booleans())
    def goto(self, data: st.DataObject, exactly: bool) -> None:
        turn = data.draw(st.sampled_from(self.made))
        head = self.tree.goto(turn, exactly=exactly)
        assert turn in self.tree.path()
        assert head is self.tree.head
        assert head is turn if exactly else not any(later.parent is head for later in self.made)

    @rule()
    def restart(self) -> None:
        self.tree.restart(self.tree.restarted())

    @invariant()
    def no_turn_is_lost(self) -> None:
        assert self.tree.turns == tuple(self.made)
        assert [turn.number for turn in self.made] == list(range(1, len(self.made) + 1))

    @invariant()
    def active_path_is_a_chain(self) -> None:
        active = self.tree.path()
        assert [turn.parent for turn in active] == [None, *active][: len(active)]
        assert (active[-1] if active else None) is self.tree.head
        assert {turn for turn in self.made if not self.tree.is_stale(turn)} == set(active)

    @invariant()
    def one_run_of_a_cell_is_on_the_path(self) -> None:
        runs = {(turn.cell, turn.execution) for turn in self.tree.path() if turn.cell is not None}
        assert len({cell for cell, _ in runs}) == len(runs)


TestCells = _Cells.TestCase
TestCells.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
