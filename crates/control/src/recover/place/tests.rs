use super::*;

/// A folder and a database with a WAL that are live, and what shall replace them, staged; and a unit without anything
/// before.
fn stage(root: &Path) -> Vec<Unit> {
    let unit = |name: &str, is_folder, is_database| Unit {
        live: root.join(name),
        is_folder,
        is_database,
        snapshot: "abc".to_owned(),
        held: Vec::new(),
    };
    let server = Unit { held: vec!["control".into()], ..unit("server", true, false) };
    let space = unit("space/PG", false, false);
    let others = [unit("models", true, false), unit("db", false, true), unit("fresh", true, false)];
    let units: Vec<Unit> = others.into_iter().chain([server, space]).collect();
    std::fs::create_dir_all(root.join("models")).unwrap();
    std::fs::write(root.join("models/m"), "old").unwrap();
    std::fs::write(root.join("db"), "old").unwrap();
    std::fs::write(root.join("db-wal"), "old wal").unwrap();
    for folder in ["server", "space/PG"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("server/control"), "old").unwrap();
    std::fs::write(root.join("space/PG/s"), "old").unwrap();
    for unit in &units {
        std::fs::create_dir_all(unit.staging()).unwrap();
    }
    std::fs::write(root.join("server.retoma-new/control"), "new").unwrap();
    std::fs::create_dir(root.join("space/PG.retoma-new/PG")).unwrap();
    std::fs::write(root.join("space/PG.retoma-new/PG/s"), "new").unwrap();
    std::fs::write(root.join("models.retoma-new/m"), "new").unwrap();
    std::fs::write(root.join("db.retoma-new/db"), "new").unwrap();
    std::fs::write(root.join("fresh.retoma-new/f"), "new").unwrap();
    units
}

fn listing(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn files(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

const OLD: [(&str, &str); 5] = [
    ("db", "old"),
    ("db-wal", "old wal"),
    ("models/m", "old"),
    ("server/control", "old"),
    ("space/PG/s", "old"),
];
const NEW_DATA: [(&str, &str); 5] = [
    ("db", "new"),
    ("fresh/f", "new"),
    ("models/m", "new"),
    ("server/control", "new"),
    ("space/PG/s", "new"),
];

/// A server that can start has its own tablespace.
fn assert_no_mixture(root: &Path, when: &str) {
    let Ok(control) = std::fs::read_to_string(root.join("server/control")) else { return };
    assert_eq!(control, std::fs::read_to_string(root.join("space/PG/s")).unwrap(), "{when}");
}

fn lives(units: &[Unit]) -> Vec<PathBuf> {
    units.iter().map(|unit| unit.live.clone()).collect()
}

/// As preparing the place of a database does.
fn prepare(path: &Path) -> Result<()> {
    remove(&beside(path, "-wal"))
}

#[expect(clippy::unnecessary_wraps, reason = "what the exchange asks for")]
fn nobody(_: &Path, _: &Path) -> Result<()> {
    Ok(())
}

#[test]
fn who_is_found_in_what_was_moved_has_it_back_at_its_place() {
    for seen_at in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let server = folder.path().join("server");
        let exchange = Exchange::begin(&stage(folder.path())).unwrap();
        let looks = std::cell::Cell::new(0);
        let look = |live: &Path, previous: &Path| {
            looks.set(looks.get() + u32::from(live == server));
            if looks.get() < seen_at || live != server {
                return Ok(());
            }
            assert_eq!(std::fs::read_to_string(previous.join("control")).unwrap(), "old");
            assert!(!server.join("control").exists(), "nobody can start the new one yet");
            Err(Error::internal("it runs"))
        };
        assert_eq!(exchange.forward(prepare, look).unwrap_err().message(), "it runs");
        exchange.back().unwrap();
        assert_eq!(listing(folder.path()), files(&OLD));
    }
}

#[test]
fn new_data_take_the_place_and_the_previous_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let units = stage(folder.path());
    let exchange = Exchange::begin(&units).unwrap();
    exchange.forward(prepare, nobody).unwrap();
    assert!(folder.path().join("models.retoma-previous-abc/m").exists());
    assert_eq!(exchange.confirm(false).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(listing(folder.path()), files(&NEW_DATA));
}

#[test]
fn previous_data_are_kept_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let units = stage(folder.path());
    let exchange = Exchange::begin(&units).unwrap();
    exchange.forward(prepare, nobody).unwrap();
    let kept = ["models", "db", "server", "space/PG"];
    let kept = kept.map(|name| folder.path().join(format!("{name}.retoma-previous-abc")));
    assert_eq!(exchange.confirm(true).unwrap(), kept);
    assert_eq!(std::fs::read_to_string(&kept[1]).unwrap(), "old");
    assert_eq!(units[1].previous().unwrap(), folder.path().join("db.retoma-previous-abc-2"));
}

#[test]
fn previous_data_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let exchange = Exchange::begin(&stage(folder.path())).unwrap();
    exchange.forward(prepare, nobody).unwrap();
    exchange.back().unwrap();
    assert_eq!(listing(folder.path()), files(&OLD));
}

/// Kills `work`, which gets the units and what `prepared` made of them, at each of its steps; gives how many there are.
/// The next run must bring the previous data back each time.
fn kill_everywhere<T>(prepared: impl Fn(&[Unit]) -> T, work: impl Fn(&[Unit], T) -> Result<()>) -> u32 {
    for kills in 0..1000 {
        let folder = tempfile::tempdir().unwrap();
        let units = stage(folder.path());
        let ready = prepared(&units);
        KILL_AT.set(Some(kills));
        let done = work(&units, ready);
        KILL_AT.set(None);
        assert_no_mixture(folder.path(), &format!("killed at step {kills}"));
        settle(&lives(&units)).unwrap();
        assert_eq!(listing(folder.path()), files(&OLD), "killed at step {kills}");
        if done.is_ok() {
            return kills;
        }
    }
    panic!("it fails also when nothing kills it")
}

