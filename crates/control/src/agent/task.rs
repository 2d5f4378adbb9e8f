//! What the agent runs: the tasks that follow from a manifest, and the commands that each of them is.

use retoma_core::decide::schedule::{self, Class};
use retoma_core::manifest::{Component, ComponentKind, Manifest, Tier};
use retoma_core::units;
use std::time::Duration;

/// No child is let run longer.
const CHILD_LIMIT: Duration = Duration::from_hours(24);
/// How much longer than its own limit a drill is let run.
const DRILL_GRACE: Duration = Duration::from_mins(10);

/// Something that the agent runs again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// Its name in the journal: `backup/models`, `verify`.
    pub(super) name: String,
    /// The verb.
    pub(super) verb: &'static str,
    /// The component of a backup.
    pub(super) component: Option<String>,
    /// When it is due.
    pub(super) schedule: schedule::Task,
    /// The arguments of each child, one after the other.
    pub(super) steps: Vec<Vec<String>>,
    /// How long each of them may take.
    pub(super) limit: Duration,
}

/// All tasks of a manifest on this host.
pub(super) fn tasks(manifest: &Manifest, host: &str) -> Vec<Task> {
    let mut tasks: Vec<Task> = manifest.components.iter().map(|component| backup(component, host)).collect();
    let options = &manifest.agent;
    // Whatever is new in its source is brought there; which is also what `retoma copy --to NAME` does.
    for copy in manifest.repositories.iter().filter(|it| it.copy_of.is_some()) {
        tasks.push(self::copy(manifest, &copy.name, host));
    }
    let each = |step: &dyn Fn(&str) -> Vec<Vec<String>>| -> Vec<Vec<String>> {
        manifest.repositories.iter().flat_map(|repository| step(&repository.name)).collect()
    };
    let mut add = |name: &'static str, every, steps: Vec<Vec<String>>, limit| {
        let rank = u8::MAX;
        let seed = schedule::seed(name, host);
        let schedule = schedule::Task { every, class: Class::Maintenance, rank, seed };
        tasks.push(Task { name: name.to_owned(), verb: name, component: None, schedule, steps, limit });
    };
    let retention = each(&|name| {
        let has_lock = manifest.repository(name).is_some_and(|it| it.lock.is_some());
        // First: locks must not end because something else fails.
        let renew = has_lock.then(|| words(&["renew", "--yes", "--repository", name]));
        let forget = words(&["forget", "--yes", "--repository", name]);
        let prune = words(&["prune", "--yes", "--repository", name]);
        renew.into_iter().chain([forget, prune]).collect()
    });
    add("retention", options.retention_every, retention, CHILD_LIMIT);
    let sample = format!("{}%", options.verify_sample_percent);
    let verify = each(&|name| vec![words(&["verify", "--sample", &sample, "--repository", name])]);
    add("verify", options.verify_every, verify, CHILD_LIMIT);
    if manifest.components.iter().any(|component| component.kind() == ComponentKind::Postgres) {
        let direct = manifest.repositories.iter().filter(|it| it.copy_of.is_none());
        let check = direct.map(|it| words(&["wal", "check", "--repository", &it.name])).collect();
        add("wal-check", options.wal_check_every, check, CHILD_LIMIT);
    }
    if let Some(scenario) = &options.drill {
        let limit = Duration::from_secs(manifest.drill.timeout_seconds) + DRILL_GRACE;
        add("drill", options.drill_every, vec![words(&["drill", scenario])], limit);
    }
    tasks
}

fn backup(component: &Component, host: &str) -> Task {
    let name = format!("backup/{}", component.name);
    let schedule = schedule::Task {
        every: component.schedule.every.max(units::Duration::from_seconds(1)),
        class: Class::Backup,
        rank: Tier::ALL
            .iter()
            .position(|tier| *tier == component.tier)
            .and_then(|at| u8::try_from(at).ok())
            .unwrap_or(0),
        seed: schedule::seed(&name, host),
    };
    let steps = vec![words(&["backup", &component.name])];
    Task {
        name,
        verb: "backup",
        component: Some(component.name.clone()),
        schedule,
        steps,
        limit: CHILD_LIMIT,
    }
}

