//! Physical replication: the bytes that come are those of the server's own WAL files.

use super::{code, patient, replication, sql, value};
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineId};
use retoma_sources::postgres::wire::{
    Connection, Mode, Progress, ReplicationMessage, ReplicationStream, SlotKind, sqlstate,
};
use retoma_testkit::{PATIENCE, PostgresOptions, PostgresServer, wait_for, wait_for_what};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A server whose segments are small, so that a test sees many.
fn small_segments() -> Option<PostgresServer> {
    PostgresServer::start_with(&PostgresOptions {
        initdb: vec!["--wal-segsize=1".into()],
        conf: vec!["wal_keep_size = 1GB".into(), "max_wal_size = 1GB".into(), "autovacuum = off".into()],
        ..PostgresOptions::default()
    })
}

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

/// Takes WAL until `enough` says so; gives the bytes from the stream's position on.
fn take_until(stream: &mut ReplicationStream, bytes: &mut Vec<u8>, mut enough: impl FnMut(Lsn) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !enough(stream.position()) {
        assert!(Instant::now() < deadline, "waited in vain for WAL behind {}", stream.position());
        match stream.next(Duration::from_millis(100)).unwrap() {
            Some(ReplicationMessage::XLogData { start, bytes: piece, server_end, .. }) => {
                assert!(server_end >= start);
                bytes.extend_from_slice(&piece);
            }
            Some(ReplicationMessage::Keepalive { reply_requested: true, .. }) => {
                stream
                    .status_update(Progress { written: stream.position(), ..Progress::default() }, false)
                    .unwrap();
            }
            Some(ReplicationMessage::Keepalive { .. }) | None => {}
            Some(other) => panic!("{other:?}"),
        }
    }
}

/// Compares what was streamed from `start` on with the files in `pg_wal`. Gives the number of whole segments.
fn compare(server: &PostgresServer, timeline: TimelineId, start: Lsn, bytes: &[u8]) -> u32 {
    assert_eq!(size().offset_of(start), 0);
    let (mut name, mut whole) = (SegmentName::at(timeline, start, size()), 0);
    for piece in bytes.chunks(1 << 20) {
        let file = std::fs::read(server.data_dir().join("pg_wal").join(name.to_string())).unwrap();
        assert_eq!(file.len(), 1 << 20);
        assert!(file[..piece.len()] == *piece, "segment {name} differs");
        whole += u32::from(piece.len() == file.len());
        name = name.next(size()).unwrap();
    }
    whole
}

