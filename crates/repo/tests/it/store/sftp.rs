//! The SFTP store on a real OpenSSH server: the suite, and what happens when the server, its disk or a login fails.

use super::suite::CHECKS;
use super::{key, names, text};
use jiff::Timestamp;
use retoma_core::error::codes;
use retoma_repo::ErrorKind;
use retoma_repo::store::layer::{Layers, stack};
use retoma_repo::store::{PutMode, SftpOptions, SftpStore, Store};
use retoma_testkit::{SftpServer, bytes, wait_for_what};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::{fs, process};

/// A store in the folder `name` of a server, with connections of its own.
fn store_at(server: &SftpServer, name: &str) -> SftpStore {
    let url = url::Url::parse(&server.url(name)).unwrap();
    SftpStore::new(&url, SftpOptions { command: Some(server.ssh_command()) }).unwrap()
}

fn conforms(make: impl Fn(SftpStore) -> Arc<dyn Store>) {
    let Some(server) = SftpServer::start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, check) in CHECKS {
        let store = make(store_at(&server, &format!("{name}/not/made%20yet")));
        let outcome = runtime.block_on(async { tokio::spawn(check(store)).await });
        assert!(outcome.is_ok(), "check `{name}` failed; its panic is above");
    }
}

#[test]
fn sftp_conforms() {
    conforms(|store| Arc::new(store));
}

#[test]
fn sftp_behind_all_layers_conforms() {
    conforms(|store| stack(Arc::new(store), Layers::default()).store);
}

/// All files below a folder, by their names.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

