//! A bucket with object lock and the policies that we render: what writer and pruner can do to it when they are an intruder's.

use crate::documented::assert_documented;
use crate::kit::tree;
use crate::object_stores::Machine;
use retoma_testkit::{AzuriteServer, GcsServer, ImmutableAzure, RetainingGoogle, S3Client, SeaweedServer};
use serde_json::Value;
use std::thread::sleep;
use std::time::Duration;

/// A machine whose repository `far` is at `url`, locked for so many days.
fn machine(server: &SeaweedServer, url: &str, role: &str, days: u32) -> Machine {
    locked_machine(url, server.role_variables(role), days)
}

fn locked_machine(url: &str, variables: Vec<(String, String)>, days: u32) -> Machine {
    let machine = Machine::new(url, variables);
    relock(&machine, days);
    machine
}

fn relock(machine: &Machine, days: u32) {
    let text = std::fs::read_to_string(machine.home.path("retoma.toml")).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("lock_days")).collect();
    let text = kept.join("\n").replacen("password = ", &format!("lock_days = {days}\npassword = "), 1);
    machine.home.write("retoma.toml", text.as_bytes());
}

/// Puts what `plan --policies` says onto the bucket.
fn apply_policies(machine: &Machine, admin: &S3Client) {
    machine.run(&["plan", "--policies", "-o", "rights"]).expect(0);
    let policy = std::fs::read_to_string(machine.home.path("rights/s3-backups-policy.json")).unwrap();
    admin.must("PUT", "", &[("policy", "")], &[], &policy.replace("ACCOUNT", "000000000000"));
}

/// A moment after everything that happened, and before everything that will; buckets count whole seconds.
fn moment() -> String {
    sleep(Duration::from_millis(1100));
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    sleep(Duration::from_millis(1100));
    now
}

fn retention(mode: &str, hours: i64) -> String {
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
    let until = until.strftime("%Y-%m-%dT%H:%M:%SZ");
    format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>")
}

fn end_of_lock(admin: &S3Client, object: &str) -> String {
    let text = admin.must("GET", object, &[("retention", "")], &[], "");
    text.split_once("<RetainUntilDate>").unwrap().1.split_once('<').unwrap().0.to_owned()
}

/// Everything that writer and pruner can think of, on every version of every object; gives how much of it went through.
fn attack(server: &SeaweedServer) -> usize {
    let [writer, pruner] =
        ["retoma-far-writer", "retoma-far-pruner"].map(|role| server.role("backups", role));
    let admin = server.admin("backups");
    let before: Vec<_> =
        admin.versions("zone/").into_iter().filter(|version| !version.key.contains("/locks/")).collect();
    assert!(before.len() > 8, "{before:?}");
    let mut done = 0;
    for client in [&writer, &pruner] {
        for version in before.iter().filter(|version| !version.is_deletion) {
            let at = [("versionId", version.id.as_str())];
            let refused = |(status, text): (u16, String), what: &str| {
                assert_eq!(status, 403, "{what} {}: {text}", version.key);
            };
            refused(client.ask("DELETE", &version.key, &at, &[], ""), "delete the version of");
            for (mode, hours) in [("COMPLIANCE", 1), ("GOVERNANCE", 1), ("GOVERNANCE", 24 * 90)] {
                let query = [("retention", ""), at[0]];
                refused(
                    client.ask("PUT", &version.key, &query, &[], &retention(mode, hours)),
                    "shorten the lock of",
                );
            }
            let bypass = [("x-amz-bypass-governance-retention", "true")];
            refused(client.ask("DELETE", &version.key, &at, &bypass, ""), "bypass the lock of");
        }
        for (query, body) in [
            ("policy", "{}"),
            ("versioning", "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"),
        ] {
            let (status, text) = client.ask("PUT", "", &[(query, "")], &[], body);
            assert!(status >= 400, "{query}: {status} {text}");
        }
    }
    let mut objects: Vec<_> = before.iter().map(|version| version.key.as_str()).collect();
    objects.dedup();
    for object in objects {
        let (status, _) = writer.ask("DELETE", object, &[], &[], "");
        assert_eq!(status, 403, "the writer deletes {object}");
        writer.must("PUT", object, &[], &[], "overwritten");
        pruner.must("DELETE", object, &[], &[], "");
        if done % 2 == 0 {
            writer.must("PUT", object, &[], &[], "overwritten again");
        }
        done += 1;
    }
    // Junk that was never there, which `--as-of` must pass over.
    writer.must("PUT", &format!("zone/snapshots/{}", "0".repeat(64)), &[], &[], "junk");
    // Not even who may do everything.
    let config = before.iter().find(|version| version.key == "zone/config").unwrap();
    let (status, text) = admin.ask("DELETE", "zone/config", &[("versionId", &config.id)], &[], "");
    assert_eq!(status, 403, "{text}");
    done
}

