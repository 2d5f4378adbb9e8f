//! A backup through the replication protocol under load, what comes back from it, and what a bad connection does.

use super::backup::{Home, Load, assert_comes_back, with_pgbench};
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use retoma_repo::Repository;
use retoma_repo::backup::{Options, Progress, Summary, backup};
use retoma_repo::format::tree::NodeKind;
use retoma_sources::postgres::wire::Address;
use retoma_sources::postgres::{PostgresFacts, StreamSource, facts_of};
use retoma_testkit::{PostgresServer, wait_for};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::thread;

fn stream(home: &Home, url: &str, parent: Option<&Summary>) -> Result<(Summary, PostgresFacts)> {
    let index = home.repository.load_index()?;
    let previous = parent.and_then(|parent| facts_of(&home.repository, &index, &parent.tree).unwrap());
    let stop = Progress::default().stop_flag();
    let mut source = StreamSource::begin(&Address::of_process(url)?, previous, &stop)?;
    assert_eq!(source.continues_parent(), parent.is_some());
    let options = Options { parent: parent.map(|parent| parent.snapshot), ..Options::default() };
    let summary = backup(&home.repository, &mut source, &options, &Progress::default())?;
    let facts = source.facts().clone();
    let index = home.repository.load_index()?;
    assert_eq!(facts_of(&home.repository, &index, &summary.tree)?, Some(facts.clone()));
    Ok((summary, facts))
}

#[test]
fn a_server_comes_back_from_what_it_sent_under_load() {
    let Some(server) = with_pgbench() else { return };
    server.psql("CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 1000) AS n");
    let home = Home::new();
    let load = Load::start(&server);
    let (first, _) = stream(&home, &server.url(), None).unwrap();
    let (second, facts) = stream(&home, &server.url(), Some(&first)).unwrap();
    drop(load);
    assert!(first.unreadable.is_empty() && second.unreadable.is_empty(), "{first:?} {second:?}");
    // Everything was sent again, and stored only where it had changed.
    assert!(second.files_unchanged == 0 && second.files_read > 900, "{second:?}");
    assert!(second.stored_bytes < first.stored_bytes, "{second:?}");
    assert_comes_back(home.server(&second, &facts));
    assert_left_alone(&server);
}

/// The server has no slot of ours left, and no session that backs it up.
fn assert_left_alone(server: &PostgresServer) {
    wait_for(|| {
        let left = server.psql(
            "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_stat_replication) \
             + (SELECT count(*) FROM pg_stat_progress_basebackup)",
        );
        (left == "0").then_some(())
    });
}

/// What a snapshot holds: of each path what it is, its mode, owner and size, or where it leads.
fn listing(repository: &Repository, summary: &Summary) -> BTreeMap<String, String> {
    let index = repository.load_index().unwrap();
    let mut found = BTreeMap::new();
    let mut left = vec![(String::new(), summary.tree)];
    while let Some((folder, tree)) = left.pop() {
        for node in repository.read_tree(&index, &tree).unwrap() {
            let path = format!("{folder}/{}", String::from_utf8_lossy(&node.name));
            let target = node.link_target.as_deref().map(String::from_utf8_lossy);
            let size = if node.kind == NodeKind::File { node.size_bytes } else { 0 };
            let shown =
                format!("{:?} {:o} {}:{} {size} {target:?}", node.kind, node.mode, node.uid, node.gid);
            found.insert(path.clone(), shown);
            left.extend(node.subtree.map(|tree| (path, tree)));
        }
    }
    found
}

#[test]
fn the_snapshot_is_the_one_that_is_made_on_the_host() {
    let Some(server) = with_pgbench() else { return };
    let space = server.folder().join("space");
    std::fs::create_dir(&space).unwrap();
    let like = std::fs::metadata(server.data_dir()).unwrap();
    std::os::unix::fs::chown(&space, Some(like.uid()), Some(like.gid())).unwrap();
    server.psql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display()));
    server.psql("CREATE TABLE elsewhere TABLESPACE fast AS SELECT generate_series(1, 5000) AS n; CHECKPOINT");
    let home = Home::new();
    let (here, of_here) = home.back_up(&server, None);
    let (there, of_there) = stream(&home, &server.url(), None).unwrap();
    let (mut here, mut there) = (listing(&home.repository, &here), listing(&home.repository, &there));
    let data = server.data_dir().display().to_string();
    for listing in [&mut here, &mut there] {
        let label = format!("{data}/backup_label");
        assert!(listing.contains_key(&label) && listing.contains_key(&format!("{data}/tablespace_map")));
        let wal = listing.iter().filter(|(path, _)| path.starts_with(&format!("{data}/pg_wal/0")));
        assert!(wal.clone().count() > 0 && wal.clone().all(|(_, shown)| shown.contains(" 16777216 ")));
        // Of which segment, of which length; and what lies above, which a server does not send.
        listing.retain(|path, _| {
            let is_own = path.starts_with(&data) || path.starts_with(&space.display().to_string());
            let is_of_the_moment =
                ["backup_label", "backup_manifest"].iter().any(|name| path.ends_with(name));
            is_own && !is_of_the_moment && !path.starts_with(&format!("{data}/pg_wal/0"))
        });
    }
    assert!(here.len() > 1000, "{}", here.len());
    let differs: Vec<_> = here
        .keys()
        .chain(there.keys())
        .filter(|path| here.get(*path) != there.get(*path))
        .map(|path| format!("{path}: {:?} {:?}", here.get(path), there.get(path)))
        .collect();
    assert!(differs.is_empty(), "{differs:#?}");
    assert_eq!(of_here.server, of_there.server);
    assert_eq!(of_here.tablespaces, of_there.tablespaces);
}

