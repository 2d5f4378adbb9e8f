//! A full disk: said clearly, nothing half-done counts, and it works again once there is room.

use crate::kit::{Home, MODELS, tree};
use std::path::Path;
use std::process::Command;

/// A small file system of its own below a home; unmounted when dropped.
pub(crate) struct Small(std::path::PathBuf);

impl Small {
    /// Mounts one of `megabytes`; `None`, and said, where that is not allowed.
    pub(crate) fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "retoma-test"]).arg(at).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            other => {
                let why = other.map_or_else(
                    |error| error.to_string(),
                    |output| String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                );
                println!("skipped: a small file system cannot be mounted here: {why}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

fn full(code: &serde_json::Value) -> bool {
    code == "R0012" || code == "R0305"
}

#[test]
fn a_full_repository_keeps_what_it_has_and_takes_more_once_there_is_room() {
    let home = Home::with(MODELS);
    home.seed_models();
    let Some(_small) = Small::mount(&home.path("repository"), 12) else { return };
    home.back_up();
    let good = tree(&home.path("models"));
    home.write("repository/ballast", &vec![0; 4 << 20]);
    home.write("models/large", &retoma_testkit::bytes(7, 9 << 20));
    let run = home.run(&["backup", "--json"]).expect(1);
    let backup = run.document();
    let error = &backup["failed"][0];
    assert!(full(&error["code"]), "{error:#}");
    assert!(error["hint"].is_string(), "{error:#}");
    assert!(run.stderr.contains("has no room"), "{}", run.text());
    assert_eq!(home.snapshots().len(), 1, "an unfinished backup is no snapshot");
    home.run(&["verify", "--read-data"]).expect(0);
    home.run(&["restore", "models", "--target", "restored"]).expect(0);
    assert_eq!(tree(&home.path("restored")), good);

    std::fs::remove_file(home.path("repository/ballast")).unwrap();
    // What the dead attempt left is waste, which the next prune gives back.
    home.run(&["prune", "--grace", "0s", "--yes"]).expect(0);
    home.back_up();
    assert_eq!(home.snapshots().len(), 2);
    home.run(&["verify", "--read-data"]).expect(0);
}

#[test]
fn a_full_target_is_said_and_a_second_try_with_room_goes_on() {
    let home = Home::with(MODELS);
    home.seed_models();
    home.write("models/large", &retoma_testkit::bytes(7, 9 << 20));
    home.back_up();
    let Some(_small) = Small::mount(&home.path("target"), 12) else { return };
    home.write("target/ballast", &vec![0; 6 << 20]);
    let restore = ["restore", "models", "--target", "target/models"];
    let run = home.run(&[&restore[..], &["--json"]].concat()).expect(1);
    let done = run.document();
    // Planning needs no room, so the restore is begun, and says where it stopped.
    assert_eq!((&done["schema"], &done["complete"]), (&"retoma.restore/1".into(), &false.into()), "{done:#}");
    assert!(full(&done["stopped"]["code"]), "{done:#}");
    assert!(run.stderr.contains("has no room") || run.stderr.contains("error[R0012]"), "{}", run.text());
    std::fs::remove_file(home.path("target/ballast")).unwrap();
    home.json(&restore, 0, "retoma.restore/1");
    assert_eq!(tree(&home.path("target/models")), tree(&home.path("models")));
}