#[test]
fn a_full_attack_with_the_credentials_of_writer_and_pruner_leaves_every_snapshot() {
    let Some(server) = SeaweedServer::start() else { return };
    server.make_locked_bucket("backups");
    let admin = server.admin("backups");
    let machine = machine(&server, "s3://backups/zone", "retoma-far-writer", 1);
    apply_policies(&machine, &admin);
    let home = &machine.home;
    machine.run(&["backup"]).expect(0);
    let first = tree(&home.path("models"));
    home.write("models/new.f32", &retoma_testkit::bytes(3, 700_000));
    std::fs::remove_file(home.path("models/old/loser.f32")).unwrap();
    machine.run(&["backup"]).expect(0);
    let second = tree(&home.path("models"));
    let doctor = machine.run(&["doctor"]).expect(0);
    assert!(doctor.stdout.contains("object lock and keeps versions"), "{}", doctor.text());
    assert!(doctor.stdout.contains("the first lock of"), "{}", doctor.text());

    // Who has another zone sees nothing of this one.
    let stranger = server.role("backups", "retoma-other-writer");
    for (method, object, query) in
        [("GET", "zone/config", vec![]), ("GET", "", vec![("prefix", "zone/")]), ("PUT", "zone/x", vec![])]
    {
        assert_eq!(stranger.ask(method, object, &query, &[], "").0, 403, "{method} {object}");
    }
    // One lists its own alone.
    let writer = server.role("backups", "retoma-far-writer");
    assert_eq!(writer.ask("GET", "", &[("list-type", "2"), ("prefix", "other/")], &[], "").0, 403);

    let snapshots = machine.json(&["snapshots"]);
    let before = moment();
    assert!(attack(&server) > 8);
    let broken = machine.run(&["restore", "models", "--target", "now"]);
    assert_ne!(broken.code, Some(0), "the attack did nothing: {}", broken.text());

    let mut reader = machine;
    reader.variables = server.role_variables("retoma-far-reader");
    let home = &reader.home;
    assert_eq!(reader.json(&["snapshots", "--as-of", &before])["snapshots"], snapshots["snapshots"]);
    let id = |at: usize| snapshots["snapshots"][at]["id"].as_str().unwrap().to_owned();
    for (at, expected) in [(0, &first), (1, &second)] {
        let target = format!("restored-{at}");
        reader
            .run(&["restore", "models", "--target", &target, "--snapshot", &id(at), "--as-of", &before])
            .expect(0);
        assert_eq!(&tree(&home.path(&target)), expected);
    }
    let verified = reader.run(&["verify", "--read-data", "--as-of", &before]).expect(0);
    println!("{}", verified.text());
    let listed = reader.json(&["ls", "models", "--as-of", &before]);
    assert!(!listed["entries"].as_array().unwrap().is_empty());
    let url = "s3://backups/zone";
    let recover =
        ["recover", "--repository-url", url, "--password-file", "password", "--to", "blank", "--no-start"];
    reader.run(&[&recover[..], &["--as-of", &before]].concat()).expect(0);
    let root = home.path("blank").join(home.path("models").strip_prefix("/").unwrap());
    assert_eq!(tree(&root), second);
    // Before there was anything, there is nothing.
    let early = reader.run(&["snapshots", "--as-of", "2020-01-01T00:00:00Z"]);
    assert_eq!(early.code, Some(10), "{}", early.text());
}

