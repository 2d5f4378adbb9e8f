//! The WAL of a real server, read by us and by `pg_waldump`.

use jiff::Timestamp;
use retoma_core::postgres::{Lsn, SegmentSize};
use retoma_sources::postgres::wal_records::{Meaning, RecordReader, WalRecord};
use retoma_testkit::PostgresServer;
use retoma_testkit::postgres::PostgresOptions;
use std::fs;

/// Everything of which the ends of transactions can consist.
const WORK: &str = "
    CREATE TABLE t (id bigint PRIMARY KEY, text text);
    INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 20000) n;
    CHECKPOINT;
    UPDATE t SET text = text || 'x' WHERE id % 7 = 0;
    BEGIN; SAVEPOINT a; DELETE FROM t WHERE id < 50; SAVEPOINT b; INSERT INTO t VALUES (-1, 'x'); COMMIT;
    BEGIN; INSERT INTO t VALUES (-2, 'rolled back'); CREATE TABLE gone (id int); ROLLBACK;
    BEGIN; CREATE TABLE two (id int); SAVEPOINT a; INSERT INTO t VALUES (-3, 'p'); PREPARE TRANSACTION 'one';
    BEGIN; INSERT INTO t VALUES (-4, 'p'); PREPARE TRANSACTION 'other';
    SELECT pg_create_restore_point('before the drop');
    COMMIT PREPARED 'one';
    ROLLBACK PREPARED 'other';
    DROP TABLE t;
    SELECT pg_switch_wal();
    SELECT pg_logical_emit_message(true, 'large', repeat('y', 3000000));
    VACUUM FULL;
    SELECT pg_create_restore_point('größer');
    CREATE TABLE last (id int);
";

#[test]
fn records_of_a_server_are_those_of_pg_waldump() {
    for compression in ["off", "on"] {
        let options = PostgresOptions {
            initdb: vec!["--wal-segsize=1".to_owned()],
            conf: vec![
                "max_prepared_transactions = 5".to_owned(),
                format!("wal_compression = {compression}"),
                "wal_keep_size = '1GB'".to_owned(),
                "track_commit_timestamp = on".to_owned(),
            ],
            ..PostgresOptions::default()
        };
        let Some(server) = PostgresServer::start_with(&options) else { return };
        let start = server.psql("SELECT pg_switch_wal(); SELECT pg_walfile_name(pg_current_wal_lsn());");
        let first = start.lines().last().unwrap().to_owned();
        server.psql(WORK);
        let end: Lsn = server.psql("SELECT pg_current_wal_flush_lsn()").parse().unwrap();
        let size = SegmentSize::new(1 << 20).unwrap();
        let identifier = server.psql("SELECT system_identifier FROM pg_control_system()").parse().unwrap();

        let ours = read(&server, &first, end, size, identifier);
        let theirs = dump(&server, ours[0].start, end);
        assert!(ours.len() > 20_000, "{} records", ours.len());
        for (record, line) in ours.iter().zip(&theirs) {
            assert_eq!(as_dumped(record, line), *line);
        }
        assert_eq!(ours.len(), theirs.len());
        let count = |kind: fn(&Meaning) -> bool| ours.iter().filter(|record| kind(&record.meaning)).count();
        assert!(count(|meaning| matches!(meaning, Meaning::Commit { .. })) > 10);
        assert_eq!(count(|meaning| matches!(meaning, Meaning::Abort { .. })), 2);
        assert_eq!(count(|meaning| matches!(meaning, Meaning::RestorePoint { .. })), 2);
    }
}

fn read(
    server: &PostgresServer,
    first: &str,
    end: Lsn,
    size: SegmentSize,
    identifier: u64,
) -> Vec<WalRecord> {
    let mut names: Vec<String> = fs::read_dir(server.data_dir().join("pg_wal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.len() == 24 && name.as_str() >= first)
        .collect();
    names.sort();
    let number = |name: &str| {
        u64::from_str_radix(&name[8..16], 16).unwrap() * 4096 + u64::from_str_radix(&name[16..], 16).unwrap()
    };
    let mut reader = RecordReader::new(size.start_of_number(number(first)).unwrap(), size, identifier);
    let mut records = Vec::new();
    for name in names {
        let bytes = fs::read(server.data_dir().join("pg_wal").join(name)).unwrap();
        for piece in bytes.chunks(100_003) {
            reader.read(piece, &mut |record| records.push(record));
        }
    }
    // Behind the end are zeros, or what a segment held that was used again.
    assert!(reader.end().is_some_and(|found| found.at >= end), "{:?}, before {end}", reader.end());
    records.retain(|record| record.start < end);
    records
}

/// What `pg_waldump` says of each record: place, transaction, and the description where we read one.
fn dump(server: &PostgresServer, start: Lsn, end: Lsn) -> Vec<String> {
    let folder = server.data_dir().join("pg_wal").display().to_string();
    let output = server.run("pg_waldump", &["-p", &folder, "-s", &start.to_string(), "-e", &end.to_string()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let field = |line: &str, name: &str| {
        let rest = line.split_once(name).unwrap().1;
        rest.trim_start().split([',', ' ']).next().unwrap().to_owned()
    };
    let meaning = |line: &str| {
        let told = line.split_once("desc: ").unwrap().1;
        let ends = ["COMMIT ", "ABORT ", "COMMIT_PREPARED ", "ABORT_PREPARED "];
        match told.split_once(' ') {
            Some(("RESTORE_POINT", name)) if line.starts_with("rmgr: XLOG") => format!("point {name}"),
            Some(("CREATE", space)) if line.starts_with("rmgr: Tablespace") => format!("tablespace {space}"),
            _ if line.starts_with("rmgr: Transaction") && ends.iter().any(|end| told.starts_with(end)) => {
                format!("end {}", told.split(';').next().unwrap())
            }
            _ => String::new(),
        }
    };
    text.lines()
        .map(|line| format!("{} {} {}", field(line, "lsn:"), field(line, "tx:"), meaning(line)))
        .collect()
}

/// A record of ours in the same form; the words before a time are those of the line.
fn as_dumped(record: &WalRecord, line: &str) -> String {
    let padded = format!("{:X}/{:08X}", record.start.0 >> 32, record.start.0 & 0xFFFF_FFFF);
    let told = |at: &Timestamp| at.strftime("%Y-%m-%d %H:%M:%S.%6f UTC").to_string();
    let word = line.split(' ').nth(3).unwrap_or_default();
    let meaning = match &record.meaning {
        Meaning::Other => String::new(),
        Meaning::RestorePoint { name, .. } => format!("point {name}"),
        Meaning::Tablespace { oid, location } => format!("tablespace {oid} \"{location}\""),
        // The record of a prepared transaction's end is of no transaction, and names that one.
        Meaning::Commit { xid, at } | Meaning::Abort { xid, at } if record.xid == 0 => {
            format!("end {word} {xid}: {}", told(at))
        }
        Meaning::Commit { at, .. } | Meaning::Abort { at, .. } => format!("end {word} {}", told(at)),
    };
    format!("{padded} {} {meaning}", record.xid)
}
