//! Full disks: of the spool, and of a repository.

use super::{
    Load, archive, archived, archiving, assert_no_gap, assert_nothing_is_missing, assert_recovers_to, site,
};
use crate::full_disk::Small;
use retoma_testkit::wait_for_what;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);

/// Fills a small disk up to the last block; gives the file to remove.
fn fill(folder: &Path) -> PathBuf {
    use std::io::Write as _;
    let ballast = folder.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    for block in [1 << 20, 4096] {
        while file.write_all(&vec![1; block]).is_ok() {}
    }
    ballast
}

fn acknowledged(spool: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for server in fs::read_dir(spool).into_iter().flatten().flatten() {
        for entry in fs::read_dir(server.path().join("stored")).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            found.push((name, entry.metadata().map_or(0, |metadata| metadata.len())));
        }
    }
    found
}

#[test]
fn with_a_full_spool_every_segment_is_pushed_by_itself_and_none_is_missing() {
    let Some(site) = archiving(&["archive_mode = on"]) else { return };
    let disk = site.home().join("small");
    let Some(_small) = Small::mount(&disk, 2) else { return };
    let spool = disk.join("spool");
    archive(&site, &format!(" --spool {}", spool.display()));
    archived(&site.server, PATIENCE);
    site.back_up();
    let ballast = fill(&disk);
    let load = Load::start(&site);
    load.goes_on_for("with a full spool", 5);
    // Several wait at once, and are taken along; that they are stored cannot be noted.
    site.server.psql("CREATE TABLE noise AS SELECT md5(n::text) AS n FROM generate_series(1, 60000) AS n");
    load.stop();
    archived(&site.server, PATIENCE);
    let whole: Vec<_> = acknowledged(&spool).into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    assert!(whole.is_empty(), "a full disk took {whole:?}");
    let until = site.current().parse().unwrap();
    for repository in ["near", "far"] {
        site.assert_whole(repository, until);
    }

    fs::remove_file(ballast).unwrap();
    site.server.psql("CREATE TABLE more AS SELECT md5(n::text) AS n FROM generate_series(1, 60000) AS n");
    archived(&site.server, PATIENCE);
    assert_no_gap(&site);
    assert_recovers_to(&site, &site.server);
}

#[test]
fn with_a_full_repository_an_archived_server_goes_on_and_nothing_is_missing_afterwards() {
    let Some(site) = archiving(&["archive_mode = on"]) else { return };
    let Some(_small) = on_a_small_disk(&site) else { return };
    archived(&site.server, PATIENCE);
    site.back_up();
    let ballast = fill(&site.home().join("far"));
    let load = Load::start(&site);
    wait_for_what("the archiver to fail", || {
        (site.server.psql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    load.goes_on_for("archive, with a full repository", 5);
    let log = site.server.log();
    assert!(log.contains("R0305") || log.contains("R0012"), "{log}");
    fs::remove_file(ballast).unwrap();
    load.goes_on_for("archive, with room again", 2);
    load.stop();
    archived(&site.server, PATIENCE);
    let until = site.current().parse().unwrap();
    site.assert_whole("far", until);
    assert_no_gap(&site);
    assert_recovers_to(&site, &site.server);
}

#[test]
fn with_a_full_repository_a_streamed_server_goes_on_and_nothing_is_missing_afterwards() {
    let Some(site) = site("mode = \"stream\"", &[]) else { return };
    let Some(_small) = on_a_small_disk(&site) else { return };
    let stream = site.streaming();
    site.back_up();
    let ballast = fill(&site.home().join("far"));
    let load = Load::start(&site);
    let raised = stream.wait_for_alarm("alarm_raised", "repository");
    assert_eq!(raised["repository"], "far", "{raised:#}");
    let code = raised["error"]["code"].as_str().unwrap();
    assert!(["R0305", "R0012"].contains(&code), "{raised:#}");
    load.goes_on_for("stream, with a full repository", 5);
    fs::remove_file(ballast).unwrap();
    stream.wait_for_alarm("alarm_cleared", "repository");
    load.stop();
    let until = site.shipped_within(PATIENCE);
    assert_eq!(stream.stop(), Some(0));
    assert_nothing_is_missing(&site, until);
}

/// Moves a site's second repository to a disk of 96 MB.
fn on_a_small_disk(site: &crate::wal_stream::Site) -> Option<Small> {
    let (far, aside) = (site.home().join("far"), site.home().join("far-aside"));
    let copy = |from: &Path, to: &Path| {
        let status = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
        assert!(status.unwrap().success());
    };
    let small = Small::mount(&aside, 96)?;
    drop(small);
    copy(&far, &aside);
    fs::remove_dir_all(&far).unwrap();
    let small = Small::mount(&far, 96)?;
    copy(&aside, &far);
    Some(small)
}
