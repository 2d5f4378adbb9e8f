//! What a good manifest means.

use super::{SMALL, accept};
use retoma_core::manifest::{
    AgentOptions, AlertOptions, BackupWay, Check, Component, ComponentKind, Email, MailSecurity, Receiver,
    Retention, Schedule, Scheme, SecretRef, ServerUrl, SlotPolicy, Source, SqlExpectation, WalMode,
    WalSettings, hash,
};
use retoma_core::units::Duration;
use std::path::Path;

/// Every key that there is.
const FULL: &str = r#"version = 1
schedule = { every = "30m", capture_allowance_seconds = 60 }

[service]
name = "marabet"
health = "https://marabet.example/healthz"
start = ["./run", "--port", "8080"]
stop = ["./stop"]
ready_seconds = 5
[[service.check]]
url = "http://127.0.0.1:8080/predict"
expect_status = 201
expect_body = "ok"

[[repository]]
name = "local"
url = "file:///var/backup"
password = "env:RETOMA_PASSWORD"
[[repository]]
name = "far"
url = "s3://bucket/marabet"
password = "file:password"
[repository.price]
currency = "EUR"
gb_month = "0.023"
reads_1000 = "0.0004"
[[repository]]
name = "off"
url = "file:///mnt/off"
password = "env:OFF_PASSWORD"
copy_of = "local"
region = "cellar"

[tier]
low = { rpo = 720, rto = "2d" }
[tier.medium]
rpo = "45m"

[retention]
holds = ["audit"]
daily = 7

[[component]]
name = "app"
kind = "sqlite"
tier = "medium"
path = "./data/app.db"
repositories = ["far"]
[component.schedule]
every = "20m"
[component.retention]
keep_last = 3
hourly = 4
weekly = 5
monthly = 6
yearly = 7
keep_within = "1d12h"
holds = ["court"]
[[component.check]]
sql = "select count(*) from users"
expect = "3"
[[component.check]]
sql = "select 1 from users"
min_rows = 2
[[component.check]]
command = ["./check", "x"]

[[component]]
name = "cache"
kind = "redis"
tier = "low"
url = "env:REDIS_URL"

[[component]]
name = "logs"
kind = "files"
tier = "low"
path = "/var/log/marabet"
exclude = ["*.tmp", "/old"]
[component.mass_change]
min_files = 10
changed_percent = 0
gone_percent = 40
encrypted_percent = 5

[evidence]
signing_key = "file:/etc/retoma/signing"
public_key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
writer = "drill-host"

[drill]
scratch_dir = "scratch"
timeout_seconds = 60
marker_url = "http://127.0.0.1:8080/marker"

[agent]
listen = "0.0.0.0:9000"
token = "file:token"
retention_every = "2d"
verify_every = "3d"
verify_sample_percent = 10
wal_check_every = "2m"
marks_every = "30s"
copy_every = "20m"
drill = "deletion"
drill_every = "4d"

[alerts]
webhook = "env:WEBHOOK"
alertmanager = "http://127.0.0.1:9093"
dead_man = "https://ping.example/x"
[alerts.email]
server = "smtp.example.org:465"
security = "tls"
ca_file = "mail.pem"
from = "retoma@example.org"
to = ["one@example.org", "two@example.org"]
user = "retoma"
password = "env:MAIL_PASSWORD"
"#;

