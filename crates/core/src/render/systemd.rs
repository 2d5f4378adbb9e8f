//! The systemd unit of the agent.

use super::text::clean;
use std::path::{Path, PathBuf};

/// What the unit depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The service's name.
    pub service: String,
    /// The program.
    pub program: PathBuf,
    /// The manifest, absolute.
    pub manifest: PathBuf,
    /// Whom it runs as.
    pub user: String,
    /// The folders that it writes to: state, repositories, scratch.
    pub writes: Vec<PathBuf>,
}

/// The unit's text; the same each time.
pub fn unit(unit: &Unit) -> String {
    let Unit { service, program, manifest, user, writes } = unit;
    let mut writes: Vec<String> = writes.iter().map(|path| quoted(path)).collect();
    writes.sort();
    writes.dedup();
    // In a command a `$` begins a variable; in a list of paths it does not.
    let in_command = |path: &Path| quoted(path).replace('$', "$$");
    let (program, manifest, writes) = (in_command(program), in_command(manifest), writes.join(" "));
    let service = clean(service).replace('%', "%%");
    format!(
        "# Printed by `retoma agent --print systemd`. Secrets in the environment: add EnvironmentFile= in a drop-in.\n\
         [Unit]\nDescription=Retoma agent of {service}\n\
         After=network-online.target postgresql.service\nWants=network-online.target\nStartLimitIntervalSec=0\n\n\
         [Service]\nType=notify\nNotifyAccess=main\nExecStart={program} --manifest {manifest} agent\nUser={user}\n\
         Restart=always\nRestartSec=5\nWatchdogSec=60\nTimeoutStopSec=60\nKillMode=mixed\nOOMScoreAdjust=-200\n\n\
         NoNewPrivileges=true\nProtectSystem=strict\nReadWritePaths={writes}\nCacheDirectory=retoma\nCacheDirectoryMode=0700\n\
         PrivateDevices=true\n\
         ProtectKernelTunables=true\nProtectKernelModules=true\nProtectKernelLogs=true\nProtectControlGroups=true\n\
         ProtectClock=true\nProtectHostname=true\nRestrictSUIDSGID=true\nRestrictRealtime=true\nRestrictNamespaces=true\n\
         LockPersonality=true\nSystemCallArchitectures=native\n\
         RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\nUMask=0077\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// A word of a unit file, where `%` begins a specifier, a space the next word, and the end of a line the next setting.
fn quoted(path: &Path) -> String {
    let mut escaped = String::new();
    for c in path.display().to_string().chars() {
        match c {
            '\\' | '"' => escaped.extend(['\\', c]),
            '%' => escaped.push_str("%%"),
            c if c.is_ascii_control() => escaped.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    if escaped.contains([' ', '"', '\\', '\'', ';']) { format!("\"{escaped}\"") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_deterministic_and_hardened() {
        let unit = self::unit(&Unit {
            service: "marabet".to_owned(),
            program: "/usr/local/bin/retoma".into(),
            manifest: "/srv/marabet/retoma.toml".into(),
            user: "retoma".to_owned(),
            writes: vec!["/var/lib/retoma".into(), "/srv/marabet/.retoma".into(), "/var/lib/retoma".into()],
        });
        insta::assert_snapshot!("unit", unit);
    }

    #[test]
    fn paths_are_one_word_each() {
        assert_eq!(quoted(Path::new("/a/b")), "/a/b");
        assert_eq!(quoted(Path::new("/a b/50%/$x\"")), "\"/a b/50%%/$x\\\"\"");
    }
}
