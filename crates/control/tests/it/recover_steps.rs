//! Recovery, one step at a time: what each may touch, and what is left when it stops there.

use super::recover::{backed_up, leftovers, recover, recover_with, rows};
use super::sample::{Sample, in_context};
use retoma_control::backup::backup;
use retoma_control::drill::Context;
use retoma_control::recover::{self, Options, Place, Recovered, Request};
use retoma_control::{Interrupt, Note, Result, Timeline, Watch};
use retoma_core::drill::{StepName, Waterfall};
use retoma_core::error::{ErrorKind, codes};
use retoma_repo::backup::Progress;
use retoma_repo::{Folder, Repository};
use retoma_testkit::wait_for;
use std::any::Any;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// In place with the service, and what else is asked for.
fn apply(
    sample: &Sample,
    repository: &Repository,
    (keep_previous, runs_stop): (bool, bool),
    context: &Context<'_>,
) -> (Result<Recovered>, Waterfall) {
    let request = Request::newest(repository, Place::InPlace);
    let plan = recover::plan(&request).unwrap();
    let log = sample.path("log");
    let options =
        Options { supervisor: context.supervisor, starts_service: true, log: &log, keep_previous, runs_stop };
    let mut timeline = Timeline::start(context.clock, StepName::Decide);
    let done = recover::apply(&plan, repository, &options, &mut timeline, context.watch, context.interrupt);
    (done, timeline.finish().unwrap())
}

#[test]
fn each_step_of_a_recovery_is_on_the_timeline_and_previous_data_are_kept_when_asked() {
    let sample = Sample::new();
    let repository = backed_up(&sample);
    let (done, waterfall) = in_context(|context| apply(&sample, &repository, (true, false), context));
    let done = done.unwrap();
    assert!(done.passed());
    assert_eq!(done.previous.len(), 4, "kept as asked: {:?}", done.previous);
    let steps = waterfall.steps().iter().map(|step| (step.name, step.component.as_deref()));
    let mut expected = vec![(StepName::Decide, None)];
    for component in ["database", "models", "config", "logs"] {
        expected.push((StepName::Fetch, Some(component)));
        if component == "database" {
            expected.push((StepName::Replay, Some(component)));
        }
        expected.push((StepName::Check, Some(component)));
    }
    expected.extend([(StepName::Start, None), (StepName::Check, None)]);
    assert_eq!(steps.collect::<Vec<_>>(), expected);
}

#[test]
fn what_came_back_is_told_in_the_plans_order_with_its_place_and_the_previous_data_when_kept() {
    let sample = Sample::with(|text| {
        let inner = "[[component]]\nname = \"weights\"\nkind = \"files\"\ntier = \"critical\"\npath = \"models/sub\"\n\n";
        let outer = "name = \"models\"\nkind = \"files\"\ntier = \"high\"\npath = \"models\"\n";
        let text = text.replace(outer, &format!("{outer}exclude = [\"/sub\"]\n"));
        text.replace("[drill]", &format!("{inner}[drill]"))
    });
    std::fs::create_dir(sample.path("service/models/sub")).unwrap();
    std::fs::write(sample.path("service/models/sub/w"), "saved").unwrap();
    let repository = backed_up(&sample);
    std::fs::write(sample.path("service/models/sub/w"), "later").unwrap();
    std::fs::write(sample.path("service/retoma.toml"), "# mine\n").unwrap();
    std::fs::set_permissions(sample.path("service/config"), std::fs::Permissions::from_mode(0o750)).unwrap();
    backup(&sample.manifest, sample.manifest.component("config").unwrap(), &repository, &Progress::default())
        .unwrap();
    std::fs::set_permissions(sample.path("service/config"), std::fs::Permissions::from_mode(0o700)).unwrap();

    let done = in_context(|context| apply(&sample, &repository, (true, false), context).0).unwrap();
    assert!(done.passed(), "{done:#?}");
    let back: Vec<_> = done.components.iter().map(|it| (it.component.as_str(), it.path.clone())).collect();
    let expected = [
        ("database", "service/data/marabet.sqlite"),
        ("weights", "service/models/sub"),
        ("models", "service/models"),
        ("config", "service/config"),
        ("logs", "service/logs"),
    ];
    assert_eq!(back, expected.map(|(name, place)| (name, sample.path(place))));
    assert_eq!(std::fs::read_to_string(sample.path("service/models/sub/w")).unwrap(), "saved");
    let mode = sample.path("service/config").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750, "a folder comes back as it was, itself too");
    assert_eq!(std::fs::read_to_string(sample.path("service/retoma.toml")).unwrap(), "# mine\n");
    // The inner component is in the outer one's folder, so four places had something before.
    assert_eq!(done.previous.len(), 4, "{:?}", done.previous);
    assert!(done.previous.iter().all(|path| path.exists()));
    let kept = done.previous.iter().find(|path| path.display().to_string().contains("models")).unwrap();
    assert_eq!(std::fs::read_to_string(kept.join("sub/w")).unwrap(), "later");
}

