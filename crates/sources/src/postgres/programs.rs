//! PostgreSQL's programs on this machine, and whether they fit what was captured.

use super::facts::PostgresFacts;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Major versions that are looked for.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=20;

/// What a folder of a server's programs has; the first one tells the version.
const SERVER: [&str; 3] = ["postgres", "pg_controldata", "pg_amcheck"];
/// What a folder of a client's programs has.
const CLIENT: [&str; 2] = ["pg_dump", "pg_dumpall"];

/// The folder of one version's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    folder: PathBuf,
}

/// A difference between what was captured and what is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// One sentence with both values.
    pub what: String,
    /// What to do about it.
    pub hint: String,
    /// Whether the server could not be used; otherwise it can, with care.
    pub forbids: bool,
}

/// What this machine has, as far as a restored server depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Here {
    /// The machine's name, as `x86_64`.
    pub machine: String,
    /// The version of the C library, which gives locales their order; `None` where that cannot be known.
    pub libc_version: Option<String>,
    /// Extensions that can be created; `None` where that cannot be known.
    pub extensions: Option<BTreeSet<String>>,
    /// Libraries that can be loaded; `None` where that cannot be known.
    pub libraries: Option<BTreeSet<String>>,
}

impl Programs {
    /// The programs of the major version that `facts` need.
    ///
    /// # Errors
    /// `R0424` when they are not installed.
    pub fn find(facts: &PostgresFacts) -> Result<Self> {
        Self::of(facts.server.version_num / 10_000, &SERVER, "postgresql")
    }

    /// The programs of a client of this major version, which dump a server.
    ///
    /// # Errors
    /// `R0424` when they are not installed.
    pub fn client(major: u32) -> Result<Self> {
        Self::of(major, &CLIENT, "postgresql-client")
    }

    /// The folder that has all of `needed`, of this version; `package` is Debian's.
    fn of(major: u32, needed: &[&str], package: &str) -> Result<Self> {
        let is_it = |folder: &PathBuf| version_of(folder, needed) == Some(major);
        let found = candidates(major, needed).into_iter().find(is_it);
        found.map(|folder| Self { folder }).ok_or_else(|| {
            let message = format!("the programs of PostgreSQL {major} are not installed here");
            Error::new(ErrorKind::NotFound, codes::POSTGRES_PROGRAMS, message).with_hint(format!(
                "install them (on Debian: `{package}-{major}`), or put their folder into PATH"
            ))
        })
    }

    /// The newest ones that are installed, with their version as the server has it: `150000`.
    ///
    /// # Errors
    /// `R0424` when there are none.
    pub fn newest() -> Result<(Self, u32)> {
        let of = |major: u32| {
            let is_it = |folder: &PathBuf| version_of(folder, &SERVER) == Some(major);
            let found = candidates(major, &SERVER).into_iter().find(is_it);
            found.map(|folder| (Self { folder }, major * 10_000))
        };
        MAJORS.rev().find_map(of).ok_or_else(|| {
            let message = "PostgreSQL's programs are not installed here";
            Error::new(ErrorKind::NotFound, codes::POSTGRES_PROGRAMS, message)
                .with_hint("install its server (on Debian: `postgresql`), or put its folder into PATH")
        })
    }

    /// Where one of the programs is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What this machine has.
    pub fn here(&self) -> Here {
        let ask = |option: &str| output(&self.path("pg_config"), &[option]).map(PathBuf::from);
        let names = |folder: PathBuf, suffix: &str| -> Option<BTreeSet<String>> {
            let entries = std::fs::read_dir(folder).ok()?;
            let stem = |name: &str| name.strip_suffix(suffix).map(str::to_owned);
            Some(entries.flatten().filter_map(|entry| stem(&entry.file_name().to_string_lossy())).collect())
        };
        Here {
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
            libc_version: output(Path::new("getconf"), &["GNU_LIBC_VERSION"])
                .and_then(|text| text.strip_prefix("glibc ").map(str::to_owned)),
            extensions: ask("--sharedir").and_then(|folder| names(folder.join("extension"), ".control")),
            libraries: ask("--pkglibdir").and_then(|folder| names(folder, ".so")),
        }
    }
}

