//! Where PostgreSQL's programs are, and as whom they run.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs of one installation.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    folder: PathBuf,
    /// The user that runs them, and group, when we are root.
    user: Option<(u32, u32)>,
}

impl Programs {
    /// Those of `pg_config`, or the newest below `/usr/lib/postgresql`, where Debian keeps them out of `PATH`.
    #[allow(clippy::panic, clippy::print_stderr)]
    pub(super) fn find() -> Option<Self> {
        let folder =
            by_pg_config().into_iter().chain(by_debian()).find(|folder| folder.join("initdb").is_file());
        let Some(folder) = folder else {
            assert!(
                env::var_os("REQUIRE_SERVICES").is_none_or(|value| value != "1"),
                "PostgreSQL's server is not installed, and REQUIRE_SERVICES=1 forbids to skip"
            );
            eprintln!("skipped: PostgreSQL's server (`initdb`) is not installed");
            return None;
        };
        let user = rustix::process::geteuid().is_root().then(server_user);
        Some(Self { folder, user })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A program as the server's user. It replaces the helper that changes the user, so that its id is the child's.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = match self.user {
            None => Command::new(self.path(name)),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={user}"))
                    .arg(format!("--regid={group}"))
                    .args(["--init-groups", "--"]);
                command.arg(self.path(name));
                command
            }
        };
        // What the person at the machine has set for other servers is not for ours.
        for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(variable);
        }
        command.env("LC_ALL", "C").env("TZ", "UTC");
        command
    }

    /// Lets the server's user reach what is in `folder`.
    #[allow(clippy::panic)]
    pub(super) fn open_to_server(&self, folder: &Path) {
        if self.user.is_some() {
            let opened = fs::set_permissions(folder, fs::Permissions::from_mode(0o755));
            opened.unwrap_or_else(|error| panic!("open {}: {error}", folder.display()));
        }
    }

    /// Makes a file or folder the server's.
    #[allow(clippy::panic)]
    pub(super) fn give_to_server(&self, path: &Path) {
        if let Some((user, group)) = self.user {
            let given = std::os::unix::fs::chown(path, Some(user), Some(group));
            given.unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
        }
    }
}

fn by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn by_debian() -> Vec<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, folder)| folder).collect()
}

/// User and group of `postgres`, who is made by Debian's package.
#[allow(clippy::panic)]
fn server_user() -> (u32, u32) {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    found.unwrap_or_else(|| panic!("PostgreSQL refuses to run as root, and there is no user `postgres`"))
}
