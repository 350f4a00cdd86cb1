"""Opening the file, bringing it up to date, and the one kind of transaction that writes."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import apsw

from gpuq.database_file import (
    APPLICATION_ID,
    APPLICATION_ID_AT,
    DAMAGE_MARK,
    HEADER_BYTES,
    MAGIC,
)
from gpuq.errors import GpuqError

# EX_CONFIG of sysexits.h: to start it again changes nothing, so systemd is not to.
NEEDS_A_PERSON = 78

DAMAGE = (apsw.CorruptError, apsw.NotADBError)
# A lock that another program holds on the file passes like a full disk does.
DISK_ERRORS = (
    apsw.FullError,
    apsw.IOError,
    apsw.ReadOnlyError,
    apsw.BusyError,
    apsw.LockedError,
)
BUSY_MS = (
    500  # the loop waits as long: it is alone with its database, unless somebody looks into it
)
MOST_STATEMENTS = 256  # that are kept prepared

_WRITTEN_TO = re.compile(
    r"\s*(?:with\s.*?\s)?(?:insert(?:\s+or\s+\w+)?\s+into|update(?:\s+or\s+\w+)?|delete\s+from|replace\s+into)\s+(\w+)",
    re.DOTALL,
)

Row = dict[str, Any]
Values = Sequence[Any] | Mapping[str, Any]


class StoreRefused(GpuqError):
    """The file is no database of ours, is damaged, or was written by a newer gpuq."""

    exit_code = NEEDS_A_PERSON


class StoreDamaged(StoreRefused):
    """A page of the file makes no sense. From here on nothing of it is read or written."""


class DiskTrouble(GpuqError):
    """The file cannot be written now: the disk is full, failing or read-only. Nothing changed."""


class LeaseRefused(GpuqError):
    """A lease would have given a GPU, or a part of one, twice."""


class Database:
    """One connection. Reads return dicts by column name; writes belong into `transaction()`."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.on_commit: Callable[[], None] = lambda: None
        self.commit_took: Callable[[float], None] = lambda seconds: None
        self.on_damage: Callable[[StoreDamaged], None] = lambda damage: None
        self.damage: StoreDamaged | None = None
        self._is_open = False  # a transaction
        self._parts = 0  # within that
        self._has_failed = False  # something in it that is not undone alone
        self._inside = _Inside(self._fail)
        self._writes: Counter[str] = Counter()  # by table
        self._remembered: dict[tuple[str, tuple[Any, ...]], tuple[int, list[Row]]] = {}
        self._columns: dict[str, list[str]] = {}  # of what a statement returns
        self._inode: int | None = None  # known once it is open; none in memory
        try:
            if self.path != ":memory:" and not is_ours(Path(self.path)):
                self._create_file()
            self._open(self.path)
            self._inode = None if self.path == ":memory:" else os.stat(self.path).st_ino
        except DAMAGE as error:
            raise StoreRefused(f"{self.path}: {_damage(error)}") from error
        except (*DISK_ERRORS, apsw.CantOpenError) as error:
            raise DiskTrouble(_trouble(self.path, error)) from error
        except OSError as error:
            raise StoreRefused(f"{self.path}: cannot be read: {error.strerror}") from error

    def close(self) -> None:
        self._db.close()

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        self._check_damage()
        rows: list[Row] = []
        names = self._columns.get(sql)
        try:
            cursor = self._db.execute(sql, values)
            for row in cursor:
                if names is None:
                    names = self._note_columns(sql, cursor)
                rows.append(dict(zip(names, row, strict=True)))
        except DAMAGE as error:
            raise self.report_damage(str(error)) from error
        return rows

    def _note_columns(self, sql: str, cursor: apsw.Cursor) -> list[str]:
        """A wide row takes longer to ask for its columns than to be read. Only while it is at hand
        does the cursor know them."""
        if len(self._columns) >= MOST_STATEMENTS:
            self._columns.clear()
        self._columns[sql] = [column[0] for column in cursor.get_description()]
        return self._columns[sql]

    def remembered(self, tables: Sequence[str], sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """The same as `rows`, from memory as long as this connection has written nothing to `tables`:
        all that the statement reads, none of which is written by a trigger or a cascade. For what is
        asked at each turn and changes seldom. Nobody changes the rows that it returns."""
        key = sql, tuple(values)
        writes = sum(self._writes[table] for table in tables)
        known = self._remembered.get(key)
        if known is None or known[0] != writes:
            known = self._remembered[key] = writes, self.rows(sql, values)
        return known[1]

    def writes(self, table: str) -> int:
        """How often something was written to it, by this connection."""
        return self._writes[table]

    def row(self, sql: str, values: Values = ()) -> Row | None:
        rows = self.rows(sql, values)
        return rows[0] if rows else None

    def columns(self, table: str) -> list[str]:
        return [row["name"] for row in self.remembered((), f"pragma table_info({table})")]

    def value(self, sql: str, values: Values = ()) -> Any:
        """The first column of the first row, None where there is no row."""
        self._check_damage()
        try:
            row = next(self._db.execute(sql, values), None)
            return None if row is None else row[0]
        except DAMAGE as error:
            raise self.report_damage(str(error)) from error

    def write(self, sql: str, values: Values = ()) -> int:
        """Runs one statement that changes something; returns how many rows it changed."""
        assert self._db.in_transaction, "a write stands in a transaction"
        self._check_damage()
        try:
            self._db.execute(sql, values)
        except DAMAGE as error:
            raise self.report_damage(str(error)) from error
        changed = int(self._db.changes())
        if changed:
            self._writes[_table_of(sql)] += 1
        return changed

    def write_many(self, sql: str, rows: Iterable[Values]) -> None:
        """Runs one statement for each of the rows of values."""
        assert self._db.in_transaction, "a write stands in a transaction"
        self._check_damage()
        try:
            self._db.executemany(sql, rows)
            self._writes[_table_of(sql)] += 1
        except DAMAGE as error:
            raise self.report_damage(str(error)) from error

    def insert(self, table: str, row: Mapping[str, Any]) -> int:
        """Inserts a row; returns its rowid."""
        self.write(_insert_into(table, tuple(row)), row)
        return int(self._db.last_insert_rowid())

    def transaction(self) -> AbstractContextManager[None]:
        """One BEGIN IMMEDIATE … COMMIT; inside another it is simply in that one: what fails in here
        undoes all of it."""
        return self._inside if self._is_open else self._one()

    def part(self) -> AbstractContextManager[None]:
        """The same; but inside another what fails in here is undone alone, for who goes on after it."""
        return self._part() if self._is_open else self._one()

    @contextmanager
    def _one(self) -> Iterator[None]:
        """Not apsw's own `with`: on a full disk SQLite rolls back by itself, apsw's rollback then
        fails, and what the caller sees is that second error.
        """
        self._check_damage()
        self._check_place()
        self._is_open = True
        changes = self._db.total_changes()
        try:
            self._db.execute("begin immediate")
            yield
            assert not self._has_failed, "what failed is undone with all of it, or stands in a part"
            began = time.perf_counter()
            self._db.execute("commit")
            took_s = time.perf_counter() - began
        except BaseException as error:
            self._remembered.clear()
            if self._db.in_transaction:
                self._db.execute("rollback")
            if isinstance(error, DAMAGE):
                raise self.report_damage(str(error)) from error
            if isinstance(error, DISK_ERRORS):
                raise DiskTrouble(_trouble(self.path, error)) from error
            raise
        finally:
            self._is_open = self._has_failed = False
        if self._db.total_changes() != changes:  # else it told nobody anything
            self.commit_took(took_s)
            self.on_commit()

    def report_damage(self, what: str) -> StoreDamaged:
        """Whoever finds a damaged page calls this: the file is left as it is from here on, what its
        log holds is not written back into it, and the next to open it looks at all of it first."""
        if self.damage is None:
            self.damage = StoreDamaged(f"{self.path}: {_damage(what)}")
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            _mark_damaged(self.path, what)
            self.on_damage(self.damage)
        return self.damage

    def _check_damage(self) -> None:
        if self.damage is not None:
            raise StoreDamaged(str(self.damage))

    def _check_place(self) -> None:
        """A file that was deleted or replaced can still be written, and what is written is lost."""
        if self._inode is None:
            return
        try:
            if os.stat(self.path).st_ino == self._inode:
                return
        except OSError:
            pass
        raise DiskTrouble(
            f"nothing was changed: {self.path} was deleted or replaced while it was in use. "
            "Stop the daemon, put the file back, and start it again"
        )

    @contextmanager
    def _part(self) -> Iterator[None]:
        had_failed = self._has_failed
        self._parts += 1
        name = f"part{self._parts}"
        self._db.execute(f"savepoint {name}")
        try:
            yield
        except BaseException:
            self._remembered.clear()
            if self._db.in_transaction:
                self._db.execute(f"rollback to {name}")
                self._db.execute(f"release {name}")
                self._has_failed = had_failed
            raise
        else:
            self._db.execute(f"release {name}")
        finally:
            self._parts -= 1

    def _fail(self) -> None:
        self._has_failed = True

    def _create_file(self) -> None:
        """Makes a new file aside and puts it in place whole: what lies at `path` is ours or not, and
        never the beginning of something."""
        partial = f"{self.path}.partial"
        for leftover in (partial, f"{partial}-journal", f"{partial}-wal", f"{partial}-shm"):
            Path(leftover).unlink(missing_ok=True)
        self._open(partial)
        self.close()
        os.rename(partial, self.path)
        _sync_folder(self.path)

    def _open(self, path: str) -> None:
        self._db = apsw.Connection(path, statementcachesize=MOST_STATEMENTS)
        try:
            self._bring_up_to_date()
        except BaseException:
            # What is refused is left as it is: not even its log is written back into it.
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._db.close()
            raise

    def _configure(self) -> None:
        self._db.set_busy_timeout(BUSY_MS)
        # A plan that goes by the values of a statement (`limit ?` is enough) is made anew each time.
        self._db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        for pragma in (
            "journal_mode = wal",
            "synchronous = full",  # a commit that was answered survives a power cut
            "foreign_keys = on",
            "temp_store = memory",
            "trusted_schema = off",
        ):
            list(self._db.execute(f"pragma {pragma}"))

    def _bring_up_to_date(self) -> None:
        """Looks at the version before anything is configured: that alone would change the file.

        A new file is filled before it gets a write-ahead log, so that it is whole without one.
        """
        latest, version = newest_version(), find_version(self._db)
        if version > latest:
            raise StoreRefused(_newer(self.path, version, latest))
        _check_if_marked(self._db, self.path)
        if version == 0:
            self._create()
            self._migrate(1)
        self._configure()
        if 0 < version < latest:
            _copy_aside(self._db, self.path, version)
            self._migrate(version)
        if version:
            _check_tables(self._db, self.path)

    def _create(self) -> None:
        with self.transaction():
            for statement in _statements(_read("schema.sql")):
                self._db.execute(statement)
            self._stamp(1)

    def _migrate(self, version: int) -> None:
        for number, script in sorted(_migrations().items()):
            if number <= version:
                continue
            with self.transaction():
                for statement in _statements(script):
                    self._db.execute(statement)
                self._stamp(number)

    def _stamp(self, version: int) -> None:
        self._db.execute(f"pragma application_id = {APPLICATION_ID}")
        self._db.execute(f"pragma user_version = {version}")


class _Inside:
    """A transaction inside another one, which costs nothing."""

    def __init__(self, on_error: Callable[[], None]) -> None:
        self._on_error = on_error

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._on_error()


@cache
def _insert_into(table: str, columns: tuple[str, ...]) -> str:
    names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    return f"insert into {table} ({names}) values ({marks})"


@cache
def _table_of(sql: str) -> str:
    """To which a statement writes; "": it is of another kind."""
    found = _WRITTEN_TO.match(sql)
    return "" if found is None else found[1]


def is_ours(path: Path) -> bool:
    """Is a database of gpuq there? StoreRefused where it is something else. Looks at the header
    before SQLite does, which would take an empty file for a new one, and might write to that of
    another program.
    """
    if not path.exists():
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise StoreRefused(
                f"{path} is missing, but {wal} is there: the database was moved or removed. "
                "Put it back or restore a backup, or give another --state-dir"
            )
        return False
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise StoreRefused(
            f"{path}: no SQLite database, or a damaged one; it was left as it is. "
            "Restore a backup there, or give another --state-dir"
        )
    if int.from_bytes(header[APPLICATION_ID_AT : APPLICATION_ID_AT + 4]) != APPLICATION_ID:
        raise StoreRefused(f"{path}: a database of another program; nothing was changed")
    return True


def find_version(db: apsw.Connection) -> int:
    return int(db.execute("pragma user_version").get)


def newest_version() -> int:
    """The one that this gpuq writes."""
    return max(_migrations(), default=1)


def _migrations() -> dict[int, str]:
    """Version → script, from migrations/0002_what_it_does.sql on."""
    folder = resources.files(__package__).joinpath("migrations")
    if not folder.is_dir():
        return {}
    scripts = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return {int(file.name.split("_")[0]): file.read_text("utf-8") for file in scripts}


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _statements(script: str) -> Iterator[str]:
    """One at a time: a script run whole stops at the first statement that returns a row."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if line.rstrip().endswith(";") and apsw.complete(statement):
            yield statement
            statement = ""
    if statement.strip():  # an unfinished one must fail, not be left out
        yield statement


def _check_tables(db: apsw.Connection, path: str) -> None:
    """A file of the right version without a column that we need is of a gpuq between two releases."""
    fresh = apsw.Connection(":memory:")
    for script in (_read("schema.sql"), *(script for _, script in sorted(_migrations().items()))):
        for statement in _statements(script):
            fresh.execute(statement)
    if missing := sorted(_columns(fresh) - _columns(db)):
        raise StoreRefused(
            f"{path}: written by a gpuq between two releases (it has no {missing[0]}); it was left as "
            f"it is. Move it away to begin anew, or give another --state-dir"
        )


def _columns(db: apsw.Connection) -> set[str]:
    sql = """
        select t.name || '.' || c.name from sqlite_master t, pragma_table_info(t.name) c
        where t.type = 'table'
    """
    return {str(name) for (name,) in db.execute(sql)}


def _copy_aside(db: apsw.Connection, path: str, version: int) -> None:
    """A whole copy beside the file before a migration touches it."""
    aside = Path(f"{path}.before-version-{version + 1}")
    partial = aside.with_suffix(aside.suffix + ".partial")
    partial.unlink(missing_ok=True)
    copy = apsw.Connection(str(partial))
    with copy.backup("main", db, "main") as backup:
        while not backup.done:
            backup.step(1000)
    copy.close()
    partial.rename(aside)
    _sync_folder(path)


def _sync_folder(path: str) -> None:
    """A rename survives a power cut once its folder is on disk."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _newer(path: str, version: int, latest: int) -> str:
    return (
        f"{path}: written by a newer gpuq (database version {version}, this one knows {latest}); "
        "start that version, or give another --state-dir"
    )


def _mark_damaged(path: str, what: str) -> None:
    """A damaged page may be one that is not read at the next start: a note beside the file makes
    that start look at all of them."""
    try:
        Path(f"{path}{DAMAGE_MARK}").write_text(f"{what}\n")
    except OSError:
        pass


def _check_if_marked(db: apsw.Connection, path: str) -> None:
    mark = Path(f"{path}{DAMAGE_MARK}")
    if mark.exists():
        found = str(db.execute("pragma integrity_check(1)").get)
        if found != "ok":
            raise StoreRefused(f"{path}: {_damage(found)}")
        mark.unlink()  # it has been mended, or replaced by a backup


def _damage(error: apsw.Error | str) -> str:
    return (
        f"the database is damaged ({error}); it was left as it is. "
        "Restore a backup there, or give another --state-dir"
    )


def _trouble(path: str, error: apsw.Error) -> str:
    folder = Path(path).parent
    if isinstance(error, apsw.FullError):
        what = f"the disk is full. Free some space under {folder}"
    elif isinstance(error, apsw.BusyError | apsw.LockedError):
        return f"nothing was changed: another program holds {path} locked. Close it and try again"
    elif isinstance(error, apsw.ReadOnlyError):
        what = f"the file system of {folder} is read-only. Make it writable"
    elif isinstance(error, apsw.CantOpenError):
        what = f"{path} cannot be opened or made. See who may write to {folder}, and how full it is"
    else:
        what = f"the disk refuses to write ({error}). Look at the file system of {folder}"
    return f"nothing was changed: {what}, and try again"
