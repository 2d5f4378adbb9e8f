//! A backup that is stopped leaves nothing that counts, and nothing in the way.

use crate::kit::{Home, MODELS};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn packs(home: &Home) -> usize {
    let Ok(folders) = std::fs::read_dir(home.path("repository/data")) else { return 0 };
    folders.flatten().flat_map(|folder| std::fs::read_dir(folder.path())).map(Iterator::count).sum()
}

fn entries(home: &Home, name: &str) -> usize {
    std::fs::read_dir(home.path(name)).map_or(0, Iterator::count)
}

fn signal(child: &Child, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(id, signal).unwrap();
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
        let run =
            crate::kit::Run::new("retoma backup".to_owned(), &child.wait_with_output().unwrap()).expect(130);
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
