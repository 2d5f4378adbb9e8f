//! Which files of a data directory belong into a backup: those that `pg_basebackup` copies (`excludeDirContents`,
//! `excludeFiles` and `sendDir` in the server's `basebackup.c`).

use super::relation::{Fork, RelationFile, is_temporary};
use std::collections::HashSet;

/// Folders of the data directory that stay, empty.
const EMPTY_FOLDERS: [&str; 7] =
    ["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"];

/// Files that are left out wherever they lie.
const FILES: [&str; 7] = [
    "backup_label",
    "backup_manifest",
    "current_logfiles.tmp",
    "postgresql.auto.conf.tmp",
    "postmaster.opts",
    "postmaster.pid",
    "tablespace_map",
];

/// Names that begin so are left out wherever they lie.
const PREFIXES: [&str; 2] = ["pg_internal.init", "pgsql_tmp"];

/// A folder of a data directory or tablespace, as far as the rules go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderKind {
    /// The data directory itself.
    Top,
    /// `pg_wal`: what belongs into the backup is known only at its end.
    Wal,
    /// `pg_tblspc`, with links to tablespaces.
    Tablespaces,
    /// One of those whose contents are made anew at each start.
    Empty,
    /// `global`, or the folder of one database.
    Database,
    /// Any other.
    Other,
}

impl FolderKind {
    /// The kind of a folder by its path within the data directory.
    pub fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [] => Self::Top,
            ["pg_wal"] => Self::Wal,
            ["pg_tblspc"] => Self::Tablespaces,
            ["global"] | ["base", _] => Self::Database,
            ["pg_tblspc", _, version, _] if version.starts_with("PG_") => Self::Database,
            [name] if EMPTY_FOLDERS.contains(name) => Self::Empty,
            _ => Self::Other,
        }
    }
}

/// Which names of one folder are left out.
#[derive(Debug)]
pub struct Selection {
    kind: FolderKind,
    unlogged: HashSet<u32>,
}

impl Selection {
    /// For a folder of this kind with these names.
    pub fn new<'a>(kind: FolderKind, names: impl IntoIterator<Item = &'a str>) -> Self {
        let init = |name| RelationFile::parse(name).filter(|file| file.fork == Fork::Init);
        let unlogged = match kind {
            FolderKind::Database => names.into_iter().filter_map(init).map(|file| file.number).collect(),
            _ => HashSet::new(),
        };
        Self { kind, unlogged }
    }

    /// Whether `name` belongs into the backup.
    pub fn takes(&self, name: &str) -> bool {
        if FILES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return false;
        }
        match self.kind {
            FolderKind::Wal | FolderKind::Empty => false,
            FolderKind::Database => {
                let is_reset =
                    |file: RelationFile| file.fork != Fork::Init && self.unlogged.contains(&file.number);
                !is_temporary(name) && !RelationFile::parse(name).is_some_and(is_reset)
            }
            FolderKind::Top | FolderKind::Tablespaces | FolderKind::Other => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_known_by_their_paths() {
        for (path, kind) in [
            ("", FolderKind::Top),
            ("pg_wal", FolderKind::Wal),
            ("pg_wal/archive_status", FolderKind::Other),
            ("pg_tblspc", FolderKind::Tablespaces),
            ("global", FolderKind::Database),
            ("base", FolderKind::Other),
            ("base/5", FolderKind::Database),
            ("pg_tblspc/16400/PG_15_202209061/5", FolderKind::Database),
            ("pg_tblspc/16400/PG_15_202209061", FolderKind::Other),
            ("pg_replslot", FolderKind::Empty),
            ("base/pg_replslot", FolderKind::Database),
            ("pg_xact", FolderKind::Other),
        ] {
            assert_eq!(FolderKind::of(path), kind, "{path:?}");
        }
    }

    #[test]
    fn all_forks_of_an_unlogged_relation_but_init_are_left_out() {
        let names =
            ["1", "1.1", "1_fsm", "1_vm", "1_init", "2", "2_fsm", "12", "t3_4", "PG_VERSION", "pgsql_tmp"];
        let selection = Selection::new(FolderKind::Database, names);
        let taken: Vec<_> = names.into_iter().filter(|name| selection.takes(name)).collect();
        assert_eq!(taken, ["1_init", "2", "2_fsm", "12", "PG_VERSION"]);
    }

    #[test]
    fn what_a_running_server_leaves_behind_is_left_out() {
        let top = Selection::new(FolderKind::Top, []);
        for name in ["postmaster.pid", "postmaster.opts", "backup_label", "tablespace_map", "backup_manifest"]
        {
            assert!(!top.takes(name), "{name}");
        }
        for name in ["PG_VERSION", "postgresql.conf", "postgresql.auto.conf", "log", "backup_label.old"] {
            assert!(top.takes(name), "{name}");
        }
        // Only in a database's folder is this a temporary relation.
        assert!(Selection::new(FolderKind::Other, []).takes("t3_4"));
        assert!(!Selection::new(FolderKind::Other, []).takes("pg_internal.init.4711"));
        for kind in [FolderKind::Wal, FolderKind::Empty] {
            assert!(!Selection::new(kind, []).takes("anything"));
        }
    }
}