/// Compares what was captured with what is here. Looks at nothing but its arguments.
pub fn misfits(facts: &PostgresFacts, here: &Here) -> Vec<Misfit> {
    let mut found = Vec::new();
    // A server on another host need not say what its machine is.
    if !facts.server.machine.is_empty() && facts.server.machine != here.machine {
        found.push(Misfit {
            what: format!(
                "the backup is of a `{}` machine, and this is `{}`",
                facts.server.machine, here.machine
            ),
            hint: "restore on a machine of the same architecture, or dump and load the database".to_owned(),
            forbids: true,
        });
    }
    if let Some(libraries) = &here.libraries {
        let wanted =
            facts.server.shared_preload_libraries.split(',').map(|name| name.trim().trim_matches('"'));
        // One that is named with its path is where it is.
        for name in
            wanted.filter(|name| !name.is_empty() && !name.contains('/') && !libraries.contains(*name))
        {
            found.push(Misfit {
                what: format!("the server loads the library `{name}`, which is not installed here"),
                hint: "install the package that has it".to_owned(),
                forbids: true,
            });
        }
    }
    if let Some(extensions) = &here.extensions {
        let contents = facts.databases.iter().filter_map(|database| database.contents.as_ref());
        let wanted: BTreeSet<&str> =
            contents.flat_map(|it| &it.extensions).map(|extension| extension.name.as_str()).collect();
        for name in wanted.into_iter().filter(|name| !extensions.contains(*name)) {
            found.push(Misfit {
                what: format!("the extension `{name}` is not installed here"),
                hint: "install the package that has it".to_owned(),
                forbids: true,
            });
        }
    }
    if let Some(version) = &here.libc_version {
        let other = |database: &&super::facts::Database| {
            // What looks like a version of the C library; others are of ICU.
            let recorded = database.collation_version.as_ref();
            recorded.is_some_and(|recorded| recorded.starts_with("2.") && recorded != version)
        };
        for database in facts.databases.iter().filter(other) {
            let recorded = database.collation_version.as_deref().unwrap_or_default();
            found.push(Misfit {
                what: format!(
                    "the database `{}` is sorted by version `{recorded}` of the C library, and this is `{version}`",
                    database.name
                ),
                hint: "run `REINDEX DATABASE` and `ALTER DATABASE … REFRESH COLLATION VERSION` after the restore"
                    .to_owned(),
                forbids: false,
            });
        }
    }
    found
}

fn candidates(major: u32, needed: &[&str]) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(output(Path::new("pg_config"), &["--bindir"]).map(PathBuf::from));
    folders.push(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    folders.push(PathBuf::from(format!("/usr/pgsql-{major}/bin")));
    folders.push(PathBuf::from("/usr/local/pgsql/bin"));
    // Some systems have links to a few programs in their PATH.
    folders.retain(|folder| needed.iter().all(|it| folder.join(it).is_file()));
    folders
}

/// The major version of the programs in a folder.
fn version_of(folder: &Path, needed: &[&str]) -> Option<u32> {
    let text = output(&folder.join(needed.first()?), &["--version"])?;
    let version = text.split_whitespace().nth(2)?;
    version.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::facts::{Contents, Database, Extension, Server};

    fn facts() -> PostgresFacts {
        let server = Server {
            version_num: 150_018,
            catalog_version: 202_209_061,
            system_identifier: 1,
            data_directory: "/data".to_owned(),
            data_checksums: true,
            wal_segment_bytes: 16 << 20,
            max_data_alignment: 8,
            machine: "x86_64".to_owned(),
            shared_preload_libraries: "pg_stat_statements, \"auto_explain\",/opt/own.so".to_owned(),
            superuser: "postgres".to_owned(),
        };
        let mut facts = PostgresFacts::new(server, 16 << 10);
        let extension = |name: &str| Extension { name: name.to_owned(), version: "1".to_owned() };
        facts.databases = vec![Database {
            name: "shop".to_owned(),
            bytes: 1,
            encoding: "UTF8".to_owned(),
            collate: "pt_BR".to_owned(),
            ctype: "pt_BR".to_owned(),
            collation_version: Some("2.36".to_owned()),
            contents: Some(Contents {
                extensions: vec![extension("plpgsql"), extension("postgis")],
                tables: 1,
                has_rows: true,
            }),
        }];
        facts
    }

    fn here() -> Here {
        let set = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        Here {
            machine: "x86_64".to_owned(),
            libc_version: Some("2.36".to_owned()),
            extensions: set(&["plpgsql", "postgis"]),
            libraries: set(&["pg_stat_statements", "auto_explain"]),
        }
    }

    fn found(change: impl FnOnce(&mut Here)) -> Vec<(bool, String)> {
        let mut here = here();
        change(&mut here);
        misfits(&facts(), &here).into_iter().map(|misfit| (misfit.forbids, misfit.what)).collect()
    }

    #[test]
    fn what_fits_is_silent_and_what_cannot_be_known_too() {
        assert_eq!(found(|_| {}), []);
        let unknown =
            |here: &mut Here| (here.libc_version, here.extensions, here.libraries) = (None, None, None);
        assert_eq!(found(unknown), []);
    }

    #[test]
    fn each_difference_is_named_with_both_values() {
        let one = |forbids, what: &str| vec![(forbids, what.to_owned())];
        assert_eq!(
            found(|here| here.machine = "aarch64".to_owned()),
            one(true, "the backup is of a `x86_64` machine, and this is `aarch64`")
        );
        assert_eq!(
            found(|here| assert!(here.libraries.as_mut().unwrap().remove("auto_explain"))),
            one(true, "the server loads the library `auto_explain`, which is not installed here")
        );
        assert_eq!(
            found(|here| assert!(here.extensions.as_mut().unwrap().remove("postgis"))),
            one(true, "the extension `postgis` is not installed here")
        );
        assert_eq!(
            found(|here| here.libc_version = Some("2.41".to_owned())),
            one(
                false,
                "the database `shop` is sorted by version `2.36` of the C library, and this is `2.41`"
            )
        );
    }

    #[test]
    fn a_version_that_is_not_installed_is_named() {
        let mut facts = facts();
        facts.server.version_num = 990_001;
        let error = Programs::find(&facts).unwrap_err();
        assert_eq!(error.code(), codes::POSTGRES_PROGRAMS);
        assert!(error.message().contains("PostgreSQL 99"), "{error}");
    }
}
