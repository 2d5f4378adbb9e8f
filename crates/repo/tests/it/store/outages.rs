//! Whole operations over a way on which things go wrong: they finish, or end with a typed error; what is in the
//! repository is whole either way, and nobody asks for ever.

use crate::copy::copy;
use crate::prune::kit::{Files, PASSWORD, check_structure, files, new_repository, read_all, secret};
use retoma_core::error::codes;
use retoma_core::{Code, Error, ErrorKind, Result};
use retoma_repo::backup::{self, Progress};
use retoma_repo::format::BlobKind;
use retoma_repo::format::snapshot::TAG_COMPONENT;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::index::Index;
use retoma_repo::ops::verify::{Options as VerifyOptions, ReadData, verify};
use retoma_repo::store::layer::{Layers, RetryPolicy, TimeLimits, stack};
use retoma_repo::store::{BlockingStore, cloud};
use retoma_repo::{BlobId, Repository, SnapshotId, restore};
use retoma_testkit::{Canned, Fate, HttpProxy, MemorySource, SeaweedServer, Seen};
use std::collections::BTreeSet;
use std::time::Duration;

/// Attempts of the retry layer.
const ATTEMPTS: usize = 3;
/// No operation here makes more calls, also one that goes on with the next object when one cannot be read.
const CALLS: usize = 60;

/// An S3 server, and the way to it.
struct Far {
    server: SeaweedServer,
    proxy: HttpProxy,
}

impl Far {
    fn new() -> Option<Self> {
        let server = SeaweedServer::start()?;
        server.make_bucket("bucket");
        let proxy = HttpProxy::start(server.port());
        Some(Self { server, proxy })
    }

    fn store(&self, prefix: &str, port: u16) -> BlockingStore {
        let mut variables = self.server.variables();
        let endpoint = variables.iter_mut().find(|(name, _)| name == "AWS_ENDPOINT_URL").unwrap();
        endpoint.1 = format!("http://127.0.0.1:{port}");
        let patience = cloud::Patience {
            silence: Duration::from_secs(1),
            slowest_bytes_per_second: 20_000,
            ..cloud::Patience::default()
        };
        let address = format!("s3://bucket/{prefix}").parse().unwrap();
        let store = cloud::open_patient(&address, &variables, patience).unwrap();
        let (first_delay, max_delay) = (Duration::from_millis(1), Duration::from_millis(20));
        let layers = Layers {
            retry: RetryPolicy {
                attempts: u32::try_from(ATTEMPTS).unwrap(),
                first_delay,
                max_delay,
                seed: 3,
            },
            time_limits: TimeLimits { request: Duration::from_secs(4), transfer: Duration::from_mins(1) },
            ..Layers::default()
        };
        BlockingStore::new(stack(store, layers).store).unwrap()
    }

    /// A new repository with two snapshots, and the same by the proxy, which lets everything pass.
    fn repository(&self, prefix: &str) -> (Repository, Repository) {
        let direct = Repository::init(self.store(prefix, self.server.port()), &secret(PASSWORD)).unwrap();
        save(&direct, &files(0..8)).unwrap();
        save(&direct, &files(4..12)).unwrap();
        self.proxy.restart(|_| Fate::Pass);
        let far = direct.through(self.store(prefix, self.proxy.port()));
        (direct, far)
    }
}

/// Backs `files` up as the component `c`.
fn save(repository: &Repository, files: &Files) -> Result<SnapshotId> {
    let mut source = MemorySource::default();
    source.enter(Node::new("data", NodeKind::Directory));
    for (name, bytes) in files {
        source.file(name.as_bytes(), bytes);
    }
    source.leave();
    let options = backup::Options {
        paths: vec!["/data".to_owned()],
        tags: vec![format!("{TAG_COMPONENT}c")],
        workers: Some(1),
        ..backup::Options::default()
    };
    Ok(backup::backup(repository, &mut source, &options, &Progress::default())?.snapshot)
}

type Operation = fn(&Repository) -> Result<()>;

/// Success is checked by each: a wrong one fails the test.
const OPERATIONS: [(&str, Operation); 5] = [
    ("backup", |far| save(far, &files(8..16)).map(drop)),
    ("verify", |far| {
        let options =
            VerifyOptions { read_data: ReadData::All, workers: Some(2), ..VerifyOptions::default() };
        let report = verify(far, &options, &Progress::default())?;
        match report.damage().next() {
            // What cannot be read is a finding with the store's code.
            Some(finding) => Err(Error::new(kind(finding.code), finding.code, format!("{finding:?}"))),
            None => Ok(()),
        }
    }),
    ("restore", restore_all),
    ("copy from", |far| {
        let (_, near) = new_repository();
        let copied = copy(far, &near)?;
        if let Some(lost) = copied.lost.into_iter().next() {
            return Err(lost.error);
        }
        assert!(copied.snapshots.len() >= 2 && copied.left.is_empty());
        check_whole(&near, "the copy");
        Ok(())
    }),
    ("copy to", |far| {
        let (_, near) = new_repository();
        save(&near, &files(20..28)).unwrap();
        copy(&near, far).map(drop)
    }),
];

