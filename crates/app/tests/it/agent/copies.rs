//! Repositories that are copies: the agent fills them, no backup does, and it says when it cannot.

use super::{Agent, ended, wait_for_good};
use crate::kit::{Home, MODELS, tree};
use retoma_testkit::wait_for_what;
use serde_json::Value;

/// Models that are backed up every two seconds into `local`, which is copied into `second` as often.
fn home() -> Home {
    let home = Home::with("");
    home.write_private("second-password", "another password");
    home.write_manifest(&format!(
        "\n[[repository]]\nname = \"second\"\nurl = \"file://{}\"\npassword = \"file:second-password\"\ncopy_of = \"local\"\n{MODELS}\n\
         [schedule]\nevery = \"2s\"\n[agent]\nlisten = \"127.0.0.1:0\"\ncopy_every = \"2s\"\nretention_every = \"3s\"\n",
        home.text_path("elsewhere")
    ));
    home.seed_models();
    home
}

/// Whether this alert about this task is active.
fn is_active(agent: &Agent<'_>, alert: &str, component: &str) -> bool {
    let health: Value = serde_json::from_str(&agent.get("/healthz").1).unwrap();
    let alerts = health["alerts"].as_array().unwrap();
    alerts.iter().any(|it| it["alert"] == alert && it["component"] == component)
}

#[test]
fn a_copy_is_kept_and_its_failure_is_an_alert_until_it_ends() {
    let home = home();
    // Where there is nothing to copy, a copy fails and is tried again.
    home.run(&["backup"]).expect(0);
    let agent = Agent::start(&home);
    wait_for_good(&home, "backup/models", 2);
    wait_for_good(&home, "copy/second", 2);
    wait_for_what("snapshots in the copy", || {
        let listed = home.run(&["snapshots", "-r", "second", "--json"]);
        (listed.code == Some(0) && listed.stdout.contains("models")).then_some(())
    });
    wait_for_what("retention in both", || (ended(&home, "retention", "good") >= 1).then_some(()));
    assert_eq!(ended(&home, "copy/second", "failed"), 0, "{}", agent.log());

    std::fs::rename(home.path("elsewhere"), home.path("away")).unwrap();
    wait_for_what("the alert", || is_active(&agent, "task_failing", "copy/second").then_some(()));
    // What is not mounted is not made anew.
    assert!(!home.path("elsewhere").exists());
    let before = ended(&home, "backup/models", "good");
    wait_for_good(&home, "backup/models", before + 1);
    std::fs::rename(home.path("away"), home.path("elsewhere")).unwrap();
    wait_for_what("its end", || (!is_active(&agent, "task_failing", "copy/second")).then_some(()));
    assert_eq!(agent.stop().code(), Some(0));

    std::fs::remove_dir_all(home.path("repository")).unwrap();
    let done = home.json(&["restore", "models", "--target", "restored"], 0, "retoma.restore/1");
    assert_eq!(done["read_from"]["repository"], "second");
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
}

#[test]
fn no_backup_goes_into_a_copy_and_status_tells_of_it() {
    let home = home();
    home.run(&["backup"]).expect(0);
    assert!(home.path("repository/config").exists() && !home.path("elsewhere").exists());
    let refused = home.run(&["backup", "-r", "second"]).expect(1);
    assert!(refused.stderr.contains("is a copy of `local`"), "{}", refused.text());
    assert!(!home.path("elsewhere").exists());
    home.run(&["copy", "--existing", "second"]).expect(10);
    assert!(!home.path("elsewhere").exists());
    home.run(&["copy"]).expect(0);
    let status = home.json(&["status"], 0, "retoma.status/1");
    let copies: Vec<(&Value, &Value)> = status["copies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|copy| (&copy["repository"], &copy["behind_seconds"]))
        .collect();
    assert_eq!(copies, [(&"local".into(), &0.into()), (&"second".into(), &0.into())], "{status:#}");
}
