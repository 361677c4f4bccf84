"""What a client of the embedded ClickHouse may do: anything within its data folder, nothing outside of it.

Whoever reaches the port is the user `default`, a web page in a browser too. So the engine runs as one who may
not read or write files, addresses and other hosts, and asks its own rights (`ACCESS_DENIED`, code 497). What
it does not ask them for is refused here by the statement's text: `file()`, which is a function to it,
`INTO OUTFILE` and `FROM INFILE`, which are the business of a client and thus of whoever embeds it, and
`disk()`, which makes a folder before it is asked whether it may.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from xml.sax.saxutils import escape

from infra.embedded.chdb_statement import words

GRANTS = (
    "GRANT SHOW, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, CREATE TEMPORARY TABLE, "
    "DROP, TRUNCATE, OPTIMIZE, CHECK, KILL QUERY, SYSTEM MERGES, dictGet ON *.*"
)
# Settings that name a file or an address, change the language in which a statement is to be read, or run a
# text as one. A constraint holds for SET, for SETTINGS and for what comes with a query.
CONSTANT = (
    "allow_experimental_eval_table_function",
    "allow_python_table_function",
    "dialect",
    "format_avro_schema_registry_url",
    "format_schema",
    "format_schema_source",
    "format_template_resultset",
    "format_template_row",
    "input_format_record_errors_file_path",
    "merge_tree_disk",
    "merge_tree_table_disk",
    "output_format_schema",
    "url_base",
)
# By name and not by grant, as the engine asks for no right to them.
ENGINES = frozenset(
    {"embeddedrocksdb", "executablepool", "filelog", "keepermap", "queryrunner", "fuzzquery", "fuzzjson"}
)
FUNCTIONS = frozenset({"file", "disk", "executable"})
CLAUSES = frozenset({("into", "outfile"), ("from", "infile")})
# Its tables are the files of this machine, and without files it would be of no use.
LOCAL_DATABASE = "_local"


class Forbidden(ValueError):  # noqa: N818 - says what happened
    """The statement reaches for files or programs: send rows with INSERT and read them with SELECT."""


def permitted(sql: str) -> str:
    """Return `sql`.

    Raises
    ------
    Forbidden
        It names a way to files or programs that the engine does not ask the user's rights for.
    """
    before = ""
    for word in words(sql):
        if word in FUNCTIONS or (before, word) in CLAUSES or (word in ENGINES and before == "engine"):
            raise Forbidden(
                f"{word} is not permitted on the embedded server: its clients reach no files, programs or "
                "other hosts. Send rows with INSERT and read them with SELECT"
            )
        before = word
    return sql


def write_config(data: Path, settings: str) -> Path:
    """Write the engine's configuration, with `settings` in XML, beside its data folder; return its path."""
    users = data.with_name(f"{data.name}.users.xml")
    constraints = "".join(f"<{name}><const/></{name}>" for name in CONSTANT)
    users.write_text(f"""<clickhouse>
    <profiles><default><allow_python_table_function>0</allow_python_table_function><constraints>{constraints}</constraints></default></profiles>
    <quotas><default/></quotas>
    <users><default>
        <password></password><networks><ip>::/0</ip></networks>
        <profile>default</profile><quota>default</quota>
        <grants><query>{GRANTS}</query></grants>
    </default></users>
</clickhouse>
""")
    nothing = escape(f"{data}/nothing/")
    config = data.with_name(f"{data.name}.config.xml")
    config.write_text(f"""<clickhouse>
    <path>{escape(str(data))}</path>
    <users_config>{escape(str(users))}</users_config>
    <default_database>{LOCAL_DATABASE}</default_database>
    <remote_url_allow_hosts></remote_url_allow_hosts>
    <user_files_path>{nothing}</user_files_path>
    <user_scripts_path>{nothing}</user_scripts_path>
    <format_schema_path>{nothing}</format_schema_path>
    {settings}
</clickhouse>
""")
    return config


def keep_default_database(data: Path) -> None:
    """Make `default` an ordinary database, before the engine opens the folder.

    Left to itself the engine lays it over the file system, and asks for the right to files on every name in
    it. Where there is a link to it, the engine would give its id to its own database too, and end over that;
    it makes the link anew.
    """
    metadata = data / "metadata"
    metadata.mkdir(exist_ok=True)
    described, link = metadata / "default.sql", metadata / "default"
    if not described.exists():
        name = link.readlink().name if link.is_symlink() else str(uuid.uuid4())
        described.write_text(f"ATTACH DATABASE _ UUID '{name}'\nENGINE = Atomic\n")
    link.unlink(missing_ok=True)