fn kind(code: Code) -> ErrorKind {
    match code {
        codes::STORE_UNAVAILABLE | codes::STORE_TIMEOUT => ErrorKind::Unavailable,
        codes::STORE_DENIED => ErrorKind::Unauthorized,
        _ => ErrorKind::Corrupt,
    }
}

fn restore_all(far: &Repository) -> Result<()> {
    let index = far.load_index()?;
    for (_, snapshot) in far.snapshots()? {
        let folder = tempfile::tempdir().unwrap();
        let plan = restore::plan(far, &index, snapshot.tree, &restore::Options::default(), folder.path())?;
        let outcome = restore::apply(plan, &Progress::default())?;
        if let Some(error) = outcome.stopped {
            return Err(error);
        }
        if let Some(failed) = outcome.failed.into_iter().next() {
            return Err(failed.error);
        }
        assert!(outcome.not_attempted.is_empty());
        let restored: Files = std::fs::read_dir(folder.path().join("data"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())
            })
            .collect();
        assert!([files(0..8), files(4..12), files(8..16), files(20..28)].contains(&restored));
    }
    Ok(())
}

/// Every snapshot that is there is whole.
fn check_whole(direct: &Repository, what: &str) {
    check_structure(direct);
    let snapshots = read_all(direct);
    assert!(snapshots.len() >= 2, "{what}");
    let known = [files(0..8), files(4..12), files(8..16), files(20..28)];
    assert!(snapshots.values().all(|found| known.contains(found)), "{what}");
}

fn slow_down() -> Fate {
    Fate::Answer(
        Canned::s3("503 Service Unavailable", "SlowDown", "Please reduce your request rate.")
            .with_header("retry-after: 1"),
    )
}

#[test]
fn what_passes_is_not_noticed() {
    let Some(far) = Far::new() else { return };
    let faults = [
        ("reset-before", Fate::ResetBefore),
        ("reset-in-request", Fate::ResetInRequest),
        ("lost-answer", Fate::LoseAnswer),
        ("reset-in-answer", Fate::ResetInAnswer),
        ("slow-down", slow_down()),
    ];
    for (name, fate) in faults {
        let (direct, through) = far.repository(name);
        for (operation, run) in OPERATIONS {
            let (fate, mut met) = (fate.clone(), BTreeSet::new());
            // Whatever is asked for the first time; what is tried again comes through.
            far.proxy.restart(move |seen| {
                let is_new = met.insert((seen.method.clone(), seen.target.clone()));
                if is_new { fate.clone() } else { Fate::Pass }
            });
            run(&through).unwrap_or_else(|error| panic!("{operation} with {name}: {error}"));
            let (requests, faults) = (far.proxy.requests(), far.proxy.faults());
            assert!(faults > 0, "{operation} with {name}");
            assert!(requests < CALLS * ATTEMPTS, "{operation} with {name}: {requests} requests");
            check_whole(&direct, name);
        }
        assert_eq!(direct.snapshots().unwrap().len(), 4, "{name}: one of the backup, one of the copy");
    }
}

/// A fault that does not pass.
struct Lasting {
    name: &'static str,
    fate: Fate,
    /// The requests that it hits.
    hits: fn(&Seen) -> bool,
    kind: ErrorKind,
    code: Code,
}

fn all(_: &Seen) -> bool {
    true
}

fn writes(seen: &Seen) -> bool {
    seen.method == "PUT"
}

fn contents(seen: &Seen) -> bool {
    seen.reads_object()
}

