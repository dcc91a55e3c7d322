//! Programs that are not ours, and know when something is wrong.

use std::path::Path;

use super::Work;
use crate::harness::command::run;

/// Rows that a transaction adds.
const ROWS: u64 = 10;

/// Adds rows to a database in one transaction, or takes all away; SQLite's own check and the number of rows say whether the
/// file system kept its word. One database keeps a rollback journal, the other a log that is mapped by all its users.
pub(super) fn database(work: &mut Work) {
    let (name, mode) = match work.dice.roll(2) {
        0 => ("rollback.db", "DELETE"),
        _ => ("log.db", "WAL"),
    };
    let before = work.counts.get(name).copied().unwrap_or(0);
    let (change, rows) = match before {
        0..200 => (
            format!(
                "WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<{ROWS}) \
                 INSERT INTO t(x) SELECT randomblob(2000) FROM c;"
            ),
            before + ROWS,
        ),
        _ => ("DELETE FROM t;".to_owned(), 0),
    };
    let script = format!(
        "PRAGMA journal_mode={mode}; CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, x BLOB); \
         BEGIN; {change} COMMIT; PRAGMA integrity_check; SELECT count(*) FROM t;"
    );
    let file = work.dir.join(name);
    let said = run("sqlite3", [file.as_os_str(), script.as_ref()]).ok();
    let expected = format!("{}\nok\n{rows}\n", mode.to_lowercase());
    assert_eq!(said.stdout, expected, "{name}");
    work.counts.insert(name, rows);
}

/// Builds a program from two sources, anew or again after a change, and runs it: make goes by the times of files.
const BUILD: &str = r#"
set -e
cd "$1"
if [ ! -e Makefile ]; then
    printf 'program: main.o part.o\n\t$(CC) -o $@ main.o part.o\n' > Makefile
    printf '#include <stdio.h>\nint part(void);\nint main(void) { printf("%%d\\n", part()); return 0; }\n' > main.c
fi
printf 'int part(void) { return %d; }\n' "$2" > part.c.new
mv part.c.new part.c
rm -f part.o
make -s program
test "$(./program)" = "$2"
[ $(($2 % 5)) -ne 4 ] || rm -f program *.o *.c Makefile
"#;

/// A shell script builds software, and what it built is run.
pub(super) fn build(work: &mut Work) {
    let number = work.round.to_string();
    let dir: &Path = &work.dir;
    let arguments = [
        "-c".as_ref(),
        BUILD.as_ref(),
        "sh".as_ref(),
        dir.as_os_str(),
        number.as_ref(),
    ];
    run("sh", arguments).ok();
}
