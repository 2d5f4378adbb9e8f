//! Sessions with servers that answer late, out of order, nonsense or nothing.

use super::super::files::PIECE_BYTES;
use super::*;
use crate::store::sftp::wire::tests::written;
use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex, split};

/// A request as the server reads it: its type and number, and what follows.
async fn heard(server: &mut DuplexStream) -> (u8, u32, Vec<u8>) {
    let length = server.read_u32().await.unwrap() as usize;
    let mut packet = vec![0; length];
    server.read_exact(&mut packet).await.unwrap();
    let id = u32::from_be_bytes(packet[1..5].try_into().unwrap());
    (packet[0], id, packet[5..].to_vec())
}

async fn say(server: &mut DuplexStream, id: u32, answer: &Answer) {
    let body = written(id, answer);
    server.write_u32(u32::try_from(body.len()).unwrap()).await.unwrap();
    server.write_all(&body).await.unwrap();
}

fn greeting() -> Answer {
    Answer::Version { version: 3, extensions: vec![Bytes::from_static(b"fsync@openssh.com")] }
}

async fn start(client: DuplexStream) -> Result<Session, Failure> {
    let (input, output) = split(client);
    Session::start(input, output, |reason| async move { format!("{reason}!") }).await
}

async fn greeted() -> (Session, DuplexStream) {
    let (client, mut server) = duplex(1 << 20);
    let (session, ()) = tokio::join!(start(client), async {
        assert_eq!(heard(&mut server).await.0, 1);
        say(&mut server, 0, &greeting()).await;
    });
    (session.unwrap(), server)
}

fn status_of(path: &'static str) -> Request {
    Request::Status { path: Bytes::from_static(path.as_bytes()) }
}

fn data(text: &'static str) -> Answer {
    Answer::Data(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let (session, mut server) = greeted().await;
    assert!(session.offers("fsync@openssh.com") && !session.offers("hardlink@openssh.com"));
    let (one, two, ()) = tokio::join!(session.ask(status_of("1")), session.ask(status_of("2")), async {
        let (first, second) = (heard(&mut server).await, heard(&mut server).await);
        say(&mut server, second.1, &Answer::Data(second.2.into())).await;
        say(&mut server, first.1, &Answer::Data(first.2.into())).await;
    });
    assert_eq!(one.unwrap(), Answer::Data(Bytes::from_static(b"\0\0\0\x011")));
    assert_eq!(two.unwrap(), Answer::Data(Bytes::from_static(b"\0\0\0\x012")));
}

#[tokio::test]
async fn who_gives_up_waiting_disturbs_nobody() {
    let (session, mut server) = greeted().await;
    session.leave(status_of("1")).await;
    let (answer, ()) = tokio::join!(session.ask(status_of("2")), async {
        for text in ["one", "two"] {
            let id = heard(&mut server).await.1;
            say(&mut server, id, &data(text)).await;
        }
    });
    assert_eq!(answer.unwrap(), data("two"));
    drop(session);
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "the server hears the end");
}

#[tokio::test]
async fn nonsense_ends_the_session_for_all_who_wait() {
    let packets: [(&[u8], &str); 6] = [
        (&[0xff; 4], "announced a packet of 4294967295 bytes"),
        (&[0, 0, 0, 0], "announced a packet of 0 bytes"),
        (&[0, 0, 0, 1, 103], "ends in the middle of a field"),
        (&[0, 0, 0, 9, 101, 0x77, 0, 0, 0, 0, 0, 0, 0], "what nobody had asked"),
        (&[0, 0, 0, 5, 7, 0, 0, 0, 1], "of a type"),
        (&[0, 0, 0, 9, 101], "in the middle of an answer"),
    ];
    for (packet, why) in packets {
        let (session, mut server) = greeted().await;
        let (one, two, ()) = tokio::join!(session.ask(status_of("1")), session.ask(status_of("2")), async {
            heard(&mut server).await;
            heard(&mut server).await;
            server.write_all(packet).await.unwrap();
            server.shutdown().await.unwrap();
        });
        for outcome in [one, two] {
            let Err(Failure::Lost(reason)) = outcome else { panic!("{why}: {outcome:?}") };
            assert!(reason.contains(why) && reason.ends_with('!'), "{reason}");
        }
        assert!(session.has_ended());
        assert!(matches!(session.ask(status_of("3")).await, Err(Failure::Lost(_))));
    }
}

