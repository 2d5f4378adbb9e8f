use super::*;
use crate::postgres::wire::{Address, Mode, Timeouts};
use proptest::prelude::*;
use retoma_core::error::codes;
use retoma_core::{ErrorKind, Result};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn rows(columns: &[&str], rows: &[&[Option<&str>]]) -> Vec<u8> {
    let count = u16::try_from(columns.len()).unwrap().to_be_bytes();
    let mut description = count.to_vec();
    for column in columns {
        description.extend_from_slice(column.as_bytes());
        description.extend_from_slice(&[0; 19]);
    }
    let mut all = message(b'T', &description);
    for row in rows {
        let mut body = count.to_vec();
        for value in *row {
            match value {
                Some(value) => {
                    body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
                    body.extend_from_slice(value.as_bytes());
                }
                None => body.extend_from_slice(&u32::MAX.to_be_bytes()),
            }
        }
        all.extend(message(b'D', &body));
    }
    all.extend(message(b'C', b"SELECT\0"));
    all
}

fn position(lsn: &str) -> Vec<u8> {
    rows(&["recptr", "tli"], &[&[Some(lsn), Some("3")]])
}

fn begin() -> Vec<u8> {
    let spaces: [&[Option<&str>]; 2] = [&[Some("16400"), Some("/srv/fast"), None], &[None, None, None]];
    [position("0/2000028"), rows(&["spcoid", "spclocation", "size"], &spaces)].concat()
}

fn end() -> Vec<u8> {
    [position("0/2000100"), message(b'C', b"BASE_BACKUP\0"), message(b'Z', b"I")].concat()
}

fn copy(pieces: &[&[u8]]) -> Vec<u8> {
    let data = pieces.iter().flat_map(|piece| message(b'd', piece));
    let begin = message(b'H', &[0, 0, 0]);
    begin.into_iter().chain(data).chain(message(b'c', b"")).collect()
}

/// As servers before version 15 send it: a copy for each archive, then one for the manifest.
fn many_copies() -> Vec<u8> {
    [begin(), copy(&[b"fast ", b"data"]), copy(&[b"base data"]), copy(&[b"{}"]), end()].concat()
}

/// As later servers send it.
fn one_copy() -> Vec<u8> {
    let pieces: [&[u8]; 8] = [
        b"n16400.tar\0/srv/fast\0",
        b"dfast ",
        b"p\0\0\0\0\0\0\0\x05",
        b"ddata",
        b"nbase.tar\0\0",
        b"dbase data",
        b"m",
        b"d{}",
    ];
    [begin(), copy(&pieces), end()].concat()
}

/// A server that lets everybody in, answers the first statement with `answer`, and is gone. Gives the statement.
fn served<T>(version: &str, answer: Vec<u8>, client: impl FnOnce(Result<BaseBackup>) -> T) -> (T, Vec<u8>) {
    let folder = retoma_testkit::Folder::new();
    let listener = UnixListener::bind(folder.join(".s.PGSQL.5432")).unwrap();
    let parameter = format!("server_version\0{version}\0");
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        socket.read_exact(&mut length).unwrap();
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
        socket.read_exact(&mut startup).unwrap();
        let hello =
            [message(b'R', &[0; 4]), message(b'S', parameter.as_bytes()), message(b'Z', b"I")].concat();
        socket.write_all(&hello).unwrap();
        let mut head = [0; 5];
        socket.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
        let mut statement = vec![0; length];
        socket.read_exact(&mut statement).unwrap();
        // The client may have gone already.
        let _sent = socket.write_all(&answer).is_ok();
        statement
    });
    let address = Address::on_socket(folder.path(), 5432, "backup", "postgres");
    let connection = Connection::connect(&address, Mode::Replication, Timeouts::default()).unwrap();
    let result = client(connection.start_base_backup("it's", Duration::from_secs(10)));
    (result, server.join().unwrap())
}

fn pieces(backup: &mut BaseBackup) -> Result<Vec<BackupPiece>> {
    let mut all = Vec::new();
    loop {
        let piece = backup.next_piece()?;
        let is_end = matches!(piece, BackupPiece::End(..));
        all.push(piece);
        if is_end {
            return Ok(all);
        }
    }
}