#[test]
fn the_agent_does_what_it_is_told_and_has_its_defaults() {
    let manifest = accept(FULL);
    let days = |days: u64| Duration::from_minutes(days * 24 * 60);
    assert_eq!(
        manifest.agent,
        AgentOptions {
            listen: "0.0.0.0:9000".parse().unwrap(),
            token: Some(SecretRef::File("/srv/marabet/token".into())),
            retention_every: days(2),
            verify_every: days(3),
            verify_sample_percent: 10,
            wal_check_every: Duration::from_minutes(2),
            copy_every: Duration::from_minutes(20),
            marks_every: Duration::from_seconds(30),
            drill: Some("deletion".to_owned()),
            drill_every: days(4),
        }
    );
    let receiver = |text: &str| Some(Receiver::Literal(text.to_owned()));
    assert_eq!(manifest.alerts.webhook, Some(Receiver::Reference(SecretRef::Env("WEBHOOK".to_owned()))));
    assert_eq!(manifest.alerts.alertmanager, receiver("http://127.0.0.1:9093"));
    assert_eq!(manifest.alerts.dead_man, receiver("https://ping.example/x"));
    let email = Email {
        host: "smtp.example.org".to_owned(),
        port: 465,
        security: MailSecurity::Tls,
        ca_file: Some("/srv/marabet/mail.pem".into()),
        from: "retoma@example.org".to_owned(),
        to: vec!["one@example.org".to_owned(), "two@example.org".to_owned()],
        login: Some(("retoma".to_owned(), SecretRef::Env("MAIL_PASSWORD".to_owned()))),
    };
    assert_eq!(manifest.alerts.email, Some(email));
    let small = "[alerts.email]\nserver = \"localhost:25\"\nfrom = \"a@b\"\nto = [\"c@d\"]\n";
    let small = accept(&format!("{SMALL}{small}")).alerts.email.unwrap();
    assert_eq!((small.security, small.login, small.ca_file), (MailSecurity::StartTls, None, None));
    let usual = accept(SMALL);
    assert_eq!((usual.agent, usual.alerts), (AgentOptions::default(), AlertOptions::default()));
}

#[test]
fn the_smallest_manifest_has_all_defaults() {
    let manifest = accept(SMALL);
    assert_eq!(manifest.warnings, []);
    assert_eq!(manifest.service.ready_seconds, 30);
    assert_eq!(manifest.evidence.writer, "marabet");
    assert_eq!(manifest.drill.timeout_seconds, 3600);
    let database = manifest.component("database").unwrap();
    assert_eq!(database.kind(), ComponentKind::Postgres);
    assert_eq!(database.repositories, ["local"]);
    assert_eq!(database.retention, Retention::default_rules());
    assert_eq!(database.retention.keep_within.to_string(), "30d");
    assert_eq!(database.schedule.every.to_string(), "4m30s");
    assert_eq!(database.schedule.worst_case(), database.objectives.rpo);
    let models = manifest.component("models").unwrap();
    assert_eq!(models.path(), Some(Path::new("/srv/marabet/models")));
    assert_eq!(models.schedule.every.to_string(), "13m30s");
    assert_eq!(manifest.repository("local").unwrap().folder(), Some(Path::new("/var/lib/retoma/repository")));
}

#[test]
fn default_schedules_meet_the_rpo_and_are_at_most_hourly() {
    for (tier, every) in [("critical", "4m30s"), ("high", "13m30s"), ("medium", "54m"), ("low", "1h")] {
        let manifest = accept(&SMALL.replace("\"high\"", &format!("\"{tier}\"")));
        let component = manifest.component("models").unwrap();
        assert_eq!(component.schedule.every.to_string(), every);
        assert!(component.schedule.worst_case() <= component.objectives.rpo);
    }
}

/// The schedule of a PostgreSQL component with these lines behind it.
fn schedule_of(lines: &str) -> Schedule {
    let text = SMALL
        .replace("[[component]]\nname = \"models\"", &format!("{lines}\n[[component]]\nname = \"models\""));
    let database = accept(&text).component("database").unwrap().clone();
    assert!(database.schedule.worst_case() <= database.objectives.rpo, "{lines}");
    database.schedule
}

#[test]
fn where_wal_meets_the_rpo_backups_need_not() {
    let all = |lines: &str| {
        let schedule = schedule_of(lines);
        let within = schedule.shipped_within.map(|within| within.to_string());
        (schedule.every.to_string(), within, schedule.worst_case().to_string())
    };
    let expected = |every: &str, within: Option<&str>, worst: &str| {
        (every.to_owned(), within.map(str::to_owned), worst.to_owned())
    };
    let wal = |lines: &str| format!("[component.wal]\n{lines}\n");
    assert_eq!(all(&wal("mode = \"stream\"")), expected("1d", Some("1s"), "1s"));
    assert_eq!(all(&wal("mode = \"synchronous\"")), expected("1d", Some("0s"), "0s"));
    // Nothing is known of an archive until it is declared, and half a minute of the five is for the push.
    assert_eq!(all(&wal("mode = \"archive\"")), expected("4m30s", None, "5m"));
    assert_eq!(all(&wal("archive_timeout = \"1m\"")), expected("1d", Some("1m30s"), "1m30s"));
    assert_eq!(all(&wal("archive_timeout = \"4m30s\"")), expected("1d", Some("5m"), "5m"));
    assert_eq!(all(&wal("archive_timeout = \"4m31s\"")), expected("4m30s", None, "5m"));
    let own = |every: &str| {
        format!("[component.schedule]\nevery = \"{every}\"\n[component.wal]\nmode = \"stream\"")
    };
    for every in ["2m", "3h", "7d"] {
        assert_eq!(all(&own(every)), expected(every, Some("1s"), "1s"));
    }
    // A backup of an hour matters to no RPO then.
    let slow = "[component.schedule]\ncapture_allowance_seconds = 3600\n[component.wal]\nmode = \"stream\"";
    assert_eq!(all(slow), expected("1d", Some("1s"), "1s"));
}