#[test]
fn killed_between_any_two_steps_the_next_run_brings_the_previous_data_back() {
    let work = |units: &[Unit], ()| Exchange::begin(units)?.forward(prepare, nobody);
    assert!(kill_everywhere(|_| (), work) > 8);
}

#[test]
fn going_back_can_itself_be_killed() {
    let exchanged = |units: &[Unit]| {
        let exchange = Exchange::begin(units).unwrap();
        exchange.forward(prepare, nobody).unwrap();
        exchange
    };
    assert!(kill_everywhere(exchanged, |_, exchange| exchange.back()) > 5);
}

#[test]
fn killed_while_it_confirms_all_is_new_or_all_is_old() {
    for kills in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let units = stage(folder.path());
        let exchange = Exchange::begin(&units).unwrap();
        exchange.forward(prepare, nobody).unwrap();
        KILL_AT.set(Some(kills));
        exchange.confirm(false).unwrap_err();
        KILL_AT.set(None);
        settle(&lives(&units)).unwrap();
        let now: Vec<_> =
            listing(folder.path()).into_iter().filter(|(name, _)| !name.contains("previous")).collect();
        assert_eq!(now, files(&NEW_DATA), "killed at step {kills}");
    }
}

#[test]
fn a_journal_of_something_else_stops_everything() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("db");
    std::fs::write(beside(&live, JOURNAL), "{}").unwrap();
    assert_eq!(settle(&[live]).unwrap_err().code(), codes::RECOVERY_UNCLEAR);
}

#[test]
fn the_name_for_previous_data_is_one_that_neither_a_file_nor_a_journal_has() {
    let folder = tempfile::tempdir().unwrap();
    let unit = stage(folder.path()).swap_remove(1);
    let taken = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
    let next = || unit.previous().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(next(), "db.retoma-previous-abc");
    // Only the WAL of an earlier one is left: it must not become that of this one.
    taken("db.retoma-previous-abc-wal");
    assert_eq!(next(), "db.retoma-previous-abc-2");
    taken("db.retoma-previous-abc-2");
    assert_eq!(next(), "db.retoma-previous-abc-3");
}

#[test]
fn every_journal_of_a_database_comes_back_with_it_or_stays_beside() {
    for keep in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let units = stage(folder.path());
        std::fs::write(folder.path().join("db-journal"), "hot").unwrap();
        let prepare = |path: &Path| BESIDE.iter().try_for_each(|suffix| remove(&beside(path, suffix)));
        let exchange = Exchange::begin(&units).unwrap();
        exchange.forward(prepare, nobody).unwrap();
        if keep {
            exchange.confirm(true).unwrap();
            let kept = |suffix: &str| folder.path().join(format!("db.retoma-previous-abc{suffix}"));
            assert_eq!(std::fs::read_to_string(kept("-journal")).unwrap(), "hot");
            assert_eq!(std::fs::read_to_string(kept("-wal")).unwrap(), "old wal");
            assert!(!folder.path().join("db-wal").exists() && !folder.path().join("db-journal").exists());
        } else {
            exchange.back().unwrap();
            let [db, rest @ ..] = OLD;
            assert_eq!(listing(folder.path()), files(&[&[db, ("db-journal", "hot")], &rest[..]].concat()));
        }
    }
}

#[test]
fn what_a_killed_recovery_had_exchanged_is_named_once() {
    let folder = tempfile::tempdir().unwrap();
    let units = stage(folder.path());
    Exchange::begin(&units).unwrap().forward(prepare, nobody).unwrap();
    assert_eq!(settle(&lives(&units)).unwrap(), lives(&units));
    assert_eq!(settle(&lives(&units)).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(listing(folder.path()), files(&OLD));
}

/// People were there meanwhile: nothing is guessed, nothing is removed, and it is said every time.
#[test]
fn previous_data_that_are_gone_stop_everything() {
    for (gone, left) in
        [("models.retoma-previous-abc", "models/m"), ("models", "models.retoma-previous-abc/m")]
    {
        let folder = tempfile::tempdir().unwrap();
        let units = stage(folder.path());
        Exchange::begin(&units).unwrap().forward(prepare, nobody).unwrap();
        remove(&folder.path().join(gone)).unwrap();
        for _ in 0..2 {
            let error = settle(&lives(&units)).unwrap_err();
            assert_eq!(error.code(), codes::RECOVERY_UNCLEAR, "without {gone}");
            assert!(
                folder.path().join(left).exists() && folder.path().join("models.retoma-journal").exists()
            );
        }
    }
}

#[test]
fn a_journal_of_another_version_stops_everything() {
    let folder = tempfile::tempdir().unwrap();
    let units = stage(folder.path());
    Exchange::begin(&units).unwrap();
    let journal = folder.path().join("models.retoma-journal");
    let text = std::fs::read_to_string(&journal).unwrap().replace("recover-journal/1", "recover-journal/2");
    std::fs::write(&journal, text).unwrap();
    assert_eq!(settle(&lives(&units)).unwrap_err().code(), codes::RECOVERY_UNCLEAR);
    assert!(folder.path().join("models.retoma-new").exists(), "what it says is not ours to undo");
}
