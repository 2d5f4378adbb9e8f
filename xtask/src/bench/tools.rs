//! The tools and their commands: the one place to change when a command line changes.
//!
//! Commands are shell lines; these variables are set: `TREE` (what is backed up), `REPO` (an empty folder at first),
//! `CACHE`, `OUT` (an empty folder to restore into), `PASSWORD` (a file), `STEP` (the step's name), `RETOMA` (our
//! binary), `MANIFEST` (a manifest that names `TREE`, `REPO` and `PASSWORD`).

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The first backup, into an empty repository.
    Initial,
    /// The same tree again.
    Unchanged,
    /// After 1 % of the files changed.
    Changed,
    /// Opening the repository and listing its snapshots: mostly key derivation.
    Open,
    /// All of the last snapshot, into an empty folder.
    Restore,
    /// Reading and checking all data of the repository.
    Verify,
    /// The first backup of one big file.
    Big,
}

impl Step {
    /// In the order in which they are run.
    pub(super) const ALL: [Self; 7] =
        [Self::Initial, Self::Unchanged, Self::Changed, Self::Open, Self::Restore, Self::Verify, Self::Big];

    /// The name on the command line and in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Open => "open",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Big => "big",
        }
    }

    /// What the name stands for, in the report.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Initial => "initial backup",
            Self::Unchanged => "nothing changed",
            Self::Changed => "1 % of the files changed",
            Self::Open => "open, list snapshots",
            Self::Restore => "full restore",
            Self::Verify => "verify, reading all data",
            Self::Big => "one big file",
        }
    }
}

/// A tool; a step that it does not have is none.
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// Succeeds when the tool can be used.
    pub(super) available: &'static str,
    /// Prints one line.
    pub(super) version: &'static str,
    /// Makes the repository; not measured.
    pub(super) init: &'static str,
    backup: &'static str,
    /// Whether a second backup is another thing than a first one.
    incremental: bool,
    open: Option<&'static str>,
    restore: &'static str,
    verify: &'static str,
}

impl Tool {
    /// The command for `step`.
    pub(super) fn script(&self, step: Step) -> Option<&'static str> {
        match step {
            Step::Initial | Step::Big => Some(self.backup),
            Step::Unchanged | Step::Changed => self.incremental.then_some(self.backup),
            Step::Open => self.open,
            Step::Restore => Some(self.restore),
            Step::Verify => Some(self.verify),
        }
    }
}

pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: "restic",
        available: "command -v restic",
        version: "restic version",
        init: r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" init"#,
        backup: r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" backup "$TREE""#,
        incremental: true,
        open: Some(r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" snapshots"#),
        restore: r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" restore latest --target "$OUT""#,
        verify: r#"restic -q -r "$REPO" -p "$PASSWORD" --cache-dir "$CACHE" check --read-data"#,
    },
    Tool {
        name: "borg",
        available: "command -v borg",
        version: "borg --version",
        init: r#"export BORG_BASE_DIR="$CACHE" BORG_PASSCOMMAND="cat $PASSWORD"; borg init -e repokey-blake2 "$REPO""#,
        // Its default is lz4; zstd's default level is what the others use.
        backup: r#"export BORG_BASE_DIR="$CACHE" BORG_PASSCOMMAND="cat $PASSWORD"; borg create -C zstd "$REPO::$STEP" "$TREE""#,
        incremental: true,
        open: Some(r#"export BORG_BASE_DIR="$CACHE" BORG_PASSCOMMAND="cat $PASSWORD"; borg list "$REPO""#),
        restore: r#"export BORG_BASE_DIR="$CACHE" BORG_PASSCOMMAND="cat $PASSWORD"; cd "$OUT"; borg extract "$REPO::$(borg list --short --last 1 "$REPO")""#,
        verify: r#"export BORG_BASE_DIR="$CACHE" BORG_PASSCOMMAND="cat $PASSWORD"; borg check --verify-data "$REPO""#,
    },
    Tool {
        name: "tar",
        available: "command -v tar && command -v zstd && command -v openssl",
        version: r#"echo "$(tar --version | head -1), zstd $(zstd --version | grep -o 'v[0-9.]*'), $(openssl version | cut -d' ' -f1,2)""#,
        init: "true",
        backup: r#"tar -C "$TREE" -cf - . | zstd -q -T0 | openssl enc -aes-256-ctr -pbkdf2 -pass "file:$PASSWORD" -out "$REPO/all""#,
        incremental: false,
        open: None,
        restore: r#"openssl enc -d -aes-256-ctr -pbkdf2 -pass "file:$PASSWORD" -in "$REPO/all" | zstd -q -d | tar -C "$OUT" -xf -"#,
        verify: r#"openssl enc -d -aes-256-ctr -pbkdf2 -pass "file:$PASSWORD" -in "$REPO/all" | zstd -q -t"#,
    },
    Tool {
        name: "retoma",
        available: r#""$RETOMA" backup --help | grep -q backup"#,
        version: r#""$RETOMA" --version"#,
        // The first backup makes the repository.
        init: "true",
        backup: r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" backup"#,
        incremental: true,
        open: Some(r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" snapshots"#),
        restore: r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" restore tree --target "$OUT" --yes"#,
        verify: r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" verify --read-data"#,
    },
];