#[test]
fn a_snapshot_may_be_as_old_as_the_rpo_or_where_wal_meets_that_as_its_interval_and_an_hour() {
    let manifest = accept(SMALL);
    for component in &manifest.components {
        assert_eq!(component.snapshot_age_limit(), component.objectives.rpo);
    }
    let mut database = manifest.component("database").unwrap().clone();
    database.schedule = schedule_of("[component.wal]\nmode = \"stream\"");
    assert_eq!(database.snapshot_age_limit().to_string(), "1d1h");
    database.schedule.every = Duration::from_seconds(1);
    database.objectives.rpo = Duration::DAY;
    assert_eq!(database.snapshot_age_limit(), Duration::DAY);
}

#[test]
fn every_key_arrives() {
    let manifest = accept(FULL);
    assert_eq!(manifest.warnings, []);
    insta::assert_debug_snapshot!(manifest);
}

#[test]
fn a_component_overrides_key_by_key_and_keeps_all_holds() {
    let manifest = accept(FULL);
    let app = manifest.component("app").unwrap();
    assert_eq!(app.schedule.every, Duration::from_minutes(20));
    assert_eq!(app.schedule.capture_allowance, Duration::from_seconds(60), "from the global schedule");
    assert_eq!(app.objectives.rpo, Duration::from_minutes(45));
    assert_eq!(app.objectives.rto, Duration::from_minutes(240));
    assert_eq!((app.retention.keep_last, app.retention.daily), (3, 0), "own rules replace the global ones");
    assert_eq!(app.retention.holds, ["audit", "court"]);
    let logs = manifest.component("logs").unwrap();
    assert_eq!((logs.retention.daily, logs.retention.keep_within), (7, Duration::ZERO));
    assert_eq!(logs.retention.holds, ["audit"]);
}

#[test]
fn wal_has_defaults_and_each_of_its_keys_arrives() {
    let settings = |lines: &str| {
        let text = format!(
            "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\n\
             password = \"env:P\"\n[[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"low\"\n\
             url = \"postgres://h/d\"\n[component.wal]\n{lines}"
        );
        accept(&text).components[0].wal
    };
    let defaults = settings("");
    assert_eq!(defaults, WalSettings::default());
    assert_eq!((defaults.mode, defaults.at_slot_limit), (WalMode::Archive, SlotPolicy::Drop));
    assert_eq!(defaults.slot_limit_bytes, 16 << 30);
    let own = settings("mode = \"synchronous\"\nslot_limit_mib = 7\nat_slot_limit = \"keep\"\n");
    let expected = WalSettings {
        mode: WalMode::Synchronous,
        archive_timeout: None,
        slot_limit_bytes: 7 << 20,
        at_slot_limit: SlotPolicy::Keep,
    };
    assert_eq!(own, expected);
    assert_eq!(settings("mode = \"stream\"").mode, WalMode::Stream);
}

fn server(line: &str) -> Component {
    let text = format!(
        "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\n\
         password = \"env:P\"\n[[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"low\"\n\
         url = \"postgres://h/d\"\n{line}\n"
    );
    accept(&text).components[0].clone()
}

#[test]
fn marks_are_written_unless_they_are_switched_off() {
    let has_marks = |line: &str| server(line).has_marks;
    assert_eq!(["", "marks = \"on\"", "marks = \"off\""].map(has_marks), [true, true, false]);
}

