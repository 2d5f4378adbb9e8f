//! What the process's surroundings say about how to reach a server. Only [`Environment::of_process`] looks.

use retoma_core::Secret;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The defaults that an address is completed with.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `PGHOST`, `PGPORT` and the others of [`Environment::VARIABLES`] that are set and not empty.
    pub variables: BTreeMap<&'static str, String>,
    /// `PGPASSWORD`.
    pub password: Option<Secret<String>>,
    /// The password file: `PGPASSFILE`, or `.pgpass` in the home folder.
    pub pass_file: PassFile,
    /// The name of the system's user that runs us.
    pub user: Option<String>,
    /// The home folder.
    pub home: Option<PathBuf>,
}

/// The password file as it was found.
#[derive(Debug, Clone, Default)]
pub enum PassFile {
    /// There is none, or it cannot be read.
    #[default]
    Missing,
    /// Others may read it (or it is no ordinary file), so it is not used, as libpq does it.
    Exposed(PathBuf),
    /// Its contents.
    Text(Secret<String>),
}

impl Environment {
    /// The variables that count, beside the password's.
    pub const VARIABLES: [&'static str; 9] = [
        "PGAPPNAME",
        "PGCHANNELBINDING",
        "PGCONNECT_TIMEOUT",
        "PGDATABASE",
        "PGHOST",
        "PGPORT",
        "PGSSLMODE",
        "PGSSLROOTCERT",
        "PGUSER",
    ];
    /// A longer password file is not read, in bytes.
    const MAX_PASS_FILE: u64 = 1 << 20;

    /// What is true for this process now.
    pub fn of_process() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        let pass_file =
            set("PGPASSFILE").map(PathBuf::from).or_else(|| home.as_ref().map(|home| home.join(".pgpass")));
        Self {
            variables: Self::VARIABLES.iter().filter_map(|name| Some((*name, set(name)?))).collect(),
            password: set("PGPASSWORD").map(Secret::new),
            pass_file: pass_file.map_or(PassFile::Missing, |path| read_pass_file(&path)),
            user: std::fs::read_to_string("/etc/passwd")
                .ok()
                .and_then(|text| user_name(&text, rustix::process::geteuid().as_raw()))
                .or_else(|| set("USER")),
            home,
        }
    }
}

fn read_pass_file(path: &Path) -> PassFile {
    let Ok(metadata) = std::fs::metadata(path) else { return PassFile::Missing };
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 || metadata.len() > Environment::MAX_PASS_FILE {
        return PassFile::Exposed(path.to_owned());
    }
    std::fs::read_to_string(path).map_or(PassFile::Missing, |text| PassFile::Text(Secret::new(text)))
}

/// The name of the user `id` in a file like `/etc/passwd`.
fn user_name(text: &str, id: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn users_are_found_by_their_number() {
        let text = "root:x:0:0:root:/root:/bin/sh\n\n+::::::\nbroken\npostgres:x:105:110::/var/lib/postgresql:/bin/sh\n";
        assert_eq!(user_name(text, 0).as_deref(), Some("root"));
        assert_eq!(user_name(text, 105).as_deref(), Some("postgres"));
        assert_eq!(user_name(text, 110), None);
    }

    #[test]
    fn a_password_file_that_others_may_read_is_not_used() {
        let folder = retoma_testkit::Folder::new();
        let path = folder.join("pgpass");
        assert!(matches!(read_pass_file(&path), PassFile::Missing));
        std::fs::write(&path, "*:*:*:*:secret").unwrap();
        for (mode, is_used) in [(0o600, true), (0o400, true), (0o640, false), (0o644, false), (0o601, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = read_pass_file(&path);
            assert_eq!(matches!(found, PassFile::Text(_)), is_used, "{mode:o}");
            assert_eq!(matches!(found, PassFile::Exposed(_)), !is_used, "{mode:o}");
            assert!(!format!("{found:?}").contains("secret"));
        }
        assert!(matches!(read_pass_file(folder.path()), PassFile::Exposed(_)));
    }

    #[test]
    fn this_process_has_a_user() {
        assert!(Environment::of_process().user.is_some_and(|user| !user.is_empty()));
    }
}
