use super::*;
use retoma_testkit::wal::segment;
use std::os::unix::fs::PermissionsExt as _;

const SERVER: u64 = 77;
const NAME: &str = "000000010000000000000007";

fn name(text: &str) -> SegmentName {
    text.parse().unwrap()
}

fn spool() -> (tempfile::TempDir, Spool) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool"), SERVER).unwrap();
    (folder, spool)
}

fn id(path: &Path) -> FileId {
    FileId::from(&path.metadata().unwrap())
}

/// Keeps `bytes`, which come in two parts.
fn put(spool: &Spool, right: &Ahead, segment: &str, bytes: &[u8]) {
    let half = bytes.len() / 2;
    let kept = spool.put(right, name(segment), |take| {
        take(0, &bytes[..half])?;
        take(half as u64, &bytes[half..])?;
        Ok(Some(bytes.len() as u64))
    });
    assert!(kept.unwrap());
}

#[test]
fn an_acknowledgement_holds_for_the_very_file_alone() {
    let (folder, spool) = spool();
    let path = folder.path().join(NAME);
    std::fs::write(&path, "contents").unwrap();
    let right = spool.try_ahead().unwrap();
    assert!(!spool.is_acknowledged(name(NAME), id(&path)));
    spool.acknowledge(&right, name(NAME), id(&path)).unwrap();
    assert!(spool.is_acknowledged(name(NAME), id(&path)));
    assert!(!spool.is_acknowledged(name("000000010000000000000008"), id(&path)));
    // Recycled: the same name, another file.
    let other = folder.path().join("other");
    std::fs::copy(&path, &other).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert!(!spool.is_acknowledged(name(NAME), id(&path)));
    spool.acknowledge(&right, name(NAME), id(&path)).unwrap();
    // Written to: the same inode.
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"!").unwrap();
    assert!(!spool.is_acknowledged(name(NAME), id(&path)));
    spool.acknowledge(&right, name(NAME), id(&path)).unwrap();
    spool.forget(name(NAME));
    assert!(!spool.is_acknowledged(name(NAME), id(&path)));
}

#[test]
fn a_torn_acknowledgement_is_none() {
    let (folder, spool) = spool();
    let path = folder.path().join(NAME);
    std::fs::write(&path, "contents").unwrap();
    spool.acknowledge(&spool.try_ahead().unwrap(), name(NAME), id(&path)).unwrap();
    let stored = spool.stored(name(NAME));
    let line = std::fs::read(&stored).unwrap();
    for length in 0..line.len() {
        std::fs::write(&stored, &line[..length]).unwrap();
        assert!(!spool.is_acknowledged(name(NAME), id(&path)), "{length}");
    }
}

#[test]
fn one_works_ahead_and_a_dead_holders_right_is_free() {
    let (_folder, spool) = spool();
    let right = spool.try_ahead().unwrap();
    assert!(spool.try_ahead().is_none());
    assert!(spool.clone().try_ahead().is_none());
    drop(right);
    assert!(spool.try_ahead().is_some());
}

#[test]
fn a_fetched_segment_is_moved_once_to_where_it_is_wanted() {
    let (folder, spool) = spool();
    let target = folder.path().join("RECOVERYXLOG");
    let whole = segment(NAME, SERVER, 1);
    assert!(!spool.take(name(NAME), &target).unwrap());
    put(&spool, &spool.try_ahead().unwrap(), NAME, &whole);
    assert!(spool.has(name(NAME)));
    assert!(spool.take(name(NAME), &target).unwrap());
    assert_eq!(std::fs::read(&target).unwrap(), whole);
    assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!spool.take(name(NAME), &target).unwrap());
}

#[test]
fn what_is_stale_foreign_or_damaged_is_not_handed_out() {
    let (folder, spool) = spool();
    let target = folder.path().join("RECOVERYXLOG");
    let whole = segment(NAME, SERVER, 1);
    let fetched = spool.folder.join(FETCHED);
    let right = spool.try_ahead().unwrap();
    // Another server's, another position's, another timeline's, too short.
    let second = "000000020000000000000007";
    for wrong in [
        segment(NAME, SERVER + 1, 1),
        segment("000000010000000000000008", SERVER, 1),
        segment(second, SERVER, 1),
        whole[..whole.len() / 2].to_vec(),
        Vec::new(),
    ] {
        put(&spool, &right, NAME, &wrong);
        assert!(!spool.take(name(NAME), &target).unwrap());
        assert!(!spool.has(name(NAME)), "it is removed");
    }
    // Damaged since: a byte anywhere.
    for at in [0, 50, 1000, whole.len() - 1] {
        put(&spool, &right, NAME, &whole);
        let (path, _) = spool.find(name(NAME)).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert!(!spool.take(name(NAME), &target).unwrap(), "{at}");
    }
    // Links are not followed; temporary names are no segments.
    let elsewhere = folder.path().join("elsewhere");
    std::fs::write(&elsewhere, &whole).unwrap();
    let crc = crc32c::crc32c(&whole);
    std::os::unix::fs::symlink(&elsewhere, fetched.join(format!("{NAME}.{crc:08x}"))).unwrap();
    assert!(!spool.take(name(NAME), &target).unwrap());
    std::fs::write(fetched.join(format!(".{NAME}.{crc:08x}.retoma-tmp")), &whole).unwrap();
    assert!(!spool.take(name(NAME), &target).unwrap());
    assert!(!target.exists());
    spool.keep(&right, &BTreeSet::new());
    assert_eq!(std::fs::read_dir(&fetched).unwrap().count(), 0, "what killed processes left goes");
}

#[test]
fn a_folder_that_others_may_write_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    assert!(Spool::open(&path, SERVER).is_some());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o770)).unwrap();
    assert!(Spool::open(&path, SERVER).is_none());
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(Spool::open(&file, SERVER).is_none());
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    assert!(Spool::open(&link, SERVER).is_none());
}

#[test]
fn what_is_not_there_or_comes_in_the_wrong_order_is_not_kept() {
    let (_folder, spool) = spool();
    let right = spool.try_ahead().unwrap();
    assert!(!spool.put(&right, name(NAME), |_| Ok(None)).unwrap());
    assert!(spool.put(&right, name(NAME), |take| take(8, b"behind a gap").map(|()| Some(20))).is_err());
    assert!(!spool.has(name(NAME)));
    assert_eq!(std::fs::read_dir(spool.folder.join(FETCHED)).unwrap().count(), 0, "nothing is left");
}
