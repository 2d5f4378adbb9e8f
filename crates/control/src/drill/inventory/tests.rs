use super::*;
use retoma_core::drill::CheckOutcome;

#[test]
fn other_contents_with_the_same_size_and_time_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a/b");
    std::fs::create_dir(folder.path().join("a")).unwrap();
    std::fs::write(&file, "one").unwrap();
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let inventory = Inventory::of_files(folder.path(), &Interrupt::default()).unwrap();
    assert_eq!(inventory.bytes, 3);
    assert_eq!(inventory.compare(folder.path()).unwrap().outcome, CheckOutcome::Passed);
    assert!(!inventory.is_damaged(folder.path()));
    std::fs::write(&file, "two").unwrap();
    assert!(inventory.is_damaged(folder.path()));
    assert_eq!(inventory.compare(folder.path()), None, "it changed, so it says nothing");
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    let check = inventory.compare(folder.path()).unwrap();
    assert_eq!(check.outcome, CheckOutcome::Failed);
    assert_eq!(check.found.as_deref(), Some("1 file differs, among them `a/b`"));
}

#[test]
fn rows_of_all_tables_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    let sql = "CREATE TABLE a (x); CREATE TABLE \"b\"\"c\" (x); INSERT INTO a VALUES (1), (2);
               INSERT INTO \"b\"\"c\" VALUES (1);";
    connection.execute_batch(sql).unwrap();
    let inventory = Inventory::of_database(&path).unwrap();
    assert_eq!(inventory.rows, Some(3));
    assert!(inventory.bytes >= 8192);
}

#[test]
fn what_is_gone_or_other_than_it_was_is_damage_and_what_is_new_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("models");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    for name in ["a", "sub/b"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    std::fs::create_dir(folder.path().join("beside")).unwrap();
    std::fs::write(folder.path().join("beside/c"), "c").unwrap();
    std::os::unix::fs::symlink(folder.path().join("beside"), root.join("link")).unwrap();
    let inventory = Inventory::of_files(&root, &Interrupt::default()).unwrap();
    assert_eq!((inventory.bytes, inventory.files.len(), inventory.rows), (6, 2, None), "links lead nowhere");
    std::fs::write(root.join("new"), "new").unwrap();
    assert!(!inventory.is_damaged(&root));
    std::fs::remove_file(root.join("sub/b")).unwrap();
    assert!(inventory.is_damaged(&root));
    let check = inventory.compare(&root).unwrap();
    assert_eq!(check.found.as_deref(), Some("1 file the same"), "what is not there is not compared here");
}

#[test]
fn a_folder_without_files_and_a_component_that_is_one_file_can_be_lost_too() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, file) = (folder.path().join("empty"), folder.path().join("file"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(&file, "text").unwrap();
    for path in [&empty, &file] {
        let inventory = Inventory::of_files(path, &Interrupt::default()).unwrap();
        assert!(!inventory.is_damaged(path), "{}", path.display());
        assert_eq!(inventory.compare(path).is_some(), path == &file);
        std::fs::rename(path, path.with_extension("away")).unwrap();
        assert!(inventory.is_damaged(path), "{}", path.display());
        assert_eq!(inventory.compare(path), None);
    }
}

#[test]
fn an_inventory_stops_when_asked_and_says_when_there_is_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::default();
    interrupt.set();
    let stopped = Inventory::of_files(folder.path(), &interrupt).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    let absent = folder.path().join("absent");
    assert_eq!(Inventory::of_database(&absent).unwrap_err().code(), codes::NO_EVIDENCE);
    assert!(!absent.exists(), "looking makes no database");
}
