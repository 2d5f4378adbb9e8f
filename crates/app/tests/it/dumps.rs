//! Backups by dumps, as whole commands.

use crate::wal_stream::Site;
use retoma_control::service::processes_with;
use retoma_sources::postgres::wire::{Address, Connection, Mode, Timeouts};
use retoma_testkit::wait_for_what;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// What there is in a folder.
fn entries(folder: &std::path::Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The programs that dump die with the backup, and the next one removes what they had dumped: all of the data, in the clear.
#[test]
fn what_a_killed_dump_left_is_removed_by_the_next_backup() {
    let Some(site) = Site::start_with("mode = \"archive\"", &[], 1) else { return };
    let manifest = fs::read_to_string(site.home().join("retoma.toml")).unwrap();
    let manifest = manifest.replace("[component.wal]\nmode = \"archive\"\n", "backup = \"logical\"\n");
    site.server.write(&site.home().join("retoma.toml"), &manifest, 0o600);
    site.server
        .psql("CREATE TABLE first AS SELECT generate_series(1, 10000) AS n; ANALYZE first; CREATE TABLE held (n int)");
    // The dump waits for it, until the lock is given back.
    let address = Address::of_process(&site.server.socket_url()).unwrap();
    let mut holder = Connection::connect(&address, Mode::Sql, Timeouts::default()).unwrap();
    holder.execute("BEGIN; LOCK TABLE held").unwrap();
    let scratch = site.home().join("scratch");
    fs::create_dir(&scratch).unwrap();
    // The server's user writes there.
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o777)).unwrap();
    site.server.write(&scratch.join("mine"), "not a dump", 0o600);
    let mut command = site.command(&["backup", "db"]);
    let mut backup = command.env("TMPDIR", &scratch).spawn().unwrap();
    let folder = scratch.display().to_string();
    let dumping = || processes_with(&format!("--file={folder}")).into_iter().next();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE public.held%' AND wait_event_type = 'Lock'";
    wait_for_what("a dump to wait", || (site.server.psql(waits) == "1").then_some(()));
    assert!(dumping().is_some());
    backup.kill().unwrap();
    backup.wait().unwrap();
    wait_for_what("the programs to die", || dumping().is_none().then_some(()));
    assert_eq!(entries(&scratch).len(), 2, "what was killed could not clean up");
    holder.execute("ROLLBACK").unwrap();
    let done = site.command(&["backup", "db"]).env("TMPDIR", &scratch).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(entries(&scratch), [scratch.join("mine")]);
}
