//! The tools and their commands: the one place to change when a command line changes.
//!
//! Commands are shell lines. Variables: `DATA` (the data directory), `SOCKET` and `PORT` (the server), `SYSTEM` (its system
//! identifier), `SEGMENTS` (a file: names of WAL segments, one in a line), `HOME_OF_TOOL` (a folder of the tool's own), `REPO`,
//! `OUT`, `CACHE`, `PASSWORD`, `STEP`, `RETOMA`, `MANIFEST` as in `bench files`.

/// A tool; what it cannot do is none.
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// Succeeds when the tool can be used.
    pub(super) available: &'static str,
    /// Prints one line.
    pub(super) version: &'static str,
    /// Makes the repository; not measured.
    pub(super) init: &'static str,
    /// The first backup.
    pub(super) full: &'static str,
    /// The first backup of a server under load with the WAL that it needs to start; none: `full` has it in it.
    pub(super) full_with_wal: Option<&'static str>,
    /// A later one, as small as the tool can make it.
    pub(super) again: Option<&'static str>,
    pub(super) restore: Option<&'static str>,
    pub(super) delta: Option<&'static str>,
    pub(super) push_alone: Option<&'static str>,
    pub(super) push: Option<&'static str>,
    pub(super) fetch_alone: Option<&'static str>,
    pub(super) fetch: Option<&'static str>,
}

pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: "pgbackrest",
        available: "command -v pgbackrest",
        version: "pgbackrest version",
        // Without `archive-check` a backup does not wait for WAL that nobody archives here. Level 1 is its fastest.
        init: r#"cat > "$HOME_OF_TOOL/conf" <<CONF
[global]
repo1-path=$REPO
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=correct horse battery staple
repo1-bundle=y
compress-type=zst
compress-level=1
process-max=$(nproc)
start-fast=y
archive-check=n
log-level-console=error
log-level-file=off
lock-path=$HOME_OF_TOOL/lock
spool-path=$HOME_OF_TOOL/spool
[main]
pg1-path=$DATA
pg1-port=$PORT
pg1-socket-path=$SOCKET
pg1-user=postgres
CONF
pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main --no-online stanza-create"#,
        full: r#"pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main --type=full backup"#,
        // The server archives for itself, so everything belongs to its user.
        full_with_wal: Some(
            r#"echo archive-async=y >> "$HOME_OF_TOOL/conf"
as_server() { if [ "$(id -u)" = 0 ]; then setpriv --reuid postgres --regid postgres --init-groups -- "$@"; else "$@"; fi; }
sql() { as_server psql -qXAt -h "$SOCKET" -p "$PORT" -U postgres -c "$1" -c "SELECT pg_reload_conf()" postgres; }
mkdir -p "$HOME_OF_TOOL/lock" "$HOME_OF_TOOL/spool"
if [ "$(id -u)" = 0 ]; then chown -R postgres "$HOME_OF_TOOL" "$REPO"; fi
cd /
trap 'sql "ALTER SYSTEM RESET archive_command"' EXIT
sql "ALTER SYSTEM SET archive_command = 'pgbackrest --config=$HOME_OF_TOOL/conf --stanza=main archive-push %p'"
as_server pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main --type=full --archive-check backup"#,
        ),
        again: Some(r#"pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main --type=incr backup"#),
        restore: Some(r#"pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main --pg1-path="$OUT" restore"#),
        delta: Some(
            r#"pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main --pg1-path="$OUT" --delta restore"#,
        ),
        push_alone: Some(
            r#"while read -r s; do pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main archive-push "$DATA/pg_wal/$s"; done < "$SEGMENTS""#,
        ),
        push: Some(
            r#"while read -r s; do pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main --archive-async archive-push "$DATA/pg_wal/$s"; done < "$SEGMENTS""#,
        ),
        fetch_alone: Some(
            r#"rm -rf "$OUT"; mkdir "$OUT"; while read -r s; do pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main archive-get "$s" "$OUT/$s"; done < "$SEGMENTS""#,
        ),
        fetch: Some(
            r#"rm -rf "$OUT"; mkdir "$OUT"; while read -r s; do pgbackrest --config="$HOME_OF_TOOL/conf" --stanza=main --archive-async archive-get "$s" "$OUT/$s"; done < "$SEGMENTS""#,
        ),
    },
    Tool {
        name: "pg_basebackup",
        available: "command -v pg_basebackup || ls /usr/lib/postgresql/15/bin/pg_basebackup",
        version: r#"PATH="$PATH:/usr/lib/postgresql/15/bin" pg_basebackup --version"#,
        init: "true",
        full: r#"PATH="$PATH:/usr/lib/postgresql/15/bin"; pg_basebackup -h "$SOCKET" -p "$PORT" -U postgres -D "$REPO/data" -c fast -X fetch"#,
        full_with_wal: None,
        again: None,
        restore: None,
        delta: None,
        push_alone: None,
        push: None,
        fetch_alone: None,
        fetch: None,
    },
    Tool {
        name: "restic",
        available: "command -v restic",
        version: "restic version",
        init: r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" init"#,
        full: r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" backup "$DATA" --exclude "$DATA/pg_wal/*""#,
        full_with_wal: None,
        again: Some(
            r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" backup "$DATA" --exclude "$DATA/pg_wal/*""#,
        ),
        restore: Some(
            r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" restore latest --target "$OUT""#,
        ),
        delta: Some(
            r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" restore latest --target "$OUT""#,
        ),
        push_alone: None,
        push: None,
        fetch_alone: None,
        fetch: None,
    },
    Tool {
        name: "retoma",
        available: r#""$RETOMA" backup --help | grep -q backup"#,
        version: r#""$RETOMA" --version"#,
        // The first backup makes the repository. Then a key file opens it, as docs/wal.md tells the database's host to: pgBackRest
        // derives nothing from its passphrase either.
        init: r#"mkdir "$HOME_OF_TOOL/seed"; echo seed > "$HOME_OF_TOOL/seed/file"; "$RETOMA" -q --manifest "$MANIFEST" backup seed
"$RETOMA" -q --manifest "$MANIFEST" key add --key-file -o "$HOME_OF_TOOL/key"
sed -i "s|^password = .*|password = \"file:$HOME_OF_TOOL/key\"|" "$MANIFEST""#,
        full: r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" backup database"#,
        full_with_wal: None,
        again: Some(r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" backup database"#),
        restore: Some(
            r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" restore database --target "$OUT" --yes"#,
        ),
        delta: Some(
            r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" restore database --target "$OUT" --delete --yes"#,
        ),
        push_alone: Some(
            r#"while read -r s; do "$RETOMA" -q --manifest "$MANIFEST" wal push --component database --no-spool "$DATA/pg_wal/$s"; done < "$SEGMENTS""#,
        ),
        push: Some(
            r#"while read -r s; do "$RETOMA" -q --manifest "$MANIFEST" wal push --component database "$DATA/pg_wal/$s"; done < "$SEGMENTS""#,
        ),
        fetch_alone: Some(
            r#"while read -r s; do "$RETOMA" -q --manifest "$MANIFEST" wal fetch --component database --system-identifier "$SYSTEM" --no-spool "$s" "$OUT/$s"; done < "$SEGMENTS""#,
        ),
        fetch: Some(
            r#"while read -r s; do "$RETOMA" -q --manifest "$MANIFEST" wal fetch --component database --system-identifier "$SYSTEM" "$s" "$OUT/$s"; done < "$SEGMENTS""#,
        ),
    },
];
