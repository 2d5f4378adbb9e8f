use super::*;
use crate::interrupt::{Interrupt, Stopwatch};
use crate::service::Supervisor;
use crate::watch::Watch;
use retoma_core::manifest::{Origin, parse};
use std::cell::RefCell;
use std::sync::Mutex;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Watch for Heard {
    fn note(&self, note: &Note) {
        self.0.lock().unwrap().push(note.to_string());
    }
}

/// Does `work` with what a drill is told.
fn with<T>(interrupt: &Interrupt, watch: &dyn Watch, work: impl FnOnce(&Context<'_>) -> T) -> T {
    let supervisor = Supervisor { program: "/nowhere".into(), arguments: Vec::new() };
    work(&Context {
        supervisor: &supervisor,
        tool_version: "1",
        repeat: "retoma drill",
        watch,
        interrupt,
        clock: Stopwatch::start(),
        marks: 3,
    })
}

fn manifest(timeout_seconds: u64) -> Manifest {
    let text = format!(
        "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\npassword = \"env:P\"\n\
         [[component]]\nname = \"m\"\nkind = \"files\"\ntier = \"low\"\npath = \"/m\"\n[drill]\ntimeout_seconds = {timeout_seconds}\n"
    );
    parse(&text, &Origin { file_name: "retoma.toml".to_owned(), dir: "/".into() }).unwrap()
}

#[test]
fn a_hiccup_is_no_disaster_and_two_bad_looks_in_a_row_are_one() {
    let script = |looks: &[Option<&str>]| {
        let looks =
            RefCell::new(looks.iter().map(|it| it.map(str::to_owned)).collect::<Vec<_>>().into_iter());
        let saw = with(&Interrupt::default(), &crate::watch::Silent, |context| {
            noticed(context, || looks.borrow_mut().next().unwrap())
        });
        (saw.unwrap(), looks.borrow().len())
    };
    assert_eq!(script(&[Some("a"), Some("b"), Some("c")]), ("b".to_owned(), 1));
    assert_eq!(script(&[None, Some("a"), None, Some("b"), Some("c"), None]), ("c".to_owned(), 1));
}

#[test]
fn who_is_asked_to_stop_looks_no_more() {
    let interrupt = Interrupt::default();
    interrupt.set();
    let error = with(&interrupt, &crate::watch::Silent, |context| noticed(context, || None).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn work_that_ends_in_time_gives_what_it_gave() {
    let interrupt = Interrupt::default();
    let gone = || Error::new(ErrorKind::NotFound, codes::PACK_MISSING, "gone");
    with(&interrupt, &crate::watch::Silent, |context| {
        within_limit(&manifest(600), context, |_| Ok(())).unwrap();
        let error = within_limit(&manifest(600), context, |_| Err(gone())).unwrap_err();
        assert_eq!(error.code(), codes::PACK_MISSING);
    });
    assert!(!interrupt.is_set(), "the limit has a flag of its own");
}

#[test]
fn a_stop_from_outside_reaches_the_work_and_is_not_taken_for_its_limit() {
    let interrupt = Interrupt::default();
    let error = with(&interrupt, &crate::watch::Silent, |context| {
        within_limit(&manifest(600), context, |inner| {
            assert!(!inner.interrupt.is_set());
            interrupt.set();
            let waited = inner.interrupt.wait_for(retoma_testkit::PATIENCE, || Ok(None::<()>));
            waited.map(|_| ())
        })
        .unwrap_err()
    });
    assert_eq!((error.kind(), error.code()), (ErrorKind::Cancelled, codes::CANCELLED));
}

#[test]
fn the_worst_moment_is_an_interval_and_the_way_into_the_repository_later() {
    let seconds = Duration::from_secs;
    assert_eq!(worst_case(seconds(270), Duration::from_millis(2_500)), Seconds::from_micros(272_500_000));
    assert_eq!(worst_case(Duration::MAX, seconds(1)), Seconds::MAX);
}

#[test]
fn a_backup_that_could_not_read_everything_is_nothing_to_build_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "contents").unwrap();
    let text = format!(
        "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\npassword = \"env:P\"\n\
         [[component]]\nname = \"m\"\nkind = \"files\"\ntier = \"low\"\npath = \"{}\"\n",
        data.display()
    );
    let manifest = parse(&text, &Origin { file_name: "m".to_owned(), dir: "/".into() }).unwrap();
    let url = format!("file://{}", folder.path().join("repository").display());
    let password = retoma_core::Secret::new("one".to_owned());
    let repository = crate::open::open_address(&url, &password, true).unwrap().repository;
    let progress = retoma_repo::backup::Progress::default();
    let mut done = crate::backup::backup(&manifest, &manifest.components[0], &repository, &progress).unwrap();
    let heard = Heard::default();
    with(&Interrupt::default(), &heard, |context| {
        complete(&done, context).unwrap();
        let told = std::mem::take(&mut *heard.0.lock().unwrap());
        assert!(told.len() == 1 && told[0].starts_with("backed up m: 8 B, "), "{told:?}");
        let error = Error::new(ErrorKind::Unavailable, codes::SOURCE_UNREADABLE, "no right");
        done.summary.unreadable.push(retoma_repo::backup::Unreadable { path: b"/a\xff".to_vec(), error });
        let error = complete(&done, context).unwrap_err();
        assert_eq!(error.code(), codes::SOURCE_UNREADABLE);
        assert!(error.message().contains("`m` is incomplete: `/a\\xff`"), "{error}");
        assert!(heard.0.lock().unwrap().is_empty(), "what failed is not told as done");
    });
}
