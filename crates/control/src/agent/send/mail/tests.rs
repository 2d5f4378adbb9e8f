use super::super::tests::{BAD, board, sender, silent};
use super::super::{Memory, Tell, Tries};
use super::*;
use retoma_core::decide::alerts::Severity;
use retoma_core::manifest::{AlertOptions, SecretRef};
use retoma_testkit::{Folder, MailOptions, MailServer};
use serde_json::Value;
use std::sync::{Arc, Mutex};

const PASSWORD: &str = "hunter2 hunter2";

fn email(server: &MailServer, security: MailSecurity) -> Email {
    Email {
        host: "localhost".to_owned(),
        port: server.port(),
        security,
        ca_file: Some(server.authority()).filter(|_| security != MailSecurity::None),
        from: "retoma@shop.example".to_owned(),
        to: vec!["ops@shop.example".to_owned()],
        login: None,
    }
}

fn login(folder: &Folder, password: &str) -> (String, SecretRef) {
    let path = folder.join("mail-password");
    crate::durable::write(&path, password.as_bytes(), crate::durable::PRIVATE).unwrap();
    ("retoma".to_owned(), SecretRef::File(path))
}

/// What the server took, as values.
fn mails(server: &MailServer) -> Vec<Value> {
    server.mails().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a round told a person.
#[derive(Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn tell(&self) -> Tell {
        let own = Arc::clone(&self.0);
        Arc::new(move |text: &str| own.lock().unwrap().push(text.to_owned()))
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn an_alert_and_its_end_arrive_over_each_kind_of_connection() {
    let folder = Folder::new();
    for (security, name) in
        [(MailSecurity::None, "none"), (MailSecurity::StartTls, "starttls"), (MailSecurity::Tls, "tls")]
    {
        let options = MailOptions { security: name, password: PASSWORD };
        let Some(server) = MailServer::start(options) else { return };
        let email = Email { login: Some(login(&folder, PASSWORD)), ..email(&server, security) };
        let sender = sender(AlertOptions { email: Some(email), ..AlertOptions::default() });
        let (mut memory, mut tries) = (Memory::default(), Tries::default());
        let heard = Heard::default();
        let mut round = |alerts: &[(&str, Severity)]| {
            sender.mail_round(&board(alerts), &mut memory, &mut tries, true, &heard.tell())
        };
        assert!(round(&[BAD]), "{name}: {:?}", heard.take());
        assert!(!round(&[BAD]), "it is said once");
        assert!(round(&[]));
        let got = mails(&server);
        assert_eq!((got.len(), heard.take().len()), (2, 0), "{name}");
        for mail in &got {
            assert_eq!(
                (mail["tls"] == true, &mail["user"]),
                (security != MailSecurity::None, &"retoma".into())
            );
            assert_eq!(
                (&mail["from"], &mail["to"][0]),
                (&"retoma@shop.example".into(), &"ops@shop.example".into())
            );
        }
        let text = |number: usize| got[number]["message"].as_str().unwrap();
        assert!(text(0).contains("Subject: shop on h: raised wal_gap of db\r\n"), "{}", text(0));
        assert!(
            text(0).contains("it is so") && text(0).contains("Auto-Submitted: auto-generated"),
            "{}",
            text(0)
        );
        assert!(text(1).contains("Subject: shop on h: cleared wal_gap of db\r\n"), "{}", text(1));
        assert!(text(0).contains("\r\nDate: ") && text(0).contains("@shop.example>\r\n"), "{}", text(0));
    }
}

#[test]
fn an_address_that_is_refused_holds_no_other_up_and_is_tried_again() {
    let Some(server) = MailServer::start(MailOptions::default()) else { return };
    let to = ["one@shop.example", "refused@shop.example", "two@shop.example"];
    let email = Email { to: to.map(str::to_owned).to_vec(), ..email(&server, MailSecurity::None) };
    let sender = sender(AlertOptions { email: Some(email), ..AlertOptions::default() });
    let (mut memory, mut tries) = (Memory::default(), Tries::default());
    let heard = Heard::default();
    assert!(sender.mail_round(&board(&[BAD]), &mut memory, &mut tries, true, &heard.tell()));
    let got: Vec<Value> = mails(&server).iter().map(|mail| mail["to"].clone()).collect();
    assert_eq!(got, [serde_json::json!([to[0]]), serde_json::json!([to[2]])], "nobody sees the others");
    let told = heard.take();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("R0956") && told[0].contains("550") && told[0].contains(to[1]), "{told:?}");
    assert!(tries.email.contains_key(to[1]) && !memory.email.contains_key(to[1]));
    assert!(
        !sender.mail_round(&board(&[BAD]), &mut memory, &mut tries, true, &heard.tell()),
        "not before a minute"
    );
    tries.email.clear();
    sender.mail_round(&board(&[BAD]), &mut memory, &mut tries, true, &heard.tell());
    assert!(tries.email.contains_key(to[1]), "it was tried again");
    assert_eq!((mails(&server).len(), heard.take().len()), (2, 0), "and told once");
}