fn temporary(server: &SftpServer) -> Vec<String> {
    files(&server.data_dir()).into_iter().filter(|name| name.contains('#')).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_folders_are_their_owners_alone() {
    let Some(server) = SftpServer::start() else { return };
    let store = store_at(&server, "new/repository");
    store.put(&key("data/ab/x"), text("x"), PutMode::Create).await.unwrap();
    let mode = |name: &str| fs::metadata(server.data_dir().join(name)).unwrap().mode() & 0o7777;
    for folder in ["new", "new/repository", "new/repository/data", "new/repository/data/ab"] {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    assert_eq!(mode("new/repository/data/ab/x"), 0o600);
    assert_eq!(temporary(&server), [""; 0], "the first of the two names is gone");
}

/// What was asked for, without what only looks, writes contents or closes; paths below `below`.
fn steps(recorded: &[u8], below: &Path) -> Vec<String> {
    let below = below.display().to_string();
    let mut steps = Vec::new();
    let mut rest = recorded;
    while let Some((length, after)) = rest.split_first_chunk() {
        let (packet, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        rest = after;
        let mut fields = packet.get(5..).unwrap_or_default();
        let mut field = || {
            let (length, after) = fields.split_first_chunk().unwrap();
            let (text, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            fields = after;
            let text = String::from_utf8_lossy(text).replace(&below, "");
            text.split_once('#').map_or(text.clone(), |(folder, _)| format!("{folder}#"))
        };
        steps.push(match packet[0] {
            3 => format!("open {}", field()),
            13 => format!("remove {}", field()),
            14 => format!("make {}", field()),
            200 => match &field()[..] {
                "fsync@openssh.com" => "sync".to_owned(),
                other => {
                    let what = other.strip_suffix("@openssh.com").unwrap().to_owned();
                    format!("{what} {} {}", field(), field())
                }
            },
            _ => continue,
        });
    }
    steps
}

/// After a power cut only what was synced is there: contents before their name, names before anybody hears of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_and_names_are_synced_in_this_order() {
    let Some(server) = SftpServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let url = url::Url::parse(&server.url("r")).unwrap();
    let command = format!("tee -a {} | {}", record.display(), server.ssh_command());
    let store = SftpStore::new(&url, SftpOptions { command: Some(command) }).unwrap();
    let mut seen = 0;
    let mut new_steps = || {
        let steps = steps(&fs::read(&record).unwrap(), &server.data_dir());
        let new = steps[seen..].to_vec();
        seen = steps.len();
        new
    };
    let name = key("a/b");
    let folders = ["make /r", "open ", "sync", "make /r/a", "open /r", "sync"];
    let contents = ["open /r/a/#", "sync"];
    let names = ["open /r/a", "sync"];
    store.put(&name, text("x"), PutMode::Create).await.unwrap();
    let link = ["hardlink /r/a/# /r/a/b", "remove /r/a/#"];
    assert_eq!(new_steps(), [&folders[..], &contents, &link, &names].concat());
    // What is there may be our own, from an attempt that failed in its last step.
    store.put(&name, text("x"), PutMode::Create).await.unwrap_err();
    assert_eq!(new_steps(), names);
    store.put(&name, text("y"), PutMode::Overwrite).await.unwrap();
    assert_eq!(new_steps(), [&contents[..], &["posix-rename /r/a/# /r/a/b"], &names].concat());
    store.delete(&name).await.unwrap();
    assert_eq!(new_steps(), [&["remove /r/a/b"][..], &names].concat());
}

/// Two stores, each with connections of its own, as two machines have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_machines_one_creates() {
    let Some(server) = SftpServer::start() else { return };
    let stores = [store_at(&server, "r"), store_at(&server, "r")];
    for round in 0..50 {
        let name = key(&format!("locks/{round}"));
        let (one, two) = tokio::join!(
            stores[0].put(&name, bytes(0, 70_000), PutMode::Create),
            stores[1].put(&name, bytes(1, 70_000), PutMode::Create)
        );
        let winner = u64::from(one.is_err());
        let lost = if winner == 0 {
            two
        } else {
            two.unwrap();
            one
        };
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::Conflict, "round {round}");
        assert_eq!(stores[0].get(&name).await.unwrap(), bytes(winner, 70_000));
    }
    assert_eq!(temporary(&server), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_killed_in_the_middle_of_an_upload_leaves_nothing_that_is_seen() {
    let Some(server) = SftpServer::start().map(Arc::new) else { return };
    let store = store_at(&server, "r");
    store.put(&key("data/old"), text("old"), PutMode::Create).await.unwrap();
    let data = bytes(1, 64 << 20);
    let mut was_in_the_middle = false;
    for round in 0..10 {
        let name = key(&format!("data/{round}"));
        let upload = {
            let (store, name, data) = (store.clone(), name.clone(), data.clone());
            tokio::spawn(async move { store.put(&name, data, PutMode::Create).await })
        };
        let killer = server.clone();
        let killed = tokio::task::spawn_blocking(move || {
            wait_for_what("the upload to begin", || (!temporary(&killer).is_empty()).then_some(()));
            killer.kill_sessions()
        });
        assert!(killed.await.unwrap() > 0);
        let outcome = upload.await.unwrap();
        let other = store_at(&server, "r");
        match outcome {
            Ok(()) => assert!(other.get(&name).await.unwrap() == data, "what was called stored is there"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                let left = temporary(&server).len();
                let seen = names(&other, "").await.unwrap();
                if !seen.contains(&name.as_str().to_owned()) {
                    assert_eq!(other.get(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
                    was_in_the_middle |= left > 0;
                    store.put(&name, data.clone(), PutMode::Create).await.unwrap();
                }
                assert!(store.get(&name).await.unwrap() == data, "the same store goes on");
            }
        }
        if was_in_the_middle {
            break;
        }
    }
    assert!(was_in_the_middle, "no upload was hit");
    let before = Timestamp::now() - jiff::SignedDuration::from_hours(1);
    assert_eq!(store.remove_leftovers(before).await.unwrap().count, 0, "young ones may be a writer's");
    let left = temporary(&server).len() as u64;
    assert_eq!(store.remove_leftovers(Timestamp::MAX).await.unwrap().count, left);
    assert_eq!(temporary(&server), [""; 0]);
    assert_eq!(store.get(&key("data/old")).await.unwrap(), "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_is_used_again() {
    let Some(mut server) = SftpServer::start() else { return };
    let store = store_at(&server, "r");
    store.put(&key("a"), text("x"), PutMode::Create).await.unwrap();
    server.stop();
    let error = store.get(&key("a")).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, codes::STORE_UNAVAILABLE), "{error}");
    let error = store.get(&key("a")).await.unwrap_err();
    assert!(
        error.message().contains("Connection refused") && error.hint().unwrap().contains("sshd"),
        "{error}"
    );
    server.go();
    assert_eq!(store.get(&key("a")).await.unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_or_host_that_is_wrong_is_said_with_what_to_do() {
    let Some(mut server) = SftpServer::start() else { return };
    let refused = async |server: &SftpServer| {
        let error = store_at(server, "r").get(&key("a")).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unauthorized, codes::STORE_DENIED), "{error}");
        format!("{error} {}", error.hint().unwrap())
    };
    server.stop();
    server.change_host_key();
    server.go();
    let changed = refused(&server).await;
    assert!(changed.contains("another one than before") && changed.contains("fingerprint"), "{changed}");
    fs::write(server.known_hosts(), "").unwrap();
    let unknown = refused(&server).await;
    assert!(unknown.contains("is not known") && unknown.contains("by hand"), "{unknown}");
    let host_key = fs::read_to_string(server.known_hosts().with_file_name("host_key.pub")).unwrap();
    fs::write(server.known_hosts(), format!("test {host_key}")).unwrap();
    fs::write(server.authorized_key(), "").unwrap();
    let login = refused(&server).await;
    assert!(login.contains("refused the login") && login.contains("IdentityFile"), "{login}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_only_reads_reads() {
    let Some(mut server) = SftpServer::start() else { return };
    store_at(&server, "r").put(&key("a/b"), text("x"), PutMode::Create).await.unwrap();
    server.stop();
    server.set_subsystem("internal-sftp -R");
    server.go();
    let store = store_at(&server, "r");
    assert_eq!(store.get(&key("a/b")).await.unwrap(), "x");
    assert_eq!(names(&store, "").await.unwrap(), ["a/b"]);
    for error in [
        store.put(&key("a/c"), text("x"), PutMode::Create).await.unwrap_err(),
        store.put(&key("a/b"), text("y"), PutMode::Overwrite).await.unwrap_err(),
        store.put(&key("new/c"), text("x"), PutMode::Create).await.unwrap_err(),
        store.delete(&key("a/b")).await.unwrap_err(),
    ] {
        assert!(matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Unsupported), "{error}");
    }
    assert_eq!(store.get(&key("a/b")).await.unwrap(), "x");
}

/// Without one of them a write is not durable, not seen whole, or not the only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lacks_what_writes_need_is_read_and_not_written() {
    let Some(mut server) = SftpServer::start() else { return };
    store_at(&server, "r").put(&key("a"), text("x"), PutMode::Create).await.unwrap();
    for lacking in ["fsync", "hardlink", "posix-rename"] {
        server.stop();
        server.set_subsystem(&format!("internal-sftp -P {lacking}"));
        server.go();
        let store = store_at(&server, "r");
        assert_eq!(store.get(&key("a")).await.unwrap(), "x");
        for mode in [PutMode::Create, PutMode::Overwrite] {
            let error = store.put(&key("b"), text("y"), mode).await.unwrap_err();
            assert_eq!(error.code(), codes::STORE_UNSUPPORTED, "{error}");
            assert!(error.message().contains(&format!("`{lacking}@openssh.com`")), "{error}");
        }
        assert_eq!(files(&server.data_dir()).len(), 1, "{lacking}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_vanished_is_not_made_again() {
    let Some(server) = SftpServer::start() else { return };
    let root = server.data_dir().join("r");
    store_at(&server, "r").put(&key("a"), text("x"), PutMode::Create).await.unwrap();
    let store = store_at(&server, "r");
    store.get(&key("a")).await.unwrap();
    fs::rename(&root, server.data_dir().join("away")).unwrap();
    for name in ["b/c", "d"] {
        let error = store.put(&key(name), text("x"), PutMode::Create).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(!root.exists(), "nobody would find what is written there");
    }
    fs::rename(server.data_dir().join("away"), &root).unwrap();
    store.put(&key("b/c"), text("x"), PutMode::Create).await.unwrap();
    fs::remove_dir_all(root.join("b")).unwrap();
    store.put(&key("b/c"), text("x"), PutMode::Create).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_in_the_way_are_conflicts_and_others_are_passed_over() {
    let Some(server) = SftpServer::start() else { return };
    let store = store_at(&server, "r");
    let root = server.data_dir().join("r");
    store.put(&key("a/b"), text("x"), PutMode::Create).await.unwrap();
    for mode in [PutMode::Create, PutMode::Overwrite] {
        for name in ["a", "a/b/c"] {
            let error = store.put(&key(name), text("y"), mode).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{name} {mode:?}: {error}");
        }
    }
    assert_eq!(temporary(&server), [""; 0]);
    for name in ["#0123456789abcdef", "#a person's note", "a note", "é"] {
        fs::write(root.join("a").join(name), "text").unwrap();
    }
    symlink(root.join("a/b"), root.join("a/link")).unwrap();
    symlink(root.join("nowhere"), root.join("a/broken")).unwrap();
    assert_eq!(names(&store, "").await.unwrap(), ["a/b", "a/link"]);
    let removed = store.remove_leftovers(Timestamp::MAX).await.unwrap();
    assert_eq!((removed.count, removed.size_bytes), (1, 4), "and a person's note stays");
    symlink(&root, root.join("circle")).unwrap();
    assert!(names(&store, "").await.unwrap_err().hint().unwrap().contains("link"));
}

/// A small file system of its own; unmounted when dropped.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let output = process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "retoma-test"])
            .arg(at)
            .output();
        if output.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("skipped: a small file system cannot be mounted here");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the server's mount namespace may hold it still.
        let done = process::Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_exhausted_and_takes_more_once_there_is_room() {
    let Some(mut server) = SftpServer::prepare() else { return };
    // Before the server starts, which may have a view of its own of what is mounted.
    let Some(_small) = Small::mount(&server.data_dir().join("r")) else { return };
    server.go();
    let store = store_at(&server, "r");
    store.put(&key("a/first"), bytes(1, 5 << 20), PutMode::Create).await.unwrap();
    for mode in [PutMode::Create, PutMode::Overwrite] {
        let error = store.put(&key("a/second"), bytes(2, 5 << 20), mode).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Exhausted, codes::STORE_FULL), "{error}");
    }
    assert_eq!(names(&store, "").await.unwrap(), ["a/first"]);
    store.delete(&key("a/first")).await.unwrap();
    store.put(&key("a/second"), bytes(2, 5 << 20), PutMode::Create).await.unwrap();
    assert_eq!(temporary(&server), [""; 0], "half-written files are gone");
    server.stop();
}
