//! Marks in servers that are at work: numbered writes, which also say that the server takes any.

use super::streams::{Known, lock};
use crate::Interrupt;
use crate::postgres::MarkWriter;
use retoma_core::decide::observed::{Mark, MarkTrouble, Marks};
use retoma_core::manifest::Manifest;
use retoma_core::{Error, Result};
use retoma_sources::postgres::wire::sqlstate;
use std::sync::Mutex;
use std::time::Duration;

/// The user has not the right to (`insufficient_privilege`).
const MAY_NOT: &str = "42501";

/// Writes a mark now and then, until `interrupt`.
pub(super) fn write(known: &Mutex<Known>, manifest: &Manifest, name: &str, interrupt: &Interrupt) {
    let Some(component) = manifest.component(name) else { return };
    let every = Duration::from_secs(manifest.agent.marks_every.as_seconds());
    let mut writer = None;
    while !interrupt.is_set() {
        let written = match &mut writer {
            Some(writer) => MarkWriter::write(writer),
            // Where its address is kept may be out of reach for a while.
            None => MarkWriter::new(component).and_then(|new| writer.insert(new).write()),
        };
        note(&mut lock(known).stream.marks, written);
        super::pause(interrupt, every, || false);
    }
}

/// Takes in what became of one try.
fn note(marks: &mut Option<Marks>, written: Result<Option<Mark>>) {
    let before = marks.take().unwrap_or_default();
    *marks = match written {
        // Its primary has them.
        Ok(None) => None,
        Ok(Some(mark)) => Some(Marks { last: Some(mark), trouble: None }),
        Err(error) => Some(Marks { trouble: Some(trouble(&error)), ..before }),
    };
}

fn trouble(error: &Error) -> MarkTrouble {
    let why = format!("{error} ({})", error.code());
    if sqlstate(error) == Some(MAY_NOT) { MarkTrouble::MayNot(why) } else { MarkTrouble::NotTaken(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use retoma_core::manifest::{Origin, parse};
    use retoma_core::{ErrorKind, error::codes};
    use retoma_testkit::{PostgresServer, wait_for_what};

    #[test]
    fn a_standby_has_no_marks_and_a_failure_keeps_the_last_one() {
        let mark = |number| Mark { number, written: Timestamp::from_second(5).unwrap() };
        let mut marks = None;
        note(&mut marks, Ok(Some(mark(1))));
        let away = Error::new(ErrorKind::Unavailable, codes::POSTGRES_UNAVAILABLE, "no answer");
        note(&mut marks, Err(away));
        let failed = marks.clone().unwrap();
        assert_eq!(failed.last, Some(mark(1)));
        assert!(
            matches!(&failed.trouble, Some(MarkTrouble::NotTaken(why)) if why == "no answer (R0411)"),
            "{failed:?}"
        );
        note(&mut marks, Ok(Some(mark(2))));
        assert_eq!(marks, Some(Marks { last: Some(mark(2)), trouble: None }));
        note(&mut marks, Ok(None));
        assert_eq!(marks, None);
    }

    #[test]
    fn a_user_without_the_right_is_told_apart_and_writes_once_it_has_it() {
        let Some(server) = PostgresServer::start() else { return };
        server.psql("CREATE ROLE plain LOGIN");
        let url = server.socket_url().replace("postgres@", "plain@");
        let text = format!(
            "version = 1\n[service]\nname = \"s\"\n[agent]\nmarks_every = \"1s\"\n\
             [[repository]]\nname = \"r\"\nurl = \"file:///r\"\npassword = \"env:P\"\n\
             [[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"low\"\nurl = \"{url}\"\n"
        );
        let manifest = parse(&text, &Origin { file_name: "m".to_owned(), dir: "/m".into() }).unwrap();
        let (known, interrupt) = (Mutex::new(Known::default()), Interrupt::default());
        let last = || lock(&known).stream.marks.clone();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&known, &manifest, "db", &interrupt));
            let refused = wait_for_what("the first try", last);
            server.psql("CREATE SCHEMA retoma AUTHORIZATION plain");
            let mark = wait_for_what("a mark", || last().filter(|marks| marks.last.is_some()));
            interrupt.set();
            writer.join().unwrap();
            assert!(matches!(&refused.trouble, Some(MarkTrouble::MayNot(_))), "{refused:?}");
            assert_eq!(mark.trouble, None);
        });
    }
}