#[test]
fn a_blank_folder_is_not_filled_while_the_service_answers_unless_none_is_to_be_started() {
    let sample = Sample::new();
    let repository = backed_up(&sample);
    let running = recover(&sample, &repository, Place::InPlace, &[]).unwrap();
    let blank = Place::Under(sample.path("blank"));
    let error = recover(&sample, &repository, blank.clone(), &[]).unwrap_err();
    assert_eq!(error.code(), codes::SERVICE_RUNS, "{error}");
    assert!(!sample.path("blank").exists());
    let error = recover_with(false, &sample, &repository, Place::InPlace, &[]).unwrap_err();
    assert_eq!(error.code(), codes::SERVICE_RUNS, "it would write into what is replaced: {error}");
    let copy = recover_with(false, &sample, &repository, blank, &[]).unwrap();
    assert!(copy.passed() && copy.service.is_none() && copy.service_checks.is_empty());
    drop(running);
}

#[test]
fn a_recovery_into_a_folder_that_was_stopped_is_run_again_and_one_that_ended_is_not() {
    let sample = Sample::new();
    let repository = backed_up(&sample);
    // Without the pack of its data the last component cannot come back; those before it can.
    std::fs::write(sample.path("service/logs/more"), retoma_testkit::noise(3, 500_000)).unwrap();
    let logs = sample.manifest.component("logs").unwrap();
    backup(&sample.manifest, logs, &repository, &Progress::default()).unwrap();
    let packs = repository.list(Folder::Data).unwrap().into_iter().map(|(_, meta)| meta);
    let largest = packs.max_by_key(|meta| meta.size_bytes).unwrap().key;
    let pack = sample.path("repository").join(largest.as_str());
    std::fs::rename(&pack, sample.path("away")).unwrap();
    let blank = sample.path("blank");
    let root = blank.join(sample.path("service").strip_prefix("/").unwrap());
    let into = || recover_with(false, &sample, &repository, Place::Under(blank.clone()), &[]);
    let error = into().unwrap_err();
    assert_eq!(error.code(), codes::PACK_MISSING, "{error}");
    assert!(root.join("data/marabet.sqlite").exists(), "what came before it is there");
    assert!(!root.join("retoma.toml").exists() && blank.join(".retoma-recovering").exists());
    std::fs::rename(sample.path("away"), &pack).unwrap();
    // As the kill of a restore leaves a folder: not yet with its own mode.
    let mode = |folder: &Path| folder.metadata().unwrap().permissions().mode();
    std::fs::set_permissions(root.join("models"), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(into().unwrap().passed());
    assert_eq!(mode(&root.join("models")), mode(&sample.path("service/models")));
    assert_eq!(rows(&root.join("data/marabet.sqlite")), 300);
    assert!(!blank.join(".retoma-recovering").exists());
    assert_eq!(into().unwrap_err().code(), codes::RESTORE_TARGET);
}

/// Keeps what can be followed, and how far it was when it was no longer shown: files and bytes, done and in all.
#[derive(Default, Clone)]
struct Follows(Arc<Mutex<Vec<Followed>>>);

type Followed = (String, (u64, u64), (u64, u64));

impl Watch for Follows {
    fn note(&self, _note: &Note) {}

    fn follow(&self, doing: &str, progress: &Arc<Progress>) -> Box<dyn Any> {
        struct Shown(Follows, String, Arc<Progress>);
        impl Drop for Shown {
            fn drop(&mut self) {
                let seen = (self.1.clone(), self.2.done(), self.2.total());
                self.0.0.lock().unwrap().push(seen);
            }
        }
        assert_eq!(progress.done(), (0, 0), "it is shown from the beginning");
        Box::new(Shown(self.clone(), doing.to_owned(), Arc::clone(progress)))
    }
}

#[test]
fn the_restore_of_each_component_can_be_followed_to_its_end() {
    let sample = Sample::new();
    let repository = backed_up(&sample);
    let watch = Follows::default();
    let done = in_context(|context| {
        let context = Context { watch: &watch, ..*context };
        apply(&sample, &repository, (false, false), &context).0
    });
    assert!(done.unwrap().passed());
    let seen = watch.0.lock().unwrap();
    let doing: Vec<&str> = seen.iter().map(|(doing, _, _)| doing.as_str()).collect();
    assert_eq!(doing, ["database", "models", "config", "logs"].map(|name| format!("restoring {name}")));
    for (doing, done, total) in seen.iter() {
        assert!(total.1 > 0 && done == total, "{doing}: {done:?} of {total:?}");
    }
}

/// Asks for a stop as soon as the last component is restored.
struct StopsAfter<'a>(&'a str, Interrupt);