#[test]
fn a_server_that_does_not_take_it_is_told_and_gets_it_later() {
    let folder = Folder::new();
    let options = MailOptions { security: "starttls", password: PASSWORD };
    let Some(server) = MailServer::start(options) else { return };
    let good = Email { login: Some(login(&folder, PASSWORD)), ..email(&server, MailSecurity::StartTls) };
    let wrong = folder.join("wrong");
    crate::durable::write(&wrong, b"hunter3", crate::durable::PRIVATE).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let heard = Heard::default();
    let round = |email: Email| {
        let sender = sender(AlertOptions { email: Some(email), ..AlertOptions::default() });
        sender.mail_round(&board(&[BAD]), &mut Memory::default(), &mut Tries::default(), true, &heard.tell())
    };
    for (email, expected) in [
        (Email { login: Some(("retoma".to_owned(), SecretRef::File(wrong))), ..good.clone() }, "(535)"),
        (Email { login: None, ..good.clone() }, "(530)"),
        (Email { ca_file: None, ..good.clone() }, "certificate"),
        (Email { host: "127.0.0.1".to_owned(), ..good.clone() }, "certificate"),
        (Email { security: MailSecurity::None, ..good.clone() }, "R0956"),
        (Email { port: closed, ..good.clone() }, "cannot be reached"),
        (Email { ca_file: Some(folder.join("wrong")), ..good.clone() }, "no certificate"),
        (Email { ca_file: Some(folder.join("missing")), ..good.clone() }, "missing"),
    ] {
        assert!(!round(email), "{expected}");
        let told = heard.take();
        assert_eq!(told.len(), 1, "{expected}: {told:?}");
        assert!(told[0].contains(expected), "{expected}: {told:?}");
        assert!(!told[0].contains("hunter"), "{told:?}");
        assert_eq!(mails(&server).len(), 0);
    }
    // A server that was away and is back gets what it missed.
    let (mut memory, mut tries) = (Memory::default(), Tries::default());
    let mut round = |email: Email| {
        tries.email.clear();
        let sender = sender(AlertOptions { email: Some(email), ..AlertOptions::default() });
        sender.mail_round(&board(&[BAD]), &mut memory, &mut tries, true, &heard.tell())
    };
    assert!(!round(Email { port: closed, ..good.clone() }));
    assert!(round(good));
    let told = heard.take();
    assert!(told.len() == 2 && told[1].contains("arrive again"), "{told:?}");
    assert_eq!(mails(&server).len(), 1);
}

#[test]
fn nothing_that_is_told_becomes_a_header() {
    let Some(server) = MailServer::start(MailOptions::default()) else { return };
    let canary = "x\r\nBcc: canary@example.org\r\n\r\n.\r\nMAIL FROM:<a@b>\u{2028}\u{202E}\0";
    let mut sender =
        sender(AlertOptions { email: Some(email(&server, MailSecurity::None)), ..AlertOptions::default() });
    (sender.service, sender.host) = (canary.to_owned(), canary.to_owned());
    let told = Told {
        alert: canary.to_owned(),
        severity: canary.to_owned(),
        component: Some(canary.to_owned()),
        repository: Some(canary.to_owned()),
        summary: format!(".\r\n{canary}"),
        since: jiff::Timestamp::UNIX_EPOCH,
    };
    let news = Difference { raised: vec![told.clone(); 2], cleared: vec![told.clone()] };
    let email = sender.options.email.clone().unwrap();
    sender.mail(&email, "ops@shop.example", &news, &[told]).unwrap();
    let got = mails(&server);
    assert_eq!((got.len(), &got[0]["to"]), (1, &serde_json::json!(["ops@shop.example"])));
    let message = got[0]["message"].as_str().unwrap();
    let (head, _) = message.split_once("\r\n\r\n").unwrap();
    let mut names: Vec<&str> = head
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split_once(':').unwrap().0)
        .collect();
    names.sort_unstable();
    let expected = [
        "Auto-Submitted",
        "Content-Transfer-Encoding",
        "Content-Type",
        "Date",
        "From",
        "Message-ID",
        "Subject",
        "To",
    ];
    assert_eq!(names, expected, "{head}");
    assert!(!message.contains('\0') && !message.contains("\nBcc"), "{message}");
    sender.mail_round(&board(&[]), &mut Memory::default(), &mut Tries::default(), true, &silent());
    assert_eq!(mails(&server).len(), 1, "nothing new is no mail");
}
