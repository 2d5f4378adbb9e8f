//! Signed records as whole commands: made, listed, exported, verified offline, and stale when things moved on.

use crate::kit::{Home, MODELS, fields};
use base64::Engine as _;
use retoma_repo::evidence::{Chain, Draft, Outcome, SigningKey, Subject, SubjectComponent, What};
use serde_json::Value;
use std::time::Duration;

/// Makes a signing key in the file `key`; gives the public half.
pub(crate) fn new_key(home: &Home) -> String {
    home.json(&["evidence", "new-key", "key"], 0, "retoma.evidence/1")["public_key"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A manifest whose operations are signed with the key of [`new_key`].
pub(crate) fn manifest(home: &Home, public: &str, components: &str) -> String {
    format!(
        "version = 1\n\n[service]\nname = \"marabet\"\n\n[evidence]\nsigning_key = \"file:{}\"\npublic_key = \"{public}\"\n\n\
         [[repository]]\nname = \"local\"\nurl = \"file://{}\"\npassword = \"file:password\"\n{components}",
        home.text_path("key"),
        home.text_path("repository")
    )
}

/// A home with two records: of a backup and of a recovery.
fn recorded() -> (Home, String) {
    let home = Home::with("");
    home.seed_models();
    let public = new_key(&home);
    home.write("retoma.toml", manifest(&home, &public, MODELS).as_bytes());
    home.back_up();
    home.run(&["recover", "--to", "new", "--no-start"]).expect(0);
    (home, public)
}

/// With an export in the file `export`.
fn exported() -> (Home, String) {
    let (home, public) = recorded();
    let export = home.run(&["evidence", "export"]).expect(0).stdout;
    home.write("export", export.as_bytes());
    (home, public)
}

/// The reasons for which the newest recovery no longer counts.
fn stale(home: &Home) -> Vec<Value> {
    let status = home.json(&["status"], 0, "retoma.status/1");
    let evidence = status["evidence"].as_array().unwrap();
    let mut kinds: Vec<&str> = evidence.iter().map(|one| one["what"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["backup", "recover"], "the newest of each kind");
    let recover = evidence.iter().find(|one| one["what"] == "recover").unwrap();
    recover["stale"].as_array().unwrap().clone()
}

#[test]
fn a_new_key_is_ours_alone_and_never_overwritten() {
    let home = Home::empty();
    home.assert_snapshot("evidence_new_key", &home.run(&["evidence", "new-key", "key"]).expect(0));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(home.path("key")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(home.path("key")).unwrap();
    home.assert_snapshot("evidence_new_key_again", &home.run(&["evidence", "new-key", "key"]).expect(1));
    assert_eq!(std::fs::read(home.path("key")).unwrap(), before);
}

#[test]
fn a_backup_and_a_recovery_leave_records_that_are_listed() {
    let (home, _) = recorded();
    home.assert_snapshot("evidence_list", &home.run(&["evidence"]).expect(0));
    let list = home.json(&["evidence", "list"], 0, "retoma.evidence/1");
    assert_eq!(fields(&list), ["damaged", "records", "schema"]);
    let backup = &list["records"][0];
    assert_eq!((&backup["sequence"], &backup["what"]), (&1.into(), &"backup".into()));
    let record = &list["records"][1];
    assert_eq!(
        (&record["sequence"], &record["what"], &record["outcome"]),
        (&2.into(), &"recover".into(), &"passed".into())
    );
    assert_eq!(record["subject"]["components"][0]["data_bytes"], 305_000);
    home.assert_snapshot("status", &home.run(&["status"]).expect(0));
}

#[test]
fn without_records_there_is_nothing_to_export() {
    let home = Home::with(MODELS);
    home.seed_models();
    home.back_up();
    home.assert_snapshot("evidence_export_none", &home.run(&["evidence", "export"]).expect(1));
    let list = home.json(&["evidence"], 0, "retoma.evidence/1");
    assert_eq!(list["records"], serde_json::json!([]));
    home.assert_snapshot("status_without_evidence", &home.run(&["status"]).expect(0));
}

#[test]
fn an_export_is_verified_without_repository_and_manifest() {
    let (home, public) = exported();
    home.assert_snapshot("evidence_verify", &home.run(&["evidence", "verify", "export"]).expect(0));
    let anchor =
        home.json(&["evidence"], 0, "retoma.evidence/1")["records"][0]["anchor"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(home.path("repository")).unwrap();
    for file in ["retoma.toml", "key", "password"] {
        std::fs::remove_file(home.path(file)).unwrap();
    }
    let verify = ["evidence", "verify", "export", "--public-key", &public, "--anchor", &anchor];
    let report = home.json(&verify, 0, "retoma.evidence/1");
    assert_eq!((&report["valid"], &report["report"]["records"]), (&true.into(), &2.into()));
    // Without the key nothing says who may have signed.
    let error = home.json(&["evidence", "verify", "export"], 1, "retoma.error/1");
    assert_eq!(error["code"], "R0010");
}

#[test]
fn a_tampered_export_another_key_and_a_cut_tail_are_refused() {
    let (home, _) = exported();
    let export = std::fs::read_to_string(home.path("export")).unwrap();
    let lines: Vec<&str> = export.lines().collect();
    let [head, backup, recover] = lines[..] else { panic!("{export}") };
    let mut envelope: Value = serde_json::from_str(recover).unwrap();
    let engine = base64::engine::general_purpose::STANDARD;
    let payload = engine.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let payload = String::from_utf8(payload).unwrap();
    assert!(payload.contains("\"passed\""));
    envelope["payload"] = engine.encode(payload.replacen("\"passed\"", "\"failed\"", 1)).into();
    home.write("tampered", format!("{head}\n{backup}\n{envelope}\n").as_bytes());
    home.assert_snapshot(
        "evidence_verify_tampered",
        &home.run(&["evidence", "verify", "tampered"]).expect(1),
    );
    home.write("cut", format!("{head}\n{backup}\n").as_bytes());
    home.assert_snapshot("evidence_verify_cut", &home.run(&["evidence", "verify", "cut"]).expect(1));

    let other = home.json(&["evidence", "new-key", "other"], 0, "retoma.evidence/1")["public_key"].clone();
    let verify = ["evidence", "verify", "export", "--public-key", other.as_str().unwrap()];
    home.assert_snapshot("evidence_verify_other_key", &home.run(&verify).expect(1));
    let verify = ["evidence", "verify", "export", "--public-key", "short"];
    home.assert_snapshot("evidence_verify_no_key", &home.run(&verify).expect(1));
    home.assert_snapshot("evidence_verify_no_file", &home.run(&["evidence", "verify", "nowhere"]).expect(1));
    let anchor = format!("2:{}", "a".repeat(64));
    let verify = ["evidence", "verify", "export", "--anchor", &anchor];
    assert_eq!(home.json(&verify, 1, "retoma.error/1")["code"], "R0807");
    assert_eq!(home.json(&["evidence", "verify", "tampered"], 1, "retoma.error/1")["code"], "R0802");
}

#[test]
fn every_changed_byte_of_an_export_is_noticed() {
    let (home, public) = exported();
    let export = std::fs::read(home.path("export")).unwrap();
    for at in (0..export.len() - 1).step_by(export.len() / 20) {
        let mut changed = export.clone();
        changed[at] ^= 1;
        home.write("changed", &changed);
        home.run(&["evidence", "verify", "changed", "--public-key", &public]).expect(1);
    }
}

#[test]
fn a_damaged_record_is_named_and_ends_with_4() {
    let (home, _) = recorded();
    let records = std::fs::read_dir(home.path("repository/evidence/marabet")).unwrap();
    let record = records.map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = std::fs::read(&record).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::set_permissions(&record, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&record, bytes).unwrap();
    home.assert_snapshot("evidence_list_damaged", &home.run(&["evidence", "list"]).expect(4));
    let list = home.json(&["evidence", "list"], 4, "retoma.evidence/1");
    assert_eq!(list["damaged"][0]["code"], "R0203", "{list:#}");
    let export = home.run(&["evidence", "export"]).expect(1);
    assert!(export.stdout.is_empty() && export.stderr.contains("error[R0203]"), "{}", export.text());
}

#[test]
fn a_record_that_cannot_be_signed_is_said_and_the_recovery_stands() {
    let (home, _) = recorded();
    std::fs::remove_file(home.path("key")).unwrap();
    let run = home.run(&["recover", "--to", "again", "--no-start", "--json"]).expect(0);
    assert_eq!(run.document()["passed"], true);
    assert!(run.stderr.contains("no record of this was written"), "{}", run.text());
}

/// Takes the pack with the models out of the repository, and reads the only record about what then failed.
fn failed_without_pack(arguments: &[&str], code: i32) -> (Home, String, Value) {
    let home = Home::with("");
    home.seed_models();
    let public = new_key(&home);
    home.write("retoma.toml", manifest(&home, &public, MODELS).as_bytes());
    home.back_up();
    home.remove_largest_pack();
    let run = home.run(arguments).expect(code);
    let list = home.json(&["evidence"], 0, "retoma.evidence/1");
    let records = list["records"].as_array().unwrap();
    assert_eq!(records.len(), 2, "{list:#}");
    assert_eq!(records[1]["outcome"], "failed");
    let export = home.run(&["evidence", "export"]).expect(0).stdout;
    let envelope: Value = serde_json::from_str(export.lines().last().unwrap()).unwrap();
    let payload = base64::engine::general_purpose::STANDARD.decode(envelope["payload"].as_str().unwrap());
    (home, run.text(), serde_json::from_slice(&payload.unwrap()).unwrap())
}

#[test]
fn a_drill_of_a_backup_that_cannot_be_restored_is_red_and_leaves_record_and_page() {
    let (home, text, record) = failed_without_pack(&["drill", "deletion", "--report", "report"], 4);
    assert_eq!(record["what"], "drill");
    assert_eq!(record["details"]["failure"]["code"], "R0209", "{record:#}");
    assert_eq!(record["details"]["verdict"], "red");
    assert!(text.contains("RED: ") && text.contains("(R0209)"), "{text}");
    let page = std::fs::read_to_string(home.path("report/drill-deletion.html")).unwrap();
    assert!(page.contains("the drill ended with an error"), "{page}");
    assert!(home.path("report/drill-deletion.json").exists());
}

#[test]
fn a_recovery_that_began_and_failed_leaves_a_record_and_one_that_was_refused_none() {
    let (home, text, record) = failed_without_pack(&["recover", "--to", "new", "--no-start"], 1);
    assert!(text.contains("error[R0209]"), "{text}");
    assert_eq!((&record["what"], &record["details"]["error"]["code"]), (&"recover".into(), &"R0209".into()));
    let steps = record["details"]["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["name"], "fetch", "{record:#}");
    assert_eq!(record["subject"]["components"][0]["component"], "models");
    home.write("full/something", b"");
    home.run(&["recover", "--to", "full", "--no-start"]).expect(1);
    let list = home.json(&["evidence"], 0, "retoma.evidence/1");
    assert_eq!(list["records"].as_array().unwrap().len(), 2, "{list:#}");
}

#[test]
fn a_backup_that_misses_something_is_recorded_as_that() {
    let (home, public) = recorded();
    home.write(
        "retoma.toml",
        manifest(&home, &public, &format!("{MODELS}{}", crate::kit::DATABASE)).as_bytes(),
    );
    home.run(&["backup"]).expect(3);
    home.run(&["backup", "database"]).expect(1);
    let list = home.json(&["evidence"], 0, "retoma.evidence/1");
    let outcomes: Vec<&str> =
        list["records"].as_array().unwrap().iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["passed", "passed", "incomplete", "failed"]);
    let database = &list["records"][2]["subject"]["components"][1];
    assert_eq!((&database["component"], &database["snapshot"]), (&"database".into(), &Value::Null));
}

#[test]
fn evidence_is_stale_after_another_manifest() {
    let (home, public) = recorded();
    assert_eq!(stale(&home), Vec::<Value>::new());
    home.write("retoma.toml", manifest(&home, &public, &MODELS.replace("high", "low")).as_bytes());
    let reasons = stale(&home);
    assert_eq!((reasons.len(), &reasons[0]["stale"]), (1, &"manifest_changed".into()));
    assert_ne!(reasons[0]["recorded"], reasons[0]["current"]);
    home.assert_snapshot("status_stale", &home.run(&["status"]).expect(0));
}

#[test]
fn evidence_is_stale_with_another_key() {
    let (home, _) = recorded();
    home.write_private("second", "a second password");
    home.run(&["key", "add", "--new-password", "file:second"]).expect(0);
    assert_eq!(stale(&home), Vec::<Value>::new());
    home.write_private("password", "a second password");
    let reasons = stale(&home);
    assert_eq!((reasons.len(), &reasons[0]["stale"]), (1, &"key_changed".into()));
}

#[test]
fn evidence_is_stale_when_the_data_grow_or_shrink_by_more_than_half() {
    let (home, _) = recorded();
    // 305,000 bytes were recovered. 457,500 are half as much more, and one byte further is too much.
    home.write("models/more", &retoma_testkit::bytes(4, 152_500));
    home.back_up();
    assert_eq!(stale(&home), Vec::<Value>::new());
    home.write("models/more", &retoma_testkit::bytes(4, 152_501));
    home.back_up();
    let reasons = stale(&home);
    assert_eq!((reasons.len(), &reasons[0]["stale"]), (1, &"data_size_changed".into()));
    assert_eq!(
        (&reasons[0]["recorded_bytes"], &reasons[0]["current_bytes"]),
        (&305_000.into(), &457_501.into())
    );
    std::fs::remove_file(home.path("models/more")).unwrap();
    home.write("models/winner.f32", &retoma_testkit::bytes(1, 147_499));
    home.back_up();
    assert_eq!(stale(&home)[0]["current_bytes"], 152_499);
    home.write("models/winner.f32", &retoma_testkit::bytes(1, 147_500));
    home.back_up();
    assert_eq!(stale(&home), Vec::<Value>::new());
}

#[test]
fn evidence_is_stale_with_another_version_when_old_and_from_the_future() {
    let (home, _) = recorded();
    let now = jiff::Timestamp::now();
    let before = Duration::from_hours(40 * 24);
    append(&home, &What::Drill, "0.0.1", now - before);
    append(&home, &What::Verify, env!("CARGO_PKG_VERSION"), now + Duration::from_hours(1));
    let status = home.json(&["status"], 0, "retoma.status/1");
    let reasons = |what: &str| {
        let all = status["evidence"].as_array().unwrap();
        let one = all.iter().find(|one| one["what"] == what).unwrap();
        let list = one["stale"].as_array().unwrap();
        list.iter().map(|reason| reason["stale"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(reasons("drill"), ["tool_version_changed", "too_old"]);
    assert_eq!(reasons("verify"), ["from_the_future"]);
    assert_eq!(reasons("recover"), Vec::<String>::new());
    let text = home.run(&["status"]).expect(0).stdout;
    let line = |what: &str| text.lines().find(|line| line.starts_with(what)).unwrap().to_owned();
    assert!(line("drill").contains("made by version 0.0.1, this is "), "{text}");
    assert!(line("drill").contains(" old, 31 d are allowed"), "{text}");
    assert!(line("verify").contains(" in the future"), "{text}");
}

/// Appends a record like the last one, but of another kind, version and time.
fn append(home: &Home, what: &What, version: &str, time: jiff::Timestamp) {
    let list = home.json(&["evidence"], 0, "retoma.evidence/1");
    let subject = &list["records"][0]["subject"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let component = &subject["components"][0];
    let components = vec![SubjectComponent {
        component: text(&component["component"]),
        kind: text(&component["kind"]),
        snapshot: None,
        data_bytes: component["data_bytes"].as_u64().unwrap(),
    }];
    let password = retoma_core::Secret::new(crate::kit::PASSWORD.to_owned());
    let url = format!("file://{}", home.text_path("repository"));
    let repository = retoma_control::open::open_address(&url, &password, false).unwrap().repository;
    let subject =
        Subject { manifest_hash: text(&subject["manifest_hash"]), key_id: repository.key_id(), components };
    let draft = Draft {
        time,
        tool_version: version.to_owned(),
        what: what.clone(),
        outcome: Outcome::Passed,
        subject,
        details: Value::Null,
    };
    let key = SigningKey::load(&home.path("key")).unwrap();
    let chain = Chain::open(&repository, "marabet").unwrap().pin(key.public_key());
    chain.append(&key, &draft).unwrap();
}

#[test]
fn status_is_late_without_a_backup_and_says_so() {
    let home = Home::with(&format!("{MODELS}{}", crate::kit::DATABASE));
    home.seed_models();
    home.seed_database();
    home.run(&["backup", "models"]).expect(0);
    let status = home.json(&["status"], 4, "retoma.status/1");
    let database =
        status["components"].as_array().unwrap().iter().find(|one| one["component"] == "database").unwrap();
    assert_eq!((&database["fresh"], &database["snapshot"]), (&false.into(), &Value::Null));
    home.assert_snapshot("status_late", &home.run(&["status"]).expect(4));
}

#[test]
fn status_names_the_last_backup_that_failed_and_forgets_it_after_one_that_did_not() {
    let home = Home::with("");
    home.seed_models();
    home.seed_database();
    let public = new_key(&home);
    let components = format!("{MODELS}{}", crate::kit::DATABASE);
    home.write("retoma.toml", manifest(&home, &public, &components).as_bytes());
    home.back_up();
    let database = std::fs::read(home.path("data/app.sqlite")).unwrap();
    home.write("data/app.sqlite", b"");
    home.run(&["backup"]).expect(3);
    home.assert_snapshot("status_failed", &home.run(&["status"]).expect(0));
    let failure = |status: Value| {
        let all = status["components"].as_array().unwrap().clone();
        let of =
            |name: &str| all.iter().find(|one| one["component"] == name).unwrap()["last_failure"].clone();
        (of("models"), of("database"))
    };
    let (models, database_failure) = failure(home.json(&["status"], 0, "retoma.status/1"));
    assert_eq!((models, &database_failure["code"]), (Value::Null, &"R0403".into()), "{database_failure:#}");
    // That another component was backed up since says nothing about this one.
    home.run(&["backup", "models"]).expect(0);
    assert!(home.run(&["status"]).expect(0).stdout.contains("[R0403]"));
    home.write("data/app.sqlite", &database);
    home.back_up();
    assert_eq!(failure(home.json(&["status"], 0, "retoma.status/1")).1, Value::Null);
}

#[test]
fn status_never_takes_a_snapshot_that_cannot_be_read_for_none() {
    let home = Home::backed_up();
    home.run(&["status"]).expect(0);
    let id = home.snapshots()[0]["id"].as_str().unwrap().to_owned();
    home.write(&format!("repository/snapshots/{id}"), b"noise");
    let error = home.json(&["status"], 1, "retoma.error/1");
    assert!(error["message"].as_str().unwrap().contains(&id[..8]), "{error}");
}
