//! A stop by signal: requests under way are answered, the database is closed, the exit code is 0, and it ends.

use std::io::{Read, Write};
use std::net::TcpStream;

use retoma_testkit::wait_for;
use rustix::process::Signal;
use serde_json::Value;

use super::service::{Service, features, root};

/// Opens a prediction and holds back the last byte of its body.
fn begin_request(service: &Service) -> (TcpStream, u8) {
    let body = features(4.0).to_string();
    let (most, last) = body.as_bytes().split_at(body.len() - 1);
    let mut stream = TcpStream::connect(service.address()).unwrap();
    let head = format!(
        "POST /predict HTTP/1.1\r\nhost: marabet\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The service asks for the body when its route has the request: now it is under way.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(most).unwrap();
    (stream, last[0])
}

fn wait_until_nobody_listens(service: &Service) {
    wait_for(|| TcpStream::connect(service.address()).is_err().then_some(()));
}

#[test]
fn a_request_under_way_is_answered_before_the_end() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let root = root();
        let mut service = Service::start(root.path());
        let (mut stream, last) = begin_request(&service);
        service.signal(signal);
        wait_until_nobody_listens(&service);
        stream.write_all(&[last]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert_eq!(service.wait().code(), Some(0));

        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let wal = service.layout.database().with_extension("sqlite-wal");
        assert!(!wal.exists(), "the database was not closed");
        let service = Service::start(root.path());
        assert_eq!(service.get(&format!("/predictions/{}", body["id"])).0, 200);
    }
}

#[test]
fn a_client_that_never_ends_its_request_does_not_hold_up_the_stop() {
    let root = root();
    let mut service = Service::start(root.path());
    let (stream, _) = begin_request(&service);
    service.signal(Signal::TERM);
    assert_eq!(service.wait().code(), Some(0));
    drop(stream);
}

#[test]
fn an_idle_connection_does_not_hold_up_the_stop() {
    let root = root();
    let mut service = Service::start(root.path());
    let mut stream = TcpStream::connect(service.address()).unwrap();
    stream.write_all(b"GET /predictions/count HTTP/1.1\r\nhost: marabet\r\n\r\n").unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    service.signal(Signal::TERM);
    assert_eq!(service.wait().code(), Some(0));
}
