//! A PostgreSQL server from the command line, and without us: what `restic` restores starts by itself.

use crate::kit::Home;
use retoma_testkit::PostgresServer;
use retoma_testkit::postgres::StopMode;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A server with rows, and a folder whose manifest protects it.
pub(crate) fn home() -> Option<(Home, PostgresServer)> {
    backed_up("local")
}

/// As [`home`], backed up this way.
fn backed_up(way: &str) -> Option<(Home, PostgresServer)> {
    let server = PostgresServer::start()?;
    server.psql(
        "CREATE TABLE orders AS SELECT n AS id, 'order ' || n AS what FROM generate_series(1, 1000) AS n",
    );
    let home = Home::with(&format!(
        "\n[[component]]\nname = \"database\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"{}\"\nbackup = \"{way}\"\n",
        server.socket_url()
    ));
    // PostgreSQL's user must be able to reach what is restored into it.
    for folder in
        home.path("").ancestors().filter(|folder| *folder != Path::new("/tmp") && *folder != Path::new("/"))
    {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).ok();
    }
    Some((home, server))
}

fn below(home: &Home, folder: &str, server: &PostgresServer) -> std::path::PathBuf {
    home.path(folder).join(server.data_dir().strip_prefix("/").unwrap())
}

#[test]
fn doctor_backup_recover_and_restore_know_a_server() {
    let Some((home, mut server)) = home() else { return };
    let doctor = home.json(&["doctor"], 0, "retoma.doctor/1").to_string();
    assert!(doctor.contains("PostgreSQL 15 in"), "{doctor}");
    let backup = home.json(&["backup"], 0, "retoma.backup/1");
    assert_eq!(backup["backups"][0]["kind"], "postgres", "{backup:#}");
    let recovered = home.json(&["recover", "--to", "blank", "--yes"], 0, "retoma.recover/1");
    assert_eq!(recovered["passed"], true, "{recovered:#}");
    let checks = recovered["components"][0]["checks"].to_string();
    assert!(checks.contains("pg_amcheck"), "{checks}");
    assert!(below(&home, "blank", &server).join("PG_VERSION").exists());

    let copy = home.json(&["recover", "--to", "copy", "--no-start", "--yes"], 0, "retoma.recover/1");
    assert_eq!(copy["passed"], true, "its checks run, though no service is started: {copy:#}");
    let drill = home.json(&["drill", "application-failure"], 1, "retoma.error/1");
    assert_eq!(drill["code"], "R0713", "{drill:#}");

    // Over a living server's files: refused, nothing touched.
    let data = server.data_dir().display().to_string();
    let refused = home.json(&["restore", "database", "--target", &data, "--yes"], 1, "retoma.error/1");
    assert_eq!(refused["code"], "R0502", "{refused:#}");
    assert_eq!(server.psql("SELECT count(*) FROM orders"), "1000");

    // Over a stopped one: the difference is written, and the server starts on it.
    server.psql("DELETE FROM orders WHERE id > 10");
    server.stop(StopMode::Fast);
    // Without removing what is not in the snapshot, the WAL that is left would delete the rows again.
    let refused = home.json(&["restore", "database", "--target", &data, "--yes"], 1, "retoma.error/1");
    assert_eq!(refused["code"], "R0502", "{refused:#}");
    home.json(&["restore", "database", "--target", &data, "--delete", "--yes"], 0, "retoma.restore/1");
    server.go();
    assert_eq!(server.psql("SELECT count(*) FROM orders"), "1000");
}

#[test]
fn restic_and_postgres_alone_bring_a_server_back() {
    restic_and_postgres_alone("local");
}

#[test]
fn restic_and_postgres_alone_bring_a_server_back_that_was_sent() {
    restic_and_postgres_alone("stream");
}

fn restic_and_postgres_alone(way: &str) {
    let Some((home, server)) = backed_up(way) else { return };
    let doctor = home.json(&["doctor"], 0, "retoma.doctor/1").to_string();
    assert!(doctor.contains("PostgreSQL 15 in"), "{doctor}");
    home.json(&["backup"], 0, "retoma.backup/1");
    let target = home.text_path("by-restic");
    let tag = "retoma:component=database";
    let Some(run) = home.restic(&["restore", "latest", "--tag", tag, "--target", &target]) else { return };
    run.expect(0);
    let restored = PostgresServer::restored(|data| {
        std::fs::remove_dir(data).unwrap();
        let status = Command::new("cp").arg("-a").arg(below(&home, "by-restic", &server)).arg(data).status();
        assert!(status.unwrap().success());
    });
    let mut restored = restored.unwrap();
    let data = restored.data_dir().display().to_string();
    restored.run("pg_verifybackup", &["--exit-on-error", &data]);
    restored.go();
    assert_eq!(restored.psql("SELECT count(*), max(what) FROM orders"), "1000|order 999");
    restored.stop(StopMode::Fast);
    restored.run("pg_checksums", &["--check", "-D", &data]);
}
