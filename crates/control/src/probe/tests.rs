use super::*;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, sync_channel};

/// A server that answers one request after the other with `answers`, then closes. Gives its address, and the requests as
/// they come.
pub(crate) fn answer(answers: Vec<String>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, requests) = sync_channel(answers.len());
    std::thread::spawn(move || {
        for answer in answers {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let (mut request, mut body_bytes) = (String::new(), 0);
            while !request.ends_with("\r\n\r\n") {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let length = line.to_lowercase().strip_prefix("content-length:").map(|it| it.trim().parse());
                body_bytes = length.map_or(body_bytes, Result::unwrap);
                request.push_str(&line);
            }
            let mut body = vec![0; body_bytes];
            stream.read_exact(&mut body).unwrap();
            request.push_str(std::str::from_utf8(&body).unwrap());
            // Who asked may not listen to the end.
            stream.get_mut().write_all(answer.as_bytes()).ok();
            sender.send(request).ok();
        }
    });
    (url, requests)
}

/// An answer with this status line and body.
pub(crate) fn with_body(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn answer_once(text: &str) -> String {
    answer(vec![text.to_owned()]).0
}

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn each_status_is_an_answer() {
    let url = answer_once("HTTP/1.1 503 No\r\ncontent-length: 3\r\n\r\nred");
    let seen = get(&url, LIMIT);
    assert_eq!((seen.outcome.clone(), seen.body.as_str()), (Outcome::Answered(503), "red"));
    let mut check = HttpCheck { url, expect_status: 503, expect_body: Some("red".to_owned()) };
    assert_eq!(unfulfilled(&check, &seen), None);
    check.expect_body = Some("green".to_owned());
    assert_eq!(unfulfilled(&check, &seen).unwrap(), "the body does not contain `green`");
    check.expect_status = 200;
    assert_eq!(unfulfilled(&check, &seen).unwrap(), "status 503 instead of status 200");
}

#[test]
fn a_redirect_is_not_followed() {
    let url = answer_once("HTTP/1.1 302 Elsewhere\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(get(&url, LIMIT).outcome, Outcome::Answered(302));
}

#[test]
fn nobody_is_told_from_somebody_who_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let silent = get(&url, Duration::from_millis(50));
    assert_eq!(silent.outcome, Outcome::TimedOut);
    assert!(silent.is_anybody_there());
    drop(listener);
    let gone = get(&url, LIMIT);
    assert_eq!(gone.outcome, Outcome::Refused);
    assert!(!gone.is_anybody_there());
}

#[test]
fn what_counts_as_fulfilled() {
    let seen = |outcome: Outcome, body: &str| Observation { latency: LIMIT, outcome, body: body.to_owned() };
    let check = |expect_status, body: Option<&str>| HttpCheck {
        url: String::new(),
        expect_status,
        expect_body: body.map(str::to_owned),
    };
    let ok = seen(Outcome::Answered(200), "all is well");
    assert_eq!(unfulfilled(&check(200, None), &ok), None);
    assert_eq!(unfulfilled(&check(200, Some("is well")), &ok), None);
    for (check, seen, why) in [
        (check(204, Some("is well")), ok.clone(), "status 200 instead of status 204"),
        (check(200, Some("is Well")), ok.clone(), "the body does not contain `is Well`"),
        (check(200, None), seen(Outcome::Answered(201), ""), "status 201 instead of status 200"),
        (check(200, None), seen(Outcome::Refused, ""), "nobody listens instead of status 200"),
        (check(200, None), seen(Outcome::TimedOut, ""), "no answer in time instead of status 200"),
        (check(200, None), seen(Outcome::Failed("odd".to_owned()), ""), "odd instead of status 200"),
    ] {
        assert_eq!(unfulfilled(&check, &seen).as_deref(), Some(why));
    }
    let anybody = [Outcome::Answered(500), Outcome::TimedOut, Outcome::Failed(String::new())];
    assert!(anybody.into_iter().all(|outcome| seen(outcome, "").is_anybody_there()));
}

#[test]
fn an_answer_that_is_too_long_or_breaks_off_is_no_answer() {
    let most = "x".repeat(usize::try_from(ANSWER_LIMIT_BYTES).unwrap() - 1);
    let whole = get(&answer_once(&with_body("200 OK", &most)), LIMIT);
    assert_eq!((whole.outcome, whole.body.len()), (Outcome::Answered(200), most.len()));
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhealthy";
    for text in [with_body("200 OK", &format!("{most}xx")), broken.to_owned()] {
        let seen = get(&answer_once(&text), LIMIT);
        assert!(matches!(seen.outcome, Outcome::Failed(_)), "{:?}", seen.outcome);
        assert_eq!(seen.body, "", "half an answer contains nothing that could be expected");
    }
}