/// What happens to a connection through which the server has sent so many bytes.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Cut(u64),
    Flip(u64),
    /// In the data of the first record of each segment of the WAL of this server.
    FlipRecord(u64),
    /// The length of the first record of each segment of the WAL of this server becomes zero, as behind the last one.
    EndRecords(u64),
}

/// Behind the first page header of a segment and the header of a record: the distance to a record's data from the sizes.
const BEHIND_SIZES: usize = 24 + 2;

/// The system identifier and the two sizes that end the first page header of a segment.
fn end_of_header(system_identifier: u64) -> u128 {
    u128::from(system_identifier) | u128::from(16u32 << 20) << 64 | u128::from(8192u32) << 96
}

/// A way to the server with a fault; gives the address.
fn faulty(server: &PostgresServer, fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), server.port());
    // Ends with the test's process; each connection with its two ends.
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || pass(up, down, None));
            thread::spawn(move || pass(server, client, Some(fault)));
        }
    });
    format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable")
}

fn pass(mut from: TcpStream, mut to: TcpStream, fault: Option<Fault>) {
    let (mut buffer, mut passed) = (vec![0; 8192], 0u64);
    let (mut seen, mut behind_sizes) = (0u128, None);
    while let Ok(count) = from.read(&mut buffer) {
        let until = passed + count as u64;
        match fault {
            Some(Fault::Cut(at)) if until > at => break,
            Some(Fault::Flip(at)) if (passed..until).contains(&at) => {
                buffer[usize::try_from(at - passed).unwrap()] ^= 1;
            }
            Some(Fault::FlipRecord(system_identifier) | Fault::EndRecords(system_identifier)) => {
                for byte in &mut buffer[..count] {
                    seen = seen >> 8 | u128::from(*byte) << 120;
                    match (fault, behind_sizes) {
                        (Some(Fault::FlipRecord(_)), Some(BEHIND_SIZES)) => *byte ^= 1,
                        (Some(Fault::EndRecords(_)), Some(0..4)) => *byte = 0,
                        _ => {}
                    }
                    behind_sizes = match behind_sizes {
                        Some(BEHIND_SIZES) => None,
                        Some(count) => Some(count + 1),
                        None => (seen == end_of_header(system_identifier)).then_some(0),
                    };
                }
            }
            _ => {}
        }
        passed = until;
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _closed = (from.shutdown(Shutdown::Both).is_ok(), to.shutdown(Shutdown::Both).is_ok());
}

#[test]
fn a_connection_that_is_cut_or_changes_a_byte_leaves_no_snapshot() {
    let Some(server) = with_pgbench() else { return };
    let home = Home::new();
    let attempt = |fault| {
        let error: Error = stream(&home, &faulty(&server, fault), None).unwrap_err();
        assert_eq!(home.repository.snapshots().unwrap(), vec![], "{fault:?}");
        assert_left_alone(&server);
        error
    };
    for at in [300_000, 5 << 20, 20 << 20] {
        let error = attempt(Fault::Cut(at));
        assert_eq!(error.code(), codes::POSTGRES_UNAVAILABLE, "{at}: {error}");
    }
    // In a table: only the server's list tells.
    for at in [12 << 20, 20 << 20] {
        let error = attempt(Fault::Flip(at));
        assert!(
            [codes::POSTGRES_STREAM, codes::POSTGRES_PROTOCOL].contains(&error.code()),
            "{at}: {error} {:?}",
            error.code()
        );
    }
    stream(&home, &server.url(), None).unwrap();
    assert_eq!(home.repository.snapshots().unwrap().len(), 1);
}

/// Page headers are as they should be: the record's checksum alone tells.
#[test]
fn a_record_of_the_wal_that_changes_on_the_way_leaves_no_snapshot() {
    let Some(server) = with_pgbench() else { return };
    let home = Home::new();
    let id = server.psql("SELECT system_identifier FROM pg_control_system()").parse().unwrap();
    for (fault, why) in [
        (Fault::FlipRecord(id), "a record whose checksum is wrong"),
        (Fault::EndRecords(id), "does not lead to the end of the backup"),
    ] {
        let error = stream(&home, &faulty(&server, fault), None).unwrap_err();
        assert_eq!(error.code(), codes::POSTGRES_STREAM, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(home.repository.snapshots().unwrap(), vec![]);
        assert_left_alone(&server);
    }
}

#[test]
fn a_stop_ends_what_waits_for_the_server() {
    let Some(server) = PostgresServer::start() else { return };
    let home = Home::new();
    let stop = Progress::default().stop_flag();
    let mut source = StreamSource::begin(&Address::of_process(&server.url()).unwrap(), None, &stop).unwrap();
    stop.store(true, Ordering::SeqCst);
    // The backup's own progress knows of no stop: it is the connection that ends.
    let ended = backup(&home.repository, &mut source, &Options::default(), &Progress::default());
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    drop(source);
    assert_eq!(home.repository.snapshots().unwrap(), vec![]);
    assert_left_alone(&server);
}

#[test]
fn a_user_without_the_right_is_told_so() {
    let Some(server) = PostgresServer::start() else { return };
    server.psql("CREATE ROLE backup LOGIN; GRANT pg_read_all_settings, pg_read_all_data TO backup");
    let home = Home::new();
    let url = server.url().replace("postgres@", "backup@");
    let error = stream(&home, &url, None).unwrap_err();
    assert_eq!(error.code(), codes::POSTGRES_LOGIN, "{error}");
    server.psql("ALTER ROLE backup REPLICATION");
    let (summary, facts) = stream(&home, &url, None).unwrap();
    assert!(summary.unreadable.is_empty());
    assert_eq!(facts.server.superuser, "postgres");
}
