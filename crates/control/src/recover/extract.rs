//! One table or database out of a physical backup: the whole server is restored into a scratch folder, recovered to its target,
//! asked by `pg_dump`, and removed again. Nothing else is touched.

use super::apply::run_restore;
use super::server::{Report, Server};
use super::{PlannedRecovery, as_bytes};
use crate::interrupt::{Interrupt, Stopwatch};
use crate::postgres::{self, Instance, spaces as places};
use crate::service::Supervisor;
use crate::timeline::Timeline;
use retoma_core::drill::StepName;
use retoma_core::manifest::Component;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::{Repository, SnapshotId, restore};
use retoma_sources::postgres::facts_of;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long `pg_dump` may take.
const DUMP_LIMIT: Duration = Duration::from_hours(24);

/// How the names of scratch folders begin.
const SCRATCH: &str = ".retoma-scratch-";

/// What is wanted: `database.schema.table`, or `database` alone. Parts may be quoted as in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The database.
    pub database: String,
    /// The table's schema and name; `None` for all of the database.
    pub table: Option<(String, String)>,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = parts(text).ok_or("a quote is not closed, or a part is empty")?;
        match <[String; 3]>::try_from(parts) {
            Ok([database, schema, table]) => Ok(Self { database, table: Some((schema, table)) }),
            Err(parts) => match <[String; 1]>::try_from(parts) {
                Ok([database]) => Ok(Self { database, table: None }),
                Err(_) => Err("write it as `database.schema.table`, or as `database`".to_owned()),
            },
        }
    }
}

/// The parts between dots; a part in double quotes may hold anything, a double quote twice.
fn parts(text: &str) -> Option<Vec<String>> {
    let (mut found, mut part, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if is_quoted && rest.next_if_eq(&'"').is_some() => part.push('"'),
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => found.push(std::mem::take(&mut part)),
            other => part.push(other),
        }
    }
    found.push(part);
    (!is_quoted && found.iter().all(|part| !part.is_empty() && !part.contains('\0'))).then_some(found)
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.table {
            Some((schema, table)) => write!(f, "{}.{schema}.{table}", self.database),
            None => f.write_str(&self.database),
        }
    }
}

impl Wanted {
    /// The file's name: what cannot be in one is `_`.
    fn file_name(&self) -> String {
        let name: String =
            self.to_string().chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
        format!("{}.sql", name.trim_start_matches('.'))
    }

    /// Of `pg_dump`: a name in double quotes is no pattern, and a connection string is no name.
    fn options(&self) -> Vec<String> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let escaped = self.database.replace('\\', "\\\\").replace('\'', "\\'");
        let mut options = vec!["--no-password".to_owned(), format!("--dbname=dbname='{escaped}'")];
        if let Some((schema, table)) = &self.table {
            options.push(format!("--table={}.{}", quoted(schema), quoted(table)));
        }
        options
    }
}

/// What was brought out.
#[derive(Debug, Clone)]
pub struct Extracted {
    /// SQL that makes it anew.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// How far the server was recovered.
    pub report: Report,
}

/// Where from and where to.
#[derive(Debug)]
pub struct Extraction<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The component, as the manifest describes it.
    pub component: &'a Component,
    /// The snapshot …
    pub snapshot: SnapshotId,
    /// … and how its server recovers.
    pub planned: &'a PlannedRecovery,
    /// What is wanted.
    pub wanted: &'a Wanted,
    /// The folder that gets the file. The scratch folder, as large as the server, lies in it for a while.
    pub folder: &'a Path,
}

