//! Index files, snapshots, locks, marks, configs and key files: the JSON, letter by letter.

use super::{beginnings, digits, key};
use crate::format::BlobKind;
use crate::format::config::Config;
use crate::format::index::{IndexFile, IndexPack};
use crate::format::lock::{Holder, Lock};
use crate::format::mark::{Mark, MarkedPack, Reason};
use crate::format::pack::{PackedBlob, seal_header};
use crate::format::snapshot::{Snapshot, TAG_HOLD, TAG_INCOMPLETE};
use crate::format::time::Time;
use crate::id::{BlobId, IndexId, PackId, SnapshotId};
use retoma_core::ErrorKind;
use retoma_core::error::codes;

const TIME: &str = "2026-02-03T04:05:06.000000007Z";

fn time() -> Time {
    Time::parse(TIME).unwrap()
}

fn index() -> IndexFile {
    let blob = |kind, offset_bytes, length_bytes, uncompressed_bytes| PackedBlob {
        id: BlobId([3; 32]),
        kind,
        offset_bytes,
        length_bytes,
        uncompressed_bytes,
    };
    let blobs = vec![blob(BlobKind::Data, 0, 40, Some(99)), blob(BlobKind::Tree, 40, 50, None)];
    IndexFile { supersedes: vec![IndexId([1; 32])], packs: vec![IndexPack { id: PackId([2; 32]), blobs }] }
}

fn index_json() -> String {
    let (one, two, three) = (digits(1), digits(2), digits(3));
    format!(
        "{{\"supersedes\":[\"{one}\"],\"packs\":[{{\"id\":\"{two}\",\"blobs\":[\
         {{\"id\":\"{three}\",\"type\":\"data\",\"offset\":0,\"length\":40,\"uncompressed_length\":99}},\
         {{\"id\":\"{three}\",\"type\":\"tree\",\"offset\":40,\"length\":50}}]}}]}}"
    )
}

fn snapshot() -> Snapshot {
    Snapshot {
        time: time(),
        parent: Some(SnapshotId([1; 32])),
        tree: BlobId([2; 32]),
        paths: vec!["/srv/a".to_owned()],
        hostname: "host".to_owned(),
        username: "user".to_owned(),
        uid: 3,
        gid: 4,
        excludes: vec!["*.tmp".to_owned()],
        tags: vec![TAG_HOLD.to_owned()],
        original: Some(SnapshotId([5; 32])),
    }
}

fn snapshot_json() -> String {
    let (one, two, five) = (digits(1), digits(2), digits(5));
    format!(
        "{{\"time\":\"{TIME}\",\"parent\":\"{one}\",\"tree\":\"{two}\",\"paths\":[\"/srv/a\"],\"hostname\":\"host\",\
         \"username\":\"user\",\"uid\":3,\"gid\":4,\"excludes\":[\"*.tmp\"],\"tags\":[\"retoma:hold\"],\"original\":\"{five}\"}}"
    )
}

fn lock() -> Lock {
    Lock {
        time: time(),
        exclusive: true,
        hostname: "host".to_owned(),
        username: "user".to_owned(),
        pid: 7,
        uid: Some(8),
        gid: Some(9),
        retoma: Some(Holder::PruneNow),
        since: Some(time()),
    }
}

fn lock_json() -> String {
    format!(
        "{{\"time\":\"{TIME}\",\"exclusive\":true,\"hostname\":\"host\",\"username\":\"user\",\"pid\":7,\"uid\":8,\"gid\":9,\
         \"retoma\":\"prune_now\",\"since\":\"{TIME}\"}}"
    )
}

fn mark() -> Mark {
    let packs = [(1, Reason::Unused), (2, Reason::Repacked), (3, Reason::Unindexed)]
        .map(|(byte, reason)| MarkedPack { id: PackId([byte; 32]), reason });
    Mark { time: time(), packs: packs.to_vec() }
}

fn mark_json() -> String {
    let pack = |byte, reason: &str| format!("{{\"id\":\"{}\",\"reason\":\"{reason}\"}}", digits(byte));
    let packs = [pack(1, "unused"), pack(2, "repacked"), pack(3, "unindexed")].join(",");
    format!("{{\"time\":\"{TIME}\",\"packs\":[{packs}]}}")
}