#[test]
fn each_way_of_a_backup_arrives_and_the_default_is_local() {
    let way = |line: &str| server(line).backup;
    assert_eq!(way(""), BackupWay::Local);
    for expected in [BackupWay::Local, BackupWay::Stream, BackupWay::Logical] {
        assert_eq!(way(&format!("backup = \"{expected}\"")), expected);
    }
}

#[test]
fn holds_alone_do_not_switch_the_default_rules_off() {
    let manifest = accept(&format!("{SMALL}[retention]\nholds = [\"audit\"]\n"));
    let expected = Retention { holds: vec!["audit".into()], ..Retention::default_rules() };
    assert_eq!(manifest.component("models").unwrap().retention, expected);
}

#[test]
fn checks_and_sources_keep_what_was_written() {
    let manifest = accept(FULL);
    let app = manifest.component("app").unwrap();
    assert_eq!(
        app.source,
        Source::Sqlite { path: "/srv/marabet/data/app.db".into(), may_be_empty: Vec::new() }
    );
    let Check::Sql { expectation, .. } = &app.checks[1] else { panic!("{:?}", app.checks) };
    assert_eq!(*expectation, SqlExpectation::MinRows(2));
    let cache = manifest.component("cache").unwrap();
    assert_eq!(cache.source, Source::Redis { url: ServerUrl::Reference(SecretRef::Env("REDIS_URL".into())) });
    let far = manifest.repository("far").unwrap();
    assert_eq!((far.scheme, far.folder()), (Scheme::S3, None));
    assert_eq!(far.password, SecretRef::File("/srv/marabet/password".into()));
}

#[test]
fn recovery_goes_by_tier_and_then_by_the_file() {
    let manifest = accept(&SMALL.replace("\"critical\"", "\"low\""));
    let names: Vec<_> = manifest.recovery_order().iter().map(|component| component.name.as_str()).collect();
    assert_eq!(names, ["models", "database"]);
}

#[test]
fn the_hash_is_over_the_bytes_of_the_text() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hash(""), empty);
    assert_eq!(accept(SMALL).hash(), hash(SMALL));
    assert_ne!(accept(&format!("{SMALL}# x\n")).hash(), hash(SMALL));
}

#[test]
fn line_ends_and_ways_to_write_tables_make_no_difference() {
    let windows = accept(&SMALL.replace('\n', "\r\n"));
    assert_eq!(windows.components, accept(SMALL).components);
    let dotted =
        SMALL.replace("[service]\nname = \"marabet\"\nhealth", "service.name = \"marabet\"\nservice.health");
    assert_eq!(accept(&dotted).service, accept(SMALL).service);
}

#[test]
fn warnings_do_not_refuse_a_manifest() {
    let text = SMALL.replace("health = \"http://127.0.0.1:8080/healthz\"", "start = [\"./run\"]");
    let manifest = accept(&format!("{text}[tier.low]\nrpo = 300\n"));
    insta::assert_snapshot!(retoma_core::manifest::render(&manifest.warnings, "retoma.toml"));
}

#[test]
fn a_manifest_moves_below_another_root_as_a_whole() {
    let manifest = accept(SMALL).below(std::path::Path::new("/scratch/x"));
    assert_eq!(manifest.dir(), std::path::Path::new("/scratch/x/srv/marabet"));
    let models = std::path::Path::new("/scratch/x/srv/marabet/models");
    assert_eq!(manifest.component("models").and_then(|it| it.path()), Some(models));
    assert_eq!(manifest.repositories, accept(SMALL).repositories);
}

#[test]
fn a_copy_gets_what_goes_into_its_source_and_no_backup() {
    let manifest = accept(FULL);
    let goes = |name: &str| {
        let component = manifest.component(name).unwrap();
        (component.repositories.join(" "), component.copies.join(" "))
    };
    assert_eq!(manifest.repository("off").unwrap().copy_of.as_deref(), Some("local"));
    assert_eq!(goes("app"), ("far".to_owned(), String::new()));
    assert_eq!(goes("logs"), ("local far".to_owned(), "off".to_owned()));
    let logs = manifest.component("logs").unwrap();
    let late = manifest.copy_age_limit(logs).as_seconds() - logs.snapshot_age_limit().as_seconds();
    assert_eq!(late, 2 * 20 * 60);
}
