use super::*;
use retoma_testkit::wal::segment;
use retoma_testkit::{Folder, wait_for};

const SERVER: u64 = 7;

fn name(number: u64) -> String {
    format!("0000000100000000{number:08X}")
}

fn archive(folder: &Folder, segments: &[u64]) -> Archive {
    let archive = Archive::new(&retoma_testkit::repository(folder), "db", SERVER).unwrap();
    for number in segments {
        let name = name(*number);
        archive.push(name.parse().unwrap(), &segment(&name, SERVER, *number)).unwrap();
    }
    archive
}

struct Recovering {
    folder: Folder,
    server: WalServer,
}

impl Recovering {
    fn new(archives: &[Archive]) -> Self {
        let folder = Folder::new();
        let server = WalServer::start(archives, &folder.join("wal"), None).unwrap();
        Self { folder, server }
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let target = self.folder.join("RECOVERYXLOG");
        let is_there = get(&self.folder.join("wal"), name, &target)?;
        assert_eq!(target.exists(), is_there);
        if !is_there {
            return Ok(None);
        }
        let bytes = std::fs::read(&target).unwrap();
        std::fs::remove_file(&target).unwrap();
        Ok(Some(bytes))
    }
}

#[test]
fn segments_come_in_order_and_ahead_of_their_time_and_the_end_is_told() {
    let folder = Folder::new();
    let numbers: Vec<u64> = (3..30).collect();
    let archive = archive(&folder, &numbers);
    let recovering = Recovering::new(std::slice::from_ref(&archive));
    assert!(recovering.get(&name(3)).unwrap().is_some());
    wait_for(|| (lock(&recovering.server.state.ahead).kept.len() == 8).then_some(()));
    for number in 4..30 {
        let name = name(number);
        assert!(recovering.get(&name).unwrap().unwrap() == segment(&name, SERVER, number), "{name}");
        assert!(lock(&recovering.server.state.ahead).kept.len() <= 8);
    }
    // What is not there now may be there a moment later.
    assert_eq!(recovering.get(&name(30)).unwrap(), None);
    archive.push(name(30).parse().unwrap(), &segment(&name(30), SERVER, 30)).unwrap();
    assert!(recovering.get(&name(30)).unwrap().is_some());
    assert_eq!(recovering.get("00000002.history").unwrap(), None);
    assert_eq!(recovering.server.served(), Served { segments: 28, bytes: 28 << 20 });
    assert!(recovering.server.take_failure().is_none());
}

#[test]
fn repositories_are_asked_in_turn_and_damage_in_all_of_them_is_told() {
    let (near, far) = (Folder::new(), Folder::new());
    let archives = [archive(&near, &[3, 4]), archive(&far, &[4, 5])];
    let recovering = Recovering::new(&archives);
    for number in [3, 4, 5] {
        assert!(recovering.get(&name(number)).unwrap().is_some(), "{number}");
    }
    let object = |folder: &Folder, number| {
        folder.join(format!("repository/wal/db/{SERVER}/00000001/{}", name(number)))
    };
    let damage = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    damage(&object(&near, 4));
    assert!(recovering.get(&name(4)).unwrap().is_some(), "the other one has it");
    damage(&object(&far, 4));
    let told = recovering.get(&name(4)).unwrap_err();
    assert!(told.message().contains("R0203") && told.message().contains(&name(4)), "{told}");
    let failure = recovering.server.take_failure().unwrap();
    assert_eq!(failure.code(), codes::NOT_AUTHENTIC);
    assert!(failure.to_string().contains(&name(4)), "{failure}");
}

#[test]
fn nonsense_and_a_recovery_that_is_gone_are_no_end_of_the_archive() {
    let folder = Folder::new();
    let recovering = Recovering::new(&[archive(&folder, &[])]);
    for wrong in ["", "nonsense", "../../etc/passwd"] {
        assert!(recovering.get(wrong).is_err(), "{wrong}");
    }
    let Recovering { folder, server } = recovering;
    drop(server);
    assert!(get(&folder.join("wal"), &name(3), &folder.join("x")).is_err());
    assert!(get(&folder.join("nowhere"), &name(3), &folder.join("x")).is_err());
}

#[test]
fn an_answer_that_breaks_off_is_not_taken() {
    let folder = Folder::new();
    for (answer, expected) in [
        (&b"there 10\nshort"[..], None),
        (b"there x\n", None),
        (b"there 99999999999\n", None),
        (b"", None),
        (b"absent", None),
        (b"absent\n", Some(false)),
        (b"there 2\nok", Some(true)),
    ] {
        let socket = folder.join("wal");
        std::fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(&socket).unwrap();
        let target = folder.join("x");
        let got = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                read_line(&stream).unwrap();
                stream.write_all(answer).unwrap();
            });
            get(&socket, "x", &target)
        });
        assert_eq!(got.ok(), expected, "{}", answer.escape_ascii());
        assert_eq!(target.exists(), expected == Some(true));
        std::fs::remove_file(&target).ok();
    }
}
