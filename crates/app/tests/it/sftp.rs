//! A repository on an SFTP server, from the first backup to a blank machine, and read by the public restic.

use crate::kit::{Home, MODELS, Run, tree};
use retoma_testkit::{SftpServer, require_tool};
use std::process::Command;

struct Far {
    home: Home,
    server: SftpServer,
}

impl Far {
    /// A service with models whose repository is on a server that is not used yet.
    fn new() -> Option<Self> {
        let server = SftpServer::start()?;
        let home = Home::with(MODELS);
        home.seed_models();
        let head = format!(
            "version = 1\n\n[service]\nname = \"marabet\"\n\n[[repository]]\nname = \"far\"\nurl = \"{}\"\n\
             password = \"file:password\"\n",
            server.url("repository")
        );
        home.write("retoma.toml", format!("{head}{MODELS}").as_bytes());
        Some(Self { home, server })
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.home.command();
        let output = command.env("RETOMA_SSH_COMMAND", self.server.ssh_command()).args(arguments).output();
        Run::new(format!("retoma {}", arguments.join(" ")), &output.unwrap())
    }

    fn restic(&self, arguments: &[&str]) -> Option<Run> {
        let mut command = self.home.through(Command::new(require_tool("restic")?));
        let ssh = format!("{} -p {} 127.0.0.1 -s sftp", self.server.ssh_command(), self.server.port());
        command.args(["--no-cache", "-o", &format!("sftp.command={ssh}"), "--password-file", "password"]);
        command.args(["-r", &format!("sftp:127.0.0.1:{}/repository", self.server.data_dir().display())]);
        Some(Run::new(format!("restic {}", arguments.join(" ")), &command.args(arguments).output().unwrap()))
    }

    /// The ids of the snapshots, oldest first.
    fn snapshots(&self) -> Vec<String> {
        let found = self.run(&["snapshots", "--json"]).expect(0).document();
        let ids =
            found["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        ids.collect()
    }
}

#[test]
fn a_repository_on_a_server_is_kept_and_brings_a_blank_machine_back() {
    let Some(far) = Far::new() else { return };
    far.run(&["backup"]).expect(0);
    far.home.write("models/new", &retoma_testkit::bytes(3, 100_000));
    far.run(&["backup"]).expect(0);
    assert_eq!(far.snapshots().len(), 2);
    far.run(&["verify", "--read-data"]).expect(0);
    std::fs::remove_file(far.home.path("models/new")).unwrap();
    let models = tree(&far.home.path("models"));
    far.run(&["backup"]).expect(0);
    for old in &far.snapshots()[..2] {
        far.run(&["forget", "--snapshot", old, "--yes"]).expect(0);
    }
    far.run(&["prune", "--grace", "0s", "--yes"]).expect(0);
    assert_eq!(far.snapshots().len(), 1);
    far.run(&["verify", "--read-data"]).expect(0);
    far.run(&["restore", "models", "--target", "restored"]).expect(0);
    assert_eq!(tree(&far.home.path("restored")), models);

    let url = far.server.url("repository");
    std::fs::remove_dir_all(far.home.path("models")).unwrap();
    std::fs::remove_file(far.home.path("retoma.toml")).unwrap();
    far.run(&[
        "recover",
        "--repository-url",
        &url,
        "--password-file",
        "password",
        "--to",
        "blank",
        "--no-start",
    ])
    .expect(0);
    let root = far.home.path("blank").join(far.home.path("models").strip_prefix("/").unwrap());
    assert_eq!(tree(&root), models);
}

#[test]
fn restic_checks_and_restores_what_we_wrote_there() {
    let Some(far) = Far::new() else { return };
    far.run(&["backup"]).expect(0);
    let Some(check) = far.restic(&["check", "--read-data"]) else { return };
    assert!(check.expect(0).stdout.contains("no errors were found"));
    let target = far.home.text_path("by-restic");
    far.restic(&["restore", "latest", "--target", &target]).unwrap().expect(0);
    let models = far.home.path("models");
    let restored = far.home.path("by-restic").join(models.strip_prefix("/").unwrap());
    assert_eq!(tree(&restored), tree(&models));
}

#[test]
fn a_server_that_refuses_the_login_is_said_with_what_to_do() {
    let Some(far) = Far::new() else { return };
    std::fs::write(far.server.authorized_key(), "").unwrap();
    let run = far.run(&["backup"]).expect(1);
    assert!(run.stderr.contains("R0306") && run.stderr.contains("refused the login"), "{}", run.text());
    assert!(run.stderr.contains("IdentityFile"), "{}", run.text());
}

#[test]
fn a_drill_of_a_repository_on_a_server_is_green_and_leaves_nothing() {
    let Some(far) = Far::new() else { return };
    far.run(&["backup"]).expect(0);
    let stored = tree(&far.server.data_dir());
    let document = far.run(&["drill", "deletion", "--json"]).expect(0).document();
    assert_eq!(document["verdict"], "green", "{document:#}");
    assert_eq!(document["components"][0]["component"], "models", "{document:#}");
    assert_eq!(tree(&far.server.data_dir()), stored, "the repository on the server is only read");
    assert_eq!(tree(&far.home.path("tmp")).len(), 0);
}
