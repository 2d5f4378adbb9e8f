use super::*;
use retoma_core::decide::alerts::{Alerts, Condition, Severity};
use retoma_testkit::wait_for_what;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// A receiver on the loopback address: keeps request line and body, and answers with a status that can be changed.
#[derive(Clone)]
struct Real {
    url: String,
    got: Arc<Mutex<Vec<(String, Value)>>>,
    status: Arc<AtomicU16>,
}

impl Real {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let real = Self { url, got: Arc::default(), status: Arc::new(AtomicU16::new(200)) };
        let own = real.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                reader.read_line(&mut head).unwrap();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                own.got.lock().unwrap().push((head.trim().to_owned(), value));
                let status = own.status.load(Ordering::Relaxed);
                write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .unwrap();
                stream.shutdown(Shutdown::Write).ok();
            }
        });
        real
    }

    fn receiver(&self) -> Receiver {
        Receiver::Literal(self.url.clone())
    }

    fn take(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.got.lock().unwrap())
    }
}

pub(super) fn board(alerts: &[(&str, Severity)]) -> Board {
    let board = Board::default();
    post_alerts(&board, alerts);
    board
}

fn post_alerts(board: &Board, alerts: &[(&str, Severity)]) {
    let now = Timestamp::now();
    let mut raised = Alerts::default();
    let condition = |(alert, severity): &(&str, Severity)| Condition {
        key: AlertKey { alert: (*alert).to_owned(), component: Some("db".to_owned()), repository: None },
        severity: *severity,
        summary: "it is so".to_owned(),
        lasting: SignedDuration::ZERO,
    };
    raised.observe(alerts.iter().map(condition).collect(), now);
    board.post(super::super::tests::nothing(now), raised);
}

pub(super) fn sender(options: AlertOptions) -> Sender {
    Sender { options, service: "shop".to_owned(), host: "h".to_owned(), folder: PathBuf::new() }
}

pub(super) fn silent() -> Tell {
    Arc::new(|_: &str| {})
}

pub(super) const BAD: (&str, Severity) = ("wal_gap", Severity::Critical);

#[test]
fn a_webhook_hears_of_each_beginning_and_each_end_once() {
    let real = Real::start();
    let sender = sender(AlertOptions { webhook: Some(real.receiver()), ..AlertOptions::default() });
    let (mut memory, mut tries) = (Memory::default(), Tries::default());
    let mut round = |alerts: &[(&str, Severity)], may_clear| {
        sender.round(&board(alerts), &mut memory, &mut tries, may_clear, &silent());
        real.take()
    };
    assert_eq!(round(&[], true), []);
    let got = round(&[BAD], true);
    assert_eq!((got.len(), got[0].0.as_str()), (1, "POST / HTTP/1.1"));
    assert_eq!(got[0].1["schema"], "retoma.alerts/1");
    assert_eq!((&got[0].1["service"], &got[0].1["host"]), (&json!("shop"), &json!("h")));
    assert_eq!(
        (&got[0].1["raised"][0]["alert"], &got[0].1["raised"][0]["component"]),
        (&json!("wal_gap"), &json!("db"))
    );
    assert_eq!(round(&[BAD], true), []);
    assert_eq!(round(&[], false), [], "an agent that has just begun does not know yet");
    let got = round(&[], true);
    assert_eq!(
        (got[0].1["cleared"][0]["alert"].as_str(), got[0].1["active"].as_array().unwrap().len()),
        (Some("wal_gap"), 0)
    );
    assert_eq!(round(&[], true), []);
    assert_eq!(round(&[("slot_filling", Severity::Warning)], true).len(), 1);
    let got = round(&[("slot_filling", Severity::Critical)], true);
    assert_eq!(
        (&got[0].1["raised"][0]["severity"], &got[0].1["cleared"][0]["severity"]),
        (&json!("critical"), &json!("warning"))
    );
}

#[test]
fn what_is_not_acknowledged_is_said_again_and_the_trouble_is_told_once() {
    let real = Real::start();
    real.status.store(500, Ordering::Relaxed);
    let sender = sender(AlertOptions { webhook: Some(real.receiver()), ..AlertOptions::default() });
    let (mut memory, mut tries) = (Memory::default(), Tries::default());
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let tell: Tell = {
        let told = Arc::clone(&told);
        Arc::new(move |text: &str| told.lock().unwrap().push(text.to_owned()))
    };
    for _ in 0..2 {
        tries.webhook = None;
        assert!(!sender.round(&board(&[BAD]), &mut memory, &mut tries, true, &tell));
        assert_eq!(real.take().len(), 1);
    }
    assert!(!sender.round(&board(&[BAD]), &mut memory, &mut tries, true, &tell));
    assert_eq!(real.take(), [], "not before some seconds have passed");
    real.status.store(204, Ordering::Relaxed);
    tries.webhook = None;
    assert!(sender.round(&board(&[BAD]), &mut memory, &mut tries, true, &tell));
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("R0955") && told[0].contains("500") && told[1].contains("again"), "{told:?}");
}