#[test]
fn the_stream_is_what_the_segment_files_hold() {
    let Some(server) = small_segments() else { return };
    let mut connection = replication(&server);
    let identity = connection.identify_system().unwrap();
    let control = "SELECT system_identifier::text || ' ' || timeline_id FROM pg_control_system(), pg_control_checkpoint()";
    assert_eq!(server.psql(control), format!("{} {}", identity.system_id, identity.timeline));
    connection.create_physical_slot("retoma", SlotKind::Permanent).unwrap();
    let start = size().start_of(identity.flushed);
    let mut stream = connection.start_replication(Some("retoma"), start, Some(identity.timeline)).unwrap();

    server.run("pgbench", &["-i", "-q", "-s", "2", &server.socket_url()]);
    let mut load = server.command("pgbench");
    load.args(["-n", "-c", "4", "-t", "300", &server.socket_url()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut load = load.spawn().unwrap();
    let mut bytes = Vec::new();
    take_until(&mut stream, &mut bytes, |_| load.try_wait().unwrap().is_some());
    assert!(load.wait().unwrap().success());
    let end: Lsn = server.psql("SELECT pg_current_wal_flush_lsn()").parse().unwrap();
    take_until(&mut stream, &mut bytes, |position| position >= end);
    assert_eq!(stream.position().bytes_since(start), bytes.len() as u64);
    assert!(compare(&server, identity.timeline, start, &bytes) >= 10, "{} bytes", bytes.len());

    // The connection is ready for the next command.
    let mut connection = stream.stop().unwrap();
    assert_eq!(connection.identify_system().unwrap().system_id, identity.system_id);
}

#[test]
fn the_server_knows_how_far_we_are() {
    let Some(server) = small_segments() else { return };
    let mut connection = replication(&server);
    connection.create_physical_slot("retoma", SlotKind::Permanent).unwrap();
    let start = connection.read_physical_slot("retoma").unwrap().unwrap().restart.unwrap();
    let mut stream = connection.start_replication(Some("retoma"), start, None).unwrap();
    server.psql("CREATE TABLE t AS SELECT generate_series(1, 100000)");
    let end: Lsn = server.psql("SELECT pg_current_wal_flush_lsn()").parse().unwrap();
    take_until(&mut stream, &mut Vec::new(), |position| position >= end);
    let position = stream.position();
    let progress = Progress { written: position, flushed: end, applied: Lsn::ZERO };
    stream.status_update(progress, true).unwrap();
    let answered = wait_for_what("a keepalive", || stream.next(Duration::from_secs(1)).unwrap());
    assert!(matches!(answered, ReplicationMessage::Keepalive { .. } | ReplicationMessage::XLogData { .. }));
    let known =
        "SELECT write_lsn || ' ' || flush_lsn || ' ' || (replay_lsn IS NULL) FROM pg_stat_replication";
    assert_eq!(server.psql(known), format!("{position} {end} true"));
    assert_eq!(replication(&server).read_physical_slot("retoma").unwrap().unwrap().restart, Some(end));
    // A handle ends a wait for WAL that does not come.
    let handle = stream.cancel_handle().unwrap();
    let waiting = std::thread::spawn(move || {
        loop {
            if let Err(error) = stream.next(PATIENCE) {
                return error;
            }
        }
    });
    handle.cancel();
    assert_eq!(code(&waiting.join().unwrap()), "R0003 Cancelled");
}

#[test]
fn a_synchronous_commit_waits_for_our_word() {
    let Some(server) = small_segments() else { return };
    server.psql("CREATE TABLE t (n int)");
    let start = replication(&server).identify_system().unwrap().flushed;
    let mut stream = replication(&server).start_replication(None, start, None).unwrap();
    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'retoma'; SELECT pg_reload_conf()");
    let mut client = sql(&server);
    wait_for(|| (value(&mut client, "SHOW synchronous_standby_names") == "retoma").then_some(()));
    let commit = std::thread::spawn(move || client.execute("INSERT INTO t VALUES (1)"));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_for(|| (server.psql(waits) == "1").then_some(()));
    let end: Lsn = server.psql("SELECT pg_current_wal_flush_lsn()").parse().unwrap();
    take_until(&mut stream, &mut Vec::new(), |position| position >= end);
    // Written is not durable.
    stream.status_update(Progress { written: end, ..Progress::default() }, false).unwrap();
    wait_for(|| (server.psql("SELECT write_lsn FROM pg_stat_replication") == end.to_string()).then_some(()));
    assert!(!commit.is_finished() && server.psql(waits) == "1");
    stream.status_update(Progress { written: end, flushed: end, applied: Lsn::ZERO }, false).unwrap();
    assert_eq!(commit.join().unwrap().unwrap(), 1);
}

#[test]
fn slots_are_made_seen_and_dropped() {
    let Some(server) = small_segments() else { return };
    let mut connection = replication(&server);
    assert_eq!(connection.read_physical_slot("retoma").unwrap(), None);
    assert!(connection.ensure_physical_slot("retoma").unwrap());
    assert!(!connection.ensure_physical_slot("retoma").unwrap());
    let error = connection.create_physical_slot("retoma", SlotKind::Permanent).unwrap_err();
    assert_eq!((code(&error).as_str(), sqlstate(&error)), ("R0413 Conflict", Some("42710")));
    assert_eq!(
        code(&connection.create_physical_slot("No Name", SlotKind::Permanent).unwrap_err()),
        "R0413 Invalid"
    );
    connection.create_physical_slot("passing", SlotKind::Temporary).unwrap();
    let slot = connection.read_physical_slot("passing").unwrap().unwrap();
    assert!(slot.restart.is_some() && slot.restart_timeline == Some(TimelineId::FIRST));

    let start = connection.identify_system().unwrap().flushed;
    let reader = replication(&server).start_replication(Some("retoma"), start, None).unwrap();
    let error = connection.drop_slot("retoma").unwrap_err();
    assert_eq!((code(&error).as_str(), sqlstate(&error)), ("R0413 Conflict", Some("55006")));
    let error = replication(&server).start_replication(Some("retoma"), start, None).unwrap_err();
    assert_eq!(code(&error), "R0413 Conflict", "{error}");
    drop(reader);
    wait_for(|| connection.drop_slot("retoma").ok());
    assert_eq!(code(&connection.drop_slot("retoma").unwrap_err()), "R0413 NotFound");
    drop(connection);
    wait_for(|| (server.psql("SELECT count(*) FROM pg_replication_slots") == "0").then_some(()));
}

#[test]
fn wal_that_is_not_there_is_told() {
    let Some(mut server) = small_segments() else { return };
    server.append_conf(&[
        "wal_keep_size = 0".into(),
        "min_wal_size = 2MB".into(),
        "max_wal_size = 2MB".into(),
    ]);
    server.restart();
    let start = replication(&server).identify_system().unwrap().flushed;
    for _ in 0..4 {
        server.psql("SELECT pg_logical_emit_message(true, 'x', repeat('x', 3000000)); SELECT pg_switch_wal(); CHECKPOINT");
    }
    let start = size().start_of(start);
    // The server says it when the stream has begun.
    let first = |start| {
        let mut stream = replication(&server).start_replication(None, start, None).unwrap();
        stream.next(PATIENCE).unwrap_err()
    };
    assert_eq!(code(&first(start)), "R0413 NotFound");
    let beyond = first(Lsn(1 << 40));
    assert!(beyond.to_string().contains("ahead of the WAL flush position"), "{beyond}");
    let timeline = TimelineId::new(7).unwrap();
    assert!(replication(&server).start_replication(None, start, Some(timeline)).is_err());
    assert_eq!(code(&replication(&server).timeline_history(timeline).unwrap_err()), "R0413 NotFound");
    // SQL and commands of replication are kept apart, except in the mode for both.
    assert_eq!(code(&sql(&server).identify_system().unwrap_err()), "R0001 Internal");
    assert!(replication(&server).query("SELECT 1").is_err());
    let address = super::address(&server.socket_url());
    let mut both = Connection::connect(&address, Mode::ReplicationAndSql, patient()).unwrap();
    assert_eq!(value(&mut both, "SELECT 1"), "1");
    both.identify_system().unwrap();
    let both =
        both.start_replication(None, server.psql("SELECT pg_current_wal_lsn()").parse().unwrap(), None);
    assert_eq!(value(&mut both.unwrap().stop().unwrap(), "SELECT 2"), "2");
}

#[test]
fn a_stream_follows_the_switch_to_the_next_timeline() {
    let Some(primary) = small_segments() else { return };
    let standby = primary.standby(None);
    let mut connection = replication(&standby);
    let identity = connection.identify_system().unwrap();
    let start = size().start_of(identity.flushed);
    let mut stream = connection.start_replication(None, start, Some(TimelineId::FIRST)).unwrap();
    primary.psql("CREATE TABLE t AS SELECT generate_series(1, 50000) AS n");
    let end: Lsn = primary.psql("SELECT pg_current_wal_flush_lsn()").parse().unwrap();
    let mut old = Vec::new();
    take_until(&mut stream, &mut old, |position| position >= end);
    standby.promote();
    let (next, switch) =
        wait_for_what("the end of the timeline", || match stream.next(Duration::from_secs(1)).unwrap() {
            Some(ReplicationMessage::XLogData { bytes, .. }) => {
                old.extend_from_slice(&bytes);
                None
            }
            Some(ReplicationMessage::EndOfTimeline { next, switch }) => Some((next, switch)),
            _ => None,
        });
    assert_eq!(next, TimelineId::new(2).unwrap());
    assert_eq!(stream.position(), switch, "all of the old timeline came");
    assert_eq!(stream.next(Duration::from_millis(1)).unwrap(), None);
    // What both have: the old timeline, as far as it goes, lies on the primary.
    compare(&primary, TimelineId::FIRST, start, &old);

    let mut connection = stream.stop().unwrap();
    let history = connection.timeline_history(next).unwrap();
    let file = std::fs::read(standby.data_dir().join("pg_wal").join(&history.name)).unwrap();
    assert_eq!(history.contents, file);
    assert_eq!(history.parse(next).unwrap().switch_of(TimelineId::FIRST), Some(switch));

    standby.psql("INSERT INTO t SELECT generate_series(1, 50000)");
    let end: Lsn = standby.psql("SELECT pg_current_wal_flush_lsn()").parse().unwrap();
    let begin = size().start_of(switch);
    let mut stream = connection.start_replication(None, begin, Some(next)).unwrap();
    let mut new = Vec::new();
    take_until(&mut stream, &mut new, |position| position >= end);
    assert!(compare(&standby, next, begin, &new) >= 2);

    // An old timeline has nothing to give from its very end on.
    let mut stream = replication(&standby).start_replication(None, switch, Some(TimelineId::FIRST)).unwrap();
    let ended = stream.next(PATIENCE).unwrap();
    assert_eq!(ended, Some(ReplicationMessage::EndOfTimeline { next, switch }));
    stream.stop().unwrap().identify_system().unwrap();
}

#[test]
fn a_server_that_shuts_down_sends_everything_first() {
    let Some(mut server) = small_segments() else { return };
    let start = replication(&server).identify_system().unwrap().flushed;
    let mut stream = replication(&server).start_replication(None, start, None).unwrap();
    server.psql("CREATE TABLE t AS SELECT generate_series(1, 10000)");
    let reader = std::thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let message = stream.next(Duration::from_millis(100)).unwrap();
            if message == Some(ReplicationMessage::ServerStopped) {
                let position = stream.position();
                assert_eq!(stream.next(Duration::from_millis(1)).unwrap(), None);
                assert_eq!(code(&stream.stop().unwrap_err()), "R0411 Unavailable");
                return position;
            }
            // It waits until the last byte is safe with us.
            let position = stream.position();
            stream
                .status_update(Progress { written: position, flushed: position, applied: position }, false)
                .unwrap();
        }
        panic!("the server does not stop")
    });
    server.stop(retoma_testkit::StopMode::Fast);
    let position = reader.join().unwrap();
    let control = server.run("pg_controldata", &[server.data_dir()]);
    let control = String::from_utf8_lossy(&control.stdout).into_owned();
    let last = control.lines().find_map(|line| line.strip_prefix("Latest checkpoint location:")).unwrap();
    assert!(position > last.trim().parse().unwrap(), "{position}, and the last checkpoint is at {last}");
}