#[test]
fn each_kind_of_object_is_written_and_read_letter_by_letter() {
    let text = |json: retoma_core::Result<Vec<u8>>| String::from_utf8(json.unwrap()).unwrap();
    assert_eq!(text(index().to_json()), index_json());
    assert_eq!(IndexFile::from_json(index_json().as_bytes()).unwrap(), index());
    assert_eq!(text(snapshot().to_json()), snapshot_json());
    assert_eq!(Snapshot::from_json(snapshot_json().as_bytes()).unwrap(), snapshot());
    assert_eq!(text(lock().to_json()), lock_json());
    assert_eq!(Lock::from_json(lock_json().as_bytes()).unwrap(), lock());
    assert_eq!(text(mark().to_json()), mark_json());
    assert_eq!(Mark::from_json(mark_json().as_bytes()).unwrap(), mark());
}

#[test]
fn an_object_that_ends_early_is_refused_wherever_it_ends() {
    type IsRefused = fn(&[u8]) -> Option<ErrorKind>;
    let kinds: [(&str, String, IsRefused); 4] = [
        ("index", index_json(), |json| IndexFile::from_json(json).err().map(|error| error.kind())),
        ("snapshot", snapshot_json(), |json| Snapshot::from_json(json).err().map(|error| error.kind())),
        ("lock", lock_json(), |json| Lock::from_json(json).err().map(|error| error.kind())),
        ("mark", mark_json(), |json| Mark::from_json(json).err().map(|error| error.kind())),
    ];
    for (kind, json, refused) in kinds {
        for beginning in beginnings(json.as_bytes()) {
            assert_eq!(refused(beginning), Some(ErrorKind::Corrupt), "{kind}, {} bytes", beginning.len());
        }
        assert_eq!(refused(json.as_bytes()), None, "{kind}");
        let followed = format!("{json}{json}");
        assert_eq!(refused(followed.as_bytes()), Some(ErrorKind::Corrupt), "{kind} twice");
    }
}

#[test]
fn the_size_of_a_pack_by_its_index_is_the_size_of_its_file() {
    for count in [0, 1, 2] {
        let mut pack = index().packs.remove(0);
        pack.blobs.truncate(count);
        let blobs: usize = pack.blobs.iter().map(|blob| blob.length_bytes as usize).sum();
        let header = seal_header(&key(), &pack.blobs).unwrap().len();
        assert_eq!(pack.pack_bytes(), (blobs + header) as u64, "{count}");
    }
}

#[test]
fn a_blob_may_end_where_offsets_end_and_not_beyond() {
    let read = |offset: u32, length: u32| {
        let id = digits(1);
        let json = format!(
            r#"{{"packs":[{{"id":"{id}","blobs":[{{"id":"{id}","type":"data","offset":{offset},"length":{length}}}]}}]}}"#
        );
        IndexFile::from_json(json.as_bytes())
    };
    assert!(read(u32::MAX - 5, 5).is_ok());
    let error = read(u32::MAX - 5, 6).unwrap_err();
    assert!(error.to_string().contains("4 GiB"), "{error}");
}