#[test]
fn old_and_new_servers_give_the_same_and_are_asked_in_their_own_way() {
    let data = |text: &'static str| BackupPiece::Data(Bytes::from_static(text.as_bytes()));
    let timeline = TimelineId::new(3).unwrap();
    let expected = [
        BackupPiece::Archive(Some(16400)),
        data("fast "),
        data("data"),
        BackupPiece::Archive(None),
        data("base data"),
        BackupPiece::Manifest,
        data("{}"),
        BackupPiece::End(Lsn(0x200_0100), timeline),
    ];
    for (version, answer) in [("13.21", many_copies()), ("14.18", many_copies()), ("15.13", one_copy())] {
        let ((), statement) = served(version, answer, |backup| {
            let mut backup = backup.unwrap();
            assert_eq!(backup.start(), (Lsn(0x200_0028), timeline));
            assert_eq!(backup.tablespaces(), [(16400, "/srv/fast".to_owned())]);
            assert_eq!(pieces(&mut backup).unwrap(), expected, "{version}");
            assert!(backup.finish().unwrap().1.is_none());
        });
        let statement = String::from_utf8_lossy(&statement).into_owned();
        let is_new = version.starts_with("15");
        assert_eq!(statement.starts_with("BASE_BACKUP (LABEL 'it''s', "), is_new, "{statement}");
        assert_eq!(statement.starts_with("BASE_BACKUP LABEL 'it''s' FAST NOWAIT "), !is_new, "{statement}");
    }
}

fn refusal(sqlstate: &str) -> Vec<u8> {
    let text = format!("SERROR\0VERROR\0C{sqlstate}\0Mchecksum verification failure\0\0");
    [message(b'E', text.as_bytes()), message(b'Z', b"I")].concat()
}

#[test]
fn a_complaint_about_pages_comes_behind_everything_and_any_other_error_ends_the_backup() {
    let all = [begin(), copy(&[b"m", b"d{}"]), position("0/2000100")].concat();
    for (sqlstate, is_complaint) in [("XX001", true), ("53100", false)] {
        let answer = [all.clone(), refusal(sqlstate)].concat();
        served("15.1", answer, |backup| {
            let mut backup = backup.unwrap();
            pieces(&mut backup).unwrap();
            match backup.finish() {
                Ok((connection, Some(error))) => {
                    assert!(is_complaint && !connection.is_broken(), "{error}");
                }
                Ok((_, None)) => panic!("no complaint"),
                Err(error) => assert!(!is_complaint, "{error}"),
            }
        });
    }
    let within = [begin(), message(b'H', &[0, 0, 0]), refusal("XX001")].concat();
    served("15.1", within, |backup| assert!(pieces(&mut backup.unwrap()).is_err()));
    served("15.1", refusal("42501"), |backup| {
        assert_eq!(backup.unwrap_err().code(), codes::POSTGRES_RIGHT);
    });
}

#[test]
fn whatever_is_cut_off_is_no_backup() {
    for (version, whole) in [("14.1", many_copies()), ("15.1", one_copy())] {
        // What stands behind the last position is waited for by `finish`.
        for length in (0..whole.len()).step_by(13) {
            served(version, whole[..length].to_vec(), |backup| {
                let ended = backup.and_then(|mut backup| pieces(&mut backup).and_then(|_| backup.finish()));
                let error = ended.err().unwrap();
                assert_eq!(
                    (error.kind(), error.code()),
                    (ErrorKind::Unavailable, codes::POSTGRES_UNAVAILABLE)
                );
            });
        }
    }
}

#[test]
fn messages_without_an_end_that_bring_nothing_are_refused() {
    let many = limits::ASIDES as usize + 10;
    let progress = [begin(), message(b'H', &[0, 0, 0]), message(b'd', b"p\0\0\0\0\0\0\0\x05").repeat(many)];
    let described = message(b'T', &[0, 0]).repeat(many);
    let within_result = [position("0/2000028"), described.clone()];
    let behind = [begin(), copy(&[b"m", b"d{}"]), position("0/2000100"), message(b'I', b"").repeat(many)];
    for answer in [progress.concat(), described, within_result.concat(), behind.concat()] {
        served("15.1", answer, |backup| {
            let ended = backup.and_then(|mut backup| pieces(&mut backup).and_then(|_| backup.finish()));
            assert_eq!(ended.err().unwrap().code(), codes::POSTGRES_PROTOCOL);
        });
    }
}

proptest! {
    #[test]
    fn any_message_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), tag in "[dmnpx]") {
        let _piece = decode([tag.as_bytes(), &bytes].concat().into());
    }
}
