//! Repositories in buckets, on real servers: the whole life of a repository, then the public restic on the same bucket.

use crate::kit::{Home, MODELS, PASSWORD, Run, tree};
use retoma_testkit::{
    AzuriteServer, Canned, Fate, GcsServer, HttpProxy, SeaweedServer, Tunnel, in_namespace, noise,
    require_tool,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

type Variables = Vec<(String, String)>;

/// A machine whose only repository is at `url`, with these variables for it.
pub(crate) struct Machine {
    pub(crate) home: Home,
    url: String,
    pub(crate) variables: Variables,
}

impl Machine {
    pub(crate) fn new(url: &str, variables: Variables) -> Self {
        let home = Home::empty();
        home.write_private("password", PASSWORD);
        let head = format!(
            "version = 1\n\n[service]\nname = \"marabet\"\n\n[[repository]]\nname = \"far\"\nurl = \"{url}\"\npassword = \
             \"file:password\"\n"
        );
        home.write("retoma.toml", format!("{head}{MODELS}").as_bytes());
        home.seed_models();
        Self { home, url: url.to_owned(), variables }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command();
        command.envs(self.variables.clone()).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let output = self.command(arguments).output().unwrap();
        Run::new(format!("retoma {}", arguments.join(" ")), &output)
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        self.run(&all).expect(0).document()
    }
}

/// Backs up twice, verifies, restores, forgets, prunes and recovers by the address alone; gives the state backed up last.
fn lives(machine: &Machine) {
    let home = &machine.home;
    machine.run(&["backup"]).expect(0);
    home.write("models/new.f32", &retoma_testkit::bytes(3, 700_000));
    std::fs::remove_file(home.path("models/old/loser.f32")).unwrap();
    machine.run(&["backup"]).expect(0);
    let source = tree(&home.path("models"));
    assert_eq!(machine.json(&["snapshots"])["snapshots"].as_array().unwrap().len(), 2);
    machine.run(&["verify", "--read-data"]).expect(0);
    machine.run(&["restore", "models", "--target", "restored"]).expect(0);
    assert_eq!(tree(&home.path("restored")), source);

    let first = machine.json(&["snapshots"])["snapshots"][0]["id"].as_str().unwrap().to_owned();
    machine.run(&["forget", "--snapshot", &first, "--yes"]).expect(0);
    let pruned = machine.json(&["prune", "--grace", "0s", "--yes"]);
    assert!(pruned["done"]["removed_packs"].as_u64() > Some(0), "{pruned:#}");
    assert_eq!(machine.json(&["snapshots"])["snapshots"].as_array().unwrap().len(), 1);
    machine.run(&["verify", "--read-data"]).expect(0);

    let arguments =
        ["recover", "--repository-url", &machine.url, "--password-file", "password", "--to", "blank"];
    machine.run(&[&arguments[..], &["--no-start"]].concat()).expect(0);
    let root = home.path("blank").join(home.path("models").strip_prefix("/").unwrap());
    assert_eq!(tree(&root), source);
    assert!(!home.path("repository").exists(), "nothing of the repository is here");
}

/// The public restic checks every byte and restores the same.
fn restic_agrees(machine: &Machine, url: &str, options: &[&str], variables: &[(&str, &str)]) {
    let Some(restic) = require_tool("restic") else { return };
    let home = &machine.home;
    let run = |arguments: &[&str]| {
        let mut command = home.through(Command::new(&restic));
        command
            .args(["--no-cache", "--repo", url, "--password-file", "password"])
            .args(options)
            .args(arguments);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        Run::new(format!("restic {}", arguments.join(" ")), &output).expect(0)
    };
    let checked = run(&["check", "--read-data"]);
    assert!(checked.stdout.contains("no errors were found"), "{}", checked.text());
    run(&["restore", "latest", "--target", &home.text_path("by-restic")]);
    let root = home.path("by-restic").join(home.path("models").strip_prefix("/").unwrap());
    let contents = |path: &std::path::Path| -> Vec<_> {
        tree(path).into_iter().map(|(name, (_, _, _, contents))| (name, contents)).collect()
    };
    assert_eq!(contents(&root), contents(&home.path("models")));
}

#[test]
fn a_repository_on_s3_lives_and_restic_reads_it() {
    let Some(server) = SeaweedServer::start() else { return };
    server.make_bucket("backups");
    let machine = Machine::new("s3://backups/zone/one", server.variables());
    lives(&machine);
    let keys = [("AWS_ACCESS_KEY_ID", SeaweedServer::KEY), ("AWS_SECRET_ACCESS_KEY", SeaweedServer::SECRET)];
    restic_agrees(&machine, &format!("s3:{}/backups/zone/one", server.endpoint()), &[], &keys);

    doctor_names_what_is_wrong(&machine, &server);
}

/// A machine that reaches its bucket through a proxy.
fn behind_a_proxy() -> Option<(SeaweedServer, HttpProxy, Machine)> {
    let server = SeaweedServer::start()?;
    server.make_bucket("backups");
    let proxy = HttpProxy::start(server.port());
    let mut variables = server.variables();
    let endpoint = variables.iter_mut().find(|(name, _)| name == "AWS_ENDPOINT_URL").unwrap();
    endpoint.1 = format!("http://127.0.0.1:{}", proxy.port());
    Some((server, proxy, Machine::new("s3://backups/zone", variables)))
}

#[test]
fn a_second_backup_takes_index_files_from_this_host_and_a_verify_takes_them_from_the_bucket() {
    let Some((_server, proxy, machine)) = behind_a_proxy() else { return };
    let reads = |arguments: &[&str]| {
        proxy.restart(|_| Fate::Pass);
        machine.run(arguments).expect(0);
        proxy.log().iter().filter(|seen| seen.reads_object() && seen.target.contains("/index/")).count()
    };
    assert_eq!(reads(&["backup"]), 0, "there is none yet");
    machine.home.write("models/new.f32", &noise(3, 700_000));
    assert_eq!(reads(&["backup"]), 0, "what this host wrote is here");
    assert_eq!(reads(&["ls", "models"]), 0);

    let cache = machine.home.path(".cache/retoma");
    let kept = || -> Vec<_> {
        let files = tree(&cache).into_keys().filter(|name| name.to_string_lossy().contains("/index/"));
        files.map(|name| cache.join(name)).filter(|path| path.is_file()).collect()
    };
    let all = kept().len();
    assert!(all >= 2, "{:?}", tree(&cache).keys());
    assert_eq!(reads(&["verify"]), all);
    let whole = std::fs::read(&kept()[0]).unwrap();
    std::fs::write(&kept()[0], &whole[..whole.len() - 1]).unwrap();
    assert_eq!(reads(&["ls", "models"]), 1, "what is damaged here is read again");
    assert_eq!(std::fs::read(&kept()[0]).unwrap(), whole);
    std::fs::remove_dir_all(&cache).unwrap();
    assert_eq!(reads(&["ls", "models"]), all);

    // Another host puts all into one index file; the old ones are not there any more, whatever is kept here.
    let first = machine.json(&["snapshots"])["snapshots"][0]["id"].as_str().unwrap().to_owned();
    machine.run(&["forget", "--snapshot", &first, "--yes"]).expect(0);
    machine.run(&["prune", "--grace", "0s", "--yes"]).expect(0);
    machine.home.write("models/new.f32", &noise(4, 700_000));
    machine.run(&["backup"]).expect(0);
    machine.run(&["verify", "--read-data"]).expect(0);
}

#[test]
fn a_storm_of_failed_requests_costs_no_memory() {
    let Some((_server, proxy, machine)) = behind_a_proxy() else { return };
    // Three times what a backup may hold: one that kept what it has to send again would be seen.
    let peak = |seed| {
        machine.home.write("models/large", &noise(seed, 256 << 20));
        let (run, _, peak) = machine.home.measured(machine.command(&["backup"]));
        run.expect(0);
        peak
    };
    let calm = peak(1);
    let mut met = BTreeSet::new();
    proxy.restart(move |seen| {
        let is_new = met.insert((seen.method.clone(), seen.target.clone()));
        let slow_down = Canned::s3("503 Service Unavailable", "SlowDown", "Please reduce your request rate.");
        let fate = if seen.number % 2 == 0 { Fate::ResetInRequest } else { Fate::Answer(slow_down) };
        if is_new { fate } else { Fate::Pass }
    });
    let storm = peak(2);
    assert!(proxy.faults() > 16, "{}", proxy.faults());
    println!("{calm} bytes at most, {storm} in the storm");
    assert!(storm < calm + (96 << 20), "{storm} bytes at most, {calm} without faults");
    machine.run(&["verify", "--read-data"]).expect(0);
}

/// On the same server, since its start takes seconds.
fn doctor_names_what_is_wrong(machine: &Machine, server: &SeaweedServer) {
    let with = |url: &str, changes: &[(&str, &str)]| {
        let mut variables = server.variables();
        for (name, value) in changes {
            let known = variables.iter_mut().find(|(known, _)| known == name).unwrap();
            (*value).clone_into(&mut known.1);
        }
        Machine::new(url, variables)
    };
    let doctor = |machine: &Machine| {
        let run = machine.run(&["doctor"]).expect(1);
        assert!(!run.text().contains(SeaweedServer::SECRET), "{}", run.text());
        assert!(!run.text().contains("another-secret"), "{}", run.text());
        run
    };
    let snapshot = |name: &str, machine: &Machine| {
        let run = doctor(machine);
        machine.home.assert_snapshot(name, &run);
    };
    snapshot("doctor_missing_bucket", &with("s3://nobodys/zone", &[]));
    snapshot("doctor_wrong_secret", &with(&machine.url, &[("AWS_SECRET_ACCESS_KEY", "another-secret")]));
    // Nothing listens on port 1.
    snapshot("doctor_no_endpoint", &with(&machine.url, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]));

    // Who may only read can verify and restore, and is told what is refused.
    let reader = Machine::new(&machine.url, server.reader_variables());
    reader.run(&["restore", "models", "--target", "restored"]).expect(0);
    let refused = reader.run(&["backup"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(refused.stderr.contains("R0306"), "{}", refused.text());
}

#[test]
fn a_repository_on_azure_lives() {
    let Some(server) = AzuriteServer::start() else { return };
    server.make_container("backups");
    lives(&Machine::new("az://backups/zone/one", server.variables()));
}

/// restic finds an emulator of Azure at one port alone, which may be taken: so it gets a network of its own.
#[test]
fn restic_reads_what_we_wrote_to_azure() {
    in_namespace(|| {
        let Some(server) = AzuriteServer::start_for_restic() else { return };
        server.make_container("backups");
        let machine = Machine::new("az://backups/zone/one", server.variables());
        machine.run(&["backup"]).expect(0);
        restic_agrees(&machine, "azure:backups:/zone/one", &[], &server.restic_variables());
    });
}

#[test]
fn a_repository_on_google_lives_and_restic_reads_it() {
    let Some(server) = GcsServer::start() else { return };
    server.make_bucket("backups");
    let machine = Machine::new("gs://backups/zone/one", server.variables());
    lives(&machine);
    // restic knows Google's own address alone; a proxy leads it here, where a certificate of the test's own waits.
    let tunnel = Tunnel::start(server.https_port());
    let authority = server.authority().display().to_string();
    let variables = [("GOOGLE_ACCESS_TOKEN", "x"), ("HTTPS_PROXY", &*tunnel.url())];
    restic_agrees(&machine, "gs:backups:/zone/one", &["--cacert", &authority], &variables);
}