#[test]
fn what_other_versions_add_is_passed_over_and_what_they_leave_out_is_empty() {
    let id = digits(1);
    let json = format!(
        r#"{{"new":[1,{{}}],"packs":[{{"id":"{id}","x":0,"blobs":[{{"id":"{id}","type":"data","offset":1,"length":40,"uncompressed_length":0,"y":""}}]}}]}}"#
    );
    let read = IndexFile::from_json(json.as_bytes()).unwrap();
    assert!(read.supersedes.is_empty());
    assert_eq!(read.packs[0].blobs[0].uncompressed_bytes, None, "zero means: not compressed");

    let least = format!(
        r#"{{"time":"{TIME}","tree":"{id}","paths":null,"tags":null,"excludes":null,"program_version":"x"}}"#
    );
    let read = Snapshot::from_json(least.as_bytes()).unwrap();
    assert!(read.paths.is_empty() && read.tags.is_empty() && read.excludes.is_empty());
    assert_eq!((read.parent, read.original, read.uid), (None, None, 0));
    let written = String::from_utf8(read.to_json().unwrap()).unwrap();
    assert_eq!(written, format!(r#"{{"time":"{TIME}","tree":"{id}","paths":[],"uid":0,"gid":0}}"#));

    let least = format!(r#"{{"time":"{TIME}","exclusive":false}}"#);
    let read = Lock::from_json(least.as_bytes()).unwrap();
    assert_eq!((read.pid, read.uid, read.retoma, read.since), (0, None, None, None));
}

#[test]
fn what_an_object_needs_is_asked_for() {
    let id = digits(1);
    for json in [
        format!(r#"{{"time":"{TIME}","paths":[]}}"#),
        format!(r#"{{"tree":"{id}","paths":[]}}"#),
        format!(r#"{{"time":"{TIME}","tree":"{id}"}}"#),
        format!(r#"{{"time":"yesterday","tree":"{id}","paths":[]}}"#),
        format!(r#"{{"time":"{TIME}","tree":"{}","paths":[]}}"#, id.replace("01", "0A")),
        format!(r#"{{"time":"{TIME}","tree":"{}","paths":[]}}"#, &id[1..]),
        format!(r#"{{"time":"{TIME}","tree":"{id}00","paths":[]}}"#),
    ] {
        assert!(Snapshot::from_json(json.as_bytes()).is_err(), "{json}");
    }
    for json in [format!(r#"{{"time":"{TIME}"}}"#), r#"{"exclusive":true}"#.to_owned()] {
        assert!(Lock::from_json(json.as_bytes()).is_err(), "{json}");
    }
    for json in [r#"{"supersedes":[]}"#, r#"{"packs":[{"blobs":[]}]}"#] {
        assert!(IndexFile::from_json(json.as_bytes()).is_err(), "{json}");
    }
}

/// A lock whose holder this version doesn't know must not pass for one that may be ignored.
#[test]
fn a_lock_of_a_holder_that_nobody_knows_is_not_read_as_another() {
    let json = lock_json().replace("prune_now", "prune_soon");
    assert_eq!(Lock::from_json(json.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt);
    for (holder, name) in
        [(Holder::Backup, "backup"), (Holder::Prune, "prune"), (Holder::PruneNow, "prune_now")]
    {
        let json = lock_json().replace("prune_now", name);
        assert_eq!(Lock::from_json(json.as_bytes()).unwrap().retoma, Some(holder));
    }
}

#[test]
fn a_lock_from_the_future_is_not_stale() {
    let at = |seconds: i64| Time::from_unix(time().to_unix().0 + seconds, 0);
    for (seconds, is_stale) in [(-1_000_000, false), (0, false), (1800, false), (1801, true)] {
        assert_eq!(lock().is_stale_at(at(seconds)), is_stale, "{seconds}");
    }
}

#[test]
fn a_tag_is_its_whole_text_and_a_value_is_what_follows_its_name() {
    let tagged =
        |tags: &[&str]| Snapshot { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..snapshot() };
    assert!(!tagged(&["retoma:incomplete-x", "xretoma:incomplete"]).is_incomplete());
    assert!(tagged(&["a", TAG_INCOMPLETE]).is_incomplete());
    let of = tagged(&[
        "retoma:component",
        "retoma:component=db=1",
        "retoma:component=other",
        "retoma:manifest-hash=",
    ]);
    assert_eq!((of.component(), of.kind(), of.manifest_hash()), (Some("db=1"), None, Some("")));
}

#[test]
fn a_config_is_bare_json_and_one_of_a_version_that_never_was_is_refused() {
    let id = digits(7);
    let config = |version: &str, more: &str| {
        let json =
            format!(r#"{{"version":{version},"id":"{id}","chunker_polynomial":"3da3358b4dc173"{more}}}"#);
        Config::open(&key(), &key().seal(json.as_bytes()).unwrap())
    };
    let restic = config("2", "").unwrap();
    assert_eq!((restic.version, restic.retoma.as_deref()), (2, None));
    assert_eq!(key().open(&restic.seal(&key()).unwrap()).unwrap()[0], b'{', "never compressed");
    for version in ["0", "3", "4294967295"] {
        assert_eq!(config(version, "").unwrap_err().code(), codes::VERSION_TOO_NEW, "{version}");
    }
    for (lanes, is_read) in [
        ("0.9", true),
        ("1", true),
        ("1.0", true),
        ("1.99", true),
        ("2", false),
        ("10.0", false),
        ("", false),
    ] {
        let read = config("2", &format!(r#","retoma":"{lanes}""#));
        assert_eq!(read.is_ok(), is_read, "{lanes}");
    }
    assert_eq!(config("-1", "").unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(
        Config::open(&crate::crypto::MasterKey::from_bytes(&[0; 64]), &restic.seal(&key()).unwrap()).is_err()
    );
}