#[tokio::test]
async fn a_greeting_that_is_none_is_refused() {
    for answer in [Answer::Version { version: 2, extensions: Vec::new() }, data("hello")] {
        let (client, mut server) = duplex(1 << 16);
        let (session, ()) = tokio::join!(start(client), say(&mut server, 0, &answer));
        assert!(matches!(session, Err(Failure::Nonsense(_))), "{answer:?}");
    }
    // What a login script prints in front of the protocol.
    let (client, mut server) = duplex(1 << 16);
    let (session, _) = tokio::join!(start(client), server.write_all(b"Welcome to this machine!\n"));
    assert!(matches!(session, Err(Failure::Lost(_))));
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up() {
    let (mut session, _server) = greeted().await;
    session.patience = Duration::from_millis(1);
    let outcome = session.ask(status_of("1")).await;
    assert!(
        matches!(&outcome, Err(Failure::Lost(reason)) if reason.contains("no answer came")),
        "{outcome:?}"
    );
    assert!(session.has_ended());
}

/// Gives each read as many bytes as `steps` says, at most what was asked for.
async fn serve_reads(mut server: DuplexStream, file: Vec<u8>, steps: Vec<usize>) {
    let mut steps = steps.into_iter().cycle();
    loop {
        let Ok(length) = server.read_u32().await else { return };
        let mut packet = vec![0; length as usize];
        if server.read_exact(&mut packet).await.is_err() {
            return;
        }
        let id = u32::from_be_bytes(packet[1..5].try_into().unwrap());
        if packet[0] == 3 {
            say(&mut server, id, &Answer::Handle(Bytes::from_static(b"h"))).await;
            continue;
        }
        let number = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap()) as usize;
        let (offset, wanted) = (number(14), number(18));
        let length = wanted.min(steps.next().unwrap()).min(file.len().saturating_sub(offset));
        let answer = match length {
            0 => Answer::Status { code: status::END, message: Bytes::new() },
            _ => Answer::Data(file[offset..offset + length].to_vec().into()),
        };
        say(&mut server, id, &answer).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// However short its answers are, what is read is the file, and a file that ends before is told as such.
    #[test]
    fn short_answers_make_a_whole_part(
        size in 0..4 * PIECE_BYTES,
        at: prop::sample::Index,
        steps in prop::collection::vec(1000..40_000_usize, 1..5),
        beyond in 0..2_u64,
    ) {
        let file: Vec<u8> = (0..size).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
        let start = at.index(size + 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let read = runtime.block_on(async {
            let (session, server) = greeted().await;
            let serving = tokio::spawn(serve_reads(server, file.clone(), steps));
            let handle = session.open(Bytes::from_static(b"x"), 1).await.unwrap();
            let read = session.read(&handle, start as u64..size as u64 + beyond).await.unwrap();
            drop(session);
            serving.abort();
            read
        });
        prop_assert_eq!(read, (beyond == 0).then(|| Bytes::copy_from_slice(&file[start..])));
    }
}

#[tokio::test]
async fn data_that_nobody_asked_for_are_refused() {
    for answer in [Answer::Data(Bytes::new()), Answer::Data(vec![0; 11].into()), Answer::Handle(Bytes::new())]
    {
        let (session, mut server) = greeted().await;
        let (outcome, ()) = tokio::join!(
            async {
                let handle = session.open(Bytes::from_static(b"x"), 1).await.unwrap();
                session.read(&handle, 0..10).await
            },
            async {
                heard(&mut server).await;
                say(&mut server, 1, &Answer::Handle(Bytes::from_static(b"h"))).await;
                let id = heard(&mut server).await.1;
                say(&mut server, id, &answer).await;
            }
        );
        assert!(matches!(outcome, Err(Failure::Nonsense(_))), "{answer:?}: {outcome:?}");
    }
}