impl Watch for StopsAfter<'_> {
    fn note(&self, note: &Note) {
        if matches!(note, Note::Restored { component, .. } if component == self.0) {
            self.1.set();
        }
    }
}

#[test]
fn a_recovery_that_is_stopped_ends_with_the_previous_data_and_says_that_it_was_stopped() {
    for component in ["database", "logs"] {
        let sample = Sample::new();
        let repository = backed_up(&sample);
        let database = sample.path("service/data/marabet.sqlite");
        let fewer = "DELETE FROM predictions WHERE rowid > 100";
        rusqlite::Connection::open(&database).unwrap().execute_batch(fewer).unwrap();
        let interrupt = Interrupt::default();
        let watch = StopsAfter(component, interrupt.clone());
        let error = in_context(|context| {
            let context = Context { watch: &watch, interrupt: &interrupt, ..*context };
            apply(&sample, &repository, (false, true), &context).0.unwrap_err()
        });
        assert_eq!((error.kind(), error.code()), (ErrorKind::Cancelled, codes::CANCELLED), "{error}");
        assert_eq!(rows(&database), 100);
        assert_eq!(leftovers(&sample), Vec::<String>::new());
        assert_eq!(sample.processes(), 0);
    }
}

#[test]
fn a_drills_recovery_never_runs_the_manifests_command_to_stop() {
    let sample = Sample::with(|text| {
        let text = text.replace("\\\"healthy\\\":true", "a text that never comes");
        text.replace("ready_seconds = 60", "stop = [\"sh\", \"-c\", \"echo x > stopped\"]\nready_seconds = 1")
    });
    let repository = backed_up(&sample);
    let done = in_context(|context| apply(&sample, &repository, (false, false), context).0).unwrap();
    assert_eq!(done.rolled_back.unwrap().code(), codes::ROLLED_BACK);
    assert!(!sample.path("service/stopped").exists());
}

#[test]
fn the_service_is_told_where_its_root_is() {
    let sample = Sample::with(|text| {
        let from = text.find("start = ").unwrap();
        let to = from + text[from..].find('\n').unwrap();
        let start = "start = [\"sh\", \"-c\", \"echo $RETOMA_ROOT > new; mv new root; exec sleep 600\"]";
        let mut text = text.replacen(&text[from..to], start, 1);
        text.replace_range(text.find("health = ").unwrap()..text.find("start = ").unwrap(), "");
        let check = text.find("[[service.check]]").unwrap()..text.find("[[repository]]").unwrap();
        text.replace_range(check, "");
        text
    });
    let repository = backed_up(&sample);
    let told = |dir: &Path| wait_for(|| std::fs::read_to_string(dir.join("root")).ok());
    let service = recover(&sample, &repository, Place::InPlace, &[]).unwrap();
    assert_eq!(told(sample.manifest.dir()), "/\n");
    drop(service);
    let blank = sample.path("blank");
    let root = blank.join(sample.path("service").strip_prefix("/").unwrap());
    let _service = recover(&sample, &repository, Place::Under(blank.clone()), &[]).unwrap();
    assert_eq!(told(&root), format!("{}\n", blank.display()));
}