#[test]
fn alertmanager_hears_what_lasts_and_what_ended() {
    let real = Real::start();
    let sender = sender(AlertOptions { alertmanager: Some(real.receiver()), ..AlertOptions::default() });
    let (mut memory, mut tries) = (Memory::default(), Tries::default());
    sender.round(&board(&[BAD]), &mut memory, &mut tries, true, &silent());
    let got = real.take();
    assert_eq!(got[0].0, "POST /api/v2/alerts HTTP/1.1");
    let labels = json!({ "alertname": "retoma_wal_gap", "severity": "critical", "service": "shop", "instance": "h", "component": "db" });
    assert_eq!(got[0].1[0]["labels"], labels);
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(time(&got[0].1[0]["endsAt"]) > Timestamp::now());
    sender.round(&board(&[BAD]), &mut memory, &mut tries, true, &silent());
    assert_eq!(real.take(), [], "nothing new, and no minute has passed");
    tries.alertmanager_done = None;
    sender.round(&board(&[BAD]), &mut memory, &mut tries, true, &silent());
    assert_eq!(real.take().len(), 1, "what lasts is said again");
    sender.round(&board(&[]), &mut memory, &mut tries, true, &silent());
    let got = real.take();
    assert!(time(&got[0].1[0]["endsAt"]) <= Timestamp::now());
    assert_eq!(got[0].1[0]["labels"], labels);
}

#[test]
fn the_dead_man_hears_of_us_only_while_all_is_well() {
    let real = Real::start();
    let sender = sender(AlertOptions { dead_man: Some(real.receiver()), ..AlertOptions::default() });
    let (mut memory, mut tries) = (Memory::default(), Tries::default());
    let mut round = |board: &Board| sender.round(board, &mut memory, &mut tries, true, &silent());
    round(&board(&[BAD]));
    round(&Board::default());
    assert_eq!(real.take(), []);
    round(&board(&[("task_failing", Severity::Warning)]));
    assert_eq!(real.take()[0].0, "GET / HTTP/1.1");
    round(&board(&[]));
    assert_eq!(real.take(), [], "once in a minute");
}

#[test]
fn what_was_acknowledged_outlives_the_agent() {
    let (real, folder) = (Real::start(), tempfile::tempdir().unwrap());
    let options = AlertOptions { webhook: Some(real.receiver()), ..AlertOptions::default() };
    let sender = Sender { folder: folder.path().to_owned(), ..sender(options) };
    let interrupt = Interrupt::default();
    sender.start(Arc::new(board(&[BAD])), interrupt.clone(), silent()).unwrap();
    let kept = wait_for_what("the file", || std::fs::read(folder.path().join(NAME)).ok());
    interrupt.set();
    let memory: Memory = serde_json::from_slice(&kept).unwrap();
    assert_eq!((memory.webhook.len(), memory.webhook[0].alert.as_str()), (1, "wal_gap"));
    assert!(after(&memory.webhook, &[], false).len() == 1 && after(&memory.webhook, &[], true).is_empty());
}

#[test]
fn a_mail_server_that_says_nothing_holds_nobody_else_up() {
    let (real, folder) = (Real::start(), tempfile::tempdir().unwrap());
    let silent_server = TcpListener::bind("127.0.0.1:0").unwrap();
    let email = retoma_core::manifest::Email {
        host: "127.0.0.1".to_owned(),
        port: silent_server.local_addr().unwrap().port(),
        security: retoma_core::manifest::MailSecurity::None,
        ca_file: None,
        from: "retoma@shop.example".to_owned(),
        to: vec!["ops@shop.example".to_owned()],
        login: None,
    };
    let (webhook, dead_man) = (Some(real.receiver()), Some(real.receiver()));
    let options = AlertOptions { webhook, dead_man, email: Some(email), ..AlertOptions::default() };
    let sender = Sender { folder: folder.path().to_owned(), ..sender(options) };
    let (interrupt, board) = (Interrupt::default(), Arc::new(board(&[BAD])));
    sender.start(Arc::clone(&board), interrupt.clone(), silent()).unwrap();
    let (held, _) = silent_server.accept().unwrap();
    // The mail is under way and waits. What comes now goes to the others.
    post_alerts(&board, &[("slot_filling", Severity::Warning)]);
    let mut got = Vec::new();
    wait_for_what("the ping and the webhook", || {
        got.extend(real.take());
        let webhook = got.iter().any(|(_, body)| {
            body["raised"].as_array().is_some_and(|all| all.iter().any(|it| it["alert"] == "slot_filling"))
        });
        let dead_man = got.iter().any(|(head, _)| head.starts_with("GET /"));
        (webhook && dead_man).then_some(())
    });
    held.set_nonblocking(true).unwrap();
    // Whether it has given up shows at the end of what it sent, which is nothing.
    let error = (&held).read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "the others waited for the mail");
    interrupt.set();
}