/// Into the repository `name`, which is a copy.
fn copy(manifest: &Manifest, name: &str, host: &str) -> Task {
    let task = format!("copy/{name}");
    let schedule = schedule::Task {
        every: manifest.agent.copy_every.max(units::Duration::from_seconds(1)),
        class: Class::Copy,
        rank: u8::MAX,
        seed: schedule::seed(&task, host),
    };
    let components = manifest.components.iter().filter(|it| it.copies.iter().any(|copy| copy == name));
    let mut step = words(&["copy"]);
    step.extend(components.map(|component| component.name.clone()));
    step.extend(words(&["--to", name]));
    // Without components nothing is copied.
    let steps = if step.len() > 3 { vec![step] } else { Vec::new() };
    Task { name: task, verb: "copy", component: None, schedule, steps, limit: CHILD_LIMIT }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::manifest::{Origin, parse};

    const MANIFEST: &str = "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"near\"\nurl = \"file:///r\"\n\
        password = \"env:P\"\n[[repository]]\nname = \"far\"\nurl = \"file:///f\"\npassword = \"env:P\"\n\
        [[component]]\nname = \"models\"\nkind = \"files\"\ntier = \"high\"\npath = \"/m\"\n";

    fn lines(more: &str) -> Vec<String> {
        let origin = Origin { file_name: "retoma.toml".to_owned(), dir: "/".into() };
        let manifest = parse(&format!("{MANIFEST}{more}"), &origin).unwrap();
        let line = |task: &Task| {
            let steps: Vec<String> = task.steps.iter().map(|step| step.join(" ")).collect();
            format!("{} every {}: {}", task.name, task.schedule.every, steps.join("; "))
        };
        tasks(&manifest, "host").iter().map(line).collect()
    }

    #[test]
    fn locks_are_renewed_before_anything_is_forgotten() {
        let more =
            "[[repository]]\nname = \"locked\"\nurl = \"s3://b/x\"\npassword = \"env:P\"\nlock_days = 7\n";
        let retention = lines(more).into_iter().find(|line| line.starts_with("retention")).unwrap();
        let own = "renew --yes --repository locked; forget --yes --repository locked; prune --yes --repository locked";
        assert!(retention.ends_with(own), "{retention}");
        assert_eq!(retention.matches("renew").count(), 1, "{retention}");
    }

    #[test]
    fn tasks_are_what_the_manifest_asks_for() {
        let usual = [
            "backup/models every 13m30s: backup models",
            "retention every 1d: forget --yes --repository near; prune --yes --repository near; forget --yes --repository far; \
             prune --yes --repository far",
            "verify every 7d: verify --sample 5% --repository near; verify --sample 5% --repository far",
        ];
        assert_eq!(lines(""), usual);
        let more = "[[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"postgres://h/d\"\n\
            [agent]\ndrill = \"deletion\"\nverify_sample_percent = 9\n";
        let more = lines(more);
        assert_eq!(more[1], "backup/db every 4m30s: backup db");
        assert_eq!(more[4], "wal-check every 5m: wal check --repository near; wal check --repository far");
        assert_eq!(more[5], "drill every 7d: drill deletion");
        assert!(more[3].contains("--sample 9%"));
    }

    #[test]
    fn a_copy_is_filled_from_its_source_and_has_no_other_wal_than_that() {
        let more = "[[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"postgres://h/d\"\n\
            repositories = [\"far\"]\n[[repository]]\nname = \"off\"\nurl = \"file:///o\"\npassword = \"env:P\"\n\
            copy_of = \"near\"\n[agent]\ncopy_every = \"20m\"\n";
        let lines = lines(more);
        assert_eq!(lines[2], "copy/off every 20m: copy models --to off");
        assert!(lines[3].contains("prune --yes --repository off") && lines[4].contains("--repository off"));
        assert_eq!(lines[5], "wal-check every 5m: wal check --repository near; wal check --repository far");
    }
}
