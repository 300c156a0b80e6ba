"""Which conversation a cell goes on with, and conversations in files."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest

from nbllm.core import Message
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.notebook.conversations import Conversations
from nbllm.notebook.tree import Tree, Turn
from nbllm.session import conversation


class Cells:
    """Runs cells that ask in conversations, each with a question of its own."""

    def __init__(self) -> None:
        self.books = Conversations()
        self.execution = 0

    def run(
        self,
        cell: str | None = None,
        *,
        name: str | None = None,
        system: str | None = None,
        default_system: str | None = None,
        new: bool = False,
        asks: int = 1,
    ) -> list[str]:
        """What the last ask of the cell sent before its question."""
        self.execution += 1
        sent: list[str] = []
        for _ in range(asks):
            tree, parent = self.books.choose(
                name=name,
                system=system,
                default_system=default_system,
                new=new,
                cell=cell,
                execution=self.execution,
            )
            sent = [message.content for message in tree.messages(parent)]
            self.answer(tree, parent, cell)
        return sent

    def answer(self, tree: Tree, parent: Turn | None, cell: str | None = None) -> Turn:
        question = Message("user", f"{cell}{self.execution}")
        return self.books.record(
            tree, parent, question, Message("assistant", "ok"), cell=cell, execution=self.execution
        )

    @property
    def path(self) -> list[str]:
        assert self.books.current is not None
        return [turn.question.content for turn in self.books.current.path()]


@pytest.fixture
def cells() -> Cells:
    return Cells()


@pytest.fixture
def books(cells: Cells) -> Conversations:
    return cells.books


def test_cells_go_on_with_the_current_conversation(cells: Cells, books: Conversations) -> None:
    assert cells.run("A", system="Be brief.") == ["Be brief."]
    assert cells.run("B") == ["Be brief.", "A1", "ok"]
    assert books.names() == ["chat-1"]
    assert books.current is books.get("chat-1")


def test_nothing_changes_before_an_answer(cells: Cells, books: Conversations) -> None:
    cells.run("A")
    before = (books.names(), books.current, cells.path)
    choices: list[dict[str, Any]] = [{"name": "bob"}, {"new": True}, {"system": "x"}, {"name": "chat-1", "new": True}]
    for options in choices:
        books.choose(cell="A", execution=7, **options)
    assert (books.names(), books.current, cells.path) == before
    cells.run("B")
    assert cells.path == ["A1", "B2"]


def test_system_message_finds_its_unnamed_conversation(cells: Cells, books: Conversations) -> None:
    cells.run("A", system="one")
    cells.run("B", system="two")
    cells.run("C", name="bob", system="one")
    assert cells.run("D", system="one") == ["one", "A1", "ok"]
    assert books.names() == ["chat-1", "chat-2", "bob"]
    assert cells.run("E") == ["one", "A1", "ok", "D4", "ok"]


def test_empty_system_message_is_none(cells: Cells) -> None:
    cells.run("A", system="one")
    assert cells.run("B", system="") == []
    assert cells.run("C", system="") == ["B2", "ok"]


def test_default_system_message_is_for_conversations_that_begin(cells: Cells) -> None:
    assert cells.run("A", default_system="one") == ["one"]
    assert cells.run("B", default_system="two") == ["one", "A1", "ok"]
    assert cells.run("C", default_system="two", name="bob") == ["two"]
    assert cells.run("D", default_system="two", system="") == []
    assert cells.run("E", default_system="two", new=True) == ["two"]
    assert cells.run("F", default_system="two", system="three", new=True) == ["three"]


def test_named_conversation_is_gone_on_with(cells: Cells, books: Conversations) -> None:
    cells.run("A", name="bob", system="one")
    cells.run("B", new=True)
    assert cells.run("C", name=" bob ") == ["one", "A1", "ok"]
    assert cells.run("D", name="bob", system="one")[-2:] == ["C3", "ok"]
    assert books.current is books.get("bob")


@pytest.mark.parametrize(
    ("has", "given", "said"),
    [("one", "two", "the system message 'one'"), ("one", "", "message 'one'"), ("", "two", "no system message")],
    ids=["another", "none-wanted", "none-there"],
)
def test_named_conversation_keeps_its_system_message(cells: Cells, has: str, given: str, said: str) -> None:
    cells.run("A", name="bob", system=has)
    with pytest.raises(InvalidRequestError, match=f"'bob' has {'.*' if has else ''}{said}: .*--new.*-c"):
        cells.run("B", name="bob", system=given)


def test_new_in_a_named_conversation_begins_at_its_root(cells: Cells, books: Conversations) -> None:
    cells.run("A", name="bob", system="one")
    assert cells.run("B", name="bob", new=True) == ["one"]
    assert cells.run("C", name="bob", new=True, system="two") == ["two"]
    assert cells.run("D", name="bob") == ["two", "C3", "ok"]
    assert books.names() == ["bob"]
    assert len(books.get("bob").turns) == 4


def test_new_begins_a_conversation(cells: Cells, books: Conversations) -> None:
    cells.run("A", system="one")
    assert cells.run("B", new=True) == []
    assert cells.run("C", new=True) == []
    assert cells.run("D") == ["C3", "ok"]
    assert books.names() == ["chat-1", "chat-2", "chat-3"]


def test_new_cell_that_runs_again_starts_over_in_its_conversation(cells: Cells, books: Conversations) -> None:
    cells.run("A")
    cells.run("B", new=True, system="one")
    cells.run("C")
    assert cells.run("B", new=True, system="two") == ["two"]
    assert cells.run("C") == ["two", "B4", "ok"]
    assert books.names() == ["chat-1", "chat-2"]
    assert len(books.get("chat-2").turns) == 4


def test_new_asks_of_one_run_begin_a_conversation_each(cells: Cells, books: Conversations) -> None:
    for _ in range(2):
        cells.run("A", new=True, asks=2)
    assert books.names() == ["chat-1", "chat-2"]
    assert [len(tree.turns) for tree in books.trees()] == [2, 2]


def test_new_without_cell_ids_always_begins_a_conversation(cells: Cells, books: Conversations) -> None:
    for _ in range(3):
        cells.run(None, new=True)
    assert books.names() == ["chat-1", "chat-2", "chat-3"]


@pytest.mark.parametrize("name", [None, "bob"], ids=["unnamed", "named"])
def test_new_without_a_question_waits_for_the_next(cells: Cells, books: Conversations, name: str | None) -> None:
    cells.run("A", name=name, system="one")
    for _ in range(2):
        tree, _ = books.choose(name=name, new=True, system="two", cell="B", execution=9)
        tree = books.commit(tree)
        assert books.current is tree
    assert cells.run("C") == ["two"]
    assert len(books.names()) == (2 if name is None else 1)


def test_cell_that_runs_again_goes_back_to_its_conversation(cells: Cells, books: Conversations) -> None:
    cells.run("A", system="one")
    cells.run("B")
    cells.run("C", name="bob")
    assert cells.run("B") == ["one", "A1", "ok"]
    assert books.current is books.get("chat-1")
    assert cells.run("B", name="bob") == ["C3", "ok"]
    assert cells.run("B", system="two") == ["two"]
    assert cells.run("B", system="one") == ["one", "A1", "ok"]


def test_cell_that_asks_in_several_conversations_begins_where_it_began(cells: Cells, books: Conversations) -> None:
    cells.run("A")
    for _ in range(2):
        assert cells.run("B") == ["A1", "ok"]
        cells.execution -= 1  # the same run
        cells.run("B", name="bob")
    assert len(books.get("bob").turns) == 2


def test_asks_of_one_run_follow_each_other_into_another_conversation(cells: Cells, books: Conversations) -> None:
    for _ in range(2):
        cells.run("A")
        cells.execution -= 1
        cells.run("A", name="bob", new=True)
        cells.execution -= 1
        assert cells.run("A") == [f"A{cells.execution}", "ok"]
        assert books.current is books.get("bob")


def test_latest_of_several_with_the_same_system_message_is_gone_on_with(cells: Cells) -> None:
    cells.run("A", system="one")
    cells.run("B", system="one", new=True)
    cells.run("C", name="bob")
    assert cells.run("D", system="one") == ["one", "B2", "ok"]
    cells.run("A")
    assert cells.run("E", system="one") == ["one", "A5", "ok"]


def test_run_all_twice_asks_the_same(cells: Cells) -> None:
    def run_all() -> list[list[str]]:
        sent = [
            cells.run("A", system="one"),
            cells.run("B"),
            cells.run("C", name="bob", new=True),
            cells.run("D"),
            cells.run("E", system="one"),
            cells.run("F", new=True, asks=2),
            cells.run("G"),
        ]
        return [[text.rstrip("0123456789") for text in texts] for texts in sent]

    assert run_all() == run_all() == run_all()


def test_answers_after_each_other_to_the_same_name_share_it(cells: Cells, books: Conversations) -> None:
    first, second = (books.choose(name="bob", system=system) for system in ("one", "two"))
    cells.answer(*first)
    turn = cells.answer(*second)
    tree = books.get("bob")
    assert (tree.head, len(tree.turns), tree.system) == (turn, 2, "two")
    assert tree.messages(tree.turns[0])[0].content == "one"


def test_answers_to_two_unnamed_beginnings_stay_apart(cells: Cells, books: Conversations) -> None:
    first, second = (books.choose(new=True) for _ in range(2))
    cells.answer(*first)
    cells.answer(*second)
    assert books.names() == ["chat-1", "chat-2"]
    assert [len(tree.turns) for tree in books.trees()] == [1, 1]


def test_cells_in_threads_lose_no_turn(cells: Cells, books: Conversations) -> None:
    barrier = threading.Barrier(4)

    def ask(cell: str) -> None:
        barrier.wait()
        for execution in range(100):
            place = books.choose(cell=cell, execution=execution, new=execution % 10 == 0)
            question = Message("user", "?")
            books.record(*place, question, Message("assistant", "!"), cell=cell, execution=execution)

    threads = [threading.Thread(target=ask, args=(cell,)) for cell in "ABCD"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trees = books.trees()
    assert sum(len(tree.turns) for tree in trees) == 400
    assert [tree.name for tree in trees] == books.names()
    assert all([turn.number for turn in tree.turns] == list(range(1, len(tree.turns) + 1)) for tree in trees)


def test_longer_answer_stays_with_the_cell_that_asked(cells: Cells, books: Conversations) -> None:
    cells.run("A")
    cells.run("B")
    tree = books.get("chat-1")
    assert tree.head is not None
    longer = books.record_longer(tree, tree.head, Message("assistant", "ok, more"), cell="C", execution=9)
    assert (longer.cell, longer.question.content) == ("B", "B2")
    assert cells.run("D") == ["A1", "ok", "B2", "ok, more"]
    assert cells.run("B") == ["A1", "ok"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("bib", "the closest names: bob$"), ("zzz", "the closest names: bob, eve$"), ("x\ny", r"'x\\ny'")],
)
def test_unknown_name_is_answered_with_the_closest(cells: Cells, books: Conversations, asked: str, said: str) -> None:
    cells.run(name="bob")
    cells.run(name="eve")
    with pytest.raises(InvalidRequestError, match=f"no conversation .*{said}") as refusal:
        books.get(asked)
    assert "\n" not in str(refusal.value)


def test_unknown_name_without_any(books: Conversations) -> None:
    with pytest.raises(InvalidRequestError, match="no conversation 'bob', nor any other"):
        books.get("bob")


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\tb", "a\x1bb", "a\u2028b", "a\ud800", "x" * 101])
def test_bad_name_is_refused(books: Conversations, name: str) -> None:
    with pytest.raises(ParameterError, match=r"^conversation: ") as refusal:
        books.choose(name=name)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 200


def test_numbers_of_unnamed_conversations_are_free(cells: Cells, books: Conversations) -> None:
    cells.run(name="chat-7")
    cells.run(new=True)
    cells.run(name="chat-99999999999")
    cells.run(new=True)
    cells.run(new=True)
    assert books.names() == ["chat-7", "chat-8", "chat-99999999999", "chat-100000000000", "chat-100000000001"]


def test_reset_forgets_one(cells: Cells, books: Conversations) -> None:
    cells.run("A")
    cells.run("B", name="bob")
    assert books.reset("bob") == ["bob"]
    assert books.current is None
    assert books.names() == ["chat-1"]
    assert cells.run("B") == []
    assert books.names() == ["chat-1", "chat-2"]
    books.reset("chat-1")
    assert books.current is books.get("chat-2")
    with pytest.raises(InvalidRequestError, match="no conversation 'bob'"):
        books.reset("bob")


def test_reset_forgets_all(cells: Cells, books: Conversations) -> None:
    cells.run("A", system="one")
    cells.run("B", name="bob")
    assert books.reset() == ["chat-1", "bob"]
    assert (books.current, books.names()) == (None, [])
    assert cells.run("A", system="one") == ["one"]
    assert books.names() == ["chat-1"]


@pytest.mark.parametrize("new", [False, True], ids=["goes-on", "restarts"])
def test_answer_to_a_forgotten_conversation_does_not_bring_it_back(
    cells: Cells, books: Conversations, new: bool
) -> None:
    cells.run(name="bob")
    place = books.choose(name="bob", new=new)
    books.reset()
    assert cells.answer(*place).answer.content == "ok"
    assert (books.current, books.names()) == (None, [])


# ---- files


def test_what_is_saved_is_opened(cells: Cells, books: Conversations, tmp_path: Path) -> None:
    cells.run("A", system="Be brief.")
    cells.run("B")
    cells.run("B")
    path = books.save(books.get("chat-1"), tmp_path / "talk")
    assert path == tmp_path / "talk.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["content"] for line in lines] == ["Be brief.", "A1", "ok", "B3", "ok"]
    tree = books.open(tmp_path / "talk")
    assert (tree.name, tree.is_named, tree.system) == ("talk", True, "Be brief.")
    assert books.current is tree
    assert cells.run("B") == ["Be brief.", "A1", "ok"]  # its own conversation
    assert cells.run("C", name="talk") == ["Be brief.", "A1", "ok", "B3", "ok"]
    assert list(tmp_path.iterdir()) == [path]


def test_messages_that_are_no_turns_survive(books: Conversations, tmp_path: Path) -> None:
    roles = ["system", "system", "assistant", "user", "assistant", "system", "user", "assistant", "user", "tool"]
    messages = [Message(role, f"{number} ü\n", name="x") for number, role in enumerate(roles)]  # type: ignore[arg-type]
    path = conversation.write_messages(tmp_path / "a.jsonl", messages)
    tree = books.open(path)
    assert books.save(tree, tmp_path / "b.jsonl").read_bytes() == path.read_bytes()


def test_saved_again_over_itself(cells: Cells, books: Conversations, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "talk.jsonl")
    for _ in range(2):
        cells.run("A", name="bob", new=True)
        assert books.save(books.get("bob"), link) == link
    assert link.is_symlink()
    assert "A2" in (tmp_path / "talk.jsonl").read_text(encoding="utf-8")


def test_chosen_tree_can_be_saved_once_it_has_an_answer(cells: Cells, books: Conversations, tmp_path: Path) -> None:
    cells.run(name="bob")
    tree, parent = books.choose(name="bob", new=True)
    with pytest.raises(InvalidRequestError, match="nothing to save"):
        books.save(Tree("eve"), tmp_path / "eve")
    cells.answer(tree, parent, "later")
    assert "later" in books.save(tree, tmp_path / "bob").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content", [b"important", b'{"a": 1}\n', b"\xff\xfe", b'{"role": "wizard", "content": ""}'], ids=repr
)
def test_other_file_is_not_overwritten(cells: Cells, books: Conversations, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(content)
    cells.run()
    with pytest.raises(InvalidRequestError, match=r"notes\.jsonl is there and is no saved conversation"):
        books.save(books.get("chat-1"), path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is a folder"),
        ("missing/talk", "there is no folder"),
        ("talk.json", r"saved as \.jsonl: give .*talk\.jsonl, not"),
        ("file/talk", "there is no folder"),
        ("pipe.jsonl", "is there and is no saved conversation"),
        ("x" * 400, "cannot be written"),
        ("a\0b", "cannot be written"),
        ("a\ud800/b", "there is no folder|cannot be written"),
    ],
)
def test_bad_place_to_save(cells: Cells, books: Conversations, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.jsonl")
    cells.run()
    with pytest.raises(InvalidRequestError, match=said) as refusal:
        books.save(books.get("chat-1"), tmp_path / name)
    assert "\n" not in str(refusal.value)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("path", ["~no-such-user-here/talk", "~no-such-user-here/talk.jsonl"])
def test_unknown_home(cells: Cells, books: Conversations, path: str) -> None:
    cells.run()
    with pytest.raises(InvalidRequestError, match="cannot be written"):
        books.save(books.get("chat-1"), path)
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        books.open(path)


def test_read_only_folder(cells: Cells, books: Conversations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkstemp", refuse)  # root may write everywhere
    cells.run()
    with pytest.raises(InvalidRequestError, match=r"talk cannot be written: Permission denied; give another path"):
        books.save(books.get("chat-1"), tmp_path / "talk")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no messages"),
        (b"\n\n", "holds no messages"),
        (b"\xff\xfe\x00", r"is not UTF-8 \(byte 0\)"),
        (b'{"role": "user", "content": "a"}\n{"role"', r"line 2: not a message \(.*column 8\)"),
        (b'{"role": "user", "content": 5}', "line 1: not a message"),
        (b'{"role": "user", "content": "a", "name": 5}', "line 1: .*name: must be"),
        (b'{"role": "user", "content": "a", "reasoning_content": []}', "line 1: .*reasoning.*: must be"),
        (b'{"role": "assistant", "content": null, "tool_calls": []}', "line 1: not a message"),
        (b'{"x": "' + b"y" * 100_000 + b'"}', "line 1: not a message"),
        (b'{"role": "user", "content": "a", "a\\nb": 1}', "line 1: not a message"),
        (b"[" * 100_000, "line 1: not a message"),
        (b"1" * 10_000, "line 1: not a message"),
    ],
)
def test_damaged_file_changes_nothing(
    cells: Cells, books: Conversations, tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(content)
    cells.run()
    before = (books.names(), books.current, cells.path)
    with pytest.raises(InvalidRequestError, match=rf"talk\.jsonl.* {said}") as refusal:
        books.open(path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 700
    assert (books.names(), books.current, cells.path) == before
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "cannot be read: No such file"),
        ("folder", "is a folder"),
        ("pipe", "is no file"),
        ("huge.jsonl", "is larger than 64 MB"),
        ("file/talk", "cannot be read: Not a directory"),
        ("x" * 90 + "/" * 300 + "y", "cannot be read"),
        ("a\ud800/b", "cannot be read"),
    ],
)
def test_what_cannot_be_opened(books: Conversations, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge.jsonl").open("wb") as file:
        file.truncate(1 << 30)  # sparse: it takes no space
    with pytest.raises(InvalidRequestError, match=said) as refusal:
        books.open(tmp_path / name)
    assert "\n" not in str(refusal.value)
    assert (books.names(), books.current) == ([], None)


def test_opened_name_must_be_free(cells: Cells, books: Conversations, tmp_path: Path) -> None:
    cells.run(name="talk")
    path = books.save(books.get("talk"), tmp_path / "talk")
    with pytest.raises(InvalidRequestError, match="'talk' already: give another name, or forget that one"):
        books.open(path)
    assert len(books.get("talk").turns) == 1
    assert books.open(path, "again").name == "again"
    books.reset("talk")
    assert books.open(path).name == "talk"


def test_opened_file_needs_a_fit_name(books: Conversations, tmp_path: Path) -> None:
    path = conversation.write_messages(tmp_path / f"{'x' * 120}.jsonl", [Message("user", "Hi")])
    with pytest.raises(ParameterError, match="at most 100"):
        books.open(path)
    assert books.open(path, " short ").name == "short"


def test_byte_order_mark_and_windows_lines(books: Conversations, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"role": "user", "content": "a"}\r\n{"role": "assistant", "content": "b"}\r\n')
    assert [turn.answer.content for turn in books.open(path).turns] == ["b"]


# ---- another name


def test_renamed_conversation_keeps_its_place_and_turns(cells: Cells, books: Conversations) -> None:
    for name in ("a", "b", "c"):
        cells.run(name=name)
    tree, told = books.get("b"), []
    tree.watch(lambda: told.append(tree.name))
    books.rename(tree, " draft ")
    assert books.names() == ["a", "draft", "c"]
    assert books.get("draft") is tree
    assert (tree.name, told) == ("draft", ["draft"])
    books.rename(tree, "draft")
    assert cells.run(name="draft") == ["None2", "ok"]
    assert cells.run(name="b") == []


def test_renamed_conversation_is_a_named_one(cells: Cells, books: Conversations) -> None:
    cells.run("A")
    books.rename(books.get("chat-1"), "talk")
    assert cells.run("A", new=True) == []
    assert books.names() == ["talk", "chat-1"]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101, "taken"], ids=["empty", "two lines", "long", "taken"])
def test_name_that_does_not_fit_changes_nothing(cells: Cells, books: Conversations, name: str) -> None:
    cells.run(name="taken")
    cells.run(name="talk")
    with pytest.raises(InvalidRequestError):
        books.rename(books.get("talk"), name)
    assert books.names() == ["taken", "talk"]
    assert books.get("talk").name == "talk"


def test_name_of_a_conversation_without_answers_is_kept_for_it(cells: Cells, books: Conversations) -> None:
    tree, parent = books.choose(new=True)
    books.rename(tree, "talk")
    assert cells.run(name="talk") == []
    assert books.get("talk") is tree
    cells.answer(tree, parent)
    assert len(tree.turns) == 2


def test_forgotten_conversation_does_not_come_back_by_a_name(cells: Cells, books: Conversations) -> None:
    cells.run(name="talk")
    tree = books.get("talk")
    books.reset()
    books.rename(tree, "other")
    assert (tree.name, books.names()) == ("other", [])


def test_restarted_conversation_is_renamed_by_its_draft(cells: Cells, books: Conversations) -> None:
    cells.run(name="talk")
    draft, _ = books.choose(name="talk", new=True)
    books.commit(draft)
    books.rename(draft, "other")
    assert books.names() == ["other"]


def test_those_who_watch_are_told_with_no_lock_held(cells: Cells, books: Conversations) -> None:
    cells.run(name="talk")
    seen: list[list[str]] = []

    def look() -> None:
        other = threading.Thread(target=lambda: seen.append(books.names()), daemon=True)
        other.start()
        other.join(20)

    tree = books.get("talk")
    tree.watch(look)
    cells.run(name="talk")
    cells.run(name="talk", new=True)
    books.record_longer(tree, tree.turns[-1], Message("assistant", "longer"))
    books.rename(tree, "other")
    assert seen == [["talk"], ["talk"], ["talk"], ["talk"], ["other"]]


def test_those_who_watch_the_names_are_told_with_no_lock_held(cells: Cells, books: Conversations) -> None:
    seen: list[list[str]] = []

    def look() -> None:
        other = threading.Thread(target=lambda: seen.append(books.names()), daemon=True)
        other.start()
        other.join(20)

    unwatch = books.watch(look)
    cells.run(name="talk")
    cells.run(name="talk")  # no other names
    books.begin("opened", [Message("user", "a"), Message("assistant", "b")])
    books.rename(books.get("talk"), "other")
    with pytest.raises(InvalidRequestError):
        books.rename(books.get("other"), "opened")
    books.reset("other")
    unwatch()
    books.reset()
    assert seen == [["talk"], ["talk", "opened"], ["other", "opened"], ["opened"]]


def test_answer_is_recorded_with_another_beginning(cells: Cells, books: Conversations) -> None:
    cells.run(name="talk", system="Be brief.")
    tree = books.get("talk")
    loud = (Message("system", "Be loud."),)
    books.record(tree, tree.head, Message("user", "a"), Message("assistant", "b"), beginning=loud)
    assert cells.run(name="talk")[0] == "Be loud."