/// What S3 answers when the clock is wrong, credentials expired or there is no room: the test server's clock is ours, and it has
/// neither sessions nor quotas.
fn answered(
    name: &'static str,
    hits: fn(&Seen) -> bool,
    said: [&'static str; 2],
    kind: ErrorKind,
    code: Code,
) -> Lasting {
    let [status, word] = said;
    Lasting { name, fate: Fate::Answer(Canned::s3(status, word, "As S3 says it.")), hits, kind, code }
}

fn lasting() -> Vec<Lasting> {
    use ErrorKind::{Exhausted, Unauthorized, Unavailable};
    let (denied, full) = (codes::STORE_DENIED, codes::STORE_FULL);
    let gone =
        |name, fate, hits| Lasting { name, fate, hits, kind: Unavailable, code: codes::STORE_UNAVAILABLE };
    vec![
        gone("reset", Fate::ResetBefore, all),
        gone("reset-in-answer", Fate::ResetInAnswer, contents),
        gone("slow-down", slow_down(), all),
        answered("clock", all, ["403 Forbidden", "RequestTimeTooSkewed"], Unauthorized, denied),
        answered("expired", all, ["400 Bad Request", "ExpiredToken"], Unauthorized, denied),
        answered("no-room", writes, ["507 Insufficient Storage", ""], Exhausted, full),
        answered("quota", writes, ["403 Forbidden", "QuotaExceeded"], Exhausted, full),
        answered("storage-full", writes, ["507 Unknown", "XMinioStorageFull"], Exhausted, full),
    ]
}

/// Every operation with each fault, from the start and in the middle of it, and again when it is over.
fn end_with_what_to_do(far: &Far, faults: Vec<Lasting>, begins: &[u64]) {
    for Lasting { name, fate, hits, kind, code } in faults {
        let (direct, through) = far.repository(name);
        let is_about_writes = hits(&Seen { method: "PUT".to_owned(), ..Seen::default() })
            && !hits(&Seen { method: "GET".to_owned(), ..Seen::default() });
        for (operation, run) in OPERATIONS {
            if is_about_writes && !matches!(operation, "backup" | "copy to") {
                continue;
            }
            for &begin in begins {
                let fate = fate.clone();
                far.proxy.restart(move |seen| {
                    let is_hit = seen.number >= begin && hits(seen);
                    if is_hit { fate.clone() } else { Fate::Pass }
                });
                let what = format!("{operation} with {name} from {begin}");
                let Err(error) = run(&through) else {
                    assert_eq!(far.proxy.faults(), 0, "{what} succeeded");
                    assert!(begin > 0, "{what} met nothing");
                    continue;
                };
                assert_eq!((error.kind(), error.code()), (kind, code), "{what}: {error}");
                let limit = if kind == ErrorKind::Unavailable { CALLS * ATTEMPTS } else { CALLS };
                assert!(far.proxy.faults() <= limit, "{what}: {} requests failed", far.proxy.faults());
                check_whole(&direct, &what);
            }
        }
        far.proxy.restart(|_| Fate::Pass);
        for (operation, run) in OPERATIONS {
            run(&through).unwrap_or_else(|error| panic!("{operation} after {name}: {error}"));
        }
    }
}

#[test]
fn what_lasts_ends_with_what_to_do() {
    let Some(far) = Far::new() else { return };
    end_with_what_to_do(&far, lasting(), &[0, 6]);
}

/// A byte now and then is no silence.
#[test]
fn what_hardly_moves_is_given_up() {
    let Some(far) = Far::new() else { return };
    let pause = Duration::from_millis(100);
    let (kind, code) = (ErrorKind::Unavailable, codes::STORE_TIMEOUT);
    let faults = vec![
        Lasting { name: "trickle", fate: Fate::Trickle(pause), hits: contents, kind, code },
        Lasting { name: "trickled-request", fate: Fate::TrickleRequest(pause), hits: writes, kind, code },
    ];
    end_with_what_to_do(&far, faults, &[0]);
}

/// The files in `data`, each blob read and checked.
fn contents_of(repository: &Repository, index: &Index, tree: &BlobId) -> Result<Files> {
    let mut found = Files::new();
    for folder in repository.read_tree(index, tree)? {
        for node in repository.read_tree(index, &folder.subtree.unwrap())? {
            let mut bytes = Vec::new();
            for blob in &node.content {
                bytes.extend(repository.read_blob(index, BlobKind::Data, blob)?);
            }
            found.insert(String::from_utf8(node.name).unwrap(), bytes);
        }
    }
    Ok(found)
}

/// One answer in a hundred has a byte that is another. Reads that hit it end with `Corrupt`, or read again.
#[test]
fn a_damaged_answer_is_never_taken_for_the_contents() {
    let Some(far) = Far::new() else { return };
    let (direct, through) = far.repository("damage");
    for seed in 30..50 {
        save(&direct, &files(seed..seed + 2)).unwrap();
    }
    let expected = read_all(&direct);
    let (mut damaged, mut noticed, mut went_through) = (0, 0, 0);
    for seed in 0..40 {
        let mut random = retoma_testkit::Random::new(seed);
        far.proxy.restart(move |seen| {
            let is_hit = seen.reads_object() && random.below(100) == 0;
            if is_hit { Fate::Damage(random.next_u64()) } else { Fate::Pass }
        });
        let read = || -> Result<_> {
            let index = through.load_index()?;
            let mut found = Vec::new();
            for (id, snapshot) in through.snapshots()? {
                found.push((id, contents_of(&through, &index, &snapshot.tree)?));
            }
            Ok(found)
        };
        match read() {
            Ok(found) => {
                went_through += 1;
                assert_eq!(
                    found.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                    expected,
                    "{seed}"
                );
            }
            Err(error) => {
                noticed += 1;
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{seed}: {error}");
                assert!(far.proxy.faults() > 0, "{seed}: {error}");
            }
        }
        damaged += far.proxy.faults();
        if damaged >= 6 && went_through > 0 {
            break;
        }
    }
    assert!(damaged >= 3 && noticed > 0 && went_through > 0, "{damaged} {noticed} {went_through}");
    assert_eq!(read_all(&direct), expected, "the repository itself is whole");
    check_structure(&direct);
}
