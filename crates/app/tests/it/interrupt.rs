//! A backup that is stopped leaves nothing that counts, and nothing in the way.

use crate::kit::{Home, MODELS, Run, signal, wait_for};
use rustix::process::Signal;
use std::process::Stdio;

fn packs(home: &Home) -> usize {
    let Ok(folders) = std::fs::read_dir(home.path("repository/data")) else { return 0 };
    folders.flatten().flat_map(|folder| std::fs::read_dir(folder.path())).map(Iterator::count).sum()
}

fn entries(home: &Home, name: &str) -> usize {
    std::fs::read_dir(home.path(name)).map_or(0, Iterator::count)
}

#[test]
fn a_stopped_backup_ends_with_130_and_leaves_no_snapshot_and_no_lock() {
    let home = Home::with(MODELS);
    home.seed_models();
    // Makes the repository, so that only data are written after it.
    home.back_up();
    for part in 0..300 {
        home.write(&format!("models/part-{part}"), &retoma_testkit::bytes(100 + part, 1 << 20));
    }
    for stop in [Signal::INT, Signal::TERM] {
        let (packs_before, snapshots_before) = (packs(&home), entries(&home, "repository/snapshots"));
        let mut command = home.command();
        let mut child = command.arg("backup").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the first packs", || (packs(&home) > packs_before).then_some(()));
        signal(&child, stop);
        wait_for("the end", || child.try_wait().unwrap());
        let run = Run::new("retoma backup".to_owned(), &child.wait_with_output().unwrap()).expect(130);
        assert!(run.stderr.contains("error[R0003]"), "{}", run.text());
        // The manifest's own snapshot may have been committed before; the component's was not.
        assert_eq!(home.snapshots().len(), 1);
        assert!(entries(&home, "repository/snapshots") <= snapshots_before + 1);
        assert_eq!(entries(&home, "repository/locks"), 0);
    }
    home.run(&["verify", "--read-data"]).expect(0);
    let backup = home.back_up();
    assert_eq!(backup["backups"][0]["complete"], true);
    assert_eq!(home.snapshots().len(), 2);
}
