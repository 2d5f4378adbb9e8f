//! The settings of a restored server, as values.

use super::{Launch, PORT, Serve};
use retoma_sources::postgres::{PostgresFacts, Recovery};
use std::path::Path;

/// So many connections for replication a copy that serves has at least.
const SENDERS: u64 = 10;
/// What `pg_controldata` calls a setting, and its name.
const RECORDED: [(&str, &str); 5] = [
    ("max_connections", "max_connections"),
    ("max_worker_processes", "max_worker_processes"),
    ("max_wal_senders", "max_wal_senders"),
    ("max_prepared_xacts", "max_prepared_transactions"),
    ("max_locks_per_xact", "max_locks_per_transaction"),
];

/// What a server's own settings were when it was backed up, as its control file has them: with less, it may be unable to
/// recover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Control(Vec<(&'static str, u64)>);

impl Control {
    /// Reads what `pg_controldata` prints.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let of = |line: &str| -> Option<u64> {
                line.strip_prefix(name)?.strip_prefix(" setting:")?.trim().parse().ok()
            };
            text.lines().find_map(of)
        };
        let settings = RECORDED.iter().map(|(printed, setting)| Some((*setting, value(printed)?)));
        settings.collect::<Option<_>>().map(Self)
    }
}

/// Everything that is set on the command line of a server that recovers, which outdoes all files.
pub(super) fn settings(
    launch: &Launch<'_>,
    recovery: &Recovery,
    folder: &Path,
    control: &Control,
) -> Vec<(&'static str, String)> {
    let off = || "off".to_owned();
    let mut settings = private(launch.facts, folder, control);
    settings.push(("hot_standby", off()));
    if launch.keep {
        // New WAL waits for the archive of the server that goes on with these files.
        settings.extend([
            ("fsync", "on".to_owned()),
            ("archive_mode", "on".to_owned()),
            ("archive_command", "false".to_owned()),
            ("archive_library", String::new()),
        ]);
        if launch.facts.server.version_num < 150_000 {
            settings.pop();
        }
    } else {
        settings.extend([
            ("fsync", off()),
            ("full_page_writes", off()),
            ("archive_mode", off()),
            ("autovacuum", off()),
        ]);
    }
    settings.extend(recovery.settings());
    settings
}

/// What holds for every server of ours: nobody but its superuser on this machine reaches it, and it reaches nobody.
pub(super) fn private(
    facts: &PostgresFacts,
    folder: &Path,
    control: &Control,
) -> Vec<(&'static str, String)> {
    let file = |name: &str| folder.join(name).display().to_string();
    let off = || "off".to_owned();
    let mut settings = vec![
        ("config_file", file("postgresql.conf")),
        ("hba_file", file("pg_hba.conf")),
        ("ident_file", file("pg_ident.conf")),
        ("external_pid_file", String::new()),
        ("port", PORT.to_string()),
        ("listen_addresses", String::new()),
        ("unix_socket_directories", folder.display().to_string()),
        ("unix_socket_permissions", "0700".to_owned()),
        ("ssl", off()),
        ("logging_collector", off()),
        ("log_destination", "stderr".to_owned()),
        // The log is read: see `Log`.
        ("lc_messages", "C".to_owned()),
        ("log_min_messages", "warning".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        ("synchronous_standby_names", String::new()),
        // A copy's subscriptions would take what is meant for the original, and its jobs would run twice.
        ("max_logical_replication_workers", "0".to_owned()),
        ("cron.launch_active_jobs", off()),
        ("restart_after_crash", off()),
        ("shared_preload_libraries", facts.server.shared_preload_libraries.clone()),
        ("shared_buffers", "256MB".to_owned()),
        ("huge_pages", off()),
    ];
    settings.extend(control.0.iter().map(|(name, value)| (*name, value.to_string())));
    settings
}

/// What a copy runs with that takes writes, is backed up and ships its WAL.
pub(super) fn serving(serve: &Serve<'_>, folder: &Path, control: &Control) -> Vec<(&'static str, String)> {
    let mut settings = private(serve.facts, folder, control);
    // Backups and streams need some, also where the original had none.
    if let Some(senders) = settings.iter_mut().find(|(name, _)| *name == "max_wal_senders") {
        let had: u64 = senders.1.parse().unwrap_or(0);
        senders.1 = had.max(SENDERS).to_string();
    }
    settings.extend([
        ("fsync", "on".to_owned()),
        ("synchronous_commit", "on".to_owned()),
        ("full_page_writes", "on".to_owned()),
        ("wal_level", "replica".to_owned()),
        ("max_replication_slots", SENDERS.to_string()),
        // A copy that lives for minutes; its pages change by what the drill does alone.
        ("autovacuum", "off".to_owned()),
    ]);
    match &serve.archiving {
        Some(archiving) => settings.extend([
            ("archive_mode", "on".to_owned()),
            ("archive_command", archiving.command.clone()),
            ("archive_timeout", archiving.timeout_seconds.to_string()),
        ]),
        None => settings.push(("archive_mode", "off".to_owned())),
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pg_controldata_prints_is_read() {
        let text = "pg_control version number:            1300\nmax_connections setting:              100\n\
            max_worker_processes setting:         8\nmax_wal_senders setting:              10\n\
            max_prepared_xacts setting:           2\nmax_locks_per_xact setting:           64\n";
        let control = Control(vec![
            ("max_connections", 100),
            ("max_worker_processes", 8),
            ("max_wal_senders", 10),
            ("max_prepared_transactions", 2),
            ("max_locks_per_transaction", 64),
        ]);
        assert_eq!(Control::parse(text), Some(control));
        assert_eq!(Control::parse(&text.replace("setting: ", "setting ")), None);
        assert_eq!(Control::parse(""), None);
    }
}