/// Brings it out. The file is whole and durable, or not there.
///
/// # Errors
/// `Conflict` with `R0502` when the file is there already; `NotFound` with `R0211` when the server has no such table or database;
/// as [`super::apply`] has them of a server.
pub fn extract(
    extraction: &Extraction<'_>,
    supervisor: &Supervisor,
    interrupt: &Interrupt,
) -> Result<Extracted> {
    let Extraction { repository, component, snapshot, planned, wanted, folder } = *extraction;
    let path = folder.join(wanted.file_name());
    if path.exists() {
        let message = format!("`{}` is there already", path.display());
        return Err(Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message)
            .with_hint("move it away, or name another folder with `--target`"));
    }
    let index = repository.load_readable_index()?;
    let recorded = repository.snapshot(snapshot)?;
    let facts = facts_of(repository, &index, &recorded.tree)?
        .ok_or_else(|| Error::internal("the facts about a server are gone"))?;
    let failed = |error| Error::io(folder.display(), error);
    // Its name is not known yet; whether it would be in a folder of the original is.
    let scratch = folder.join(SCRATCH);
    places::place(&facts, &scratch.join("spaces"), &scratch.join("data"))?;
    fs::create_dir_all(folder).map_err(failed)?;
    let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(folder).map_err(failed)?;
    // The server's user has to get through, and sees nothing but its own.
    let passable = || fs::Permissions::from_mode(0o711);
    fs::set_permissions(scratch.path(), passable()).map_err(failed)?;
    let (data, spaces) = (scratch.path().join("data"), scratch.path().join("spaces"));
    postgres::check_restore(repository, &index, &recorded, &data, false)?;
    fs::create_dir(&spaces).and_then(|()| fs::set_permissions(&spaces, passable())).map_err(failed)?;
    let placed = places::place(&facts, &spaces, &data)?;
    let original = as_bytes(Path::new(&facts.server.data_directory)).to_vec();
    let options = restore::Options {
        paths: vec![original.clone()],
        strip: Some(original),
        root_metadata: true,
        leave_out: places::leave_out(&facts),
        ..restore::Options::default()
    };
    let restoring = || format!("restore `{}` into a scratch folder", component.name);
    run_restore(repository, &index, recorded.tree, &options, &data, interrupt).with_context(restoring)?;
    for space in &placed {
        run_restore(repository, &index, recorded.tree, &space.options(false), &space.to, interrupt)
            .with_context(restoring)?;
    }
    places::link(&data, placed.iter().map(|placed| (placed.space.oid, placed.to.as_path())))?;
    let program = &supervisor.program;
    let server = Server { described: component, facts: &facts, planned, data: &data, program, keep: false };
    let mut timeline = Timeline::start(Stopwatch::start(), StepName::Replay);
    let (instance, report) = server.come_up(supervisor, &mut timeline, interrupt)?;
    let bytes = dump(&instance, wanted, folder, &path, interrupt)?;
    // Its files go with the folder.
    drop(instance);
    Ok(Extracted { path, bytes, report })
}

fn dump(
    instance: &Instance,
    wanted: &Wanted,
    folder: &Path,
    path: &Path,
    interrupt: &Interrupt,
) -> Result<u64> {
    let failed = |error| Error::io(path.display(), error);
    let file = tempfile::Builder::new().prefix(".retoma-tmp-").tempfile_in(folder).map_err(failed)?;
    let output = file.reopen().map_err(failed)?;
    let (status, said) = instance.run_into("pg_dump", &wanted.options(), output, DUMP_LIMIT, interrupt)?;
    if status != 0 {
        let message = format!("`{wanted}` cannot be brought out: {said}");
        return Err(Error::new(ErrorKind::NotFound, codes::SNAPSHOT_NOT_FOUND, message).with_hint(
            "names are as in `\\l` and `\\dt` of psql; quote capitals: 'shop.public.\"Orders\"'",
        ));
    }
    file.as_file().sync_all().map_err(failed)?;
    let bytes = file.as_file().metadata().map_err(failed)?.len();
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(text: &str) -> Result<Wanted, String> {
        text.parse()
    }

    #[test]
    fn tables_and_databases_are_told_apart() {
        let table = wanted("shop.public.orders").unwrap();
        assert_eq!(table.table, Some(("public".to_owned(), "orders".to_owned())));
        assert_eq!((table.database.as_str(), table.file_name().as_str()), ("shop", "shop.public.orders.sql"));
        assert_eq!(
            table.options(),
            ["--no-password", "--dbname=dbname='shop'", "--table=\"public\".\"orders\""]
        );
        assert_eq!(wanted("shop").unwrap(), Wanted { database: "shop".to_owned(), table: None });
        for bad in ["", "a.b", "a.b.c.d", "a..c", "\"a", "a.b.", "a.\"\".c"] {
            assert!(wanted(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_neither_patterns_nor_connection_strings_nor_paths() {
        let odd = wanted("\"host=evil\".\"a.b\".\"x\"\"*/..\"").unwrap();
        assert_eq!(odd.database, "host=evil");
        assert_eq!(odd.table, Some(("a.b".to_owned(), "x\"*/..".to_owned())));
        assert_eq!(
            odd.options()[1..],
            ["--dbname=dbname='host=evil'", "--table=\"a.b\".\"x\"\"*/..\""].map(str::to_owned)
        );
        assert_eq!(wanted("a'b\\c").unwrap().options()[1], "--dbname=dbname='a\\'b\\\\c'");
        assert_eq!(wanted("\"../x\"").unwrap().file_name(), "_x.sql");
    }

    proptest! {
        #[test]
        fn quoted_names_come_back(names in prop::array::uniform3("[^\0]{1,12}")) {
            let text = names.each_ref().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).join(".");
            let wanted: Wanted = text.parse().unwrap();
            let [database, schema, table] = names;
            prop_assert_eq!(&wanted, &Wanted { database, table: Some((schema, table)) });
            let name = wanted.file_name();
            prop_assert!(!name.contains('/') && !name.starts_with('.'));
        }
    }
}