#[test]
fn locks_are_renewed_and_what_is_pruned_stays_until_they_end() {
    let Some(server) = SeaweedServer::start() else { return };
    server.make_locked_bucket("backups");
    let admin = server.admin("backups");
    let mut machine = machine(&server, "s3://backups/zone", "retoma-far-writer", 1);
    machine.variables = server.variables();
    machine.run(&["backup"]).expect(0);
    let fresh = machine.json(&["renew", "--yes"]);
    assert_eq!((&fresh["due"], &fresh["without_lock"]), (&Value::from(0), &Value::from(0)), "{fresh:#}");

    // The manifest asks for more than the objects have.
    relock(&machine, 10);
    let doctor = machine.run(&["doctor"]).expect(0);
    assert!(doctor.stdout.contains("retoma renew --yes"), "{}", doctor.text());
    let refused = machine.run(&["renew"]).expect(1);
    assert!(refused.stderr.contains("needs a yes"), "{}", refused.text());
    let before = end_of_lock(&admin, "zone/config");
    let renewed = machine.json(&["renew", "--yes"]);
    assert_eq!(renewed["due"], renewed["objects"], "{renewed:#}");
    assert_eq!(renewed["done"]["renewed"], renewed["objects"], "{renewed:#}");
    assert_documented("renew", &renewed);
    assert!(end_of_lock(&admin, "zone/config") > before);
    let again = machine.json(&["renew", "--yes"]);
    assert_eq!(again["due"], 0, "{again:#}");
    assert!(again["soonest"].as_str() > renewed["soonest"].as_str(), "{again:#}");
    let doctor = machine.run(&["doctor"]).expect(0);
    assert!(!doctor.stdout.contains("renew"), "{}", doctor.text());

    let first = machine.json(&["snapshots"])["snapshots"][0]["id"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(machine.home.path("models")).unwrap();
    machine.home.write("models/other", &retoma_testkit::bytes(9, 100_000));
    machine.run(&["backup"]).expect(0);
    machine.run(&["forget", "--snapshot", &first, "--yes"]).expect(0);
    let data = |admin: &S3Client| {
        admin.versions("zone/data/").into_iter().filter(|version| !version.is_deletion).count()
    };
    let packs = data(&admin);
    let pruned = machine.json(&["prune", "--grace", "0s", "--yes"]);
    assert!(pruned["locked"]["packs"].as_u64() > Some(0), "{pruned:#}");
    assert!(pruned["done"]["removed_packs"].as_u64() > Some(0), "{pruned:#}");
    assert!(data(&admin) >= packs, "what is locked was deleted");
    machine.run(&["verify", "--read-data"]).expect(0);
}

#[test]
fn a_bucket_without_locks_takes_no_backup_that_wants_them() {
    let Some(server) = SeaweedServer::start() else { return };
    server.make_bucket("backups");
    let mut machine = machine(&server, "s3://backups/zone", "retoma-far-writer", 1);
    machine.variables = server.variables();
    let refused = machine.run(&["backup"]).expect(1);
    assert!(refused.stderr.contains("R0312"), "{}", refused.text());
    let doctor = machine.run(&["doctor"]).expect(1);
    assert!(doctor.stdout.contains("R0312"), "{}", doctor.text());
    assert_eq!(server.admin("backups").versions("zone/"), []);
    let no_versions = machine.run(&["snapshots", "--as-of", "2020-01-01T00:00:00Z"]).expect(1);
    assert!(no_versions.stderr.contains("R0310"), "{}", no_versions.text());
}

/// A whole life with locks at Google, whose retention the testkit tells: not run against the real service.
#[test]
fn at_google_each_object_is_written_with_its_lock_which_is_renewed_and_outlives_prune() {
    let Some(server) = GcsServer::start() else { return };
    server.make_bucket("backups");
    let google = RetainingGoogle::before(&server);
    let machine = locked_machine("gs://backups/zone", server.variables_at(google.port()), 1);
    machine.run(&["backup"]).expect(0);
    let written = google.objects();
    assert!(written.len() > 4, "{written:?}");
    for (name, lock) in &written {
        let must_go = name.starts_with("zone/locks/") || name.starts_with("zone/marks/");
        let by = lock.as_ref().map(|lock| (lock.mode.as_str(), lock.by.as_str()));
        assert_eq!(by, (!must_go).then_some(("Locked", "POST")), "{name}");
    }
    let fresh = machine.json(&["renew", "--yes"]);
    assert_eq!((&fresh["due"], &fresh["without_lock"]), (&Value::from(0), &Value::from(0)), "{fresh:#}");
    assert!(google.changes().is_empty(), "{:?}", google.changes());
    let doctor = machine.run(&["doctor"]).expect(0);
    for said in
        ["object retention and keeps versions", "not run against the real service", "the first lock of"]
    {
        assert!(doctor.stdout.contains(said), "{said}: {}", doctor.text());
    }

    // The manifest asks for more than the objects have: each gets exactly what the plan says, and once.
    relock(&machine, 10);
    let doctor = machine.run(&["doctor"]).expect(0);
    assert!(doctor.stdout.contains("retoma renew --yes"), "{}", doctor.text());
    let renewed = machine.json(&["renew", "--yes"]);
    assert_eq!(renewed["due"], renewed["objects"], "{renewed:#}");
    assert_eq!(renewed["done"]["renewed"], renewed["objects"], "{renewed:#}");
    let locks: Vec<_> = google.objects().into_values().flatten().collect();
    let until = renewed["until"].as_str().unwrap().split('.').next().unwrap();
    assert!(
        locks.iter().all(|lock| lock.by == "PATCH" && lock.until.starts_with(until)),
        "{until}: {locks:?}"
    );
    assert_eq!(google.changes().len(), locks.len());
    assert_eq!(machine.json(&["renew", "--yes"])["due"], 0);

    let first = machine.json(&["snapshots"])["snapshots"][0]["id"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(machine.home.path("models")).unwrap();
    machine.home.write("models/other", &retoma_testkit::bytes(9, 100_000));
    machine.run(&["backup"]).expect(0);
    // Without versions Google deletes nothing of it, and both verbs and the doctor say why.
    google.set_up(true, false);
    let doctor = machine.run(&["doctor"]).expect(1);
    assert!(doctor.stdout.contains("R0312"), "{}", doctor.text());
    let refused = machine.run(&["forget", "--snapshot", &first, "--yes"]).expect(1);
    assert!(
        refused.stderr.contains("R0306") && refused.stderr.contains("keeps versions"),
        "{}",
        refused.text()
    );
    google.set_up(true, true);
    machine.run(&["forget", "--snapshot", &first, "--yes"]).expect(0);
    google.set_up(true, false);
    let refused = machine.run(&["prune", "--grace", "0s", "--yes"]).expect(1);
    assert!(refused.stdout.contains("keeps no versions"), "{}", refused.text());
    assert!(refused.stderr.contains("R0306"), "{}", refused.text());
    machine.run(&["verify", "--read-data"]).expect(0);
    google.set_up(true, true);
    let pruned = machine.json(&["prune", "--grace", "0s", "--yes"]);
    assert!(pruned["locked"]["packs"].as_u64() > Some(0), "{pruned:#}");
    assert!(pruned["done"]["removed_packs"].as_u64() > Some(0), "{pruned:#}");
    machine.run(&["verify", "--read-data"]).expect(0);
    assert_eq!(google.refused(), 0, "something weaker was asked for");
}

#[test]
fn a_bucket_of_google_without_retention_takes_no_backup_that_wants_it() {
    let Some(server) = GcsServer::start() else { return };
    server.make_bucket("backups");
    let google = RetainingGoogle::before(&server);
    google.set_up(false, true);
    let machine = locked_machine("gs://backups/zone", server.variables_at(google.port()), 1);
    let refused = machine.run(&["backup"]).expect(1);
    assert!(refused.stderr.contains("R0312"), "{}", refused.text());
    let doctor = machine.run(&["doctor"]).expect(1);
    assert!(doctor.stdout.contains("R0312"), "{}", doctor.text());
    assert_eq!(google.objects().len(), 0);
    let no_versions = machine.run(&["snapshots", "--as-of", "2020-01-01T00:00:00Z"]).expect(1);
    assert!(no_versions.stderr.contains("R0310"), "{}", no_versions.text());
}

/// The same at Azure, whose policies the testkit tells: not run against the real service.
#[test]
fn at_azure_each_blob_is_written_with_its_lock_which_is_renewed_and_outlives_prune() {
    let Some(server) = AzuriteServer::start() else { return };
    server.make_container("backups");
    let azure = ImmutableAzure::before(&server, "backups");
    let machine = locked_machine("az://backups/zone", server.variables_at(azure.port()), 1);
    machine.run(&["backup"]).expect(0);
    let written = azure.blobs();
    assert!(written.len() > 4, "{written:?}");
    for (name, lock) in &written {
        let must_go = name.starts_with("zone/locks/") || name.starts_with("zone/marks/");
        let by = lock.as_ref().map(|lock| (lock.mode.as_str(), lock.by));
        assert_eq!(by, (!must_go).then_some(("locked", "Put Blob")), "{name}");
    }
    assert_eq!(machine.json(&["renew", "--yes"])["due"], 0);
    let doctor = machine.run(&["doctor"]).expect(0);
    for said in [
        "version-level immutability and keeps versions",
        "not run against the real service",
        "the first lock of",
    ] {
        assert!(doctor.stdout.contains(said), "{said}: {}", doctor.text());
    }
    relock(&machine, 10);
    let renewed = machine.json(&["renew", "--yes"]);
    assert_eq!(renewed["due"], renewed["objects"], "{renewed:#}");
    assert_eq!(renewed["done"]["renewed"], renewed["objects"], "{renewed:#}");
    let locks: Vec<_> = azure.blobs().into_values().flatten().collect();
    let until: jiff::Timestamp = renewed["until"].as_str().unwrap().parse().unwrap();
    let until = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    assert!(locks.iter().all(|lock| lock.by != "Put Blob" && lock.until == until), "{until}: {locks:?}");
    assert_eq!(azure.changes(), locks.len());

    let first = machine.json(&["snapshots"])["snapshots"][0]["id"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(machine.home.path("models")).unwrap();
    machine.home.write("models/other", &retoma_testkit::bytes(9, 100_000));
    machine.run(&["backup"]).expect(0);
    machine.run(&["forget", "--snapshot", &first, "--yes"]).expect(0);
    let pruned = machine.json(&["prune", "--grace", "0s", "--yes"]);
    assert!(pruned["locked"]["packs"].as_u64() > Some(0), "{pruned:#}");
    assert!(pruned["done"]["removed_packs"].as_u64() > Some(0), "{pruned:#}");
    machine.run(&["verify", "--read-data"]).expect(0);
    // Another container, without.
    azure.set_up(false);
    let machine = locked_machine("az://backups/other", server.variables_at(azure.port()), 1);
    let refused = machine.run(&["backup"]).expect(1);
    assert!(refused.stderr.contains("R0312"), "{}", refused.text());
    let doctor = machine.run(&["doctor"]).expect(1);
    assert!(doctor.stdout.contains("R0312"), "{}", doctor.text());
}
